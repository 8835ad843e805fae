"""Whether brightness and contrast alone give the defective images away.

Test images that were taken or processed in another way than the others, if only
a little brighter, can be told apart without any look at defects. A detector
that has learned this much scores well, or, where the *normal* test images are
the odd ones, far below chance.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_scores
from keras_sspcab.metrics.failures import chance_limit
from keras_sspcab.metrics.image_level import auroc, standardize_image_arguments

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
