"""What happens to the scores of video frames before they are compared."""

from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_scores
from keras_sspcab.metrics._videos import (
    by_video,
    map_scores,
    restore_type,
    standardize_frame_scores,
)


def normalize_per_video(scores_by_video: Any) -> Any:
    """Scales each video's scores to [0, 1] by its own minimum and maximum.

    It looks at the whole test video (it is transductive), as the published
    evaluations of future-frame prediction (Liu et al., CVPR 2018) and MNAD do.

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers, or
            list of such arrays.

    Returns:
        Dict or list, as given, of float64 arrays `(n,)`. A video whose frames
        all have the same score becomes 0.

    Raises:
        ValueError: If a video's scores are not as described.
    """
    return map_scores(_to_unit_interval, scores_by_video)


def _to_unit_interval(scores: np.ndarray) -> np.ndarray:
    low, high = scores.min(), scores.max()
    if low == high:
        return np.zeros_like(scores)
    return (scores - low) / (high - low)


def z_score(scores_by_video: Any, training_scores: Any) -> Any:
    """Expresses scores in standard deviations of the training scores.

    The published evaluation of HF2-VAD (Liu et al., ICCV 2021) does so with
    the scores of the training samples.

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers, or
            list of such arrays.
        training_scores: Scores of normal training frames: array `(m,)`, or by
            video as above.

    Returns:
        Dict or list, as given, of float64 arrays `(n,)`.

    Raises:
        ValueError: If the scores are not as described, or if the training
            scores do not vary.
    """
    if isinstance(training_scores, np.ndarray) and training_scores.ndim == 1:
        training = standardize_scores(
            training_scores, "training_scores", "float64"
        )
    else:
        videos = standardize_frame_scores(training_scores, "training_scores")
        training = np.concatenate(list(videos.values()))
    if training.size == 0 or training.min() == training.max():
        raise ValueError(
            "The `training_scores` argument must hold scores that vary. "
            f"Received: {training.size} scores"
            + (f", all {training[0]:g}" if training.size else "")
        )
    mean, deviation = training.mean(), training.std()
    return map_scores(lambda x: (x - mean) / deviation, scores_by_video)


def drop_frames(values_by_video: Any, first: int = 0, last: int = 0) -> Any:
    """Removes frames at the start and the end of each video.

    A model that predicts a frame from the four before it has no score for the
    first four: they leave the labels, and the scores where these hold a
    stand-in for them.

    Args:
        values_by_video: Dict from video to array `(n, ...)` of scores or
            labels, or list of such arrays.
        first: How many frames to remove at the start.
        last: How many frames to remove at the end.

    Returns:
        Dict or list, as given, of arrays `(n - first - last, ...)`.

    Raises:
        ValueError: If no frame of a video would remain, or if `first` or
            `last` is negative.
    """
    if first < 0 or last < 0:
        raise ValueError(
            "The `first` and `last` arguments must not be negative. "
            f"Received: first={first}, last={last}"
        )
    results = {}
    for video, values in by_video(values_by_video, "values_by_video").items():
        array = np.asarray(values)
        length = array.shape[0] if array.ndim else 0
        if length <= first + last:
            raise ValueError(
                "At least one frame of each video must remain. Received: "
                f"first={first}, last={last} and {length} frames in video "
                f"{video!r}"
            )
        results[video] = array[first : length - last]
    return restore_type(results, values_by_video)
