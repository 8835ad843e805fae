import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from keras_sspcab.export.serving import package_model, packaging
from keras_sspcab.export.serving.warmup import WARMUP_FILE
from tests.export.serving.models import IMAGES, NAME, package


def read(path):
    """Returns signature and inputs of each warm-up request of a version."""
    requests = []
    dataset = tf.data.TFRecordDataset(str(path / WARMUP_FILE))
    for record in dataset.as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        # For whichever version there is.
        assert request.model_spec.WhichOneof("version_choice") is None
        inputs = {
            key: tf.make_ndarray(value) for key, value in request.inputs.items()
        }
        requests.append((request.model_spec, inputs))
    return requests


def test_real_images_are_sent_to_each_signature_in_each_size(packaged_result):
    requests = read(packaged_result.path)
    assert {spec.name for spec, _ in requests} == {NAME}
    assert [
        (spec.signature_name, {key: len(rows) for key, rows in inputs.items()})
        for spec, inputs in requests
    ] == [("serving_default", {"image": size}) for size in (1, 2, 4)] + [
        ("serving_bytes", {"image_bytes": size}) for size in (1, 2, 4)
    ]
    np.testing.assert_array_equal(requests[2][1]["image"], IMAGES[:4])
    for file, image in zip(
        requests[5][1]["image_bytes"], IMAGES[:4], strict=True
    ):
        np.testing.assert_array_equal(
            tf.io.decode_png(file), np.round(image * 255)
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
    requests = read(result.path)
    # Tiny rows: up to the largest batch.
    for (_, sent), size in zip(requests, (1, 2, 4, 8, 16, 32), strict=True):
        for name, array in inputs.items():
            np.testing.assert_array_equal(
                sent[name], array[np.arange(size) % 5]
            )
    readme = (tmp_path / "README.md").read_text()
    assert "serving_bytes" not in readme
    assert "keras_sspcab.export.Client" in readme


def test_batches_are_bounded_in_bytes(tmp_path, monkeypatch):
    # Room for six images.
    monkeypatch.setattr(packaging, "_MAX_BATCH_BYTES", IMAGES[:6].nbytes)
    result = package(tmp_path, max_batch_size=None)
    sizes = [
        len(rows) for _, inputs in read(result.path) for rows in inputs.values()
    ]
    assert max(sizes) == 4
