"""PredictionService and ModelService of TensorFlow Serving."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import BytesValue
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from keras_sspcab.export.serving.client.errors import unreadable
from keras_sspcab.export.serving.client.results import (
    DTYPES,
    ModelMetadata,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
)
from keras_sspcab.export.serving.client.wire import Answer, Call, Wire

_PREDICTION = "/tensorflow.serving.PredictionService"
_MODEL = "/tensorflow.serving.ModelService"

_STATES = get_model_status_pb2.ModelVersionStatus.State.DESCRIPTOR


class GrpcWire(Wire):
    """Messages of the package tensorflow-serving-api."""

    def status(self) -> Call:
        request = get_model_status_pb2.GetModelStatusRequest()
        return self._call(f"{_MODEL}/GetModelStatus", request)

    def read_status(self, reply: bytes) -> tuple[VersionStatus, ...]:
        response = _parse(get_model_status_pb2.GetModelStatusResponse, reply)
        return tuple(
            VersionStatus(
                entry.version,
                _STATES.values_by_number[entry.state].name
                if entry.state in _STATES.values_by_number
                else str(entry.state),
                entry.status.error_message,
            )
            for entry in response.model_version_status
        )

    def metadata(self) -> Call:
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.metadata_field.append("signature_def")
        return self._call(f"{_PREDICTION}/GetModelMetadata", request)

    def read_metadata(self, reply: bytes) -> ModelMetadata:
        response = _parse(
            get_model_metadata_pb2.GetModelMetadataResponse, reply
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(signatures):
            raise unreadable("there are no signatures in it")
        return ModelMetadata(
            response.model_spec.name,
            response.model_spec.version.value,
            {
                name: SignatureInfo(
                    _tensors(definition.inputs), _tensors(definition.outputs)
                )
                for name, definition in signatures.signature_def.items()
            },
        )

    def predict(self, signature: str, inputs: Mapping[str, Any]) -> Call:
        request = predict_pb2.PredictRequest()
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            if not isinstance(value, np.ndarray):
                value = np.array(value, object)
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        return self._call(f"{_PREDICTION}/Predict", request)

    def read_answer(self, reply: bytes, signature: SignatureInfo) -> Answer:
        response = _parse(predict_pb2.PredictResponse, reply)
        try:
            outputs = {
                name: _array(response.outputs[name])
                for name in response.outputs
            }
        except (TypeError, ValueError) as error:
            raise unreadable(str(error)) from error
        spec = response.model_spec
        version = spec.version.value if spec.HasField("version") else None
        return Answer(outputs, version)

    def size(self, num_values: int, itemsize: int) -> int:
        return num_values * itemsize + 16

    def _call(self, path: str, request: Any) -> Call:
        spec = request.model_spec
        spec.name = self.target.model
        if self.target.version is not None:
            spec.version.value = self.target.version
        if self.target.label is not None:
            spec.version_label = self.target.label
        return Call(path, request.SerializeToString())


def _parse(message: Any, reply: bytes) -> Any:
    try:
        return message.FromString(reply)
    except DecodeError as error:
        raise unreadable(f"no {message.DESCRIPTOR.full_name}") from error


def _tensors(entries: Any) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(_dtype(info.dtype), _shape(info.tensor_shape))
        for name, info in entries.items()
    }


def _dtype(number: int) -> str:
    value = types_pb2.DataType.DESCRIPTOR.values_by_number.get(number)
    name = str(number) if value is None else value.name
    return DTYPES.get(name, name)


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _array(tensor: Any) -> np.ndarray:
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    # Fewer values than the shape says are allowed: the last one goes on.
    if tensor.dtype == types_pb2.DT_FLOAT and (
        0 < count == len(tensor.float_val)
    ):
        return _floats(tensor.float_val).reshape(shape)
    return np.asarray(tf.make_ndarray(tensor))


def _floats(values: Any) -> np.ndarray:
    # On the wire `float_val` is the bytes of the array behind their number, as
    # a field of bytes is: many times as fast as value by value.
    wire = tensor_pb2.TensorProto(float_val=values).SerializeToString()
    field = BytesValue.DESCRIPTOR.fields_by_name["value"]
    data = BytesValue.FromString(bytes([field.number << 3 | 2]) + wire[1:])
    return np.frombuffer(data.value, "<f4").astype("float32")
