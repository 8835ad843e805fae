"""Curves for plotting, thinned to what can be seen."""

from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics as sklearn_metrics

from keras_sspcab.metrics.image_level import standardize_both_classes


class Curve(NamedTuple):
    """Points of a curve in drawing order.

    Attributes:
        x: Float64 array `(n,)`.
        y: Float64 array `(n,)`.
    """

    x: np.ndarray
    y: np.ndarray


def thin_curve(x: Any, y: Any, max_points: int = 500) -> Curve:
    """Keeps at most `max_points` points of a curve, evenly along its length.

    Both ends stay, and no point is farther (in `|dx| + |dy|`) from a kept one
    than the length of the curve divided by `max_points - 1`. A rising curve in
    the unit square is at most 2 long: 500 points are exact to 0.004.

    Args:
        x: Array `(n,)`, in drawing order.
        y: Array `(n,)`.
        max_points: At least 2.

    Returns:
        The kept points. All of them if there are no more than `max_points`.

    Raises:
        ValueError: If the shapes differ or `max_points` is below 2.
    """
    x = np.asarray(x, dtype="float64")
    y = np.asarray(y, dtype="float64")
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            "The `x` and `y` arguments must be one-dimensional and of one "
            f"length. Received: x of shape {x.shape}, y of shape {y.shape}"
        )
    if max_points < 2:
        raise ValueError(
            "The `max_points` argument must be at least 2. "
            f"Received: max_points={max_points}"
        )
    if x.size <= max_points:
        return Curve(x, y)
    steps = np.abs(np.diff(x)) + np.abs(np.diff(y))
    length = np.append(0.0, np.cumsum(steps))
    marks = np.linspace(0.0, length[-1], max_points)
    kept = np.searchsorted(length, marks, side="left")
    kept[-1] = x.size - 1
    kept = np.unique(kept)
    return Curve(x[kept], y[kept])


def roc_curve(labels: Any, scores: Any, max_points: int = 500) -> Curve:
    """Receiver operating characteristic of image scores.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.
        max_points: How many points remain; see `thin_curve`.

    Returns:
        False positive rate (x) and true positive rate (y).

    Raises:
        ValueError: If there are not both classes, or if the arguments are not
            as described.
    """
    labels, scores = standardize_both_classes(labels, scores)
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores)
    return thin_curve(fpr, tpr, max_points)


def precision_recall_curve(
    labels: Any, scores: Any, max_points: int = 500
) -> Curve:
    """Precision over recall of image scores, one point a threshold.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.
        max_points: How many points remain; see `thin_curve`.

    Returns:
        Recall (x) and precision (y), from recall 0 on. Draw it as steps
        (`where="pre"`): precision is not linear between two thresholds.

    Raises:
        ValueError: If there are not both classes, or if the arguments are not
            as described.
    """
    labels, scores = standardize_both_classes(labels, scores)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(
        labels, scores
    )
    return thin_curve(recall[::-1], precision[::-1], max_points)
