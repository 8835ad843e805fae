import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_sspcab.regions import Region, Regions
from keras_sspcab.scoring import (
    CalibratedScores,
    Calibration,
    RegionScores,
    describe_fault,
)

NAN, INF = float("nan"), float("inf")


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


@pytest.mark.parametrize(("mean", "std"), [(1e3, 1), (-30, 0.1), (7e4, 0.3)])
def test_the_whole_range_flags_none_with_a_mean_of_many_deviations(mean, std):
    rng = np.random.default_rng(0)
    for count in (5, 30, 300):
        maps = rng.normal(mean, std, (count, 3, 4)).astype("float32")
        values = maps.max(axis=(1, 2))
        regions = Regions(np.ones((3, 4), int))
        calibration = Calibration.measure(
            values,
            maps,
            1.0,
            1.0,
            "either",
            values,
            regions=regions.parts,
            region_scores=values[:, None],
        )
        outputs = CalibratedScores(calibration)(values, maps)
        assert not ops.convert_to_numpy(outputs["is_anomalous"]).any()
        z = ops.convert_to_numpy(outputs["anomaly_map"])
        assert z.max() < calibration.pixel_threshold < z.max() + 1e-3
        outputs = RegionScores(regions, calibration.regions)(maps)
        assert not ops.convert_to_numpy(outputs["region_is_anomalous"]).any()


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
        ([1.0], 0.0, "`quantile` argument must be a number above 0 and at"),
        ([1.0], 1.5, "`quantile` argument must be a number above 0 and at"),
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


# === What flags an image ===

# Score, highest pixel, and whether either is anomalous by THRESHOLDS.
CASES = [
    (0.0, 0.0, False, False),
    (2.0, 0.0, True, False),
    (0.0, 5.0, False, True),
    (2.0, 5.0, True, True),
    # Above the threshold of pixels alone, as in many a normal image.
    (0.0, 2.5, False, False),
    (NAN, 0.0, True, False),
    (INF, 0.0, True, False),
    (-INF, 0.0, True, False),
    (0.0, NAN, False, True),
    (0.0, -INF, False, True),
]
THRESHOLDS = {"threshold": 1.0, "pixel_threshold": 2.0, "peak_threshold": 3.0}


def scores_and_maps(cases=CASES):
    maps = np.zeros((len(cases), 4, 5), "float32")
    maps[:, 1, 2] = [case[1] for case in cases]
    return np.array([case[0] for case in cases], "float32"), maps


@pytest.mark.parametrize("decision", ["score", "pixels", "either"])
def test_decision(decision):
    calibration = Calibration(**THRESHOLDS, decision=decision)
    scores, maps = scores_and_maps()
    expected = [
        {"score": score, "pixels": pixels, "either": score or pixels}[decision]
        for *_, score, pixels in CASES
    ]
    assert calibration.decide(scores, maps).tolist() == expected
    layer = CalibratedScores.from_config(
        CalibratedScores(calibration).get_config()
    )
    flags = layer(ops.convert_to_tensor(scores), ops.convert_to_tensor(maps))
    assert ops.convert_to_numpy(flags["is_anomalous"]).tolist() == expected


@pytest.mark.parametrize("decision", ["score", "pixels", "either"])
def test_uncalibrated_flags_nothing(decision):
    flags = Calibration(decision=decision).decide(*scores_and_maps())
    assert not flags.any()


def test_without_a_threshold_of_peaks_that_of_pixels_counts():
    calibration = Calibration(threshold=1.0, pixel_threshold=2.0)
    _, by_pixels = calibration.verdicts(*scores_and_maps(CASES[:5]))
    assert by_pixels.tolist() == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (CASES[1], "image score above its threshold, pixels below"),
        (CASES[2], "pixels above their threshold, image score below"),
        (CASES[0], None),
        (CASES[3], None),
    ],
)
def test_conflicts_are_put_into_words(case, text):
    (score,), (anomaly_map,) = scores_and_maps([case])
    conflict = Calibration(**THRESHOLDS).describe_conflict(score, anomaly_map)
    assert conflict == text


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"anomaly_score": 1.0, "anomaly_map": np.ones((2, 2))}, None),
        ({"anomaly_score": -INF}, "the score -inf"),
        (
            {"anomaly_score": 1.0, "anomaly_map": np.array([[NAN, 1.0]])},
            "a map with 1 values that are not finite",
        ),
    ],
)
def test_faults_are_put_into_words(outputs, text):
    fault = describe_fault(outputs)
    assert fault is None if text is None else text in fault


def test_bad_decision():
    with pytest.raises(ValueError, match="decision='map'"):
        Calibration(decision="map")
    with pytest.raises(ValueError, match="decision='map'"):
        Calibration.measure([1.0], [1.0], decision="map")


def test_old_files_decide_by_score():
    kept = {"score_mean": 1.0, "threshold": 2.0, "num_images": 9}
    assert Calibration.from_dict(kept).decision == "score"
    calibration = Calibration(**THRESHOLDS, quantile=0.9, num_images=50)
    assert Calibration.from_dict(calibration.summary()) == calibration


# === How sure it is ===


def draws(count, num_draws=2000, skewed=False):
    """Scores of so many normal images, drawn again and again."""
    rng = np.random.default_rng(count)
    values = rng.normal(size=(num_draws, count))
    return np.exp(values) if skewed else values


