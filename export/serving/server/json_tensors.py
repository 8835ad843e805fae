"""Requests and answers of REST: rows, columns and base64."""

import base64
import binascii
import dataclasses
import itertools
import json
import re
from typing import Any

import numpy as np
import orjson
import tensorflow as tf

from keras_sspcab.export.serving.server.errors import invalid
from keras_sspcab.export.serving.server.predictor import Prediction
from keras_sspcab.export.serving.server.signature import (
    Arrays,
    Signature,
    is_finite,
)
from keras_sspcab.optional_inputs import left_out

# Bytes that values take in Python, at most, by a character that each has: the
# quotes and colons are those of texts and keys.
_BYTES_OF_VALUES = {"[": 96, "{": 240, ",": 64, '"': 40, ":": 128}

_TYPE_NAMES = {
    bool: "a truth value",
    dict: "an object",
    float: "a fraction",
    int: "a whole number",
    list: "a list",
    str: "a text",
}
_MAX_RANK = 32

# An array of numbers begins so, and this is all that it is made of.
_BEGIN = re.compile(rb"[\[\s]*[-0-9]")
_SPACES = b" \t\n\r"
_NUMERALS = b"+-.0123456789Ee"
_WITHOUT_BRACKETS = bytes.maketrans(b"[]", b"  ")


def memory_needed(body: bytes) -> int:
    """Returns the bytes of memory that a JSON text takes when it is read.

    It is an upper bound, found without reading it: three bytes may become an
    object of a hundred.
    """
    text = np.frombuffer(body, np.uint8)
    # Texts take up to four bytes a character; base64 is copied as often.
    size = 4 * len(body)
    for character, num_bytes in _BYTES_OF_VALUES.items():
        size += num_bytes * int(np.count_nonzero(text == ord(character)))
    return size


@dataclasses.dataclass(frozen=True)
class _Numbers:
    """An array of numbers that was read at once, without a list for each row.

    `flat` has its values, in the order of rows.
    """

    flat: list[float] = dataclasses.field(repr=False)
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]


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
        if not isinstance(rows, (list, _Numbers)):
            raise invalid("Expecting 'instances' to be an list/array")
        if not rows:
            raise invalid("JSON Value: No values in 'instances' array")
        return cls(signature, True, rows)

    def arrays(self, signature: Signature, max_rows: int) -> Arrays:
        """Returns the inputs as arrays that fit the signature."""
        columns = None
        if self.is_row:
            signature.check_rows(len(self.value), max_rows)
            columns = self._columns_of_rows(signature)
        elif isinstance(self.value, dict) and not _is_encoded(self.value):
            columns = self.value
        if columns is None:
            required = sorted(set(signature.inputs) - signature.optional)
            if len(required) > 1:
                raise invalid(
                    "A plain list or value is given, but expecting objects "
                    "as multiple input tensors required: "
                    f"{', '.join(required)}"
                )
            columns = {required[0]: self.value}
        signature.check_names(set(columns))
        arrays = {}
        for name, value in columns.items():
            is_optional = name in signature.optional
            if is_optional and value is None:
                continue
            if isinstance(value, (list, _Numbers)):
                signature.check_rows(len(value), max_rows)
            if is_optional and isinstance(value, list):
                value = [_read_option(signature, name, v) for v in value]
            arrays[name] = _read_array(name, signature.inputs[name], value)
            signature.check_shape(name, arrays[name].shape)
        return signature.complete(arrays)

    def _columns_of_rows(self, signature: Signature) -> dict[str, Any] | None:
        """Returns rows with named inputs by name; None if nothing is named."""
        if isinstance(self.value, _Numbers):
            return None
        is_named = [
            isinstance(row, dict) and not _is_encoded(row) for row in self.value
        ]
        if not any(is_named):
            return None
        optional = signature.optional
        for index, row in enumerate(self.value):
            if not is_named[index]:
                raise invalid(
                    f"Expecting object but got list at item {index} of input "
                    "list"
                )
            if set(row) - optional != set(signature.inputs) - optional:
                raise invalid(
                    f"Failed to process element: {index} of 'instances' list. "
                    "JSON object: keys must be equal to: "
                    f"{','.join(sorted(signature.inputs))}"
                )
        # Each row may leave out what is optional.
        return {
            name: [row.get(name) for row in self.value]
            for name in signature.inputs
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
    if all(map(is_finite, outputs.values())):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # JSON proper lacks NaN; TensorFlow Serving writes it nevertheless.
    return json.dumps(document, default=lambda value: value.tolist()).encode()


def _parse(body: bytes) -> Any:
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if (document := _parse_numbers(body)) is not None:
        return document
    try:
        document = orjson.loads(body)
        # More colons than keys are those in texts, or of keys that come twice.
        is_plain = body.count(b":") == _count_keys(document)
    except ValueError as error:
        # TensorFlow Serving accepts these; orjson does not.
        if b"NaN" not in body and b"Infinity" not in body:
            raise invalid(f"JSON Parse error: {error}") from error
        is_plain = False
    if is_plain:
        return document
    document = None
    try:
        return json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error


def _parse_numbers(body: bytes) -> dict[str, Any] | None:
    """Returns a request with one regular array of numbers; None for others.

    Lists of lists take six times as long, and hundreds of them the garbage
    collector too.
    """
    start, end = body.find(b"["), body.rfind(b"]") + 1
    if start < 0 or not _BEGIN.match(body, start):
        return None
    array = body[start:end]
    shape = _regular_shape(array.translate(None, _NUMERALS + _SPACES))
    if shape is None or not _is_within_brackets(array):
        return None
    rest = body[:start] + b"null" + body[end:]
    try:
        document = orjson.loads(rest)
        flat = orjson.loads(b"[%b]" % array.translate(_WITHOUT_BRACKETS))
    except ValueError:
        return None
    is_plain = isinstance(document, dict) and rest.count(b"null") == 1
    if not is_plain or _count_keys(document) != rest.count(b":"):
        return None
    # The null is now where the array was, unless that was in a text.
    place = document
    if isinstance(document.get("inputs"), dict):
        place = document["inputs"]
    for key, value in place.items():
        if value is None:
            place[key] = _Numbers(flat, shape)
            return document
    return None


def _regular_shape(text: bytes) -> tuple[int, ...] | None:
    """Returns the shape of nested lists of which numbers were left out.

    None if not all lists of a level are equally long.
    """
    rank = len(text) - len(text.lstrip(b"["))
    if rank > _MAX_RANK:
        return None
    shape: list[int] = []
    size = 0  # of a list of the level before
    for level in range(1, rank + 1):
        end = text.find(b"]" * level) + level
        count, rest = divmod(end - (rank - level) - 1, size + 1)
        if rest or count < 1:
            return None
        shape.insert(0, count)
        size = end - (rank - level)
    expected = b""
    for count in reversed(shape):
        expected = b"[%b]" % b",".join([expected] * count)
    return tuple(shape) if expected == text else None


def _is_within_brackets(array: bytes) -> bool:
    """Whether no number is before a bracket that opens, or after the other."""
    text = np.frombuffer(array.translate(None, _SPACES), np.uint8)
    before = text[np.flatnonzero(text == ord("["))[1:] - 1]
    after = text[np.flatnonzero(text == ord("]"))[:-1] + 1]
    return not (before.tobytes() + after.tobytes()).translate(None, b"[],")


def _count_keys(document: Any) -> int:
    """Returns the number of keys in a request of regular form."""
    count, level = 0, [document]
    for _ in range(4):  # of the document, rows, inputs, and base64
        objects = [value for value in level if isinstance(value, dict)]
        count += sum(map(len, objects))
        level = []
        for value in itertools.chain.from_iterable(map(dict.values, objects)):
            if not isinstance(value, list):
                level.append(value)
            elif value and isinstance(value[0], dict):
                level.extend(value)
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise invalid(f"JSON Value: the key {key!r} comes twice")
        result[key] = value
    return result


def _is_encoded(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"b64"}
        and isinstance(value["b64"], str)
    )


