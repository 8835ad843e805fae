import sys

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from keras_sspcab.export import (
    check_parity,
    export_model,
    export_run,
    load_runner,
)
from keras_sspcab.scoring import CalibratedScores, Calibration
from tests.export.conftest import FORMATS, SIZE, assert_same
from tests.scripts import run_script


def test_order_does_not_matter(detector, textures, tmp_path, fingerprint):
    images = textures["test"]
    before = fingerprint(detector)
    expected = detector.predict(images, verbose=0)
    for to in ("onnx", "savedmodel", "onnx"):
        path = tmp_path / FORMATS[to]
        result = export_model(detector, path, to, images=images[:4])
        assert check_parity(detector, result.path, images).passes
    assert_same(before, fingerprint(detector))
    after = detector.predict(images, verbose=0)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, after[name])


def test_export_then_train_then_export(make_detector, textures, tmp_path):
    model = make_detector()
    options = {"images": textures["test"], "serving_bytes": False}
    first = export_model(model, tmp_path, **options)
    history = model.fit(textures["train"], verbose=0)
    assert history.history["sspcab_loss"][0] > 0
    second = export_model(model, tmp_path, **options)
    assert (first.path.name, second.path.name) == ("1", "2")
    assert check_parity(model, second.path, textures["test"]).passes
    assert not check_parity(model, first.path, textures["test"]).passes


@pytest.mark.parametrize("decision", ["score", "pixels", "either"])
@pytest.mark.parametrize("to", sorted(FORMATS))
def test_what_is_not_finite_is_flagged(tmp_path, to, decision):
    """No converter may turn the comparison into one that NaN passes."""
    calibration = Calibration(
        threshold=1.0,
        pixel_threshold=2.0,
        peak_threshold=3.0,
        num_images=9,
        decision=decision,
    )
    maps = keras.Input((4, 4), name="maps")
    model = keras.Model(
        maps, CalibratedScores(calibration)(maps[:, 0, 0], maps)
    )
    values = np.zeros((8, 4, 4), "float32")
    values[:5, 0, 0] = [0, 2, np.nan, -np.inf, np.inf]
    values[5:, 1, 1] = [np.nan, 2.5, 5]
    path = export_model(model, tmp_path / FORMATS[to], to, check=False).path
    flags = load_runner(path)(maps=values)["is_anomalous"]
    by_score = np.array([0, 1, 1, 1, 1, 0, 0, 0], bool)
    by_pixels = np.array([0, 0, 1, 1, 1, 1, 0, 1], bool)
    expected = {
        "score": by_score,
        "pixels": by_pixels,
        "either": by_score | by_pixels,
    }
    np.testing.assert_array_equal(flags, expected[decision])


def test_references_that_are_not_finite_are_refused(
    make_detector, textures, tmp_path
):
    model = make_detector()
    weight = model.weights[0]
    values = weight.numpy().copy()
    values.flat[0] = np.nan
    weight.assign(values)
    with pytest.raises(ValueError, match=weight.path):
        export_model(model, tmp_path, images=textures["test"])
    assert not list(tmp_path.iterdir())


def test_unknown_format(detector, tmp_path):
    with pytest.raises(ValueError, match="`to` argument must be one of"):
        export_model(detector, tmp_path, to="caffe")
    # Before the run is looked for.
    with pytest.raises(ValueError, match="`format` argument must be one of"):
        export_run(tmp_path / "run", "caffe")


@pytest.mark.parametrize(
    ("to", "package", "extra"),
    [
        ("onnx", "tf2onnx", "export"),
        ("onnx", "onnxruntime", "export"),
        ("tflite", "ai_edge_litert", "export"),
        ("openvino", "openvino", "openvino"),
        ("openvino", "nncf", "openvino"),
    ],
)
def test_missing_packages(
    detector, textures, tmp_path, monkeypatch, to, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    options = {"precision": "int8"} if package == "nncf" else {}
    path = tmp_path / FORMATS[to]
    with pytest.raises(ImportError, match=rf"pip install .*\[{extra}\]"):
        export_model(detector, path, to, images=textures["test"], **options)


def test_import_needs_no_optional_package():
    run_script("""
        import sys

        exporters = ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert")
        for name in (*exporters, "openvino", "nncf"):
            sys.modules[name] = None  # makes its import fail
        import keras_sspcab.export
        for name in keras_sspcab.export.__all__:
            getattr(keras_sspcab.export, name)
    """)


def test_keras_own_export_of_a_plain_model(plain_model, textures, tmp_path):
    images = textures["test"][:3]
    expected = plain_model.predict(images, verbose=0)

    plain_model.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(loaded.serve(images), expected, atol=1e-5)

    path = tmp_path / "model.onnx"
    plain_model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    (results,) = session.run(None, {"photo": images})
    np.testing.assert_allclose(results, expected, atol=1e-5)
    assert results.shape == (3, SIZE, SIZE, 1)
