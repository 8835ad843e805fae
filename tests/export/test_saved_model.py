import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from keras_sspcab.data import decode_and_resize
from keras_sspcab.export import export_saved_model, load_runner
from keras_sspcab.export import saved_model as saved_model_module
from tests.export.conftest import SIZE
from tests.export.serving_loader import ServedModel

OUTPUTS = {"anomaly_score", "anomaly_map", "is_anomalous"}


@pytest.fixture(scope="module")
def served(saved_model):
    """The SavedModel as TensorFlow Serving loads it."""
    served = ServedModel(saved_model.path)
    yield served
    served.close()


@pytest.fixture
def serve(served):
    """A function that runs a signature."""
    return served.run


def check(results, expected):
    assert set(results) == OUTPUTS
    for name, value in results.items():
        assert value.dtype == expected[name].dtype
        assert value.shape == expected[name].shape
        np.testing.assert_allclose(
            value, expected[name], rtol=1e-4, atol=1e-3, err_msg=name
        )


def files(images):
    pixels = np.round(images * 255).astype("uint8")
    return [tf.io.encode_png(image).numpy() for image in pixels]


@pytest.mark.parametrize("batch", [1, 18])
def test_float_images(serve, detector, textures, batch):
    images = textures["test"][-batch:]
    results = serve("serving_default", {"image": images})
    check(results, detector.predict(images, verbose=0))
    if batch > 1:
        assert 0 < results["is_anomalous"].sum() < batch


def test_signatures_leave_the_batch_open_and_are_float32(served):
    float32 = types_pb2.DT_FLOAT
    image = served.signatures["serving_default"].inputs["image"]
    sizes = [dim.size for dim in image.tensor_shape.dim]
    assert (image.dtype, sizes) == (float32, [-1, SIZE, SIZE, 1])
    file = served.signatures["serving_bytes"].inputs["image_bytes"]
    assert [dim.size for dim in file.tensor_shape.dim] == [-1]
    for signature in ("serving_default", "serving_bytes"):
        outputs = served.signatures[signature].outputs
        assert {
            name: (info.dtype, info.tensor_shape.dim[0].size)
            for name, info in outputs.items()
        } == {
            "anomaly_score": (float32, -1),
            "anomaly_map": (float32, -1),
            "is_anomalous": (types_pb2.DT_BOOL, -1),
        }


def test_encoded_images(serve, detector, textures):
    images = textures["test"][-3:]
    encoded = np.array(files(images), object)
    results = serve("serving_bytes", {"image_bytes": encoded})
    decoded = (np.round(images * 255) / 255).astype("float32")
    check(results, detector.predict(decoded, verbose=0))


def test_broken_images_are_refused_and_the_session_lives_on(serve, textures):
    broken = np.array([b"no image"], object)
    with pytest.raises(RuntimeError, match="(?i)image"):
        serve("serving_bytes", {"image_bytes": broken})
    serve("serving_default", {"image": textures["test"][:1]})


def test_encoded_images_of_other_sizes_and_formats(saved_model, detector):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 70, 3)).astype("uint8")
    encoded = [
        tf.io.encode_jpeg(pixels).numpy(),
        tf.io.encode_png(pixels).numpy(),
        tf.io.encode_png(pixels[..., :1]).numpy(),
    ]
    loaded = tf.saved_model.load(str(saved_model.path))
    results = loaded.signatures["serving_bytes"](
        image_bytes=tf.constant(encoded)
    )
    # The very function that training data go through.
    images = np.stack([decode_and_resize(e, (SIZE, SIZE), 1) for e in encoded])
    expected = detector.predict(images, verbose=0)
    np.testing.assert_allclose(
        results["anomaly_score"], expected["anomaly_score"], rtol=1e-4
    )


def test_weights_are_stored_once_and_as_constants(saved_model, detector):
    weights = sum(w.nbytes for w in detector.get_weights())
    content = (saved_model.path / "saved_model.pb").read_bytes()
    kernel = detector.get_layer("encoder_conv2").get_weights()[0]
    assert content.count(kernel.tobytes()) == 1
    variables = (saved_model.path / "variables").glob("*.data-*")
    assert sum(path.stat().st_size for path in variables) < weights / 4


