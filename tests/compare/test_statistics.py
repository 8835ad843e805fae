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
            ("b", "off"): [0.5, None, 0.5],
            ("b", "on"): [0.9, 0.9, 0.6],
        }
    )
    values |= values_of({("a", "off"): [0.0], ("a", "on"): [1.0]}, "other")
    found = paired_difference(values, "m", "off", "on")
    differences = [0.1, -0.1, -0.1, 0.4, 0.1]
    assert found.count == 5
    assert found.mean == pytest.approx(np.mean(differences))
    expected = stats.t.interval(
        0.95, 4, np.mean(differences), stats.sem(differences)
    )
    assert found.interval == pytest.approx(expected)
    assert found.detectable == pytest.approx(
        detectable_difference(np.std(differences, ddof=1), 5)
    )
    back = paired_difference(values, "m", "on", "off")
    assert back.mean == pytest.approx(-found.mean)
    assert back.interval == pytest.approx(
        [-found.interval[1], -found.interval[0]]
    )
    assert back.detectable == pytest.approx(found.detectable)
    assert paired_difference(values, "m", "off", "late") is None


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


@pytest.mark.parametrize("count", [5])
def test_intervals_cover_the_mean_as_often_as_they_say(count):
    rng = np.random.default_rng(0)
    samples = rng.normal(0.3, 2.0, (20000, count))
    assert 0.93 < coverage(samples, 0.3) < 0.97
    # With a skewness of 1 and of 2: 93 % and 88 to 90 % were measured.
    assert 0.92 < coverage(rng.gamma(4.0, size=(20000, count)), 4.0) < 0.97
    assert 0.87 < coverage(rng.exponential(size=(20000, count)), 1.0) < 0.97


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
