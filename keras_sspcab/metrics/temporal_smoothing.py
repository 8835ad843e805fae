"""Temporal filters over the frame scores of single videos.

They run before videos are put together, so that no video leaks into the next.
"""

import operator
from typing import Any

import numpy as np
from scipy import ndimage

from keras_sspcab.metrics._videos import map_scores


def smooth_median(scores_by_video: Any, length: int = 17) -> Any:
    """Median filter; beyond both ends of a video the scores count as 0.

    With 17 frames it is the filter of the published evaluation of HF2-VAD
    (Liu et al., ICCV 2021).

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers, or
            list of such arrays.
        length: Odd integer, frames under the filter.

    Returns:
        Dict or list, as given, of float64 arrays `(n,)`.

    Raises:
        ValueError: If `length` is not odd, or if a video's scores are not as
            described.
    """
    length = _standardize_length(length)
    return map_scores(
        lambda x: ndimage.median_filter(x, length, mode="constant"),
        scores_by_video,
    )


def smooth_gaussian(
    scores_by_video: Any, sigma: float, truncate: float = 4.0
) -> Any:
    """Gaussian filter; beyond both ends of a video the scores count as 0.

    Equals `scipy.ndimage.gaussian_filter1d` with `mode="constant"`.

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers, or
            list of such arrays.
        sigma: Standard deviation in frames.
        truncate: Where the filter ends, in standard deviations.

    Returns:
        Dict or list, as given, of float64 arrays `(n,)`.

    Raises:
        ValueError: If `sigma` or `truncate` is not positive and finite, or if
            a video's scores are not as described.
    """
    for name, value in (("sigma", sigma), ("truncate", truncate)):
        if not 0 < value < np.inf:
            raise ValueError(
                f"The `{name}` argument must be positive and finite. "
                f"Received: {name}={value}"
            )
    return map_scores(
        lambda x: ndimage.gaussian_filter1d(
            x, sigma, mode="constant", truncate=truncate
        ),
        scores_by_video,
    )


def smooth_mean(scores_by_video: Any, length: int) -> Any:
    """Moving mean; near an end of a video, over the frames that exist.

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers, or
            list of such arrays.
        length: Odd integer, frames under the filter.

    Returns:
        Dict or list, as given, of float64 arrays `(n,)`.

    Raises:
        ValueError: If `length` is not odd, or if a video's scores are not as
            described.
    """
    window = np.ones(_standardize_length(length))

    def mean(scores: np.ndarray) -> np.ndarray:
        total = ndimage.correlate1d(scores, window, mode="constant")
        ones = np.ones_like(scores)
        return total / ndimage.correlate1d(ones, window, mode="constant")

    return map_scores(mean, scores_by_video)


def _standardize_length(length: int) -> int:
    try:
        number = operator.index(length)
    except TypeError:
        number = 0
    if number < 1 or number % 2 == 0:
        raise ValueError(
            "The `length` argument must be an odd number of frames. "
            f"Received: length={length!r}"
        )
    return number
