import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.statistics import (
    MIN_PAIRS,
    detectable_difference,
    means_by_seed,
    paired_difference,
    summarize,
    t_interval,
)


def values_of(table, model="m"):
    """Makes values from `{(class, block): [one a seed, None if missing]}`."""
    return {
        Cell(name, model, block, seed): value
        for (name, block), values in table.items()
        for seed, value in enumerate(values)
        if value is not None
    }


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_summary_is_that_of_numpy(values):
    summary = summarize(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values, ddof=1))
    assert summary.count == len(values)


def test_means_are_taken_over_classes_for_each_seed():
    values = values_of({("a", "on"): [0.2, 0.4], ("b", "on"): [0.6, 1.0]})
    means = means_by_seed(values, ["a", "b"], "m", "on", [0, 1])
    assert means == pytest.approx([0.4, 0.7])
    assert summarize(means).std == pytest.approx(0.3 / np.sqrt(2))
    # Another order than over all values: their spread would be larger.
    assert summarize(means).std < np.std(list(values.values()), ddof=1)


def test_seeds_that_lack_a_class_are_left_out():
    values = values_of({("a", "on"): [0.2, 0.4], ("b", "on"): [None, 1.0]})
    assert means_by_seed(values, ["a", "b"], "m", "on", [0, 1]) == [0.7]
    assert means_by_seed(values, ["a"], "m", "on", [0, 1]) == [0.2, 0.4]
    assert means_by_seed(values, ["a", "c"], "m", "on", [0, 1]) == []
    assert means_by_seed(values, [], "m", "on", [0, 1]) == []


def test_differences_are_within_pairs_of_class_and_seed():
    values = values_of(
        {
            ("a", "off"): [0.1, 0.2, 0.3, 0.4],
            ("a", "on"): [0.2, 0.1, None, 0.3],
            ("b", "off"): [0.5, 0.5, 0.5],
            ("b", "on"): [0.9, 0.9, 0.6],
        }
    )
    values |= values_of({("a", "off"): [0.0], ("a", "on"): [1.0]}, "other")
    found = paired_difference(values, "m", "off", "on")
    # Two seeds have both classes, which is too few for an interval.
    assert (found.pairs, found.count) == (6, 2)
    differences = [0.1, -0.1, -0.1, 0.4, 0.4, 0.1]
    assert found.mean == pytest.approx(np.mean(differences))
    assert found.interval is found.detectable is None
    assert paired_difference(values, "m", "off", "late") is None


def assert_interval(found, unit, differences):
    assert (found.unit, found.count) == (unit, len(differences))
    assert found.mean == pytest.approx(np.mean(differences))
    expected = stats.t.interval(
        0.95,
        len(differences) - 1,
        np.mean(differences),
        stats.sem(differences),
    )
    assert found.interval == pytest.approx(expected)
    assert found.detectable == pytest.approx(
        detectable_difference(np.std(differences, ddof=1), len(differences))
    )


def test_seeds_are_independent_and_classes_of_a_seed_are_not():
    a, b = np.array([0.1, 0.3, 0.2, 0.0, 0.4]), np.array([0.5, 0.1, 0.3, 0, 0])
    values = values_of(
        {
            ("a", "off"): [0.0] * 6,
            ("a", "on"): [*a, 0.9],
            ("b", "off"): [0.0] * 6,
            # A seed that lacks a class counts for no mean of both.
            ("b", "on"): [*b, None],
        }
    )
    found = paired_difference(values, "m", "off", "on")
    assert found.pairs == 10
    assert_interval(found, "seeds", (a + b) / 2)
    back = paired_difference(values, "m", "on", "off")
    assert back.mean == pytest.approx(-found.mean)
    assert back.interval == pytest.approx(
        [-found.interval[1], -found.interval[0]]
    )


def test_with_few_seeds_classes_are_the_sample():
    means = [0.1, 0.2, 0.0, 0.3, 0.4]
    values = values_of(
        {
            key: row
            for name, mean in zip("abcde", means, strict=True)
            for key, row in (
                ((name, "off"), [0.5, 0.5]),
                ((name, "on"), [0.45 + mean, 0.55 + mean]),
            )
        }
    )
    found = paired_difference(values, "m", "off", "on")
    assert_interval(found, "classes", means)


@pytest.mark.parametrize("count", [1, MIN_PAIRS - 1, MIN_PAIRS])
def test_too_few_pairs_have_no_interval(count):
    values = values_of(
        {
            ("a", "off"): [0.5] * count,
            ("a", "on"): [0.6, 0.8, 0.4, 0.5, 0.7][:count],
        }
    )
    found = paired_difference(values, "m", "off", "on")
    assert found.count == count
    assert (found.interval is None) == (count < 5)
    assert (found.detectable is None) == (count < 5)


def coverage(samples, mean):
    low, high = t_interval(samples)
    return np.mean((low <= mean) & (mean <= high))


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize(
    ("mean", "draw"),
    [
        (0.3, lambda rng, size: rng.normal(0.3, 2.0, size)),
        # Both sides of the pairs are skewed alike.
        (0.0, lambda rng, size: rng.exponential(size=(2, *size))),
        (0.0, lambda rng, size: rng.lognormal(0.0, 0.5, (2, *size))),
        # The differences have a skewness of 1.
        (4.0, lambda rng, size: rng.gamma(4.0, size=size)),
    ],
)
def test_intervals_cover_the_mean_as_often_as_they_say(count, mean, draw):
    samples = draw(np.random.default_rng(0), (100_000, count))
    if samples.ndim > 2:
        samples = samples[1] - samples[0]
    assert 0.93 < coverage(samples, mean) < 0.97


def test_one_collapse_in_ten_is_seen_too_rarely():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(20_000, 10))
    samples -= 8.0 * (rng.random(samples.shape) < 0.1)
    assert 0.75 < coverage(samples, -0.8) < 0.85


@pytest.mark.parametrize("count", [5, 10, 45])
def test_detectable_differences_are_found_in_four_of_five_cases(count):
    difference = detectable_difference(2.0, count)
    rng = np.random.default_rng(0)
    low, high = t_interval(rng.normal(difference, 2.0, (20000, count)))
    assert np.mean((low > 0) | (high < 0)) == pytest.approx(0.8, abs=0.03)


def test_more_pairs_detect_smaller_differences():
    found = [detectable_difference(1.0, count) for count in (2, 3, 5, 10, 1000)]
    assert found == sorted(found, reverse=True)
    # With many pairs it is the sum of two normal quantiles, 1.96 and 0.84.
    assert found[-1] * np.sqrt(1000) == pytest.approx(2.80, abs=0.01)
