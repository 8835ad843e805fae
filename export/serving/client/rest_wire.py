"""The REST API of TensorFlow Serving, without TensorFlow."""

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from keras_sspcab.export.serving.client.errors import unreadable
from keras_sspcab.export.serving.client.results import (
    DTYPES,
    ModelMetadata,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
)
from keras_sspcab.export.serving.client.wire import Answer, Call, Target, Wire

# Characters of a number, with its comma.
_DIGITS = 12


class RestWire(Wire):
    """Messages as JSON, with inputs and outputs by columns.

    https://www.tensorflow.org/tfx/serving/api_rest
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        path = f"/v1/models/{quote(target.model, safe='')}"
        if target.version is not None:
            path += f"/versions/{target.version}"
        if target.label is not None:
            path += f"/labels/{quote(target.label, safe='')}"
        self._path = path

    def status(self) -> Call:
        return Call(self._path, None)

    def read_status(self, reply: bytes) -> tuple[VersionStatus, ...]:
        with _reading():
            return tuple(
                VersionStatus(
                    int(entry["version"]),
                    entry["state"],
                    entry.get("status", {}).get("error_message", ""),
                )
                for entry in _parse(reply)["model_version_status"]
            )

    def metadata(self) -> Call:
        return Call(f"{self._path}/metadata", None)

    def read_metadata(self, reply: bytes) -> ModelMetadata:
        with _reading():
            document = _parse(reply)
            signatures = document["metadata"]["signature_def"]["signature_def"]
            return ModelMetadata(
                document["model_spec"]["name"],
                int(document["model_spec"]["version"]),
                {
                    name: SignatureInfo(
                        _tensors(entry.get("inputs")),
                        _tensors(entry.get("outputs")),
                    )
                    for name, entry in signatures.items()
                },
            )

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> Call:
        columns = {
            name: np.ascontiguousarray(value)
            if isinstance(value, np.ndarray)
            else [{"b64": base64.b64encode(item).decode()} for item in value]
            for name, value in inputs.items()
        }
        document = {"signature_name": signature, "inputs": columns}
        return Call(
            f"{self._path}:predict",
            orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        )

    def read_answer(self, reply: bytes, signature: SignatureInfo) -> Answer:
        with _reading():
            outputs = _parse(reply)["outputs"]
            if len(signature.outputs) == 1:
                # A single output comes without its name.
                outputs = dict.fromkeys(signature.outputs, outputs)
            arrays = {
                name: _array(outputs[name], info)
                for name, info in signature.outputs.items()
            }
        return Answer(arrays, self.target.version)

    def size(self, num_values: int, itemsize: int) -> int:
        if itemsize == 1:
            return num_values * 4 // 3 + 16
        return num_values * _DIGITS


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turns whatever a strange answer provokes into one error."""
    try:
        yield
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise unreadable(f"{type(error).__name__}: {error}") from error


def _parse(reply: bytes) -> Any:
    try:
        return orjson.loads(reply)
    except orjson.JSONDecodeError:
        # TensorFlow Serving writes NaN and Infinity, which are no JSON.
        return json.loads(reply)


def _tensors(entries: Any) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(
            DTYPES.get(entry["dtype"], entry["dtype"]),
            _shape(entry.get("tensor_shape", {})),
        )
        for name, entry in (entries or {}).items()
    }


def _shape(entry: Any) -> tuple[int | None, ...] | None:
    if entry.get("unknown_rank"):
        return None
    sizes = [int(dim["size"]) for dim in entry.get("dim", [])]
    return tuple(None if size < 0 else size for size in sizes)


def _array(value: Any, info: TensorInfo) -> np.ndarray:
    if info.dtype == "string":
        return np.array(_decoded(value), object)
    # float16 and bfloat16 come as numbers; numpy does not know all of them.
    is_short = info.dtype in ("float16", "bfloat16")
    return np.array(value, "float32" if is_short else info.dtype)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode()
