"""Clients of TensorFlow Serving, and of the embedded server."""

import asyncio
import os
import time
from typing import Any

from keras_sspcab.export.serving.client.connection import Connection
from keras_sspcab.export.serving.client.conversation import Conversation
from keras_sspcab.export.serving.client.dialogue import (
    Dialogue,
    Done,
    Result,
    Steps,
    Wait,
)
from keras_sspcab.export.serving.client.errors import ServingClientError
from keras_sspcab.export.serving.client.inputs import Images
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    Prediction,
    VersionStatus,
)
from keras_sspcab.export.serving.client.retries import Deadline, RetryPolicy
from keras_sspcab.export.serving.client.wire import Target


class _Default:
    """Stands for the timeout of the client, where None is one itself."""

    def __repr__(self) -> str:
        return "the client's"


_DEFAULT: Any = _Default()


class _BaseClient:
    """What both clients have in common."""

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
        tls_ca: str | os.PathLike[str] | None = None,
        credentials: Any = None,
    ) -> None:
        Deadline(timeout)
        for name, value in (
            ("max_batch_size", max_batch_size),
            ("max_request_bytes", max_request_bytes),
        ):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
        if not isinstance(retries, RetryPolicy):
            retries = RetryPolicy(retries)
        self._target = Target(model, version, label)
        self._connection = Connection.make(
            target, protocol, token, tls, tls_ca, credentials
        )
        self._conversation = Conversation(
            self._connection.wire(self._target),
            retries,
            signature,
            max_batch_size,
            max_request_bytes,
        )
        self._timeout = timeout
        self._is_closed = False
        self._open()

    @property
    def protocol(self) -> str:
        """`"grpc"` or `"rest"`."""
        return self._connection.protocol

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self._connection.address!r}, {self._target})"

    def _open(self) -> None:
        """Prepares to send."""

    def _seconds(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is _DEFAULT else timeout

    def _check_open(self) -> None:
        if self._is_closed:
            raise ServingClientError(
                "FAILED_PRECONDITION", "The client has been closed."
            )


class Client(_BaseClient):
    """Asks a server about images, over gRPC or REST.

    The server is TensorFlow Serving, or `keras-sspcab serve`. Threads may share
    a client; it opens connections as it needs them, and ends them when it is
    closed.

        with Client("localhost:8500", model="bricks") as client:
            for prediction in client.predict(["a.png", "b.png"]):
                print(prediction.score, prediction.is_anomalous)

    Args:
        target: `host:port` of gRPC, or the URL of REST (`http://host:port`). A
            URL may go on with the path that a proxy has it under.
        model: Name of the model on the server.
        protocol: `"grpc"` or `"rest"`. None takes REST for URLs, else gRPC.
            REST does without TensorFlow; gRPC is faster for arrays.
        signature: Signature to use. None takes `serving_default` for arrays
            and `serving_bytes` for files.
        version: Version to ask. None leaves it to the server.
        label: Label of the version, instead.
        timeout: Seconds that a call may take with all its requests and retries;
            None for ever. Methods may be given another. Defaults to 30.
        retries: How often to try again where that may help: the server is not
            reached, or has too much to do. A `RetryPolicy` sets the pauses
            as well. Defaults to 3.
        max_batch_size: Images of a request, at most; more are split. Defaults
            to 32.
        max_request_bytes: Size of a request, about and at most, likewise.
            Defaults to 16 MiB.
        token: Secret to send as `authorization: Bearer TOKEN`.
        tls: Whether to use TLS. None does so for `https://` and wherever one of
            the next two is given.
        tls_ca: PEM file of the certificates to trust. None trusts those of the
            system.
        credentials: Instead, `grpc.ChannelCredentials` or `ssl.SSLContext`, for
            instance with a certificate of the client's own.

    Raises:
        ImportError: If packages of the extras `serve`, or for REST
            `transport`, are missing.
        ValueError: If an argument is out of its range.
    """

    def _open(self) -> None:
        self._transport: Any
        if self.protocol == "grpc":
            from keras_sspcab.export.serving.client.grpc_transport import (
                GrpcTransport,
            )

            self._transport = GrpcTransport(self._connection)
        else:
            from keras_sspcab.export.serving.client.rest_transport import (
                RestTransport,
            )

            self._transport = RestTransport(self._connection)

    def predict(
        self, images: Images, *, timeout: float | None = _DEFAULT
    ) -> list[Prediction]:
        """Asks about one or many images.

        Args:
            images: One of these, or a list of them, of any kinds:
                Array `(height, width, channels)`, or `(height, width)` if gray:
                floats in [0, 1], or uint8 from 0 to 255. With the batch in
                front it is many images. Clips of video hosts have the frames
                before the height.
                Path of a PNG, JPEG, BMP or GIF file, which is sent as it is,
                decoded and resized on the server.
                Content of such a file, as bytes.
                Dict of arrays by name, for models with several inputs.
            timeout: Seconds for all requests together; None for ever.

        Returns:
            A prediction for each image, in their order.

        Raises:
            ServingClientError: If an image is refused, by this client or by the
                server, or there is no answer in time.
        """
        return self._hold(
            self._conversation.predict(images, self._seconds(timeout))
        )

    def status(
        self, *, timeout: float | None = _DEFAULT
    ) -> tuple[VersionStatus, ...]:
        """Returns the states of the model's versions."""
        return self._hold(self._conversation.status(self._seconds(timeout)))

    def metadata(self, *, timeout: float | None = _DEFAULT) -> ModelMetadata:
        """Returns what the model takes and gives."""
        return self._hold(self._conversation.metadata(self._seconds(timeout)))

    def wait_until_ready(
        self, timeout: float = 60.0
    ) -> tuple[VersionStatus, ...]:
        """Waits until a version of the model is available.

        Args:
            timeout: Seconds to wait, at most.

        Returns:
            The versions that are.

        Raises:
            ServingClientError: If there is none in time, or the server does
                not want this client.
        """
        return self._hold(self._conversation.wait_until_ready(timeout))

    def close(self) -> None:
        """Ends all connections."""
        self._is_closed = True
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hold(self, steps: Steps[Result]) -> Result:
        self._check_open()
        dialogue = Dialogue(steps)
        step = dialogue.start()
        while not isinstance(step, Done):
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                step = dialogue.reply(b"")
                continue
            try:
                answer = self._transport.send(step.call, step.timeout)
            except ServingClientError as error:
                step = dialogue.fail(error)
            else:
                step = dialogue.reply(answer)
        return step.result


class AsyncClient(_BaseClient):
    """The same with `await`, for one event loop.

    Images are read and messages are written in threads, so that others can go
    on meanwhile.

        async with AsyncClient("localhost:8500", model="bricks") as client:
            predictions = await client.predict(["a.png", "b.png"])

    Args are those of `Client`.
    """

    def _open(self) -> None:
        # Made by the first request: it belongs to the loop that runs then.
        self._transport: Any = None

    async def predict(
        self, images: Images, *, timeout: float | None = _DEFAULT
    ) -> list[Prediction]:
        """Asks about one or many images; see `Client.predict`."""
        return await self._hold(
            self._conversation.predict(images, self._seconds(timeout))
        )

    async def status(
        self, *, timeout: float | None = _DEFAULT
    ) -> tuple[VersionStatus, ...]:
        """Returns the states of the model's versions."""
        return await self._hold(
            self._conversation.status(self._seconds(timeout))
        )

    async def metadata(
        self, *, timeout: float | None = _DEFAULT
    ) -> ModelMetadata:
        """Returns what the model takes and gives."""
        return await self._hold(
            self._conversation.metadata(self._seconds(timeout))
        )

    async def wait_until_ready(
        self, timeout: float = 60.0
    ) -> tuple[VersionStatus, ...]:
        """Waits until a version is available; see `Client`."""
        return await self._hold(self._conversation.wait_until_ready(timeout))

    async def close(self) -> None:
        """Ends all connections."""
        self._is_closed = True
        if self._transport is not None:
            await self._transport.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _hold(self, steps: Steps[Result]) -> Result:
        self._check_open()
        dialogue = Dialogue(steps)
        step = await asyncio.to_thread(dialogue.start)
        while not isinstance(step, Done):
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                step = await asyncio.to_thread(dialogue.reply, b"")
                continue
            try:
                answer = await self._connect().send(step.call, step.timeout)
            except ServingClientError as error:
                step = await asyncio.to_thread(dialogue.fail, error)
            else:
                step = await asyncio.to_thread(dialogue.reply, answer)
        return step.result

    def _connect(self) -> Any:
        if self._transport is not None:
            return self._transport
        if self.protocol == "grpc":
            from keras_sspcab.export.serving.client.grpc_transport import (
                AsyncGrpcTransport,
            )

            self._transport = AsyncGrpcTransport(self._connection)
        else:
            from keras_sspcab.export.serving.client.rest_transport import (
                AsyncRestTransport,
            )

            self._transport = AsyncRestTransport(self._connection)
        return self._transport
