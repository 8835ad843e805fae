"""Messages of TensorFlow Serving's protocol, read and written."""

import contextlib
import inspect
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
)

from keras_sspcab.export.serving.client.messages import new_message
from keras_sspcab.export.serving.client.results import DTYPES
from keras_sspcab.export.serving.server.errors import invalid, too_large
from keras_sspcab.export.serving.server.signature import Arrays, Signature

if TYPE_CHECKING:
    from keras_sspcab.export.serving.server.predictor import Prediction
    from keras_sspcab.export.serving.server.versions import Version

# The name differs between versions of protobuf.
(_PRINT_DEFAULTS,) = {
    "always_print_fields_with_no_presence",
    "including_default_value_fields",
} & set(inspect.signature(MessageToDict).parameters)


# Fields within a `PredictRequest` that have fields of their own: inputs, which
# are pairs of name and tensor, and the shapes of these.
_SHAPE: dict[int, Any] = {2: {}}
_FIELDS = {2: {2: _SHAPE}}
# Fields of tensors whose numbers take a byte or more; in memory, eight of each.
_VARINTS = (7, 10, 11, 13, 16, 17)

#: Each may take a hundred bytes of memory. Numbers are not fields: they come as
#: one for all. Files are.
MAX_FIELDS = 20_000


def scan_request(
    data: bytes, max_fields: int = MAX_FIELDS
) -> tuple[int, bytes]:
    """Returns the memory that a `PredictRequest` takes, and one of its spec.

    The memory, in bytes, is an upper bound, found without parsing it: two bytes
    may become a message of sixty. More than `max_fields` are refused. The
    second is a `PredictRequest` with nothing but the `ModelSpec`.
    """
    size = len(data)
    spec = b""
    count = 0
    parts = [(memoryview(data), _FIELDS)]
    with contextlib.suppress(IndexError):  # is cut short, and refused later
        while parts:
            part, nested = parts.pop()
            position = 0
            while position < len(part):
                count += 1
                if count > max_fields:
                    raise too_large(
                        f"A request may have {max_fields} fields. Send "
                        "numbers as `tensor_content`, or packed."
                    )
                start = position
                key, position = _read_varint(part, position)
                field, kind = key >> 3, key & 7
                if kind == 0:
                    _, position = _read_varint(part, position)
                elif kind == 1:
                    position += 8
                elif kind == 5:
                    position += 4
                elif kind == 2:
                    length, position = _read_varint(part, position)
                    end = position + length
                    if nested is _FIELDS and field == 1:
                        spec += part[start:end].tobytes()
                    elif field in nested:
                        parts.append((part[position:end], nested[field]))
                    elif nested is _SHAPE and field in _VARINTS:
                        size += 16 * length  # it grows by doubling
                    position = end
    return size + 128 * count, spec


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while data[position] & 0x80 and shift < 63:
        value |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return value | data[position] << shift, position + 1


def read_tensors(
    signature: Signature,
    tensors: Mapping[str, Any],
    max_bytes: int,
    max_rows: int,
) -> Arrays:
    """Returns the inputs of a signature, of `max_bytes` each, as arrays.

    Dtype, shape and size are checked before memory is allocated: a tensor whose
    last value stands for all that follow can claim any size in a few bytes.
    """
    signature.check_names(set(tensors))
    return signature.complete(
        {
            name: _read_tensor(signature, name, tensor, max_bytes, max_rows)
            for name, tensor in tensors.items()
        }
    )


def _read_tensor(
    signature: Signature, name: str, tensor: Any, max_bytes: int, max_rows: int
) -> np.ndarray:
    dtype = signature.inputs[name].dtype
    if tensor.dtype != dtype.as_datatype_enum:
        raise invalid(
            f"The input {name!r} must be of the type {dtype.name}. "
            f"Received: {_dtype_name(tensor.dtype)}"
        )
    if tensor.tensor_shape.unknown_rank:
        raise invalid(f"The input {name!r} comes without a shape.")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    signature.check_shape(name, shape)
    signature.check_rows(shape[0] if shape else 1, max_rows)
    count = math.prod(shape)
    if dtype == tf.string:
        if len(tensor.string_val) != count:
            raise invalid(
                f"The input {name!r} must hold {count} strings for its shape. "
                f"Received: {len(tensor.string_val)}"
            )
        return np.array(list(tensor.string_val), object).reshape(shape)
    if count * dtype.size > max_bytes:
        raise invalid(
            f"The input {name!r} takes {count * dtype.size} bytes, of "
            f"{max_bytes} allowed."
        )
    values = getattr(tensor, DTYPES[tensor.dtype][1])
    if not tensor.tensor_content and not values and count:
        raise invalid(f"The input {name!r} holds no values.")
    try:
        return tf.make_ndarray(tensor).reshape(shape)
    except (TypeError, ValueError) as error:
        raise invalid(f"The input {name!r} cannot be read: {error}") from error


def _dtype_name(number: int) -> str:
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"the unknown type {number}"


def write_tensor(array: np.ndarray) -> Any:
    """Returns an output, in the field that TensorFlow Serving fills.

    Many clients read that one only.
    """
    number = tf.as_dtype(array.dtype).as_datatype_enum
    _, field = DTYPES[number]
    values: Any
    if field in ("float_val", "double_val"):
        little = array.dtype.newbyteorder("<")
        values = array.astype(little, copy=False).tobytes()
    else:
        is_half = field == "half_val"
        values = (array.view(np.uint16) if is_half else array).ravel().tolist()
    tensor = new_message("TensorProto", dtype=number, **{field: values})
    tensor.tensor_shape.SetInParent()  # of a scalar, it has no dimensions
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def write_prediction(prediction: "Prediction") -> bytes:
    """Returns a `PredictResponse`."""
    response = new_message(
        "PredictResponse",
        model_spec={
            "name": prediction.model,
            "version": {"value": prediction.version},
            "signature_name": prediction.signature,
        },
        outputs={k: write_tensor(v) for k, v in prediction.outputs.items()},
    )
    return response.SerializeToString()


def model_status(versions: "Iterable[Version]") -> Any:
    """Returns a `GetModelStatusResponse`."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        status = response.model_version_status.add()
        status.version = version.number
        status.state = int(version.state)
        if version.error:
            status.status.error_code = StatusCode.UNKNOWN.value[0]
            status.status.error_message = version.error
        else:
            status.status.SetInParent()
    return response


def model_metadata(version: "Version") -> Any:
    """Returns a `GetModelMetadataResponse` with all signatures."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata["signature_def"].Pack(_signatures(version))
    return response


def status_json(versions: "Iterable[Version]") -> dict[str, Any]:
    """Returns the states of versions as REST gives them."""
    return _to_dict(model_status(versions))


def metadata_json(version: "Version") -> dict[str, Any]:
    """Returns the signatures of a version as REST gives them."""
    return {
        "model_spec": _to_dict(model_metadata(version).model_spec),
        "metadata": {"signature_def": _to_dict(_signatures(version))},
    }


def _signatures(version: "Version") -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    if version.loaded is not None:
        for name, definition in version.loaded.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
    return signatures


def _to_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, **{_PRINT_DEFAULTS: True}
    )
