"""Metrics and curves of one score per image, by scikit-learn's definitions."""

from typing import Any, NamedTuple

import numpy as np

from keras_sspcab.checks import (
    require_both_classes,
    standardize_binary,
    standardize_int,
    standardize_scores,
)


class Curve(NamedTuple):
    """Points of a curve in drawing order.

    Attributes:
        x: Float64 array `(n,)`.
        y: Float64 array `(n,)`.

    Example:
        >>> Curve(x=np.array([0.0, 1.0]), y=np.array([0.5, 1.0])).y
        array([0.5, 1. ])
    """

    x: np.ndarray
    y: np.ndarray


def thin_curve(x: Any, y: Any, max_points: int = 500) -> Curve:
    """Keeps at most `max_points` points of a curve, evenly along its length.

    A rising curve in the unit square is at most 2 long, in `|dx| + |dy|`: 500
    points are exact to 0.004.
    """
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    standardize_int(max_points, "max_points", 2)
    if x.size <= max_points:
        return Curve(x, y)
    steps = np.abs(np.diff(x)) + np.abs(np.diff(y))
    length = np.append(0.0, np.cumsum(steps))
    marks = np.linspace(0.0, length[-1], max_points)
    kept = np.searchsorted(length, marks, side="left")
    kept[-1] = x.size - 1
    kept = np.unique(kept)
    return Curve(x[kept], y[kept])


def standardize_image_arguments(
    labels: Any, scores: Any, needs_both: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boolean labels `(n,)` and float64 scores `(n,)`, checked."""
    labels = standardize_binary(labels, "labels")
    scores = standardize_scores(scores, "scores", "float64")
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            "The `labels` and `scores` arguments must be one-dimensional and "
            f"of one length. Received: labels of shape {labels.shape}, scores "
            f"of shape {scores.shape}"
        )
    if needs_both:
        anomalous = int(np.count_nonzero(labels))
        require_both_classes(labels.size - anomalous, anomalous, "images")
    return labels, scores


def auroc(labels: Any, scores: Any) -> float:
    """Area under the receiver operating characteristic.

    The probability that an anomalous image scores above a normal one, ties
    counted as one half.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.

    Raises:
        ValueError: If one of the classes is absent.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = standardize_image_arguments(labels, scores)
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Any, scores: Any) -> float:
    """Average precision: the step-wise area under precision over recall.

    The sum over the distinct thresholds of the gain in recall times the
    precision there, without interpolation; chance is the share of anomalous
    images. Arguments and errors are those of `auroc`.

    Example:
        >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 3)
        0.833
    """
    from sklearn.metrics import average_precision_score

    labels, scores = standardize_image_arguments(labels, scores)
    return float(average_precision_score(labels, scores))


def f1_optimal_threshold(labels: Any, scores: Any) -> tuple[float, float]:
    """The threshold with the best F1 score, and that F1 score.

    An image counts as anomalous from the threshold on. The threshold is fitted
    to these very labels: it says what is attainable, and is no substitute for
    one calibrated on held-out normal images.

    Arguments and errors are those of `auroc`.

    Returns:
        `(threshold, f1)`. Among equals, the largest threshold: it raises the
        fewest alarms.

    Example:
        >>> f1_optimal_threshold([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        (0.35, 0.8)
    """
    from sklearn import metrics

    labels, scores = standardize_image_arguments(labels, scores)
    _, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    # Back to whole numbers, so that equal F1 scores compare equal.
    num_anomalous = np.count_nonzero(labels)
    hits = np.rint(recall[:-1] * num_anomalous)
    ordered = np.sort(scores)
    alarms = scores.size - np.searchsorted(ordered, thresholds, side="left")
    f1 = 2 * hits / (num_anomalous + alarms)
    best = f1.size - 1 - int(np.argmax(f1[::-1]))
    return float(thresholds[best]), float(f1[best])


def image_metrics(labels: Any, scores: Any) -> dict[str, float]:
    """All image-level metrics.

    Arguments and errors are those of `auroc`, but for an absent class.

    Returns:
        Dict of `image_auroc`, `image_ap`, `image_f1` and `image_f1_threshold`;
        empty if one of the classes is absent, as none is defined then.

    Example:
        >>> image_metrics([0, 0, 1], [0.1, 0.2, 0.3])["image_auroc"]
        1.0
    """
    labels, scores = standardize_image_arguments(labels, scores, False)
    if labels.all() or not labels.any():
        return {}
    threshold, f1 = f1_optimal_threshold(labels, scores)
    return {
        "image_auroc": auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "image_f1": f1,
        "image_f1_threshold": threshold,
    }


def roc_curve(labels: Any, scores: Any, max_points: int = 500) -> Curve:
    """Receiver operating characteristic of image scores.

    Labels, scores and errors are those of `auroc`. At most `max_points` points
    remain, evenly along the curve.

    Returns:
        False positive rate (x) and true positive rate (y).

    Example:
        >>> roc_curve([0, 1], [0.1, 0.9]).y
        array([0., 1., 1.])
    """
    from sklearn import metrics

    labels, scores = standardize_image_arguments(labels, scores)
    fpr, tpr, _ = metrics.roc_curve(labels, scores)
    return thin_curve(fpr, tpr, max_points)


def precision_recall_curve(
    labels: Any, scores: Any, max_points: int = 500
) -> Curve:
    """Precision over recall of image scores, one point a threshold.

    Labels, scores and errors are those of `auroc`. At most `max_points` points
    remain, evenly along the curve.

    Returns:
        Recall (x) and precision (y), from recall 0 on. Draw it as steps
        (`where="pre"`): precision is not linear between two thresholds.

    Example:
        >>> precision_recall_curve([0, 1], [0.1, 0.9]).x
        array([0., 1., 1.])
    """
    from sklearn import metrics

    labels, scores = standardize_image_arguments(labels, scores)
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    return thin_curve(recall[::-1], precision[::-1], max_points)
