import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from keras_sspcab.metrics import (
    auroc,
    average_precision,
    f1_optimal_threshold,
    image_metrics,
    precision_recall_curve,
    roc_curve,
)
from keras_sspcab.metrics.image_level import thin_curve
from tests.metrics.oracles import pair_counting_auroc


@st.composite
def labels_and_scores(draw):
    size = draw(st.integers(2, 30))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    labels[0], labels[1] = 0, 1
    # Few distinct values: many ties.
    score = st.one_of(
        st.integers(-2, 2).map(float), st.floats(-1e6, 1e6, width=32)
    )
    scores = draw(st.lists(score, min_size=size, max_size=size))
    return labels, scores


@given(labels_and_scores())
def test_auroc_counts_the_pairs(case):
    labels, scores = case
    assert auroc(labels, scores) == pytest.approx(
        pair_counting_auroc(labels, scores), abs=1e-12
    )


@given(labels_and_scores())
def test_average_precision_sums_the_steps(case):
    labels, scores = map(np.array, case)
    expected, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        alarms = scores >= threshold
        recall = (alarms & (labels == 1)).sum() / labels.sum()
        precision = labels[alarms].mean()
        expected += (recall - recall_before) * precision
        recall_before = recall
    assert average_precision(labels, scores) == pytest.approx(
        expected, abs=1e-12
    )


@given(labels_and_scores())
def test_f1_is_the_best_of_all_thresholds(case):
    labels, scores = map(np.array, case)
    threshold, f1 = f1_optimal_threshold(labels, scores)
    by_threshold = {
        t: sklearn_metrics.f1_score(labels, scores >= t) for t in set(scores)
    }
    best = max(by_threshold.values())
    assert f1 == pytest.approx(best, abs=1e-12)
    assert threshold == max(
        t for t, value in by_threshold.items() if value > best - 1e-12
    )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32"])
def test_image_metrics_has_the_agreed_keys(dtype):
    labels = np.array([0, 0, 1, 1], dtype)
    metrics = image_metrics(labels, [0.1, 0.4, 0.35, 0.8])
    assert metrics == {
        "image_auroc": pytest.approx(0.75),
        "image_ap": pytest.approx(5 / 6),
        "image_f1": pytest.approx(0.8),
        "image_f1_threshold": 0.35,
    }
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_is_an_error_or_no_key(labels):
    scores = np.arange(len(labels), dtype=float)
    for metric in (auroc, average_precision, f1_optimal_threshold):
        with pytest.raises(ValueError, match="at least one of each"):
            metric(labels, scores)
    assert image_metrics(labels, scores) == {}


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.0, np.nan], "1 of 2 values NaN or infinite"),
        ([0, 1], [0.0, 1.0, 2.0], r"shape \(2,\), scores of shape \(3,\)"),
        ([[0, 1]], [[0.0, 1.0]], "one-dimensional"),
        (["good", "bad"], [0.0, 1.0], "dtype <U4"),
        ([0, 1], ["a", "b"], "must hold numbers"),
    ],
)
def test_bad_arguments_are_named(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        image_metrics(labels, scores)


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
