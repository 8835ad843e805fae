"""Requests and answers of REST: rows, columns and base64."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_sspcab.export.serving.server.errors import invalid
from keras_sspcab.export.serving.server.predictor import Prediction
from keras_sspcab.export.serving.server.signature import Arrays, Signature


@dataclasses.dataclass(frozen=True)
class JsonRequest:
    """A request for predictions.

    Attributes:
        signature: Name of the signature; empty for the default.
        is_row: Whether the inputs come by rows (`instances`), not by columns
            (`inputs`).
        value: Those inputs.
    """

    signature: str
    is_row: bool
    value: Any = dataclasses.field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> "JsonRequest":
        """Reads the body of a request.

        Raises:
            ServingError: If it is none.
        """
        document = _parse(body)
        if not isinstance(document, dict):
            raise invalid("JSON Value: Is not object")
        signature = document.get("signature_name", "")
        if not isinstance(signature, str):
            raise invalid(
                "JSON Value: not formatted correctly. 'signature_name' key "
                "must be a string value."
            )
        if "instances" in document and "inputs" in document:
            raise invalid(
                "JSON Value: Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist"
            )
        if "instances" in document:
            rows = document["instances"]
            if not isinstance(rows, list):
                raise invalid("Expecting 'instances' to be an list/array")
            if not rows:
                raise invalid("JSON Value: No values in 'instances' array")
            return cls(signature, True, rows)
        if "inputs" in document:
            return cls(signature, False, document["inputs"])
        raise invalid("Missing 'inputs' or 'instances' key")

    def arrays(self, signature: Signature) -> Arrays:
        """Returns the inputs as arrays.

        Raises:
            ServingError: If they do not fit the signature.
        """
        columns = self._rows(signature) if self.is_row else self._columns()
        if columns is None:
            if len(signature.inputs) > 1:
                raise invalid(
                    "A plain list or value is given, but expecting objects "
                    "as multiple input tensors required: "
                    f"{', '.join(sorted(signature.inputs))}"
                )
            columns = {next(iter(signature.inputs)): self.value}
        signature.check_names(set(columns))
        return {
            name: _array(signature, name, value)
            for name, value in columns.items()
        }

    def _columns(self) -> dict[str, Any] | None:
        is_named = isinstance(self.value, dict) and not _is_encoded(self.value)
        return self.value if is_named else None

    def _rows(self, signature: Signature) -> dict[str, Any] | None:
        named = [
            isinstance(row, dict) and not _is_encoded(row) for row in self.value
        ]
        if not any(named):
            return None
        for index, row in enumerate(self.value):
            if not named[index]:
                raise invalid(
                    f"Expecting object but got list at item {index} of input "
                    "list"
                )
            if set(row) != set(signature.inputs):
                raise invalid(
                    f"Failed to process element: {index} of 'instances' list. "
                    "JSON object: keys must be equal to: "
                    f"{','.join(sorted(signature.inputs))}"
                )
        return {
            name: [row[name] for row in self.value] for name in signature.inputs
        }


def write_json(prediction: Prediction, is_row: bool) -> bytes:
    """Returns the answer to a request, by rows or by columns.

    Raises:
        ServingError: If there are no rows.
    """
    outputs = {
        name: _texts(array, name) if array.dtype == object else array
        for name, array in prediction.outputs.items()
    }
    if not is_row:
        values = _only(outputs) if len(outputs) == 1 else outputs
        return _dump({"outputs": values})
    lengths = {np.shape(value)[:1] for value in outputs.values()}
    if len(lengths) != 1 or () in lengths:
        raise invalid("The outputs have no rows of their own; ask by 'inputs'.")
    rows = range(lengths.pop()[0])
    if len(outputs) == 1:
        return _dump({"predictions": _only(outputs)})
    return _dump(
        {
            "predictions": [
                {name: value[row] for name, value in outputs.items()}
                for row in rows
            ]
        }
    )


def _parse(body: bytes) -> Any:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except ValueError as error:
        first = error
    try:
        # Slower, but knows NaN and Infinity, as TensorFlow Serving does.
        return json.loads(body)
    except (ValueError, RecursionError):
        raise invalid(f"JSON Parse error: {first}") from first


def _is_encoded(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def _array(signature: Signature, name: str, value: Any) -> np.ndarray:
    spec = signature.inputs[name]
    read = _read_strings if spec.dtype == tf.string else _read_numbers
    array = read(name, spec.dtype, value)
    signature.check_shape(name, array.shape)
    return array


def _read_numbers(name: str, dtype: tf.DType, value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        raise invalid(f"The input {name!r} is an object, no list of numbers.")
    try:
        # Without a dtype: texts, truth values and null are no numbers.
        found = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise invalid(
            f"The input {name!r} is no regular array of numbers."
        ) from error
    kinds = "b" if dtype == tf.bool else "iu" if dtype.is_integer else "iuf"
    if found.dtype.kind not in kinds and found.size:
        raise invalid(
            f"The values of the input {name!r} are not of expected type: "
            f"{dtype.name}. Received: {_KINDS.get(found.dtype.kind, 'mixed')}"
        )
    with np.errstate(over="ignore"):
        array = found.astype(dtype.as_numpy_dtype)
    is_exact = (
        np.isfinite(array) == np.isfinite(found)
        if dtype.is_floating
        else array == found
    )
    if not np.all(is_exact):
        raise invalid(
            f"Values of the input {name!r} are too large for {dtype.name}."
        )
    return array


_KINDS = {"b": "truth values", "f": "fractions", "U": "texts", "O": "mixed"}


def _read_strings(name: str, _: tf.DType, value: Any) -> np.ndarray:
    array = np.array(_decoded(name, value), object)
    if not all(isinstance(item, bytes) for item in array.flat):
        raise invalid(
            f"The input {name!r} must hold texts, or objects with base64 under "
            "the key 'b64', in a regular array."
        )
    return array


def _decoded(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list):
        return [_decoded(name, item) for item in value]
    if not _is_encoded(value):
        raise invalid(
            f"The input {name!r} must hold texts, or objects of the form "
            '{"b64": "..."}.'
        )
    text = value["b64"]
    try:
        # Padding may be left out.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error


def _texts(array: np.ndarray, name: str) -> Any:
    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(item) for item in value]
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode("utf-8", "replace")

    return text(array.tolist())


def _only(outputs: dict[str, Any]) -> Any:
    return next(iter(outputs.values()))


def _dump(document: dict[str, Any]) -> bytes:
    if _is_finite(document):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_to_list).encode()


def _is_finite(value: Any) -> bool:
    """Whether all is fit for JSON proper, which knows no NaN."""
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return True


def _to_list(value: Any) -> Any:
    return value.tolist()
