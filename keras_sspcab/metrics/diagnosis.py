"""Says where metrics show that a detector, or its test set, is no good.

Test images that were taken or processed in another way than the others, if only
a little brighter, can be told apart without any look at defects. A detector
that has learned this much scores well, or, where the *normal* test images are
the odd ones, far below chance.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_scores
from keras_sspcab.metrics.image_level import auroc, standardize_image_arguments
from keras_sspcab.metrics.registry import METRICS

# From here down a map is no better than noise, whose pixel AUROC is 0.5 and
# whose AUPRO up to a false-positive rate of 0.3 is 0.15; with some leeway, as
# neighboring pixels are alike.
_PIXEL_BOUNDS = {"pixel_auroc": 0.55, "aupro": 0.2}
# From here on an AUROC is good, if there are images enough to believe it.
_GOOD = 0.75


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
        f"{METRICS[key].title} {metrics[key]:.2f}"
        for key, bound in _PIXEL_BOUNDS.items()
        if metrics.get(key) is not None and metrics[key] <= bound
    )


_QUANTILES = (0.05, 0.5, 0.95)

# Measured: 0.50 to 0.61 (or as far below one half) on sets without a shortcut,
# which are magnetic tiles, screws corrected for their gain and drawn defects;
# 0.83 to 0.84 on screws shifted to one median, which leaves the gain.
_BOUND = 0.75

# Least spread of a statistic, as a share of the largest one: on a black or
# white background a quantile hardly varies, and noise in it would count most.
_MIN_SPREAD = 0.1


def image_statistics(image: Any) -> np.ndarray:
    """Returns mean, deviation, and 5 %, 50 % and 95 % quantiles, float64.

    They know brightness and contrast of an image `(height, width)` or `(height,
    width, channels)`. Channels are averaged, so that a tint goes unseen.
    """
    pixels = standardize_scores(image, "image", "float64")
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            "The `image` argument must be one image of shape (height, width) "
            "or (height, width, channels). "
            f"Received: image of shape {pixels.shape}"
        )
    if pixels.ndim == 3:
        pixels = pixels.mean(axis=-1)
    return np.array(
        [pixels.mean(), pixels.std(), *np.quantile(pixels, _QUANTILES)]
    )


def statistics_auroc(
    normal_statistics: Any, test_statistics: Any, labels: Any
) -> float:
    """Returns the image AUROC that image statistics reach without learning.

    The score of an image is the norm of its z-scores, by mean and deviation of
    the statistics of normal images, `(m, k)`, m at least 2: a Mahalanobis
    distance with a diagonal covariance. The full one would see less of a gain,
    along which brightness and contrast vary together among normal images too.
    Far below one half is as telling as far above: the normal test images are
    then the odd ones.

    On MVTec AD's screw, in a copy whose normal test images are 0.92 times as
    bright as all others, it is 0.000 as the images come, 0.16 with each shifted
    to one median, and 0.50 with each divided by its median. On magnetic tiles
    it is 0.54.
    """
    tested = _standardize_table(test_statistics, "test_statistics")
    labels, _ = standardize_image_arguments(labels, np.zeros(len(tested)))
    normal = _standardize_table(normal_statistics, "normal_statistics")
    if len(normal) < 2 or normal.shape[1] != tested.shape[1]:
        raise ValueError(
            "The `normal_statistics` argument must hold at least two images "
            "and the same statistics as `test_statistics`. Received: shapes "
            f"{normal.shape} and {tested.shape}"
        )
    spread = normal.std(axis=0)
    spread = np.maximum(spread, _MIN_SPREAD * spread.max())
    if not spread.any():
        spread = np.ones_like(spread)
    z_scores = (tested - normal.mean(axis=0)) / spread
    return auroc(labels, np.linalg.norm(z_scores, axis=1))


def is_shortcut(value: float, num_normal: int, num_anomalous: int) -> bool:
    """Says whether image statistics alone separate a test set.

    That is from an AUROC of 0.75 on, or from 0.25 down. Of few images, it must
    also lie outside of what chance gives in 95 % of all cases.
    """
    limit = chance_limit(num_normal, num_anomalous)
    return max(value, 1 - value) >= max(_BOUND, limit)


def describe_shortcut(metrics: Mapping[str, Any]) -> str | None:
    """Returns the warning about the test set of a run; None without need."""
    value = metrics.get("image_statistics_auroc")
    counts = [
        metrics.get(f"num_{kind}_images", 0) for kind in ("normal", "defective")
    ]
    if value is None or not all(counts) or not is_shortcut(value, *counts):
        return None
    return (
        "Image statistics alone (brightness, contrast) separate this test set: "
        f"AUROC {max(value, 1 - value):.2f}. Image metrics say little about "
        "defects here."
    )


def _standardize_table(values: Any, name: str) -> np.ndarray:
    table = standardize_scores(values, name, "float64")
    if table.ndim != 2:
        raise ValueError(
            f"The `{name}` argument must be of shape (images, statistics). "
            f"Received: {name} of shape {table.shape}"
        )
    return table