def _read_option(signature: Signature, name: str, value: Any) -> Any:
    """Returns an optional value: null leaves it out, products have names."""
    if value is None:
        return left_out(signature.inputs[name].dtype.name)
    if name == "product" and isinstance(value, str):
        return signature.product_index(value)
    return value


def _read_array(name: str, spec: tf.TensorSpec, value: Any) -> np.ndarray:
    flat, shape = _flatten(name, value)
    dtype = spec.dtype
    if dtype == tf.string:
        array = np.empty(len(flat), object)
        array[:] = [_read_bytes(name, item) for item in flat]
        return array.reshape(shape)
    allowed: set[type] = {int, float} if dtype.is_floating else {int}
    if dtype == tf.bool:
        allowed = {bool}
    is_number = isinstance(value, _Numbers) and dtype.is_floating
    # Looked at before NumPy makes one type of all.
    if not (is_number or set(map(type, flat)) <= allowed):
        index = next(i for i, v in enumerate(flat) if type(v) not in allowed)
        place = [int(i) for i in np.unravel_index(index, shape)]
        raise invalid(
            f"The values of the input {name!r} are not of expected type: "
            f"{dtype.name}. Received: "
            f"{_TYPE_NAMES.get(type(flat[index]), 'null')}"
            f"{f' at {place}' if place else ''}"
        )
    try:
        exact = np.array(flat, "float64" if dtype.is_floating else None)
        with np.errstate(over="ignore"):
            array = exact.astype(dtype.as_numpy_dtype)
        if dtype.is_floating:
            fits = np.isfinite(array) == np.isfinite(exact)
        else:
            fits = array == exact
    except OverflowError:
        fits = False
    if not np.all(fits):
        raise invalid(
            f"Values of the input {name!r} are too large for {dtype.name}."
        )
    return array.reshape(shape)


def _flatten(name: str, value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Returns the values of nested lists, and the shape of these."""
    if isinstance(value, _Numbers):
        return value.flat, value.shape
    flat, shape = [value], list[int]()
    while flat and isinstance(flat[0], list):
        lengths = {len(v) if isinstance(v, list) else -1 for v in flat}
        if len(lengths) > 1 or len(shape) == _MAX_RANK:
            raise invalid(f"The input {name!r} is no regular array.")
        shape.append(lengths.pop())
        flat = list(itertools.chain.from_iterable(flat))
    return flat, tuple(shape)


def _read_bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not _is_encoded(value):
        raise invalid(
            f"The input {name!r} must hold texts, or objects with base64 "
            'like {"b64": "..."}, in a regular array.'
        )
    try:
        text = value["b64"].encode("ascii").translate(None, b" \t\n\v\f\r")
        # Padding may be left out.
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error
