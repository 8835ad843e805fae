"""The embedded server, a local replacement for TensorFlow Serving."""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
import warnings
from typing import Any

from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.imports import import_optional

_PACKAGES = (
    "grpc",
    "orjson",
    "prometheus_client",
    "starlette",
    "tensorflow_serving",
    "uvicorn",
)

_log = logging.getLogger(__name__)


class Server:
    """A local replacement for TensorFlow Serving, in this process.

    It speaks the same protocol to the same clients: PredictionService (Predict,
    GetModelMetadata) and ModelService (GetModelStatus) over gRPC, and the REST
    API under `/v1/models`. Waiting requests are joined into batches; new
    versions of a model are served as they appear, and the old ones finish their
    requests. It also has `/healthz`, `/readyz`, `/metrics`, and at `/` a page
    to try images on. For fleets and GPUs, use TensorFlow Serving itself.

    Args:
        models: Repository (`DIR/models/NAME/VERSION`), of which `models.config`
            says what to serve and all checksums must hold; folder of models
            (`DIR/NAME/VERSION`), folder of versions of one, or one SavedModel.
        options: How to listen and what to allow. None takes the defaults.

    Raises:
        ImportError: If packages of the extra `serve` are missing.

    Example:
    >>> with Server("served", ServerOptions(rest_port=0)) as server:
    ...     print(server.rest_url)  # doctest: +SKIP
    http://127.0.0.1:40123
    """

    def __init__(
        self,
        models: str | os.PathLike[str],
        options: ServerOptions | None = None,
    ) -> None:
        for package in _PACKAGES:
            import_optional(package, "The embedded server needs it", "serve")
        self._models = models
        self.options = options or ServerOptions()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ports: tuple[int, int] | None = None

    @property
    def grpc_port(self) -> int:
        """Port of gRPC."""
        return self._started_ports()[0]

    @property
    def rest_port(self) -> int:
        """Port of REST and the web page."""
        return self._started_ports()[1]

    @property
    def grpc_target(self) -> str:
        """Address for clients of gRPC, such as `127.0.0.1:8500`."""
        return f"{self.options.own_host}:{self.grpc_port}"

    @property
    def rest_url(self) -> str:
        """Address for clients of REST, such as `http://127.0.0.1:8501`."""
        return self.options.url_of(self.rest_port)

    def start(self) -> "Server":
        """Loads the models and listens.

        Raises:
            ValueError: If there is no model, or one cannot be loaded.
            OSError: If a port is taken.
        """
        if self._thread is not None:
            raise ValueError("The server has been started already.")
        if not self.options.is_loopback and self.options.token is None:
            warnings.warn(
                f"The server listens at {self.options.host}, so that others "
                "can reach it, and asks for no token.",
                stacklevel=2,
            )
        started: concurrent.futures.Future[tuple[int, int]]
        started = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="keras-sspcab-serve"
        )
        self._thread.start()
        try:
            self._ports = started.result()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Lets requests finish, for `drain_seconds` at most, and ends."""
        if self._thread is None:
            return
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # has ended already
                loop.call_soon_threadsafe(stopping.set)
        self._thread.join()
        self._thread = self._ports = None

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the server ends; returns whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started_ports(self) -> tuple[int, int]:
        if self._ports is None:
            raise ValueError("The server has not been started.")
        return self._ports

    def _run(self, started: "concurrent.futures.Future[Any]") -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                _log.exception("The server has ended")
            else:
                started.set_exception(error)

    async def _serve(self, started: "concurrent.futures.Future[Any]") -> None:
        from keras_sspcab.export.serving.server.feedback import FeedbackApi
        from keras_sspcab.export.serving.server.grpc_service import (
            GrpcService,
            create_grpc_server,
        )
        from keras_sspcab.export.serving.server.models import Models
        from keras_sspcab.export.serving.server.predictor import Predictor
        from keras_sspcab.export.serving.server.rest import RestApi
        from keras_sspcab.export.serving.server.web import (
            create_web_server,
            listen,
        )

        options = self.options
        self._loop = asyncio.get_running_loop()
        self._stopping = stopping = asyncio.Event()
        models = Models(self._models, options.versions, options.labels)
        predictor = Predictor(models, options)
        try:
            await models.refresh()
            _check_all_loaded(models)
            api = RestApi(
                predictor,
                lambda: not (stopping.is_set() or models.missing),
                FeedbackApi(self._models, predictor)
                if options.feedback
                else None,
            )
            web = create_web_server(api.application(), options)
            with listen(options) as rest_socket:
                grpc_server, grpc_port = create_grpc_server(
                    GrpcService(predictor), options
                )
                await grpc_server.start()
                rest = asyncio.create_task(web.serve(sockets=[rest_socket]))
                poll = asyncio.create_task(_poll(models, options))
                started.set_result((grpc_port, rest_socket.getsockname()[1]))
                await asyncio.wait(
                    {asyncio.create_task(stopping.wait()), rest, poll},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                stopping.set()
                poll.cancel()
                web.should_exit = True
                # Before both servers cut off what has not been answered.
                end = self._loop.call_later(
                    options.drain_seconds, predictor.limits.stop
                )
                stopped = asyncio.ensure_future(
                    grpc_server.stop(options.drain_seconds + 1)
                )
                # Whatever hangs is given up: the process must end.
                done, _ = await asyncio.wait(
                    {stopped, rest}, timeout=options.drain_seconds + 10
                )
                end.cancel()
                for task in done:
                    task.result()
        finally:
            predictor.close()
            models.close()


async def _poll(models: Any, options: ServerOptions) -> None:
    last_error = ""
    while True:
        await asyncio.sleep(options.poll_seconds)
        try:
            await models.refresh()
            last_error = ""
        except Exception as error:  # the folder may be gone for a while
            if str(error) != last_error:
                _log.error("Cannot look for new versions: %s", error)
            last_error = str(error)


def _check_all_loaded(models: Any) -> None:
    if models.missing:
        reasons = [
            f"{version.model} version {version.number}: {version.error}"
            for version in models.all_versions()
            if version.model in models.missing
        ] or [f"{name}: no such version" for name in models.missing]
        raise ValueError(f"Cannot load {'; '.join(reasons)}")
