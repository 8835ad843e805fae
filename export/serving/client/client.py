"""Clients of TensorFlow Serving and of the embedded server."""

import asyncio
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.serving.client.connection import Connection
from keras_sspcab.export.serving.client.inputs import (
    Images,
    Row,
    make_rows,
    split_rows,
    stack_rows,
)
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    Prediction,
    ServingClientError,
    VersionStatus,
    check_detector,
    invalid,
    make_predictions,
)
from keras_sspcab.export.serving.client.retries import (
    Deadline,
    RetryPolicy,
    call_with_retries,
)
from keras_sspcab.imports import import_optional
from keras_sspcab.optional_inputs import decision_options

# While waiting for a server, an attempt may take this long.
_PROBE_SECONDS = 5.0

_PACKAGES = {"grpc": ("grpc", "google.protobuf"), "rest": ("orjson", "urllib3")}

# Calls of an asynchronous client that run at the same time.
_ASYNC_THREADS = 32

Result = TypeVar("Result")


# None is a timeout itself.
_DEFAULT: Any = "that of the client"


class Client:
    """Asks a server for predictions, over gRPC or REST.

    The server is TensorFlow Serving or `keras-sspcab serve`. Threads may share
    a client; it opens connections as it needs them and closes them in `close`,
    or at the end of a `with` block.

    Args:
        target: `host:port` for gRPC, or the URL for REST (`http://host:port`).
            A URL may include the path under which a proxy has the server.
        model: Name of the model on the server.
        protocol: `"grpc"` or `"rest"`. None takes REST for URLs, else gRPC,
            which is faster for arrays.
        signature: Signature to use. None takes `serving_default` for arrays
            and `serving_bytes` for files.
        version: Version to ask. None leaves the choice to the server.
        label: Label of the version to ask, instead.
        timeout: Seconds for a call with all its requests and retries; None for
            no limit. Each method takes another one. Defaults to 30.
        retries: How often to retry when the server cannot be reached or is
            overloaded; or a `RetryPolicy`, which sets the pauses too. Defaults
            to 3.
        max_batch_size: Images per request; more are split. Defaults to 32.
        max_request_bytes: Approximate size of a request or of its answer,
            likewise. Defaults to 16 MiB.
        token: Secret to send as `authorization: Bearer TOKEN`.
        tls: Whether to use TLS. None does for `https://` and if one of the next
            two arguments is given.
        tls_ca: PEM file of the certificates to trust. None trusts those of the
            system; gRPC those that the variable `SSL_CERT_FILE` names, or else
            a list of its own where the system has no single file of them.
        credentials: `grpc.ChannelCredentials` or `ssl.SSLContext` instead, for
            instance with a client certificate.

    Raises:
        ImportError: If packages of the extra `transport` are missing.
        ValueError: If an argument is out of its range.

    Example:
    >>> with Client("localhost:8500", model="bricks") as client:
    ...     client.protocol
    'grpc'
    """

    def __init__(
        self,
        target: str,
        *,
        model: str,
        protocol: str | None = None,
        signature: str | None = None,
        version: int | None = None,
        label: str | None = None,
        timeout: float | None = 30.0,
        retries: int | RetryPolicy = 3,
        max_batch_size: int = 32,
        max_request_bytes: int = 16 << 20,
        token: str | None = None,
        tls: bool | None = None,
        tls_ca: Any = None,
        credentials: Any = None,
    ) -> None:
        self._connection = Connection(
            target,
            model,
            protocol,
            version,
            label,
            token,
            tls,
            tls_ca,
            credentials,
        )
        Deadline(timeout)  # checks it
        self._timeout = timeout
        self._policy = (
            retries
            if isinstance(retries, RetryPolicy)
            else RetryPolicy(retries)
        )
        self._signature = signature
        self._max_rows = standardize_int(max_batch_size, "max_batch_size", 1)
        self._max_bytes = standardize_int(
            max_request_bytes, "max_request_bytes", 1
        )
        self._transport = _connect(self._connection)
        # Kept until a call fails or another version answers.
        self._metadata: ModelMetadata | None = None
        self._is_closed = False

    @property
    def protocol(self) -> str:
        """`"grpc"` or `"rest"`."""
        return self._connection.protocol

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._connection})"

    def predict(
        self,
        images: Images,
        *,
        threshold: float | None = None,
        sensitivity: float | None = None,
        product: int | None = None,
        timeout: float | None = _DEFAULT,
    ) -> list[Prediction]:
        """Returns a prediction for each image, in their order.

        Args:
            images: One of these, or a list of them, of any kinds:
                Array `(height, width, channels)`, or `(height, width)` if gray:
                floats in [0, 1], or uint8 from 0 to 255. A batch axis in front
                makes it many images. Clips of video hosts have the frames
                before the height.
                Path of an image file, which is decoded and resized on the
                server.
                Content of such a file, as bytes.
                Dict of arrays by name, for models with several inputs.
            threshold: The score to flag images from. None (the default) leaves
                it to the model, as it was calibrated; see
                `Calibration.adjusted`.
            sensitivity: From 0 to 1, instead; 0.5 is as calibrated.
            product: The index of what the images show, of a model for several
                products. None recognizes it.
            timeout: Seconds for all requests together; None for no limit.

        Raises:
            ServingClientError: If an image or option is refused, by this client
                or by the server, or there is no answer in time.
        """
        self._check_open()
        deadline = self._deadline(timeout)
        options = _check_options(threshold, sensitivity, product)
        metadata, rows = self._make_rows(images, deadline, options)
        results: dict[int, Prediction] = {}
        try:
            for indices in split_rows(
                rows,
                self._max_rows,
                self._max_bytes,
                self._transport.wire_size,
                metadata.answer_size,
            ):
                part = [rows[index] for index in indices]
                predictions = self._predict_rows(part, metadata, deadline)
                results.update(zip(indices, predictions, strict=True))
        except ServingClientError:
            self._metadata = None
            raise
        return [results[index] for index in range(len(rows))]

    def status(
        self, *, timeout: float | None = _DEFAULT
    ) -> tuple[VersionStatus, ...]:
        """Returns the states of the model's versions."""
        return self._ask(self._transport.status, self._deadline(timeout))

    def metadata(self, *, timeout: float | None = _DEFAULT) -> ModelMetadata:
        """Returns the inputs and outputs of the model."""
        return self._ask(self._transport.metadata, self._deadline(timeout))

    def wait_until_ready(
        self, timeout: float = 60.0
    ) -> tuple[VersionStatus, ...]:
        """Waits until a version of the model is available.

        Args:
            timeout: Seconds to wait.

        Returns:
            The versions that are available.

        Raises:
            ServingClientError: If there is none in time, or the server refuses
                this client.
        """
        deadline = self._deadline(timeout)

        def probe(left: float | None) -> tuple[VersionStatus, ...]:
            self._check_open()
            try:
                versions = self._transport.status(
                    min(left or _PROBE_SECONDS, _PROBE_SECONDS)
                )
            except ServingClientError as error:
                is_late = not deadline.allows(0.1)
                if error.code == "NOT_FOUND" or (
                    error.code == "DEADLINE_EXCEEDED" and not is_late
                ):
                    raise ServingClientError(
                        "UNAVAILABLE", str(error), retriable=True
                    ) from error
                raise
            if ready := tuple(v for v in versions if v.is_available):
                return ready
            states = "; ".join(
                f"version {v.version} is {v.state} {v.error}".rstrip()
                for v in versions
            )
            raise ServingClientError(
                "NOT_FOUND", states or "no version", retriable=True
            )

        policy = RetryPolicy(sys.maxsize, max_backoff=1.0)
        return call_with_retries(probe, policy, deadline)

    def close(self) -> None:
        """Closes all connections."""
        self._is_closed = True
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _deadline(self, timeout: Any) -> Deadline:
        # Those of asynchronous calls run before a thread is free.
        if isinstance(timeout, Deadline):
            return timeout
        return Deadline(self._timeout if timeout is _DEFAULT else timeout)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServingClientError(
                "FAILED_PRECONDITION", "The client has been closed."
            )

    def _ask(
        self, send: Callable[[float | None], Result], deadline: Deadline
    ) -> Result:
        def send_if_open(timeout: float | None) -> Result:
            self._check_open()
            return send(timeout)

        return call_with_retries(send_if_open, self._policy, deadline)

    def _make_rows(
        self, images: Any, deadline: Deadline, options: dict[str, float]
    ) -> tuple[ModelMetadata, list[Row]]:
        if isinstance(images, Iterator):
            images = list(images)
        known = self._metadata
        if known is not None:
            try:
                return known, make_rows(images, known, self._signature, options)
            except ServingClientError:
                pass  # a newer version may accept them
        metadata = self._ask(self._transport.metadata, deadline)
        rows = make_rows(images, metadata, self._signature, options)
        for name in {row.signature for row in rows}:
            check_detector(metadata, name)
        self._metadata = metadata
        return metadata, rows

    def _predict_rows(
        self, rows: list[Row], metadata: ModelMetadata, deadline: Deadline
    ) -> list[Prediction]:
        name = rows[0].signature
        inputs = stack_rows(rows)
        outputs, version = self._ask(
            lambda timeout: self._transport.predict(
                name, inputs, metadata.signatures[name], timeout
            ),
            deadline,
        )
        is_new = set(outputs) != set(metadata.signatures[name].outputs)
        # Over REST only the outputs tell another version.
        if is_new or version not in (None, metadata.version):
            self._metadata = None
        return make_predictions(outputs, version, len(rows))


