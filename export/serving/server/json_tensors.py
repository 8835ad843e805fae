"""Requests and answers of REST: rows, columns and base64."""

import base64
import binascii
import dataclasses
import json
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_sspcab.export.serving.server.errors import invalid
from keras_sspcab.export.serving.server.predictor import Prediction
from keras_sspcab.export.serving.server.signature import Arrays, Signature

_KIND_NAMES = {"b": "truth values", "f": "fractions", "U": "texts"}


@dataclasses.dataclass(frozen=True)
class JsonRequest:
    """A request for predictions.

    Its inputs come by rows (`instances`) or by columns (`inputs`). The name of
    the signature is empty for the default.
    """

    signature: str
    is_row: bool
    value: Any = dataclasses.field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> "JsonRequest":
        """Reads the body of a request."""
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
        if "inputs" in document:
            return cls(signature, False, document["inputs"])
        if "instances" not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        rows = document["instances"]
        if not isinstance(rows, list):
            raise invalid("Expecting 'instances' to be an list/array")
        if not rows:
            raise invalid("JSON Value: No values in 'instances' array")
        return cls(signature, True, rows)

    def arrays(self, signature: Signature) -> Arrays:
        """Returns the inputs as arrays that fit the signature."""
        columns = None
        if self.is_row:
            columns = self._columns_of_rows(signature)
        elif isinstance(self.value, dict) and not _is_encoded(self.value):
            columns = self.value
        if columns is None:
            if len(signature.inputs) > 1:
                raise invalid(
                    "A plain list or value is given, but expecting objects "
                    "as multiple input tensors required: "
                    f"{', '.join(sorted(signature.inputs))}"
                )
            columns = {next(iter(signature.inputs)): self.value}
        signature.check_names(set(columns))
        arrays = {}
        for name, value in columns.items():
            dtype = signature.inputs[name].dtype
            read = _read_strings if dtype == tf.string else _read_numbers
            arrays[name] = read(name, dtype, value)
            signature.check_shape(name, arrays[name].shape)
        return arrays

    def _columns_of_rows(self, signature: Signature) -> dict[str, Any] | None:
        """Returns rows with named inputs by name; None if nothing is named."""
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
    """Returns the answer to a request, by rows or by columns."""
    outputs = prediction.outputs
    # A single output goes without its name.
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    document: dict[str, Any]
    if not is_row:
        document = {"outputs": outputs if only is None else only}
    else:
        lengths = {value.shape[:1] for value in outputs.values()}
        if len(lengths) != 1 or () in lengths:
            raise invalid(
                "The outputs have no rows of their own; ask by 'inputs'."
            )
        rows = [
            {name: value[row] for name, value in outputs.items()}
            for row in range(lengths.pop()[0])
        ]
        document = {"predictions": rows if only is None else only}
    if all(
        value.dtype.kind != "f" or np.isfinite(value).all()
        for value in outputs.values()
    ):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # JSON proper lacks NaN; TensorFlow Serving writes it nevertheless.
    return json.dumps(document, default=lambda value: value.tolist()).encode()


def _parse(body: bytes) -> Any:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        return orjson.loads(body)
    except ValueError as error:
        first = error
    try:
        # Slower, but accepts NaN and Infinity, as TensorFlow Serving does.
        return json.loads(body)
    except (ValueError, RecursionError):
        raise invalid(f"JSON Parse error: {first}") from first


def _is_encoded(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def _read_numbers(name: str, dtype: tf.DType, value: Any) -> np.ndarray:
    if isinstance(value, dict):
        raise invalid(f"The input {name!r} is an object, no list of numbers.")
    try:
        # Without a dtype, so that texts, truth values and null are noticed.
        received = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise invalid(
            f"The input {name!r} is no regular array of numbers."
        ) from error
    kind = received.dtype.kind
    allowed = "b" if dtype == tf.bool else "iu" if dtype.is_integer else "iuf"
    if kind not in allowed and received.size:
        raise invalid(
            f"The values of the input {name!r} are not of expected type: "
            f"{dtype.name}. Received: {_KIND_NAMES.get(kind, 'mixed')}"
        )
    with np.errstate(over="ignore"):
        array = received.astype(dtype.as_numpy_dtype)
    is_exact = (
        np.isfinite(array) == np.isfinite(received)
        if dtype.is_floating
        else array == received
    )
    if not np.all(is_exact):
        raise invalid(
            f"Values of the input {name!r} are too large for {dtype.name}."
        )
    return array


def _read_strings(name: str, _: tf.DType, value: Any) -> np.ndarray:
    array = np.array(_decode(name, value), object)
    if not all(isinstance(item, bytes) for item in array.flat):
        raise invalid(
            f"The input {name!r} must hold texts, or objects with base64 under "
            "the key 'b64', in a regular array."
        )
    return array


def _decode(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, list):
        return [_decode(name, item) for item in value]
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
