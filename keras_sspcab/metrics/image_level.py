"""Metrics of one score per image, by scikit-learn's definitions."""

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from keras_sspcab.checks import (
    require_both_classes,
    standardize_binary,
    standardize_scores,
)


def standardize_image_arguments(
    labels: Any, scores: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Returns boolean labels and float64 scores that fit each other.

    Raises:
        ValueError: If the shapes differ or are not `(n,)`, if a label is
            neither 0 nor 1, or if a score is not finite.
    """
    labels = standardize_binary(labels, "labels")
    scores = standardize_scores(scores, "scores", "float64")
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            "The `labels` and `scores` arguments must be one-dimensional and "
            f"of one length. Received: labels of shape {labels.shape}, scores "
            f"of shape {scores.shape}"
        )
    return labels, scores


def standardize_both_classes(
    labels: Any, scores: Any
) -> tuple[np.ndarray, np.ndarray]:
    """As `standardize_image_arguments`, and raises if a class is absent."""
    labels, scores = standardize_image_arguments(labels, scores)
    num_anomalous = int(np.count_nonzero(labels))
    require_both_classes(labels.size - num_anomalous, num_anomalous, "images")
    return labels, scores


def auroc(labels: Any, scores: Any) -> float:
    """Area under the receiver operating characteristic.

    The probability that an anomalous image scores above a normal one, ties
    counted as one half.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.

    Returns:
        A number in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: If there are not both classes, or if the arguments are not
            as described.
    """
    labels, scores = standardize_both_classes(labels, scores)
    return float(sklearn_metrics.roc_auc_score(labels, scores))


def average_precision(labels: Any, scores: Any) -> float:
    """Average precision: the step-wise area under precision over recall.

    The sum over the distinct thresholds of the gain in recall times the
    precision there, without interpolation.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.

    Returns:
        A number in (0, 1]; chance is the share of anomalous images.

    Raises:
        ValueError: If there are not both classes, or if the arguments are not
            as described.
    """
    labels, scores = standardize_both_classes(labels, scores)
    return float(sklearn_metrics.average_precision_score(labels, scores))


def f1_optimal_threshold(labels: Any, scores: Any) -> tuple[float, float]:
    """The threshold with the best F1 score, and that F1 score.

    An image counts as anomalous from the threshold on. The threshold is fitted
    to these very labels: it says what is attainable, and is no substitute for
    one calibrated on held-out normal images.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.

    Returns:
        `(threshold, f1)`. Among equals, the largest threshold: it raises the
        fewest alarms.

    Raises:
        ValueError: If there are not both classes, or if the arguments are not
            as described.
    """
    labels, scores = standardize_both_classes(labels, scores)
    _, recall, thresholds = sklearn_metrics.precision_recall_curve(
        labels, scores
    )
    # Back to whole numbers, so that equal F1 scores compare equal.
    num_anomalous = np.count_nonzero(labels)
    found = np.rint(recall[:-1] * num_anomalous)
    ordered = np.sort(scores)
    alarms = scores.size - np.searchsorted(ordered, thresholds, side="left")
    f1 = 2 * found / (num_anomalous + alarms)
    best = f1.size - 1 - int(np.argmax(f1[::-1]))
    return float(thresholds[best]), float(f1[best])


def image_metrics(labels: Any, scores: Any) -> dict[str, float]:
    """All image-level metrics.

    Args:
        labels: Array `(n,)` of 0 (normal) and 1 (anomalous), or booleans.
        scores: Array `(n,)` of finite numbers, larger is more anomalous.

    Returns:
        Dict of `image_auroc`, `image_ap`, `image_f1` and `image_f1_threshold`;
        empty if one of the classes is absent, as none is defined then.

    Raises:
        ValueError: If the arguments are not as described.
    """
    labels, scores = standardize_image_arguments(labels, scores)
    if labels.all() or not labels.any():
        return {}
    threshold, f1 = f1_optimal_threshold(labels, scores)
    return {
        "image_auroc": auroc(labels, scores),
        "image_ap": average_precision(labels, scores),
        "image_f1": f1,
        "image_f1_threshold": threshold,
    }
