import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.statistics import (
    bootstrap_interval,
    means_by_seed,
    paired_difference,
    summarise,
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
    summary = summarise(values)
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values, ddof=1))
    assert summary.count == len(values)


def test_summary_of_one_value_has_no_spread():
    assert summarise([0.5]).std is None
    assert summarise([0.5]).mean == 0.5
    assert summarise([]) is None


def test_means_are_taken_over_classes_for_each_seed():
    values = values_of({("a", "on"): [0.2, 0.4], ("b", "on"): [0.6, 1.0]})
    means = means_by_seed(values, ["a", "b"], "m", "on", [0, 1])
    assert means == pytest.approx([0.4, 0.7])
    assert summarise(means).std == pytest.approx(0.3 / np.sqrt(2))
    # Another order than over all values: their spread would be larger.
    assert summarise(means).std < np.std(list(values.values()), ddof=1)


def test_seeds_that_lack_a_class_are_left_out():
    values = values_of({("a", "on"): [0.2, 0.4], ("b", "on"): [None, 1.0]})
    assert means_by_seed(values, ["a", "b"], "m", "on", [0, 1]) == [0.7]
    assert means_by_seed(values, ["a"], "m", "on", [0, 1]) == [0.2, 0.4]
    assert means_by_seed(values, ["a", "c"], "m", "on", [0, 1]) == []
    assert means_by_seed(values, [], "m", "on", [0, 1]) == []


def test_differences_are_within_pairs_of_class_and_seed():
    values = values_of(
        {
            ("a", "off"): [0.1, 0.2, 0.3],
            ("a", "on"): [0.2, 0.1, None],
            ("b", "off"): [0.5, None, 0.5],
            ("b", "on"): [0.9, 0.9, 0.6],
        }
    )
    values |= values_of({("a", "off"): [0.0], ("a", "on"): [1.0]}, "other")
    found = paired_difference(values, "m", "off", "on")
    assert found.count == 4
    assert found.mean == pytest.approx(np.mean([0.1, -0.1, 0.4, 0.1]))
    low, high = found.interval
    assert -0.1 <= low < found.mean < high <= 0.4
    back = paired_difference(values, "m", "on", "off")
    assert back.mean == pytest.approx(-found.mean)
    assert paired_difference(values, "m", "off", "late") is None


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_have_no_interval(count):
    values = values_of(
        {("a", "off"): [0.5] * count, ("a", "on"): [0.6, 0.8][:count]}
    )
    found = paired_difference(values, "m", "off", "on")
    assert found.interval is None
    assert found.count == count


def test_interval_is_that_of_all_resamples():
    values = np.asarray([0.01, -0.02, 0.05, 0.03, 0.04])
    # All 5^5 resamples are equally likely.
    means = [np.mean(s) for s in itertools.product(values, repeat=5)]
    exact = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(values), exact, atol=2e-3)


def test_interval_of_many_pairs_is_close_to_that_of_the_t_test():
    values = np.random.default_rng(0).normal(0.02, 0.05, 60)
    expected = stats.t.interval(0.95, 59, values.mean(), stats.sem(values))
    np.testing.assert_allclose(bootstrap_interval(values), expected, atol=2e-3)


def test_interval_is_the_same_again_and_needs_no_spread():
    values = np.asarray([0.1, 0.4, 0.2])
    assert bootstrap_interval(values) == bootstrap_interval(values)
    # Three equal values are drawn in one of 27 cases, more than 2.5 %.
    assert bootstrap_interval(values) == pytest.approx((0.1, 0.4))
    assert bootstrap_interval(np.full(4, 0.5)) == (0.5, 0.5)
