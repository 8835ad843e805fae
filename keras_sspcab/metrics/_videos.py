"""Checks of what is given video by video."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_sspcab.checks import (
    standardize_binary,
    standardize_scores,
)


def by_video(values: Any, name: str) -> dict[Any, Any]:
    """Returns what belongs to each video; a list's videos count from 0.

    Args:
        values: Mapping from video to array, or sequence of arrays.
        name: The argument's name, for the error.

    Raises:
        ValueError: If there is no video.
    """
    videos = dict(values if isinstance(values, Mapping) else enumerate(values))
    if not videos:
        raise ValueError(
            f"The `{name}` argument must hold at least one video. "
            f"Received: {name}={values!r}"
        )
    return videos


def _check_frames(array: np.ndarray, name: str) -> None:
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"The `{name}` argument must hold one number a frame, of at least "
            f"one frame. Received: {name} of shape {array.shape}. Pass a dict "
            "from video to array `(n,)`, or a list of arrays."
        )


def standardize_frame_scores(values: Any, name: str) -> dict[Any, np.ndarray]:
    """Returns float64 scores `(n,)` by video.

    Args:
        values: Mapping from video to array, or sequence of arrays.
        name: The argument's name, for the error.

    Raises:
        ValueError: If a video's scores are not one finite number a frame, or
            if it has no frame.
    """
    videos = {}
    for video, scores in by_video(values, name).items():
        label = f"{name}[{video!r}]"
        videos[video] = standardize_scores(scores, label, "float64")
        _check_frames(videos[video], label)
    return videos


def standardize_frames(
    scores_by_video: Any, labels_by_video: Any
) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Returns boolean labels `(n,)` and float64 scores `(n,)` by video.

    Raises:
        ValueError: If the videos or their lengths differ, if a label is neither
            0 nor 1, if a score is not finite, or if a video has no frame.
    """
    scores = standardize_frame_scores(scores_by_video, "scores_by_video")
    labels = by_video(labels_by_video, "labels_by_video")
    unmatched = [video for video in labels if video not in scores]
    unmatched += [video for video in scores if video not in labels]
    if unmatched:
        video = unmatched[0]
        raise ValueError(
            "The `scores_by_video` and `labels_by_video` arguments must hold "
            f"the same videos. Received: {len(scores)} videos with scores and "
            f"{len(labels)} with labels, {len(unmatched)} of them in one only: "
            f"video {video!r} has no "
            f"{'labels' if video in scores else 'scores'}"
        )
    pairs = {}
    for video, video_scores in scores.items():
        name = f"labels_by_video[{video!r}]"
        video_labels = standardize_binary(labels[video], name)
        _check_frames(video_labels, name)
        if video_labels.size != video_scores.size:
            raise ValueError(
                "A video must have as many scores as labels. Received: "
                f"{video_scores.size} scores and {video_labels.size} labels "
                f"for video {video!r}. Frames without a prediction are removed "
                "with `drop_frames`."
            )
        pairs[video] = video_labels, video_scores
    return pairs


def map_scores(
    function: Callable[[np.ndarray], np.ndarray], scores_by_video: Any
) -> Any:
    """Applies a function to each video's float64 scores.

    Returns:
        A dict for a mapping, otherwise a list.
    """
    scores = standardize_frame_scores(scores_by_video, "scores_by_video")
    results = {video: function(array) for video, array in scores.items()}
    return restore_type(results, scores_by_video)


def restore_type(results: dict[Any, Any], values: Any) -> Any:
    """Returns a dict where `values` is a mapping, otherwise a list."""
    return results if isinstance(values, Mapping) else list(results.values())