def test_report(saved_model, detector):
    # Nothing else in the base folder: TensorFlow Serving watches it.
    assert os.listdir(saved_model.path.parent) == ["1"]
    report = json.loads((saved_model.path / "parity.json").read_text())
    assert report["format"] == "savedmodel"
    assert report["inputs"]["image"] == {
        "shape": [None, SIZE, SIZE, 1],
        "dtype": "float32",
        "value_range": [0.0, 1.0],
    }
    assert report["image_size"] == [SIZE, SIZE]
    assert report["calibration"]["threshold"] == detector.calibration.threshold
    assert report["packages"]["keras"] == keras.__version__
    parity = report["parity"]
    assert parity == saved_model.parity.to_dict()
    assert parity["passes"]
    assert parity["num_images"] == 18
    assert set(parity["outputs"]) == {
        "anomaly_score",
        "anomaly_map",
        "serving_bytes/anomaly_score",
        "serving_bytes/anomaly_map",
    }


def test_versions_count_up_and_are_never_overwritten(
    detector, textures, tmp_path
):
    options = {"images": textures["test"][:2], "serving_bytes": False}
    first = export_saved_model(detector, tmp_path, version=9, **options)
    before = (first.path / "saved_model.pb").read_bytes()
    (tmp_path / "notes").mkdir()
    second = export_saved_model(detector, tmp_path, **options)
    assert second.path == tmp_path / "10"
    with pytest.raises(ValueError, match="Version 9 exists already"):
        export_saved_model(detector, tmp_path, version=9, **options)
    assert (first.path / "saved_model.pb").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["10", "9", "notes"]


def test_version_that_appears_meanwhile_is_not_overwritten(
    detector, textures, tmp_path, monkeypatch
):
    write = saved_model_module.write_saved_model

    def write_slowly(*arguments):
        write(*arguments)
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_text("another's")

    monkeypatch.setattr(saved_model_module, "write_saved_model", write_slowly)
    options = {"images": textures["test"][:2], "serving_bytes": False}
    with pytest.raises(ValueError, match="Version 1 exists already"):
        export_saved_model(detector, tmp_path, version=1, **options)
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "another's"


@pytest.mark.parametrize("version", [0, "1"])
def test_versions_are_positive_integers(detector, tmp_path, version):
    with pytest.raises(ValueError, match="`version` argument must be an int"):
        export_saved_model(detector, tmp_path, version, check=False)


def test_images_are_required_unless_the_check_is_off(detector, tmp_path):
    with pytest.raises(ValueError, match="or `check=False` to go without"):
        export_saved_model(detector, tmp_path)
    result = export_saved_model(detector, tmp_path, check=False)
    assert result.parity is None
    report = json.loads((result.path / "parity.json").read_text())
    assert report["parity"] is None


def test_models_of_any_size(sizeless_detector, textures, tmp_path):
    with pytest.raises(ValueError, match=r"pass `image_size=\(height, width"):
        export_saved_model(sizeless_detector, tmp_path, images=textures["test"])
    result = export_saved_model(
        sizeless_detector,
        tmp_path,
        images=textures["test"],
        image_size=(24, 40),
    )
    assert "serving_bytes/anomaly_map" in result.parity.outputs
    loaded = tf.saved_model.load(str(result.path))
    results = loaded.signatures["serving_bytes"](
        image_bytes=tf.constant(files(textures["test"][:2]))
    )
    assert results["anomaly_map"].shape == (2, 24, 40)
    # Float images still may have any size.
    wide = np.concatenate([textures["test"][:2]] * 2, axis=2)
    results = loaded.signatures["serving_default"](image=tf.constant(wide))
    np.testing.assert_allclose(
        results["anomaly_score"],
        sizeless_detector.predict(wide, verbose=0)["anomaly_score"],
        rtol=1e-4,
        atol=1e-3,
    )


def test_plain_models(plain_model, textures, tmp_path):
    result = export_saved_model(
        plain_model, tmp_path, images=textures["test"], serving_bytes=True
    )
    loaded = tf.saved_model.load(str(result.path))
    images = textures["test"][:3]
    for results in (
        loaded.signatures["serving_default"](photo=tf.constant(images)),
        loaded.signatures["serving_bytes"](
            image_bytes=tf.constant(files(images))
        ),
    ):
        assert list(results) == ["drawing"]
        np.testing.assert_allclose(
            results["drawing"],
            plain_model.predict(images, verbose=0),
            atol=1e-5,
        )


def test_encoded_images_need_gray_or_color(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="for models of gray or color"):
        export_saved_model(model, tmp_path, check=False, serving_bytes=True)


def test_mixed_precision(make_mixed_detector, textures, tmp_path):
    model = make_mixed_detector("mixed_float16")
    result = export_saved_model(
        model, tmp_path, images=textures["test"], serving_bytes=False
    )
    assert result.parity.tolerance == 0.01
    outputs = load_runner(result.path)(image=textures["test"][:2])
    assert outputs["anomaly_map"].dtype == np.float32
