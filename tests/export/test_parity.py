import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export import check_parity, export_saved_model, load_runner
from keras_sspcab.export.parity import (
    SHARE_UNIT,
    VALUE_UNIT,
    ZSCORE_UNIT,
    Comparison,
    ExportMismatchError,
    ParityResult,
)
from keras_sspcab.scoring import Calibration


@pytest.fixture(scope="module")
def artifact(onnx_file):
    return onnx_file.path


def judge(expected, received, tolerance=1e-2, **calibration):
    """Compares given outputs, as those of a calibrated detector."""
    known = {
        "score_mean": 3.0,
        "score_std": 1.0,
        "map_mean": 1.0,
        "map_std": 1.0,
        "threshold": 2.0,
        "num_images": 10,
        **calibration,
    }
    result = ParityResult("m.onnx", "float32", tolerance, len(expected))
    Comparison(Calibration(**known), result).add(
        {k: np.asarray(v) for k, v in expected.items()},
        {k: np.asarray(v) for k, v in received.items()},
    )
    return result


def test_same_model(detector, artifact, textures):
    result = check_parity(detector, artifact, textures["test"])
    assert result.passes
    assert result.num_images == 18
    assert result.artifact == "bricks.onnx"
    assert result.flags_differing == 0
    assert set(result.outputs) == {"anomaly_score", "anomaly_map"}
    json.dumps(result.to_dict())


def test_other_model(make_detector, artifact, textures):
    result = check_parity(make_detector(), artifact, textures["test"])
    assert not result.passes
    assert not result.to_dict()["passes"]
    assert "anomaly_score" in result.summary()


def test_changed_threshold(detector, artifact, textures):
    calibration = detector.calibration
    detector.calibration = dataclasses.replace(
        calibration, threshold=calibration.threshold + 5
    )
    try:
        result = check_parity(detector, artifact, textures["test"])
    finally:
        detector.calibration = calibration
    assert result.outputs["anomaly_score"].passes
    assert result.flags_beyond_tolerance > 0
    assert not result.passes


@pytest.mark.parametrize(
    ("name", "expected", "received", "relative", "unit", "options"),
    [
        # Two per cent of a raw value of three standard deviations.
        ("anomaly_score", [0.0, 1.0], [0.0, 1.06], 0.02, ZSCORE_UNIT, {}),
        # Large scores are compared relatively.
        ("anomaly_score", [1000.0], [1001.0], 1e-3, ZSCORE_UNIT, {}),
        # Of one image there is no standard deviation.
        (
            *("anomaly_score", [0.01, 0.02], [0.01, 0.03]),
            *(0.5, VALUE_UNIT, {"num_images": 1}),
        ),
        ("anomaly_map", [[[0.0]]], [[[0.03]]], 0.03, ZSCORE_UNIT, {}),
        # Other outputs are compared with the largest value.
        ("raw_score", [0.1, 2.0], [0.2, 2.0], 0.05, VALUE_UNIT, {}),
    ],
)
def test_differences(name, expected, received, relative, unit, options):
    result = judge({name: expected}, {name: received}, **options)
    output = result.outputs[name]
    assert output.relative_difference == pytest.approx(relative)
    assert output.max_difference == pytest.approx(
        np.max(np.subtract(received, expected))
    )
    assert output.unit == unit
    # Single pixels may be off by four times as much.
    assert output.tolerance == (0.04 if name == "anomaly_map" else 0.01)
    assert output.passes == (relative <= output.tolerance)


@pytest.mark.parametrize(
    ("score", "flag", "differing", "beyond"),
    [
        (2.02, False, 1, 0),  # within the band of 3 per cent
        (2.04, False, 1, 1),
        (1.96, True, 1, 1),
        (2.04, True, 0, 0),
    ],
)
def test_flags_count_outside_of_the_band(score, flag, differing, beyond):
    result = judge(
        {"anomaly_score": [score], "is_anomalous": [score >= 2]},
        {"anomaly_score": [score], "is_anomalous": [flag]},
    )
    assert result.flags_differing == differing
    assert result.flags_beyond_tolerance == beyond


@pytest.mark.parametrize(
    ("count", "num_differing", "passes"),
    [(3, 1, True), (3, 2, False), (40, 10, True), (40, 11, False)],
)
def test_few_flags_may_differ(count, num_differing, passes):
    """In int8 the tolerance may be wider than all scores are."""
    scores = np.full(count, 1.9)
    received = np.where(np.arange(count) < num_differing, 2.1, 1.9)
    result = judge(
        {"anomaly_score": scores, "is_anomalous": scores >= 2},
        {"anomaly_score": received, "is_anomalous": received >= 2},
        tolerance=0.25,
    )
    assert result.flags_beyond_tolerance == 0
    assert (result.flags_differing, result.flags_compared) == (
        num_differing,
        count,
    )
    assert result.passes == passes
    assert f"{num_differing} of {count} flags differ" in result.summary()


