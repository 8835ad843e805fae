"""The REST API of TensorFlow Serving, through urllib3.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import orjson
import urllib3
from urllib3.exceptions import (
    DecodeError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    TimeoutError,
)

from keras_sspcab.export.serving.client.connection import (
    Connection,
    basic_authorization,
)
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    ServingClientError,
    SignatureInfo,
    VersionStatus,
    invalid,
    read_metadata,
    read_status,
    reading_answer,
    unreadable,
)
from keras_sspcab.export.serving.client.retries import Deadline

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

# 502: a proxy did not reach the server. 413 is not among them: a request that
# is too large stays so.
_RETRIABLE = (429, 502, 503)

# Characters of a number in JSON, with its comma.
_DIGITS = 12

# Connections that are kept, of as many threads.
_CONNECTIONS = 64

# Bytes of an answer that are read at once, at most.
_CHUNK = 1 << 18


class Transport:
    """Sends requests over HTTP; threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self._version = connection.version
        path = f"/v1/models/{quote(connection.model, safe='')}"
        if connection.version is not None:
            path += f"/versions/{connection.version}"
        if connection.label is not None:
            path += f"/labels/{quote(connection.label, safe='')}"
        self._url = connection.address + path
        self._headers = {"accept": "application/json"}
        if connection.token is not None:
            self._headers["authorization"] = f"Bearer {connection.token}"
        if connection.user is not None:
            self._headers["authorization"] = basic_authorization(
                connection.user
            )
        self._connection = connection
        self._pool, self._process = _create_pool(connection), os.getpid()

    def _own_pool(self) -> urllib3.PoolManager:
        """Returns the connections of this process.

        Those of the process that it was forked from are shared with others,
        which would read each other's answers.
        """
        if self._process != os.getpid():
            self._pool = _create_pool(self._connection)
            self._process = os.getpid()
        return self._pool

    def close(self) -> None:
        """Closes all connections."""
        self._own_pool().clear()

    def wire_size(self, num_values: int, itemsize: int) -> int:
        """Returns the approximate size of values in a request."""
        if itemsize == 1:  # in base64
            return num_values * 4 // 3 + 16
        return num_values * _DIGITS

    def status(self, timeout: float | None) -> tuple[VersionStatus, ...]:
        """Asks for the states of the model's versions."""
        with reading_answer():
            return read_status(self._send("", timeout))

    def metadata(self, timeout: float | None) -> ModelMetadata:
        """Asks for the signatures of the model."""
        with reading_answer():
            answer = self._send("/metadata", timeout)
            return read_metadata(
                answer["model_spec"]["name"],
                answer["model_spec"]["version"],
                answer["metadata"]["signature_def"],
            )

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        info: SignatureInfo,
        timeout: float | None,
    ) -> tuple[dict[str, np.ndarray], int | None]:
        """Asks for predictions; see `grpc_transport`."""
        columns = {
            name: _to_json(value)
            if isinstance(value, np.ndarray)
            else [{"b64": base64.b64encode(item).decode()} for item in value]
            for name, value in inputs.items()
        }
        body = orjson.dumps(
            {"signature_name": signature, "inputs": columns},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        with reading_answer():
            outputs = self._send(":predict", timeout, body)["outputs"]
            if len(info.outputs) == 1:
                # A single output comes without its name.
                outputs = dict.fromkeys(info.outputs, outputs)
            arrays = {
                name: np.array(value, _dtype_of(info.outputs.get(name)))
                for name, value in outputs.items()
            }
        return arrays, self._version

    def _send(
        self, path: str, timeout: float | None, body: bytes | None = None
    ) -> Any:
        deadline = Deadline(timeout)
        headers = dict(self._headers)
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            response = self._own_pool().request(
                "GET" if body is None else "POST",
                self._url + path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with response:
                content = b"".join(_read_parts(response, deadline))
                response.release_conn()
        except HTTPError as error:
            raise _translate(error) from error
        if response.status != 200:
            raise _refusal(response, content)
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            # TensorFlow Serving writes NaN and Infinity, which JSON lacks.
            return json.loads(content)


def _read_parts(
    response: urllib3.BaseHTTPResponse, deadline: Deadline
) -> Iterator[bytes]:
    while (left := deadline.remaining()) != 0:
        # The timeout of a socket starts again with every part. At the end the
        # connection is given back, and is another thread's.
        if sock := getattr(response.connection, "sock", None):
            sock.settimeout(left)
        part = response.read1(_CHUNK)
        if not part:
            return
        yield part
    raise deadline.exceeded()


def _create_pool(connection: Connection) -> urllib3.PoolManager:
    """Returns what keeps connections, also through the proxy of the system."""
    options: dict[str, Any] = {
        "maxsize": _CONNECTIONS,
        "ssl_context": connection.ssl_context(),
    }
    parts = urlsplit(connection.address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        # As curl reads it, which most of these variables are written for.
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        scheme, _, address = proxy.partition("://")
        user, at, host = address.rpartition("@")
        if scheme not in ("http", "https"):
            raise ValueError(
                "This client reaches servers through HTTP proxies. The "
                f"system has one of another kind: {scheme}://{host}. Add "
                f"{parts.hostname} to the variable no_proxy, or use gRPC"
            )
        if at:
            options["proxy_headers"] = {
                "proxy-authorization": basic_authorization(user)
            }
        return urllib3.ProxyManager(f"{scheme}://{host}", **options)
    return urllib3.PoolManager(**options)


def _dtype_of(tensor: Any) -> str | None:
    """Returns the type of an output; None for one that is new in a model."""
    # NumPy has no bfloat16.
    return tensor and tensor.dtype.replace("bfloat16", "float32")


def _to_json(array: np.ndarray) -> Any:
    """Returns an array as orjson writes it fast.

    Of a single channel, it would make a list of each pixel: a third of the time
    is enough to write the pixels, and to put brackets around all of them.
    """
    if array.ndim == 1 and array.dtype.kind == "f":
        # Left out is NaN, which JSON lacks and TensorFlow Serving reads.
        return orjson.Fragment(json.dumps(array.tolist()))
    if array.ndim < 2 or array.shape[-1] != 1 or not array.size:
        return np.ascontiguousarray(array)
    text = orjson.dumps(
        np.ascontiguousarray(array[..., 0]), option=orjson.OPT_SERIALIZE_NUMPY
    )
    return orjson.Fragment(b"[%b]" % text.replace(b",", b"],["))


def _translate(error: HTTPError) -> ServingClientError:
    message = f"{type(error).__name__}: {error}"
    is_refused = isinstance(error, NewConnectionError)
    if isinstance(error, TimeoutError) and not is_refused:
        return ServingClientError("DEADLINE_EXCEEDED", message)
    if isinstance(error, LocationValueError):
        return invalid(message)
    if isinstance(error, DecodeError):
        return unreadable(message)
    is_untrusted = "CERTIFICATE_VERIFY_FAILED" in message
    return ServingClientError("UNAVAILABLE", message, not is_untrusted)


def _refusal(
    response: urllib3.BaseHTTPResponse, content: bytes
) -> ServingClientError:
    status = response.status
    try:
        message = json.loads(content)["error"]
    except (KeyError, TypeError, ValueError):
        message = " ".join(content[:200].decode("utf-8", "replace").split())
    after = response.headers.get("retry-after", "")
    return ServingClientError(
        _CODES.get(status, "UNKNOWN"),
        f"{message or response.reason} (HTTP {status})",
        status in _RETRIABLE,
        # Dates are ignored: clocks differ.
        float(after) if after.isascii() and after.isdigit() else 0.0,
    )
