"""The REST API of TensorFlow Serving, through httpx.

https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from keras_sspcab.export.serving.client.connection import Connection
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
        headers = {"accept": "application/json"}
        if connection.token is not None:
            headers["authorization"] = f"Bearer {connection.token}"
        self._client = httpx.Client(
            headers=headers, verify=connection.ssl_context()
        )

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

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
            name: np.ascontiguousarray(value)
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
                # NumPy has no bfloat16.
                name: np.array(
                    outputs[name], tensor.dtype.replace("bfloat16", "float32")
                )
                for name, tensor in info.outputs.items()
            }
        return arrays, self._version

    def _send(
        self, path: str, timeout: float | None, body: bytes | None = None
    ) -> Any:
        deadline = Deadline(timeout)
        parts = []
        try:
            with self._client.stream(
                "GET" if body is None else "POST",
                self._url + path,
                content=body,
                headers={"content-type": "application/json"} if body else {},
                timeout=timeout,
            ) as response:
                # The timeout of httpx starts again with every chunk.
                for part in response.iter_bytes():
                    parts.append(part)
                    if not deadline.allows(0):
                        raise deadline.exceeded()
        except httpx.HTTPError as error:
            raise _translate(error) from error
        content = b"".join(parts)
        if response.status_code != 200:
            raise _refusal(response, content)
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            # TensorFlow Serving writes NaN and Infinity, which JSON lacks.
            return json.loads(content)


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


def _refusal(response: httpx.Response, content: bytes) -> ServingClientError:
    status = response.status_code
    try:
        message = json.loads(content)["error"]
    except (KeyError, TypeError, ValueError):
        message = " ".join(content[:200].decode("utf-8", "replace").split())
    after = response.headers.get("retry-after", "")
    return ServingClientError(
        _CODES.get(status, "UNKNOWN"),
        f"{message or response.reason_phrase} (HTTP {status})",
        status in _RETRIABLE,
        # Dates are ignored: clocks differ.
        float(after) if after.isascii() and after.isdigit() else 0.0,
    )
