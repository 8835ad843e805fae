import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.metrics import (
    auroc,
    average_precision,
    precision_recall_curve,
    roc_curve,
    thin_curve,
)


@given(
    st.integers(2, 400),
    st.integers(2, 60),
    st.integers(0, 2**16),
    st.booleans(),
)
def test_every_dropped_point_is_near_a_kept_one(size, max_points, seed, jump):
    rng = np.random.default_rng(seed)
    x = np.sort(rng.random(size))
    y = np.sort(rng.random(size) ** 4)
    if jump:
        y[size // 2 :] += 1.0
    kept = thin_curve(x, y, max_points)
    assert 2 <= kept.x.size <= max_points
    assert (kept.x[0], kept.y[0]) == (x[0], y[0])
    assert (kept.x[-1], kept.y[-1]) == (x[-1], y[-1])
    assert set(zip(*kept, strict=True)) <= set(zip(x, y, strict=True))
    length = np.abs(np.diff(x)).sum() + np.abs(np.diff(y)).sum()
    distance = np.abs(x[:, None] - kept.x) + np.abs(y[:, None] - kept.y)
    assert distance.min(axis=1).max() <= length / (max_points - 1) + 1e-12


def test_short_curves_are_left_alone():
    curve = thin_curve([0, 0, 1], [0, 1, 1], 3)
    assert curve.x.tolist() == [0, 0, 1]
    assert curve.y.tolist() == [0, 1, 1]


def test_both_ends_stay_where_nothing_moves():
    curve = thin_curve(np.zeros(10), np.ones(10), 3)
    assert curve.x.tolist() == [0, 0]
    assert curve.y.tolist() == [1, 1]


def test_image_curves_carry_the_metrics():
    rng = np.random.default_rng(1)
    labels = rng.random(200) > 0.6
    scores = (rng.normal(size=200) + labels).round(1)
    fpr, tpr = roc_curve(labels, scores)
    area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
    assert area == pytest.approx(auroc(labels, scores), abs=1e-12)
    recall, precision = precision_recall_curve(labels, scores)
    steps = np.sum(np.diff(recall) * precision[1:])
    assert steps == pytest.approx(average_precision(labels, scores), abs=1e-12)


def test_image_curves_are_thinned():
    rng = np.random.default_rng(1)
    labels = rng.random(5000) > 0.5
    scores = rng.normal(size=5000) + labels
    for curve in (roc_curve, precision_recall_curve):
        x, y = curve(labels, scores, max_points=50)
        assert x.size == y.size <= 50


@pytest.mark.parametrize(
    ("x", "y", "max_points", "message"),
    [
        ([0, 1], [0], 5, r"shape \(2,\), y of shape \(1,\)"),
        ([[0, 1]], [[0, 1]], 5, "one-dimensional"),
        ([0, 1], [0, 1], 1, "max_points=1"),
    ],
)
def test_bad_arguments_are_named(x, y, max_points, message):
    with pytest.raises(ValueError, match=message):
        thin_curve(x, y, max_points)
