"""The messages of the client on the wire, beside the published ones."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from keras_sspcab.export import ServingClientError
from keras_sspcab.export.serving.client import messages
from keras_sspcab.export.serving.server.messages import write_tensor


def test_messages_are_those_of_the_published_stubs():
    """The client declares them itself: the stubs import TensorFlow."""
    from google.protobuf.descriptor import FieldDescriptor
    from tensorflow.core.framework import types_pb2
    from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
    from tensorflow_serving.apis import prediction_service_pb2  # noqa: F401

    pool = status_pb2.DESCRIPTOR.pool
    official = {
        name: pool.FindMessageTypeByName(f"{package}.{path or name}")
        for package, names in {
            "google.protobuf": {"Int64Value": "", "Any": ""},
            "tensorflow": {
                "TensorShapeProto": "",
                "Dim": "TensorShapeProto.Dim",
                "TensorProto": "",
                "TensorInfo": "",
                "SignatureDef": "",
                "TensorInfoEntry": "SignatureDef.InputsEntry",
            },
            "tensorflow.serving": {
                "TensorEntry": "PredictRequest.InputsEntry",
                "AnyEntry": "GetModelMetadataResponse.MetadataEntry",
                "SignatureEntry": "SignatureDefMap.SignatureDefEntry",
                "ModelSpec": "",
                "PredictRequest": "",
                "PredictResponse": "",
                "GetModelMetadataRequest": "",
                "GetModelMetadataResponse": "",
                "SignatureDefMap": "",
                "GetModelStatusRequest": "",
                "GetModelStatusResponse": "",
                "ModelVersionStatus": "",
                "StatusProto": "",
            },
        }.items()
        for name, path in names.items()
    }
    assert set(official) == set(messages.FIELDS)
    for message, fields in messages.FIELDS.items():
        known = official[message].fields_by_name
        for name, (number, kind) in fields.items():
            field = known[name]
            assert field.number == number, (message, name)
            if name in ("float_val", "double_val"):
                # Read as bytes, which packed values are.
                assert field.is_packed
                continue
            assert field.is_repeated == kind.startswith("*"), (message, name)
            kind = kind.removeprefix("*")
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                wanted = official[kind]
                received = field.message_type
                if kind.endswith("Entry"):  # several maps share one
                    wanted = wanted.fields_by_name["value"].message_type
                    received = received.fields_by_name["value"].message_type
                assert received.full_name == wanted.full_name, (message, name)
            elif field.type == FieldDescriptor.TYPE_ENUM:
                assert kind == "int32"
            else:
                wanted = getattr(FieldDescriptor, f"TYPE_{kind.upper()}")
                assert field.type == wanted, (message, name)
    assert {
        value.number: value.name
        for value in status_pb2.ModelVersionStatus.State.DESCRIPTOR.values
    } == messages.STATES
    for number, (name, _) in messages.DTYPES.items():
        assert tf.as_dtype(number).name == name
        assert number in types_pb2.DataType.values()


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "bool", "uint8", "int32", "int64"],
)
def test_tensors_survive_the_way(dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    sent = tensor_pb2.TensorProto.FromString(
        messages.write_tensor(values).SerializeToString()
    )
    np.testing.assert_array_equal(tf.make_ndarray(sent), values)
    for tensor in (sent, write_tensor(values)):
        read = messages.read_tensor(
            messages.parse_message("TensorProto", tensor.SerializeToString())
        )
        assert read.dtype == values.dtype
        np.testing.assert_array_equal(read, values)


def test_tensors_of_other_kinds():
    def read(tensor):
        return messages.read_tensor(
            messages.parse_message("TensorProto", tensor.SerializeToString())
        )

    short = np.array([0.5, -2.0], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(read(write_tensor(short)), [0.5, -2.0])
    texts = messages.write_tensor([b"a", b"\xff"])
    assert tf.make_ndarray(
        tensor_pb2.TensorProto.FromString(texts.SerializeToString())
    ).tolist() == [b"a", b"\xff"]
    # The last value stands for those that are missing.
    tensor = tensor_pb2.TensorProto(dtype=1, float_val=[1, 2])
    tensor.tensor_shape.dim.add().size = 4
    assert read(tensor).tolist() == [1, 2, 2, 2]
    tensor.float_val.extend([3, 4, 5])
    with pytest.raises(ServingClientError, match="cannot be read"):
        read(tensor)
    with pytest.raises(ServingClientError, match="unknown type 99"):
        read(tensor_pb2.TensorProto(dtype=99))
