"""Messages of TensorFlow Serving's gRPC services.

They are declared here because the published classes
(`tensorflow_serving.apis.*_pb2`) import all of TensorFlow, which takes seconds
and half a gigabyte. The declarations live in a descriptor pool of their own, so
that both can be used in one process. Two liberties leave the wire format as it
is: enums are numbers, and packed floats are bytes, which NumPy reads directly.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from keras_sspcab.export.serving.client.results import (
    DTYPES,
    invalid,
    unreadable,
)

_PACKAGE = "keras_sspcab.serving"
_FIELD = descriptor_pb2.FieldDescriptorProto

# As in .proto files, but that keys of maps are always strings.
_MESSAGES = """
Int64Value { int64 value = 1; }
Any { string type_url = 1; bytes value = 2; }
Dim { int64 size = 1; string name = 2; }
TensorShapeProto { repeated Dim dim = 2; bool unknown_rank = 3; }
TensorProto {
  int32 dtype = 1; TensorShapeProto tensor_shape = 2; bytes tensor_content = 4;
  bytes float_val = 5; bytes double_val = 6; repeated int32 int_val = 7;
  repeated bytes string_val = 8; repeated int64 int64_val = 10;
  repeated bool bool_val = 11; repeated int32 half_val = 13;
  repeated uint32 uint32_val = 16; repeated uint64 uint64_val = 17;
}
ModelSpec {
  string name = 1; Int64Value version = 2; string signature_name = 3;
  string version_label = 4;
}
PredictRequest { ModelSpec model_spec = 1; map TensorProto inputs = 2; }
PredictResponse { map TensorProto outputs = 1; ModelSpec model_spec = 2; }
GetModelMetadataRequest {
  ModelSpec model_spec = 1; repeated string metadata_field = 2;
}
GetModelMetadataResponse { ModelSpec model_spec = 1; map Any metadata = 2; }
TensorInfo {
  string name = 1; int32 dtype = 2; TensorShapeProto tensor_shape = 3;
}
SignatureDef { map TensorInfo inputs = 1; map TensorInfo outputs = 2; }
SignatureDefMap { map SignatureDef signature_def = 1; }
GetModelStatusRequest { ModelSpec model_spec = 1; }
StatusProto { int32 error_code = 1; string error_message = 2; }
ModelVersionStatus {
  int64 version = 1; int32 state = 2; StatusProto status = 3;
}
GetModelStatusResponse {
  repeated ModelVersionStatus model_version_status = 1;
}
"""


def _declare() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_sspcab/serving.proto", package=_PACKAGE, syntax="proto3"
    )
    for message, fields in re.findall(r"(\w+) \{([^}]*)\}", _MESSAGES):
        declared = file.message_type.add(name=message)
        for label, kind, name, number in re.findall(
            r"(repeated |map |)(\w+) (\w+) = (\d+);", fields
        ):
            if label == "map ":
                # What a map is on the wire.
                entry = declared.nested_type.add(
                    name=f"{name.title().replace('_', '')}Entry"
                )
                entry.options.map_entry = True
                _add_field(entry, "key", 1, "string")
                _add_field(entry, "value", 2, kind)
                kind = f"{message}.{entry.name}"
            _add_field(declared, name, int(number), kind, bool(label))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        message.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}")
        )
        for message in file.message_type
    }


def _add_field(
    message: Any, name: str, number: int, kind: str, is_list: bool = False
) -> None:
    label = _FIELD.LABEL_REPEATED if is_list else _FIELD.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind[0].isupper():
        field.type = _FIELD.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    else:
        field.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")


#: The class of each message, by name.
CLASSES = _declare()


def new_message(name: str, /, **fields: Any) -> Any:
    """Returns a new message."""
    return CLASSES[name](**fields)


def parse_message(name: str, data: bytes) -> Any:
    """Returns a message from its serialized form."""
    try:
        return CLASSES[name].FromString(data)
    except DecodeError as error:
        raise unreadable(f"it is not a {name}") from error


def to_dict(message: Any) -> dict[str, Any]:
    """Returns a message as the JSON of REST, but for numbers of enums."""
    return MessageToDict(message, preserving_proto_field_name=True)


def write_tensor(value: "np.ndarray | Iterable[bytes]") -> Any:
    """Returns an array, or a list of strings, as `TensorProto`."""
    if not isinstance(value, np.ndarray):
        strings = list(value)
        tensor = new_message("TensorProto", dtype=7, string_val=strings)
        tensor.tensor_shape.dim.add(size=len(strings))
        return tensor
    numbers = [n for n, (name, _) in DTYPES.items() if name == value.dtype.name]
    if not numbers:
        raise invalid(f"gRPC cannot send arrays of the type {value.dtype}.")
    content = value.astype(value.dtype.newbyteorder("<")).tobytes()
    tensor = new_message(
        "TensorProto", dtype=numbers[0], tensor_content=content
    )
    for size in value.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def read_tensor(tensor: Any) -> np.ndarray:
    """Returns a `TensorProto` as array; bfloat16 becomes float32."""
    if tensor.dtype not in DTYPES:
        raise unreadable(
            f"it holds a tensor of the unknown type {tensor.dtype}"
        )
    name, field = DTYPES[tensor.dtype]
    # NumPy has no bfloat16; its bits are read instead.
    kind = {"bfloat16": "uint16", "string": "object"}.get(name, name)
    dtype = np.dtype(kind).newbyteorder("<")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    values = getattr(tensor, field)
    try:
        if tensor.tensor_content:
            array = np.frombuffer(tensor.tensor_content, dtype)
        elif isinstance(values, bytes):
            array = np.frombuffer(values, dtype)
        elif field == "half_val":
            array = np.array(values, "uint16").view(dtype)
        else:
            array = np.array(list(values), dtype)
        if 0 < len(array) < count:
            # The last value stands for all that are missing.
            array = np.pad(array, (0, count - len(array)), "edge")
        array = array.reshape(shape)
    except (OverflowError, TypeError, ValueError) as error:
        raise unreadable(str(error)) from error
    if name == "bfloat16":
        return (array.astype("uint32") << 16).view("float32")
    return array.astype(dtype.newbyteorder("="))
