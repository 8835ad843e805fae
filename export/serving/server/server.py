"""The embedded server: the local stand-in for TensorFlow Serving."""

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
import socket
import ssl
import threading
import warnings
from collections.abc import Mapping
from typing import Any

from keras_sspcab.export._optional import require
from keras_sspcab.export.serving.server.options import ServerOptions

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
    """The local stand-in for TensorFlow Serving, in this process.

    It speaks the same protocol to the same clients: PredictionService (Predict,
    GetModelMetadata) and ModelService (GetModelStatus) over gRPC, and the REST
    API under `/v1/models`. Requests that wait are joined into batches; new
    versions of a model are served as they appear, and the old ones finish what
    they have. Beside that: `/healthz`, `/readyz`, `/metrics`, and at `/` a page
    to try images on. For fleets and GPUs, take TensorFlow Serving itself.

        with Server("served", ServerOptions(rest_port=0)) as server:
            print(server.rest_url)

    Args:
        models: Repository (`DIR/models/NAME/VERSION`), of which `models.config`
            says what to serve and all checksums must hold; folder of models,
            folder of versions of one, one SavedModel, or a dict of the last two
            by name.
        options: How to listen and what to allow. None takes the defaults.

    Raises:
        ImportError: If the packages of the extra `serve` are missing.
    """

    def __init__(
        self, models: Any, options: ServerOptions | None = None
    ) -> None:
        require(*_PACKAGES, extra="serve")
        self._models = dict(models) if isinstance(models, Mapping) else models
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
        return f"{self._host()}:{self.grpc_port}"

    @property
    def rest_url(self) -> str:
        """Address for clients of REST, such as `http://127.0.0.1:8501`."""
        scheme = "http" if self.options.tls_key is None else "https"
        return f"{scheme}://{self._host()}:{self.rest_port}"

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

    def _host(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(
            self.options.host, self.options.host
        )
        return f"[{host}]" if ":" in host else host

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
        from keras_sspcab.export.serving.server.grpc_service import (
            GrpcService,
            create_grpc_server,
        )
        from keras_sspcab.export.serving.server.locations import find_models
        from keras_sspcab.export.serving.server.metrics import Metrics
        from keras_sspcab.export.serving.server.models import Models
        from keras_sspcab.export.serving.server.predictor import Predictor
        from keras_sspcab.export.serving.server.rest import RestApi

        options = self.options
        self._loop = asyncio.get_running_loop()
        self._stopping = stopping = asyncio.Event()
        models = Models(
            lambda: find_models(self._models), options.versions, options.labels
        )
        metrics = Metrics()
        predictor = Predictor(models, options, metrics)
        try:
            await models.refresh()
            _check_all_loaded(models)
            if options.own_process:
                _leave_out_of_collection()
            api = RestApi(
                predictor,
                options,
                metrics,
                lambda: not stopping.is_set() and not models.missing,
            )
            web = _web_server(api, options)
            service = GrpcService(predictor, options, metrics)
            with _listen(options) as rest_socket:
                grpc_server, grpc_port = create_grpc_server(service, options)
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
                await asyncio.gather(
                    grpc_server.stop(options.drain_seconds), rest
                )
        finally:
            predictor.close()
            models.close()
            if options.own_process:
                gc.unfreeze()


async def _poll(models: Any, options: ServerOptions) -> None:
    before = ""
    served = _states(models)
    while True:
        await asyncio.sleep(options.poll_seconds)
        try:
            await models.refresh()
            before = ""
            if options.own_process and _states(models) != served:
                served = _states(models)
                _leave_out_of_collection()
        except Exception as error:  # the folder may be gone for a while
            if str(error) != before:
                _log.error("Cannot look for new versions: %s", error)
            before = str(error)


def _states(models: Any) -> list[Any]:
    return [
        (version.model, version.number, version.state)
        for version in models.all_versions()
    ]


def _leave_out_of_collection() -> None:
    """Drops what is left of old models and keeps the collector off the rest.

    A full collection goes through all that TensorFlow has loaded and holds up
    every request for as long; the lists in a request of floats set it off.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _check_all_loaded(models: Any) -> None:
    if models.missing:
        reasons = [
            f"{version.model} version {version.number}: {version.error}"
            for version in models.all_versions()
            if version.model in models.missing
        ] or [f"{name}: no such version" for name in models.missing]
        raise ValueError(f"Cannot load {'; '.join(reasons)}")


def _listen(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (options.host, options.rest_port), family=family
        )
        # Connections inherit it. Without, small answers wait for more to send.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise OSError(
            f"REST cannot listen at {options.host}:{options.rest_port}: {error}"
        ) from error


def _web_server(api: Any, options: ServerOptions) -> Any:
    import uvicorn

    from keras_sspcab.export.serving.server.connections import guarded_protocol

    config = uvicorn.Config(
        api.application(),
        http=guarded_protocol(options.max_connections, options.read_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(1, round(options.read_timeout)),
        timeout_graceful_shutdown=max(1, round(options.drain_seconds)),
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except ssl.SSLError as error:
        raise ValueError(
            "The TLS certificate and key cannot be used together. Received: "
            f"{options.tls_certificate}, {options.tls_key} ({error})"
        ) from error
    return uvicorn.Server(config)
