import pytest
from scipy.stats import binomtest

from keras_sspcab.runs.outputs import ImageScore
from keras_sspcab.runs.thresholds import Share, threshold_choices


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20)])
def test_intervals_are_exact(count, total):
    expected = binomtest(count, total).proportion_ci(0.95, "exact")
    assert Share(count, total).interval == pytest.approx(tuple(expected))


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