def rates_and_intervals(count, quantile, skewed=False):
    """True false alarm rates at measured thresholds, and what is stated."""
    rates, intervals = [], []
    for scores in draws(count, skewed=skewed):
        found = Calibration.measure(scores, scores, quantile)
        limit = found.threshold * found.score_std + found.score_mean
        limit = np.log(max(limit, 1e-300)) if skewed else limit
        rates.append(stats.norm.sf(limit))
        intervals.append(found.false_alarm_interval)
    return np.array(rates), np.array(intervals)


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("quantile", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [4, 10, 30])
def test_intervals_cover_the_true_rate(count, quantile, skewed):
    rates, intervals = rates_and_intervals(count, quantile, skewed)
    is_covered = (intervals[:, 0] <= rates) & (rates <= intervals[:, 1])
    # Exact at 95 % by order statistics, and beyond them on the safe side.
    assert is_covered.mean() > 0.94
    if (count + 1) * (1 - quantile) >= 1:
        assert is_covered.mean() < 0.965


@pytest.mark.parametrize("count", [19, 20, 21, 25, 41, 61])
def test_no_more_false_alarms_than_were_meant(count):
    rates, _ = rates_and_intervals(count, 0.95)
    assert 0.02 < rates.mean() < 0.052


def test_regions_of_their_own_count_as_they_are():
    scores = np.random.default_rng(0).normal(size=(1000, 2))
    of_region = {"region_scores": scores[:, 1:]}

    def measure(**region):
        return Calibration.measure(
            *(scores[:, 0], scores, 0.95),
            regions=[Region("thread", **region)],
            **of_region,
        )

    plain, loose = measure(), measure(quantile=0.8)
    assert plain.intended_rate == pytest.approx(0.05)
    assert loose.intended_rate == pytest.approx(0.225)
    low, high = loose.false_alarm_interval
    # The region alone; the region and the image together.
    assert 0.15 < low < 0.2
    assert 0.225 < high < 0.28
    assert "where 22.5 % are meant" in loose.describe_false_alarms()
    by_hand = measure(threshold=0.0)
    assert by_hand.false_alarm_interval is None
    assert by_hand.describe_false_alarms() == by_hand.certainty == ""
    assert Calibration.from_dict(by_hand.to_dict()) == by_hand


@pytest.mark.parametrize("count", [4, 10, 30])
def test_few_images_raise_the_threshold_beyond_their_scores(count):
    rates, _ = rates_and_intervals(count, 0.99)
    # The highest of the scores would give one in five, for four images.
    assert rates.mean() < 0.0115
    for scores in draws(count, 50):
        found = Calibration.measure(scores, scores, 0.99)
        limit = found.threshold * found.score_std + found.score_mean
        assert limit >= scores.max()


def test_many_images_are_measured_by_order_statistics():
    scores = np.arange(200.0)
    found = Calibration.measure(scores, scores, 0.99)
    limit = found.threshold * found.score_std + found.score_mean
    assert limit == pytest.approx(198, rel=1e-5)
    low, high = found.false_alarm_interval
    # Beta(2, 199): above the second highest of 200.
    assert low == pytest.approx(stats.beta.ppf(0.025, 2, 199))
    assert high == pytest.approx(stats.beta.ppf(0.975, 2, 199))


def test_peaks_get_a_threshold_of_their_own():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(400, 10, 10))
    peaks = maps.max(axis=(1, 2))
    found = Calibration.measure(maps.mean((1, 2)), maps, 0.9, peaks=peaks)
    found_maps = (maps - found.map_mean) / found.map_std
    _, by_pixels = found.verdicts(np.zeros(400), found_maps)
    assert by_pixels.mean() == pytest.approx(0.1, abs=0.006)


def test_either_keeps_the_rate_of_both_together():
    rng = np.random.default_rng(1)
    scores, peaks = rng.normal(size=(2, 5000))
    found = Calibration.measure(
        scores, peaks, 0.9, decision="either", peaks=peaks
    )
    z = (scores - found.score_mean) / found.score_std
    maps = ((peaks - found.map_mean) / found.map_std)[:, None, None]
    rate = found.decide(z, maps).mean()
    assert 0.09 < rate <= 0.1
    low, high = found.false_alarm_interval
    assert low < 0.06
    assert 0.1 < high < 0.12


def test_interval_is_unknown_without_images():
    assert Calibration(threshold=1.0).false_alarm_interval is None
    assert Calibration(threshold=1.0).describe_false_alarms() == ""
    one = Calibration.measure([1.0], [1.0], 0.99)
    assert one.false_alarm_interval == (0.0, pytest.approx(0.95))
    assert "0 to 95 % of normal images" in one.describe_false_alarms()


@pytest.mark.parametrize(
    ("count", "quantile", "word"),
    [
        (2, 0.95, "a guess"),
        (13, 0.95, "a guess"),
        (14, 0.95, "rough"),
        (70, 0.95, "sure"),
        (70, 0.99, "a guess"),
        (400, 0.99, "sure"),
    ],
)
def test_certainty_follows_from_the_number_of_images(count, quantile, word):
    scores = np.random.default_rng(0).normal(size=count)
    found = Calibration.measure(scores, scores, quantile)
    assert found.certainty == word
    text = found.describe_false_alarms()
    assert text.startswith(f"The threshold is {word}. False alarms to expect:")
    assert f"% of normal images, where {100 - 100 * quantile:.0f} %" in text


def test_copies_of_a_single_image_say_next_to_nothing():
    scores = np.random.default_rng(0).normal(size=108)
    found = Calibration.measure(scores[:8], scores, stand_ins=8)
    assert found.num_images == 1
    assert found.false_alarm_interval == (0.0, 1.0)
    assert "8 changed copies of a single image" in found.describe_false_alarms()
    assert Calibration.from_dict(found.to_dict()) == found
    # Beside false alarms of the field.
    assert Calibration.measure(scores, scores, stand_ins=8).num_images == 101
