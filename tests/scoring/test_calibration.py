import numpy as np
import pytest
from keras import ops

from keras_sspcab.scoring import CalibratedScores, Calibration


def test_measures_mean_spread_and_quantile():
    rng = np.random.default_rng(0)
    scores = rng.normal(5, 2, size=1000)
    pixels = rng.normal(1, 3, size=(1000, 8, 8))
    calibration = Calibration.measure(scores, pixels, 0.95, 0.99)
    assert calibration.score_mean == pytest.approx(scores.mean())
    assert calibration.score_std == pytest.approx(scores.std())
    assert calibration.map_mean == pytest.approx(pixels.mean())
    z = (scores - scores.mean()) / scores.std()
    assert (z >= calibration.threshold).mean() == pytest.approx(0.05, abs=2e-3)
    z = (pixels - pixels.mean()) / pixels.std()
    share = (z >= calibration.pixel_threshold).mean()
    assert share == pytest.approx(0.01, abs=1e-4)
    assert calibration.num_images == 1000
    assert calibration.is_calibrated


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0], list(range(100))])
def test_the_whole_range_flags_no_normal_image(values):
    values = np.array(values, "float32")
    calibration = Calibration.measure(values, values, 1.0, 1.0)
    outputs = CalibratedScores(calibration)(
        ops.convert_to_tensor(values), ops.zeros((len(values), 2, 2))
    )
    assert not ops.convert_to_numpy(outputs["is_anomalous"]).any()


def test_outputs():
    calibration = Calibration(
        score_mean=1, score_std=2, map_mean=3, map_std=4, threshold=0.5
    )
    outputs = CalibratedScores(calibration)(
        ops.convert_to_tensor(np.array([0, 1.9, 2, 9], "float32")),
        ops.ones((4, 2, 3)),
    )
    outputs = {k: ops.convert_to_numpy(v) for k, v in outputs.items()}
    np.testing.assert_allclose(outputs["anomaly_score"], [-0.5, 0.45, 0.5, 4])
    np.testing.assert_allclose(outputs["anomaly_map"], np.full((4, 2, 3), -0.5))
    assert outputs["is_anomalous"].tolist() == [False, False, True, True]
    assert outputs["is_anomalous"].dtype == bool
    uncalibrated = CalibratedScores()(ops.ones(1) * 1e30, ops.ones((1, 2, 2)))
    assert not ops.convert_to_numpy(uncalibrated["is_anomalous"]).any()


@pytest.mark.parametrize(
    ("scores", "quantile", "message"),
    [
        ([], 0.9, "at least one score"),
        ([1.0, np.nan], 0.9, "1 scores that are NaN or infinite"),
        ([1.0], 0.0, "quantile must lie in"),
        ([1.0], 1.5, "quantile must lie in"),
    ],
)
def test_bad_data(scores, quantile, message):
    with pytest.raises(ValueError, match=message):
        Calibration.measure(scores, [1.0], quantile)


@pytest.mark.parametrize(
    "fields", [{"score_std": 0}, {"map_std": -1}, {"threshold": np.inf}]
)
def test_bad_fields(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Calibration(**fields)
