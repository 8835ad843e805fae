import pytest
from scipy import stats

from keras_sspcab.runs.outputs import ImageScore
from keras_sspcab.runs.thresholds import Share, threshold_choices


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
