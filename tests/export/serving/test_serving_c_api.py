"""Packaged versions in TensorFlow's C API, the loader of TensorFlow Serving."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export.serving.manifest import verify_version
from tests.export.serving.packaged_hosts import SIGNATURES, packaged
from tests.export.serving.served import encoded
from tests.export.serving_loader import ServedModel


@pytest.fixture(scope="module", params=SIGNATURES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def served(kind):
    path, _ = packaged(kind)
    verify_version(path)
    with contextlib.closing(ServedModel(path)) as model:
        yield model


@pytest.fixture(scope="module")
def python(kind):
    return tf.saved_model.load(str(packaged(kind)[0]))


def inputs_of(kind, signature, count):
    inputs = {name: part[:count] for name, part in packaged(kind)[1].items()}
    if signature == "serving_default":
        return inputs
    files = [encoded(image) for image in inputs["image"]]
    return {"image_bytes": np.array(files, object)}


def run(function, inputs):
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    return {name: value.numpy() for name, value in function(**tensors).items()}


def check(found, expected):
    assert set(found) == set(expected)
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(
            value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_every_signature_agrees_with_python(kind, served, python):
    # TensorFlow adds one that initializes what there is to initialize.
    names = {name for name in served.signatures if not name.startswith("__")}
    assert names == SIGNATURES[kind]
    for name in names:
        for count in (1, 3):
            inputs = inputs_of(kind, name, count)
            found = served.run(name, inputs)
            check(found, run(python.signatures[name], inputs))
            assert found["anomaly_score"].shape == (count,)
            assert np.isfinite(found["anomaly_score"]).all()
            assert found["anomaly_map"].any()


def test_open_sizes():
    path, inputs = packaged("open")
    python = tf.saved_model.load(str(path)).signatures["serving_default"]
    with contextlib.closing(ServedModel(path)) as served:
        for height, width in ((24, 32), (40, 16)):
            shape = (2, height, width, 3)
            image = {"image": np.resize(inputs["image"], shape)}
            found = served.run("serving_default", image)
            assert found["anomaly_map"].shape == shape[:3]
            check(found, run(python, image))


def test_warm_up_requests_run(kind, served):
    from tensorflow_serving.apis import prediction_log_pb2

    path = packaged(kind)[0] / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    # Of each signature, in sizes of 1 and 2.
    assert len(records) == 2 * len(SIGNATURES[kind])
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        request = log.predict_log.request
        inputs = {
            name: tf.make_ndarray(tensor)
            for name, tensor in request.inputs.items()
        }
        found = served.run(request.model_spec.signature_name, inputs)
        rows = len(next(iter(inputs.values())))
        assert found["anomaly_score"].shape == (rows,)
