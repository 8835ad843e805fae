import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from scipy import stats

from keras_sspcab.runs import Run
from keras_sspcab.runs.calibration import tell_calibration
from keras_sspcab.runs.outputs import ImageScore
from keras_sspcab.runs.thresholds import Share, threshold_choices
from keras_sspcab.scoring import Calibration
from keras_sspcab.scoring.false_alarms import just_above
from tests.runs.listening import Listener


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20)])
def test_intervals_are_exact(count, total):
    """Clopper and Pearson: each end leaves 2.5 % of the binomial beyond."""
    low, high = Share(count, total).interval
    beyond = (
        stats.binom.sf(count - 1, total, low),
        stats.binom.cdf(count, total, high),
    )
    assert beyond[0] == pytest.approx(0.025) if count else low == 0
    assert beyond[1] == pytest.approx(0.025) if count < total else high == 1
    assert Share(0, 0).interval == (0, 1)


def test_what_thresholds_flag():
    scored = [
        ImageScore(f"{score}.png", label, "hole", score, False)
        for score, label in ((1.0, 0), (3.0, 0), (2.0, 1), (5.0, 1), (9.0, -1))
    ]
    high, low = {"high": 4.0}, {"low": 2.0}
    first, second = threshold_choices(scored, {**high, **low})
    assert (first.name, first.normal, first.defective) == (
        "low",
        Share(1, 2),
        Share(2, 2),
    )
    assert (second.normal.count, second.defective.count) == (0, 1)
    assert threshold_choices(scored[-1:], high) == []


def test_thresholds_can_be_typed():
    """As few decimals as flag the same, two at least."""
    scores = (1.75338, 0), (1.7541, 1), (6.0, 1)
    scored = [
        ImageScore(f"{score}.png", label, "hole", score, False)
        for score, label in scores
    ]
    limits = {"above": just_above(1.75338), "f1": 1.7541, "used": 3.123456}
    choices = threshold_choices(scored, limits)
    assert [one.threshold for one in choices] == [1.7534, 1.754, 3.12]
    assert [one.normal.count for one in choices] == [0, 0, 0]
    assert [one.defective.count for one in choices] == [2, 2, 1]


def test_a_rate_that_is_not_known_is_said_to_be():
    part = Calibration(name="thread", threshold=2.0)
    model = SimpleNamespace(
        calibration=Calibration(
            threshold=3.0, quantile=0.95, num_images=8, regions=(part,)
        )
    )
    source, listener = SimpleNamespace(noun="images"), Listener()
    tell_calibration(model, source, "held out", listener)
    rule, rate = listener.texts
    assert rule.endswith("from score 3 on or by a region.")
    assert "not known: the threshold of a region was set by hand" in rate


def test_thresholds_of_videos_count_frames(tmp_path):
    fixture = Path(__file__).parents[1] / "fixtures/video_run"
    run = Run(shutil.copytree(fixture, tmp_path / "run"))
    listener = Listener()
    best = run.calibrate(threshold="f1", progress=listener)
    # By streaming scores, as frames are flagged: 52.9 is the lowest abnormal.
    assert best.threshold == pytest.approx(52.8938, abs=1e-3)
    run.calibrate(threshold=2.5, progress=listener)
    first, flagged_best, flagged = listener.texts
    assert first.startswith("The best F1 of the test frames is 1.000.")
    assert "it flags 0 of 9 normal ones" in flagged_best
    assert flagged.startswith(
        "Of the test frames it flags 1 of 9 normal ones (0.281 to 48.2 %) and "
        "3 of 3 abnormal ones (29.2 to 100 %); less sure, as frames"
    )


def test_labels_that_are_missing_are_told(tmp_path):
    fixture = Path(__file__).parents[1] / "fixtures/video_run"
    run = Run(shutil.copytree(fixture, tmp_path / "run"))
    scores = tmp_path / "run/predictions/scores.csv"
    scores.write_text(scores.read_text().replace(",1,", ",0,"))
    with pytest.raises(ValueError, match="frames, .* none that are abnormal"):
        run.calibrate(threshold="f1")
    scores.unlink()
    with pytest.raises(ValueError, match="evaluate` first"):
        run.calibrate(threshold="f1")
