"""The messages of the client on the wire, beside the published ones."""

import contextlib

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_status_pb2,
    prediction_service_pb2,  # noqa: F401  fills the pool
)

from keras_sspcab.export import ServingClientError
from keras_sspcab.export.serving.client import messages
from keras_sspcab.export.serving.client.results import (
    DTYPES,
    STATES,
    read_status,
)
from keras_sspcab.export.serving.server.messages import write_tensor


def official_message(pool, name):
    for parent in (
        *("tensorflow.serving", "tensorflow"),
        *("tensorflow.TensorShapeProto", "google.protobuf"),
    ):
        with contextlib.suppress(KeyError):
            return pool.FindMessageTypeByName(f"{parent}.{name}")
    raise AssertionError(name)


def assert_same_fields(ours, official):
    for field in ours.fields:
        known = official.fields_by_name[field.name]
        where = (ours.name, field.name)
        assert field.number == known.number, where
        if field.name in ("float_val", "double_val"):
            assert known.is_packed  # read as bytes, which packed values are
            continue
        assert field.is_repeated == known.is_repeated, where
        if known.type == FieldDescriptor.TYPE_ENUM:
            assert field.type == FieldDescriptor.TYPE_INT32, where
            continue
        assert field.type == known.type, where
        if known.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type.name == known.message_type.name, where
            if known.message_type.GetOptions().map_entry:
                assert_same_fields(field.message_type, known.message_type)


def test_messages_are_those_of_the_published_stubs():
    """The client declares them itself: the stubs import TensorFlow."""
    pool = get_model_status_pb2.DESCRIPTOR.pool
    for name, message in messages.CLASSES.items():
        assert_same_fields(message.DESCRIPTOR, official_message(pool, name))
    states = get_model_status_pb2.ModelVersionStatus.State.DESCRIPTOR.values
    assert {value.number: value.name for value in states} == STATES
    for number, (name, _) in DTYPES.items():
        assert tf.as_dtype(number).name == name


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


def test_the_version_0_has_a_state():
    answer = messages.new_message(
        "GetModelStatusResponse", model_version_status=[{"state": 30}]
    )
    (status,) = read_status(messages.to_dict(answer))
    assert (status.version, status.is_available) == (0, True)
