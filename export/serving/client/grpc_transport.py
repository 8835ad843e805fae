"""PredictionService and ModelService over gRPC."""

import functools
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from keras_sspcab.export.serving.client.connection import Connection
from keras_sspcab.export.serving.client.messages import (
    new_message,
    parse_message,
    read_tensor,
    to_dict,
    write_tensor,
)
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    ServingClientError,
    SignatureInfo,
    VersionStatus,
    read_metadata,
    read_status,
    reading_answer,
)

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The client retries by itself; two layers of retries would multiply.
    ("grpc.enable_retries", 0),
    # Between two retries the channel must have tried to reconnect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]


class Transport:
    """Sends requests over gRPC; threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._metadata = (
            ()
            if connection.token is None
            else (("authorization", f"Bearer {connection.token}"),)
        )
        if connection.tls:
            self._channel = grpc.secure_channel(
                connection.address,
                connection.credentials or _trusting(connection.tls_ca),
                _OPTIONS,
            )
        else:
            self._channel = grpc.insecure_channel(connection.address, _OPTIONS)
        self._method = functools.cache(self._channel.unary_unary)

    def close(self) -> None:
        """Closes all connections."""
        self._channel.close()

    def wire_size(self, num_values: int, itemsize: int) -> int:
        """Returns the approximate size of values in a request."""
        return num_values * itemsize + 16

    def status(self, timeout: float | None) -> tuple[VersionStatus, ...]:
        """Asks for the states of the model's versions."""
        answer = self._call("ModelService", "GetModelStatus", timeout)
        with reading_answer():
            return read_status(to_dict(answer))

    def metadata(self, timeout: float | None) -> ModelMetadata:
        """Asks for the signatures of the model."""
        answer = self._call(
            "PredictionService",
            "GetModelMetadata",
            timeout,
            metadata_field=["signature_def"],
        )
        packed = answer.metadata["signature_def"].value
        signatures = parse_message("SignatureDefMap", packed)
        spec = answer.model_spec
        with reading_answer():
            return read_metadata(
                spec.name, spec.version.value, to_dict(signatures)
            )

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        info: SignatureInfo,
        timeout: float | None,
    ) -> tuple[dict[str, np.ndarray], int | None]:
        """Asks for predictions; returns the outputs and the version.

        Inputs are arrays, or lists of bytes for strings. The signature's `info`
        is for transports whose answers do not say what they hold.
        """
        answer = self._call(
            "PredictionService",
            "Predict",
            timeout,
            signature,
            inputs={k: write_tensor(value) for k, value in inputs.items()},
        )
        outputs = {k: read_tensor(value) for k, value in answer.outputs.items()}
        spec = answer.model_spec
        has_version = spec.HasField("version")
        return outputs, spec.version.value if has_version else None

    def _call(
        self,
        service: str,
        method: str,
        timeout: float | None,
        signature: str = "",
        **fields: Any,
    ) -> Any:
        connection = self._connection
        spec = new_message(
            "ModelSpec",
            name=connection.model,
            signature_name=signature,
            version_label=connection.label,
        )
        if connection.version is not None:
            spec.version.value = connection.version
        request = new_message(f"{method}Request", model_spec=spec, **fields)
        send = self._method(f"/tensorflow.serving.{service}/{method}")
        try:
            answer = send(
                request.SerializeToString(),
                timeout=timeout,
                metadata=self._metadata,
            )
        except grpc.RpcError as error:
            raise _translate(error) from error
        return parse_message(f"{method}Response", answer)


def _trusting(ca: Any) -> Any:
    """Returns credentials that trust a file of certificates, or the system's.

    gRPC has a list of its own, without those of a company, unless a variable of
    its own names another.
    """
    if ca is None and "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" not in os.environ:
        ca = ssl.get_default_verify_paths().cafile
    return grpc.ssl_channel_credentials(ca and Path(ca).read_bytes())


def _translate(error: Any) -> ServingClientError:
    code, message = error.code().name, error.details() or "no details"
    # A wrong certificate stays wrong, and a request stays too large.
    is_retriable = (
        code == "UNAVAILABLE" and "CERTIFICATE_VERIFY_FAILED" not in message
    ) or (code == "RESOURCE_EXHAUSTED" and "larger than max" not in message)
    return ServingClientError(code, message, is_retriable)
