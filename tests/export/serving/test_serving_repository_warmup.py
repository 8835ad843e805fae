import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_sspcab.export.serving import packaging
from keras_sspcab.export.serving.packaging import package_model
from keras_sspcab.export.serving.warmup import WARMUP_FILE
from tests.export.serving.packaged import IMAGES, NAME, SIZE, package


def read(path):
    dataset = tf.data.TFRecordDataset(str(path / WARMUP_FILE))
    return [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in dataset.as_numpy_iterator()
    ]


@pytest.fixture(scope="module")
def path(packaged_result):
    return packaged_result.path


def test_requests(path):
    found = []
    for log in read(path):
        assert log.WhichOneof("log_type") == "predict_log"
        spec = log.predict_log.request.model_spec
        ((key, value),) = log.predict_log.request.inputs.items()
        assert spec.name == NAME
        # Whichever version there is.
        assert spec.WhichOneof("version_choice") is None
        array = tf.make_ndarray(value)
        found.append((spec.signature_name, key, array.dtype.kind, array.shape))
    assert found == [
        ("serving_default", "image", "f", (size, SIZE, SIZE, 1))
        for size in (1, 2, 4)
    ] + [("serving_bytes", "image_bytes", "O", (size,)) for size in (1, 2, 4)]


def test_they_hold_real_images(path):
    by_signature = {"serving_default": [], "serving_bytes": []}
    for log in read(path):
        request = log.predict_log.request
        (value,) = request.inputs.values()
        array = tf.make_ndarray(value)
        by_signature[request.model_spec.signature_name].append(array)
    np.testing.assert_array_equal(
        by_signature["serving_default"][-1], IMAGES[:4]
    )
    for encoded, image in zip(
        by_signature["serving_bytes"][-1], IMAGES, strict=False
    ):
        np.testing.assert_array_equal(
            tf.io.decode_png(encoded), np.round(image * 255)
        )


def test_models_of_several_inputs_and_no_images(tmp_path):
    left = keras.Input((4,), name="left")
    right = keras.Input((3, 2), name="right")
    x = keras.layers.Concatenate()([left, keras.layers.Flatten()(right)])
    model = keras.Model([left, right], {"sum": keras.layers.Dense(2)(x)})
    rng = np.random.default_rng(0)
    inputs = {
        "left": rng.random((5, 4)).astype("float32"),
        "right": rng.random((5, 3, 2)).astype("float32"),
    }
    result = package_model(model, tmp_path, inputs, name="sums")
    logs = read(result.path)
    # Tiny rows: up to the largest batch.
    assert len(logs) == 6
    for log, size in zip(logs, (1, 2, 4, 8, 16, 32), strict=True):
        request = log.predict_log.request
        assert request.model_spec.signature_name == "serving_default"
        for name, array in inputs.items():
            np.testing.assert_array_equal(
                tf.make_ndarray(request.inputs[name]),
                array[np.arange(size) % 5],
            )
    readme = (tmp_path / "README.md").read_text()
    assert "serving_bytes" not in readme
    assert "keras_sspcab.export.Client" in readme


def test_batches_are_bounded_in_bytes(tmp_path, monkeypatch):
    # Room for six images.
    monkeypatch.setattr(packaging, "_MAX_BATCH_BYTES", IMAGES[:6].nbytes)
    result = package(tmp_path, max_batch_size=None)
    shapes = [
        next(iter(log.predict_log.request.inputs.values())).tensor_shape
        for log in read(result.path)
    ]
    assert max(shape.dim[0].size for shape in shapes) == 4