def test_flags_of_products_are_compared_without_their_numbers():
    parts = tuple(
        Calibration(0.0, 1.0, 0.0, 1.0, 2.0, num_images=9, name=name)
        for name in ("nut", "bolt")
    )
    calibration = Calibration.of_products({p.name: p for p in parts})
    reference = {
        "anomaly_score": np.array([1.0, 3.0]),
        "is_anomalous": np.array([False, True]),
    }
    wrong = {**reference, "is_anomalous": np.array([True, True])}
    products = {"product_index": np.array([0, 1])}
    for more in ({}, products):
        result = ParityResult("m.onnx", "float32", 1e-4, 2)
        Comparison(calibration, result).add(reference | more, wrong | more)
        assert result.flags_beyond_tolerance == 1


def test_the_error_can_be_sent_to_another_process():
    result = ParityResult("m.onnx", "int8", 0.25, 8, flags_differing=5)
    error = pickle.loads(pickle.dumps(ExportMismatchError(result)))
    assert error.result == result
    assert "m.onnx differs" in str(error)


@pytest.mark.parametrize(
    ("peak", "beyond"),
    [(4.05, 0), (4.5, 1)],  # four times the band of scores, for pixels
)
def test_flags_by_pixels_count_outside_of_their_band(peak, beyond):
    maps = np.full((1, 2, 2), 0.0)
    maps[0, 1, 1] = peak
    outputs = {"anomaly_score": [0.0], "anomaly_map": maps}
    result = judge(
        {**outputs, "is_anomalous": [True]},
        {**outputs, "is_anomalous": [False]},
        pixel_threshold=3.0,
        peak_threshold=4.0,
        decision="pixels",
    )
    assert result.flags_differing == 1
    assert result.flags_beyond_tolerance == beyond


def test_flags_alone_must_agree():
    result = judge({"is_anomalous": [True]}, {"is_anomalous": [False]})
    assert result.flags_beyond_tolerance == 1


def test_not_a_number():
    nan, inf = np.nan, np.inf
    result = judge({"raw_score": [1.0, 1.0]}, {"raw_score": [1.0, nan]})
    assert result.outputs["raw_score"].relative_difference == inf
    for value in (nan, inf, -inf):
        with pytest.raises(ValueError, match="anomaly_score with values that"):
            judge({"anomaly_score": [value]}, {"anomaly_score": [value]})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"raw_score of shape \(1,\)"):
        judge({"raw_score": [1.0, 1.0]}, {"raw_score": [1.0]})


def test_integer_outputs(tmp_path):
    class Largest(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.argmax(inputs, axis=-1)

    model = keras.Sequential([keras.Input((5,)), Largest(name="largest")])
    images = np.random.default_rng(0).random((6, 5)).astype("float32")
    path = export_saved_model(model, tmp_path, images=images).path
    output = check_parity(model, path, images).outputs["largest"]
    assert output.unit == SHARE_UNIT
    assert output.relative_difference == 0


def test_datasets_and_tuples(detector, artifact, textures):
    dataset = tf.data.Dataset.from_tensor_slices(
        (textures["test"], np.zeros(18))
    ).batch(4)
    assert check_parity(detector, artifact, dataset).num_images == 18
    endless = dataset.repeat()
    assert check_parity(detector, artifact, endless).num_images == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x * 255).astype("uint8"), "Divide 8-bit images by 255"),
        (lambda x: x - 1, r"must lie in \[0, 1\]"),
        (lambda x: x * np.nan, "not finite"),
        (lambda x: x[..., 0], r"Received in `images`: shape \(18, 32, 32\)"),
        (lambda x: x[:, :16], r"takes image of shape \(None, 32, 32, 1\)"),
        (lambda x: x[:0], "`images` holds no image"),
        (lambda x: {"photo": x}, r"Received: \['photo'\]"),
    ],
)
def test_images_that_do_not_fit(detector, artifact, textures, change, message):
    with pytest.raises(ValueError, match=message):
        check_parity(detector, artifact, change(textures["test"]))


def test_images_of_several_sizes(sizeless_detector, textures, tmp_path):
    batches = [textures["test"][:2], textures["test"][:2, :16]]
    with pytest.raises(ValueError, match="`images` must all have one size"):
        export_saved_model(
            sizeless_detector, tmp_path, images=batches, image_size=(32, 32)
        )


def test_precision(detector, artifact, textures):
    with pytest.raises(ValueError, match="`precision` argument must be one of"):
        check_parity(detector, artifact, textures["test"], precision="int4")


@pytest.mark.parametrize("name", ["model.onnx", "folder"])
def test_no_artifact(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="There is no artifact at"):
        load_runner(tmp_path / name)
