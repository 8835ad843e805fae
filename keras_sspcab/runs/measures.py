"""What evaluations of images and of videos have in common."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras_sspcab.metrics import Curve, precision_recall_curve, roc_curve
from keras_sspcab.runs.outputs import FrameScore, ImageScore

#: What is scored where there are no test data, by the name of the split.
SCORED = {
    "normal": "normal",
    "validation": "held-out normal",
    "train": "training",
}


class Measured(NamedTuple):
    """What the test data gave: metrics, curves, and what they lack."""

    #: The content of `metrics.json`, but for the calibration.
    metrics: dict[str, Any]
    #: See `keras_sspcab.runs.outputs.read_curves`.
    curves: dict[str, Curve]
    #: Sentences for the user.
    gaps: list[str]


def alarm_rates(rows: Sequence[ImageScore | FrameScore]) -> dict[str, float]:
    """Returns the shares of either class that reach the threshold."""
    rates = {}
    for name, label in (("false_alarm_rate", 0), ("detection_rate", 1)):
        flags = [row.is_anomalous for row in rows if row.label == label]
        if flags:
            rates[name] = sum(flags) / len(flags)
    return rates


def ranking_curves(
    name: str, rows: Sequence[Any], score_of: Callable[[Any], float]
) -> dict[str, Curve]:
    """Returns ROC and precision over recall, if there are both classes."""
    labels = [row.label for row in rows]
    if not {0, 1} <= {*labels}:
        return {}
    scores = [score_of(row) for row in rows]
    return {
        f"{name}_roc": roc_curve(labels, scores),
        f"{name}_precision_recall": precision_recall_curve(labels, scores),
    }
