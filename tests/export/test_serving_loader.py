import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export import export_saved_model
from tests.export.serving_loader import ServedModel


@pytest.fixture(scope="module")
def served(detector, textures, tmp_path_factory):
    result = export_saved_model(
        detector,
        tmp_path_factory.mktemp("served") / "bricks",
        images=textures["test"][:4],
    )
    model = ServedModel(result.path)
    yield model
    model.close()


def check(results, expected):
    assert set(results) == {"anomaly_score", "anomaly_map", "is_anomalous"}
    for name, value in results.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(
            value, expected[name], rtol=1e-4, atol=1e-3, err_msg=name
        )


@pytest.mark.parametrize("batch", [1, 3])
def test_float_images(served, detector, textures, batch):
    images = textures["test"][-batch:]
    results = served.run("serving_default", {"image": images})
    check(results, detector.predict(images, verbose=0))


@pytest.mark.parametrize("batch", [1, 3])
def test_encoded_images(served, detector, textures, batch):
    pixels = np.round(textures["test"][-batch:] * 255).astype("uint8")
    encoded = [tf.io.encode_png(image).numpy() for image in pixels]
    results = served.run(
        "serving_bytes", {"image_bytes": np.array(encoded, object)}
    )
    images = pixels.astype("float32") / 255
    check(results, detector.predict(images, verbose=0))


def test_both_kinds_of_images_are_flagged(served, textures):
    flags = served.run("serving_default", {"image": textures["test"]})
    assert 0 < flags["is_anomalous"].sum() < len(textures["test"])


def test_broken_image_is_an_error_and_the_session_lives_on(served, textures):
    with pytest.raises(RuntimeError, match="(?i)image"):
        served.run(
            "serving_bytes", {"image_bytes": np.array([b"nothing"], object)}
        )
    served.run("serving_default", {"image": textures["test"][:1]})


def test_mixed_precision(make_detector, textures, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_detector()
    finally:
        keras.config.set_dtype_policy("float32")
    result = export_saved_model(
        model, tmp_path, images=textures["test"], serving_bytes=False
    )
    served = ServedModel(result.path)
    results = served.run("serving_default", {"image": textures["test"][:2]})
    assert results["anomaly_map"].dtype == np.float32
    served.close()
