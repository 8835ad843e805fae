"""A threshold or a sensitivity in place of what was calibrated."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from keras_sspcab.scoring import DECISIONS, Calibration, decide_with

NAN = float("nan")


@pytest.fixture
def calibration():
    return Calibration(
        threshold=4.0,
        pixel_threshold=6.0,
        peak_threshold=10.0,
        quantile=0.95,
        num_images=100,
        regions=(Calibration(threshold=2.0, name="thread"),),
    )


@pytest.mark.parametrize(
    ("sensitivity", "score", "peak", "region"),
    [
        (0.0, 8.0, 20.0, 4.0),
        (0.25, 6.0, 15.0, 3.0),
        (0.5, 4.0, 10.0, 2.0),
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_sensitivity_moves_all_limits(
    calibration, sensitivity, score, peak, region
):
    found = calibration.adjusted(sensitivity=sensitivity)
    assert found.threshold == score
    assert found.peak_threshold == peak
    assert found.regions[0].threshold == region
    # Colors of maps stay; what share is flagged is no longer known.
    assert found.pixel_threshold == 6.0
    assert found.false_alarm_interval is None


def test_the_middle_is_the_calibrated_limit_to_the_last_bit():
    threshold = 1.2345678901234567
    found = Calibration(threshold=threshold).adjusted(sensitivity=0.5)
    assert found.threshold == threshold


def test_more_sensitive_is_lower_also_below_zero():
    calibration = Calibration(threshold=-2.0)
    limits = [
        calibration.adjusted(sensitivity=value).threshold
        for value in (0.0, 0.5, 1.0)
    ]
    assert limits == [0.0, -2.0, -4.0]


def test_a_threshold_decides_alone_but_for_regions(calibration):
    found = calibration.adjusted(threshold=7.0)
    assert (found.threshold, found.decision) == (7.0, "score")
    assert found.regions == calibration.regions
    assert calibration.adjusted() is calibration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.0, "sensitivity": 0.5}, "not both"),
        ({"threshold": NAN}, "`threshold` argument must be a number"),
        ({"threshold": float("inf")}, "`threshold` argument must be a number"),
        ({"sensitivity": 1.01}, "`sensitivity` argument .* at most 1"),
        ({"sensitivity": -0.1}, "`sensitivity` argument must be a number"),
    ],
)
def test_values_out_of_range(calibration, options, message):
    with pytest.raises(ValueError, match=message):
        calibration.adjusted(**options)


def test_without_a_scale():
    with pytest.raises(ValueError, match="has not been calibrated"):
        Calibration().adjusted(threshold=3.0)


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize(
    ("threshold", "sensitivity"),
    [(NAN, NAN), (5.0, NAN), (NAN, 0.1), (NAN, 0.8), (5.0, 0.8)],
)
def test_graphs_decide_the_same(calibration, decision, threshold, sensitivity):
    calibration = dataclasses.replace(calibration, decision=decision)
    rng = np.random.default_rng(0)
    scores = np.append(rng.uniform(-4, 9, 40), [NAN, np.inf]).astype("float32")
    maps = rng.uniform(-1, 1, (42, 2, 3)).astype("float32")
    maps[:, 1, 1] = rng.uniform(-8, 22, 42)
    regions = rng.uniform(-3, 2.4, (42, 1)).astype("float32")
    flags = decide_with(
        calibration,
        {
            "anomaly_score": ops.convert_to_tensor(scores),
            "anomaly_map": ops.convert_to_tensor(maps),
            "region_scores": ops.convert_to_tensor(regions),
        },
        ops.full((42,), threshold, "float32"),
        ops.full((42,), sensitivity, "float32"),
    )
    if threshold == threshold:
        wanted = calibration.adjusted(threshold)
    elif sensitivity == sensitivity:
        wanted = calibration.adjusted(sensitivity=sensitivity)
    else:
        wanted = calibration
    by_region = wanted.regions[0].decide(regions[:, 0], None)
    expected = wanted.decide(scores, maps) | by_region
    assert 0 < expected.sum() < 42
    np.testing.assert_array_equal(
        ops.convert_to_numpy(flags["is_anomalous"]), expected
    )
    np.testing.assert_array_equal(
        ops.convert_to_numpy(flags["region_is_anomalous"])[:, 0], by_region
    )
