"""Requests over HTTP."""

import asyncio
import json
import ssl
from typing import Any

import httpx

from keras_sspcab.export.serving.client.connection import Connection
from keras_sspcab.export.serving.client.errors import (
    ServingClientError,
    invalid,
    unreadable,
)
from keras_sspcab.export.serving.client.retries import Deadline
from keras_sspcab.export.serving.client.wire import Call

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

# 502: a proxy has not reached the server. 413 is not among them: what is too
# large stays so.
_RETRIABLE = (429, 502, 503)


class RestTransport:
    """Sends requests and waits."""

    def __init__(self, connection: Connection) -> None:
        self._base = connection.address
        self._client = httpx.Client(**_options(connection))

    def send(self, call: Call, timeout: float | None) -> bytes:
        """Returns the answer to a request, or raises a ServingClientError."""
        deadline = Deadline(timeout)
        parts = []
        try:
            with self._client.stream(
                **_request(self._base, call), timeout=timeout
            ) as response:
                # The timeout of httpx begins anew with each byte.
                for part in response.iter_bytes():
                    parts.append(part)
                    if not deadline.allows(0):
                        raise deadline.exceeded()
        except httpx.HTTPError as error:
            raise _translate(error) from error
        return _content(response, b"".join(parts))

    def close(self) -> None:
        """Ends all connections."""
        self._client.close()


class AsyncRestTransport:
    """Sends requests, and lets others do something meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self._base = connection.address
        self._client = httpx.AsyncClient(**_options(connection))

    async def send(self, call: Call, timeout: float | None) -> bytes:
        """Returns the answer to a request, or raises a ServingClientError."""
        request = self._client.request(
            **_request(self._base, call), timeout=None
        )
        try:
            response = await asyncio.wait_for(request, timeout)
        except asyncio.TimeoutError as error:
            raise Deadline(timeout).exceeded() from error
        except httpx.HTTPError as error:
            raise _translate(error) from error
        return _content(response, response.content)

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()


def _options(connection: Connection) -> dict[str, Any]:
    headers = {"accept": "application/json"}
    if connection.token is not None:
        headers["authorization"] = f"Bearer {connection.token}"
    # Without TLS none is needed; this one trusts nobody and costs least.
    context = (
        connection.ssl_context()
        if connection.is_secure
        else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )
    return {"headers": headers, "verify": context}


def _request(base: str, call: Call) -> dict[str, Any]:
    request: dict[str, Any] = {
        "method": "GET" if call.body is None else "POST",
        "url": base + call.path,
    }
    if call.body is not None:
        request["content"] = call.body
        request["headers"] = {"content-type": "application/json"}
    return request


def _translate(error: httpx.HTTPError) -> ServingClientError:
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, httpx.TimeoutException):
        return ServingClientError("DEADLINE_EXCEEDED", message)
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return invalid(message)
    if isinstance(error, httpx.TransportError):
        is_untrusted = "CERTIFICATE_VERIFY_FAILED" in message
        return ServingClientError("UNAVAILABLE", message, not is_untrusted)
    return unreadable(message)


def _content(response: httpx.Response, content: bytes) -> bytes:
    status = response.status_code
    if status == 200:
        return content
    raise ServingClientError(
        _CODES.get(status, "UNKNOWN"),
        f"{_message(response, content)} (HTTP {status})",
        status in _RETRIABLE,
        _seconds(response.headers.get("retry-after", "")),
    )


def _message(response: httpx.Response, content: bytes) -> str:
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        return document["error"]
    text = " ".join(content[:200].decode("utf-8", "replace").split())
    return text or response.reason_phrase


def _seconds(header: str) -> float:
    # It may be a date as well, which is left to those who trust clocks.
    return float(header) if header.isascii() and header.isdigit() else 0.0
