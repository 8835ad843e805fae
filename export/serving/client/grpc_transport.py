"""Requests over gRPC."""

from typing import Any

import grpc
import grpc.aio

from keras_sspcab.export.serving.client.connection import Connection
from keras_sspcab.export.serving.client.errors import ServingClientError
from keras_sspcab.export.serving.client.wire import Call

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries are the client's: two layers of them would multiply.
    ("grpc.enable_retries", 0),
    # Between two retries the channel must have tried again, too.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class GrpcTransport:
    """Sends requests and waits."""

    def __init__(self, connection: Connection) -> None:
        self._metadata = _metadata(connection)
        self._channel = _channel(grpc, connection)

    def send(self, call: Call, timeout: float | None) -> bytes:
        """Returns the answer to a request, or raises a ServingClientError."""
        try:
            return self._channel.unary_unary(call.path)(
                call.body, timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _translate(error) from error

    def close(self) -> None:
        """Ends all connections."""
        self._channel.close()


class AsyncGrpcTransport:
    """Sends requests, and lets others do something meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._metadata = _metadata(connection)
        self._channel = _channel(grpc.aio, connection)

    async def send(self, call: Call, timeout: float | None) -> bytes:
        """Returns the answer to a request, or raises a ServingClientError."""
        try:
            return await self._channel.unary_unary(call.path)(
                call.body, timeout=timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise _translate(error) from error

    async def close(self) -> None:
        """Ends all connections."""
        await self._channel.close()


def _metadata(connection: Connection) -> tuple[tuple[str, str], ...]:
    if connection.token is None:
        return ()
    return (("authorization", f"Bearer {connection.token}"),)


def _channel(module: Any, connection: Connection) -> Any:
    if not connection.is_secure:
        return module.insecure_channel(connection.address, options=_OPTIONS)
    credentials = connection.credentials
    if credentials is None:
        roots = None
        if connection.tls_ca is not None:
            with open(connection.tls_ca, "rb") as file:
                roots = file.read()
        credentials = grpc.ssl_channel_credentials(roots)
    return module.secure_channel(
        connection.address, credentials, options=_OPTIONS
    )


def _translate(error: Any) -> ServingClientError:
    code, message = error.code().name, error.details() or "no details"
    is_retriable = (
        # Where the certificate is wrong, or the request too large for the
        # server, they stay so.
        (code == "UNAVAILABLE" and "CERTIFICATE_VERIFY_FAILED" not in message)
        or (code == "RESOURCE_EXHAUSTED" and "larger than max" not in message)
    )
    return ServingClientError(code, message, is_retriable)