class AsyncClient:
    """A `Client` whose methods are coroutines.

    They run in up to 32 threads, so that the event loop stays free. A coroutine
    that is cancelled sends nothing more.

    Args:
        *args: Those of `Client`.
        **options: Those of `Client`.

    Example:
    >>> async def ask():
    ...     async with AsyncClient("localhost:8500", model="bricks") as client:
    ...         return client.protocol
    >>> asyncio.run(ask())
    'grpc'
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = Client(*args, **options)
        self._threads = ThreadPoolExecutor(
            _ASYNC_THREADS, "keras-sspcab-client"
        )

    @property
    def protocol(self) -> str:
        """`"grpc"` or `"rest"`."""
        return self._client.protocol

    async def predict(
        self,
        images: Images,
        *,
        threshold: float | None = None,
        sensitivity: float | None = None,
        product: int | None = None,
        timeout: float | None = _DEFAULT,
    ) -> list[Prediction]:
        """Returns a prediction for each image; see `Client.predict`."""
        predict = functools.partial(
            self._client.predict,
            threshold=threshold,
            sensitivity=sensitivity,
            product=product,
        )
        return await self._run(predict, timeout, images)

    async def status(
        self, *, timeout: float | None = _DEFAULT
    ) -> tuple[VersionStatus, ...]:
        """Returns the states of the model's versions."""
        return await self._run(self._client.status, timeout)

    async def metadata(
        self, *, timeout: float | None = _DEFAULT
    ) -> ModelMetadata:
        """Returns the inputs and outputs of the model."""
        return await self._run(self._client.metadata, timeout)

    async def wait_until_ready(
        self, timeout: float = 60.0
    ) -> tuple[VersionStatus, ...]:
        """Waits until a version is available; see `Client`."""
        return await self._run(self._client.wait_until_ready, timeout)

    async def close(self) -> None:
        """Closes all connections."""
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(
        self, method: Callable[..., Result], timeout: float | None, *args: Any
    ) -> Result:
        self._client._check_open()
        deadline = self._client._deadline(timeout)
        call = functools.partial(method, *args, timeout=deadline)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, call)
        except asyncio.CancelledError:
            deadline.cancel()
            raise


def _check_options(
    threshold: float | None, sensitivity: float | None, product: int | None
) -> dict[str, float]:
    """Returns the options that are given."""
    try:
        options = decision_options(threshold, sensitivity)
        if product is not None:
            options["product"] = standardize_int(product, "product", 0)
        return options
    except ValueError as error:
        raise invalid(str(error)) from error


def _connect(connection: Connection) -> Any:
    """Returns the transport; each needs only its own packages."""
    protocol = connection.protocol
    for package in _PACKAGES[protocol]:
        purpose = f"The client for {protocol} needs it"
        import_optional(package, purpose, "transport")
    module = importlib.import_module(f"{__package__}.{protocol}_transport")
    return module.Transport(connection)
