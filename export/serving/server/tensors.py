"""Tensors of the protocol to arrays and back."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.wrappers_pb2 import BytesValue
from tensorflow.core.framework import tensor_pb2

from keras_sspcab.export.serving.server.errors import invalid
from keras_sspcab.export.serving.server.signature import Arrays, Signature

# Fields of TensorProto by dtype, as TensorFlow Serving fills them: many
# clients read them and look at no other.
_FIELDS = {
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.uint32: "uint32_val",
    tf.int64: "int64_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


def read_tensors(
    signature: Signature, tensors: Mapping[str, Any], max_bytes: int
) -> Arrays:
    """Returns the inputs of a signature as arrays.

    Dtype, shape and size are checked before memory is taken: a tensor whose
    last value stands for all that follow can claim any size in a few bytes.

    Args:
        signature: What the request is for.
        tensors: `TensorProto` by name of the input.
        max_bytes: Size of an input, at most.

    Raises:
        ServingError: If they do not fit.
    """
    signature.check_names(set(tensors))
    return {
        name: _read_tensor(signature, name, tensor, max_bytes)
        for name, tensor in tensors.items()
    }


def _read_tensor(
    signature: Signature, name: str, tensor: Any, max_bytes: int
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
    if not tensor.tensor_content and not _values(tensor, dtype) and count:
        raise invalid(f"The input {name!r} holds no values.")
    try:
        return tf.make_ndarray(tensor).reshape(shape)
    except (TypeError, ValueError) as error:
        raise invalid(f"The input {name!r} cannot be read: {error}") from error


def write_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns an output for the client."""
    dtype = tf.as_dtype(array.dtype)
    if dtype in (tf.float16, tf.bfloat16):
        array = array.view(np.uint16)
    tensor = tensor_pb2.TensorProto(
        dtype=dtype.as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(),
    )
    if dtype == tf.float32:
        _extend_floats(tensor, array)
    else:
        _values(tensor, dtype).extend(array.ravel().tolist())
    return tensor


def _extend_floats(tensor: Any, array: np.ndarray) -> None:
    # On the wire `float_val` is the bytes of the array behind their number, as
    # a field of bytes is: fifty times as fast as value by value.
    wire = BytesValue(value=array.astype("<f4").tobytes()).SerializeToString()
    field = tensor.DESCRIPTOR.fields_by_name["float_val"]
    tensor.MergeFromString(bytes([field.number << 3 | 2]) + wire[1:])


def _values(tensor: Any, dtype: tf.DType) -> Any:
    return getattr(tensor, _FIELDS[dtype])


def _dtype_name(number: int) -> str:
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"the unknown type {number}"
