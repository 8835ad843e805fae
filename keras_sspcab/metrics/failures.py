"""Says where metrics show that a detector has failed."""

import math
from collections.abc import Mapping
from typing import Any

# From here down a map is no better than noise, whose pixel AUROC is 0.5 and
# whose AUPRO up to a false-positive rate of 0.3 is 0.15; with some leeway, as
# neighboring pixels are alike.
_PIXEL_BOUNDS = {"pixel_auroc": 0.55, "aupro": 0.2}
# From here on an AUROC is good, if there are images enough to believe it.
_GOOD = 0.75
_TITLES = {"pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


def chance_limit(num_normal: int, num_anomalous: int) -> float:
    """Highest AUROC of scores that know nothing, in 95 % of all cases.

    By the normal approximation of Mann and Whitney; the lowest is as far below
    one half.
    """
    count = num_normal + num_anomalous + 1
    return 0.5 + 1.96 * math.sqrt(count / (12 * num_normal * num_anomalous))


def describe_failures(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each failure that the metrics of a run show.

    These are scores that do not separate (the image AUROC lies where chance
    may lie, or the AUC over all frames at one half or below), and maps that do
    not locate the defects, of all kinds or of some.

    Example:
    >>> counts = {"num_normal_images": 50, "num_defective_images": 50}
    >>> describe_failures({"image_auroc": 0.52, **counts})
    ['The scores do not separate defective from normal images: image AUROC \
0.52, and with 50 and 50 images chance reaches 0.39 to 0.61 (95 %).']
    >>> describe_failures({"image_auroc": 0.9, "pixel_auroc": 0.5, **counts})
    ['The map does not locate these defects: pixel AUROC 0.50.']
    """
    texts = []
    auc = metrics.get("micro_auc")
    if failed := _image_failure(metrics):
        texts.append(failed)
    if auc is not None and auc <= 0.5:
        texts.append(
            "The scores do not separate abnormal from normal frames: micro AUC "
            f"{auc:.2f}, and chance is 0.50."
        )
    if failed := _misses(metrics):
        return [*texts, f"The map does not locate these defects: {failed}."]
    for kind, values in (metrics.get("per_defect") or {}).items():
        if failed := _misses(values):
            texts.append(
                f"The map does not locate defects of the kind {kind}: {failed}."
            )
    return texts


def _image_failure(metrics: Mapping[str, Any]) -> str:
    value = metrics.get("image_auroc")
    counts = [
        metrics.get(f"num_{kind}_images", 0) for kind in ("defective", "normal")
    ]
    if value is None or not all(counts) or value > chance_limit(*counts):
        return ""
    high = min(1.0, chance_limit(*counts))
    problem = "The scores do not separate defective from normal images"
    reason = (
        f"and with {counts[0]} and {counts[1]} images chance reaches "
        f"{1 - high:.2f} to {high:.2f} (95 %)"
    )
    if value < 1 - high:
        reason = "so that normal ones score higher"
    elif value > _GOOD:
        problem = "There are too few images to say whether the scores separate"
    return f"{problem}: image AUROC {value:.2f}, {reason}."


def _misses(metrics: Mapping[str, Any]) -> str:
    """Names the pixel metrics that are no better than noise."""
    return ", ".join(
        f"{_TITLES[key]} {metrics[key]:.2f}"
        for key, bound in _PIXEL_BOUNDS.items()
        if metrics.get(key) is not None and metrics[key] <= bound
    )
