"""Frame-level metrics of videos: one score and one label a frame.

Scores are normalized and smoothed video by video, before videos are put
together, so that no video leaks into the next.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_sspcab.checks import (
    require_both_classes,
    standardize_binary,
    standardize_choice,
    standardize_number,
    standardize_odd,
    standardize_scores,
)
from keras_sspcab.metrics.image_level import auroc

SMOOTHING_METHODS = ("median", "mean", "gaussian")


def by_video(values: Any, name: str) -> dict[Any, Any]:
    """Returns a mapping from video to its values; lists count from 0."""
    videos = dict(values if isinstance(values, Mapping) else enumerate(values))
    if not videos:
        raise ValueError(
            f"The `{name}` argument must hold at least one video. "
            f"Received: {name}={values!r}"
        )
    return videos


def standardize_frames(
    scores_by_video: Any, labels_by_video: Any
) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """Returns boolean labels `(n,)` and float64 scores `(n,)` by video."""
    scores = _standardize_scores(scores_by_video)
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
                f"for video {video!r}. Remove the labels of frames without a "
                "score."
            )
        pairs[video] = video_labels, video_scores
    return pairs


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

    Example:
        >>> normalize_per_video({"a": [2, 4, 3]})["a"]
        array([0. , 1. , 0.5])
    """

    def normalize(scores: np.ndarray) -> np.ndarray:
        low, high = scores.min(), scores.max()
        if low == high:
            return np.zeros_like(scores)
        return (scores - low) / (high - low)

    return _map_scores(normalize, scores_by_video)


def smooth_frames(scores_by_video: Any, method: str, size: float) -> Any:
    """Filters the scores of each video over time.

    Args:
        scores_by_video: As for `normalize_per_video`, whose form is returned.
        method: `"median"` (that of 17 frames is published with HF2-VAD, Liu et
            al., ICCV 2021) and `"gaussian"` take scores beyond both ends of a
            video for 0; `"mean"` is that over the frames that exist.
        size: Frames under the filter, an odd integer; of the Gaussian its
            standard deviation in frames, above 0. It ends at four of them.

    Example:
        >>> smooth_frames([[1.0, 9.0, 2.0, 3.0]], "median", 3)
        [array([1., 2., 3., 2.])]
        >>> smooth_frames([[1.0, 3.0, 5.0]], "mean", 3)
        [array([2., 3., 4.])]
    """
    from scipy import ndimage

    method = standardize_choice(method, SMOOTHING_METHODS, "method")
    if method == "gaussian":
        sigma = standardize_number(size, "size", excluded=0)
        return _map_scores(
            lambda x: ndimage.gaussian_filter1d(x, sigma, mode="constant"),
            scores_by_video,
        )
    length = standardize_odd(size, "size")
    if method == "median":
        return _map_scores(
            lambda x: ndimage.median_filter(x, length, mode="constant"),
            scores_by_video,
        )
    window = np.ones(length)

    def mean(scores: np.ndarray) -> np.ndarray:
        total = ndimage.correlate1d(scores, window, mode="constant")
        ones = np.ones_like(scores)
        return total / ndimage.correlate1d(ones, window, mode="constant")

    return _map_scores(mean, scores_by_video)


def _standardize_scores(scores_by_video: Any) -> dict[Any, np.ndarray]:
    scores = {}
    for video, values in by_video(scores_by_video, "scores_by_video").items():
        name = f"scores_by_video[{video!r}]"
        scores[video] = standardize_scores(values, name, "float64")
        _check_frames(scores[video], name)
    return scores


def _check_frames(array: np.ndarray, name: str) -> None:
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"The `{name}` argument must hold one number a frame, of at least "
            f"one frame. Received: {name} of shape {array.shape}. Pass a dict "
            "from video to array `(n,)`, or a list of arrays."
        )


def _map_scores(
    function: Callable[[np.ndarray], np.ndarray], scores_by_video: Any
) -> Any:
    """Applies a function to each video's scores; returns a dict or a list."""
    scores = _standardize_scores(scores_by_video)
    results = {video: function(array) for video, array in scores.items()}
    is_mapping = isinstance(scores_by_video, Mapping)
    return results if is_mapping else list(results.values())


@dataclasses.dataclass(frozen=True)
class FrameAuc:
    """A frame-level AUROC over all videos, and that of each video.

    Attributes:
        value: The metric, in [0, 1].
        per_video: AUROC of each video by its name (or number, for lists); None
            where it has a single class, unless sentinel frames define it.
        single_class: The videos whose frames are all normal or all anomalous.

    Example:
        >>> auc = micro_auc([[0.1, 0.9], [0.3]], [[0, 1], [0]])
        >>> auc.per_video, auc.single_class
        ({0: 1.0, 1: None}, (1,))
    """

    value: float
    per_video: dict[Any, float | None]
    single_class: tuple[Any, ...]


def micro_auc(scores_by_video: Any, labels_by_video: Any) -> FrameAuc:
    """One AUROC over the frames of all videos together.

    It depends on how scores of different videos compare, and so on their
    normalization; see `normalize_per_video`.

    Args:
        scores_by_video: Dict from video to array `(n,)` of finite numbers,
            larger is more anomalous, or list of such arrays.
        labels_by_video: The same with 0 (normal) and 1 (anomalous), or
            booleans. A frame is anomalous if one of its pixels is.

    Raises:
        ValueError: If a class is absent from all videos, or videos or their
            lengths differ. The error names the video.

    Example:
        >>> micro_auc([[0.1, 0.2], [0.3, 0.4]], [[0, 1], [0, 1]]).value
        0.75
    """
    videos = standardize_frames(scores_by_video, labels_by_video)
    labels, scores = map(np.concatenate, zip(*videos.values(), strict=True))
    num_anomalous = int(np.count_nonzero(labels))
    require_both_classes(labels.size - num_anomalous, num_anomalous, "frames")
    per_video = {video: _auroc(*pair) for video, pair in videos.items()}
    single = tuple(v for v, pair in videos.items() if _is_single_class(pair[0]))
    return FrameAuc(auroc(labels, scores), per_video, single)


def macro_auc(
    scores_by_video: Any,
    labels_by_video: Any,
    single_class: str = "sentinel",
) -> FrameAuc:
    """The mean of the videos' own AUROCs, each video with the same weight.

    The AUROC of a video with only normal or only anomalous frames is not
    defined. The published evaluations of the group behind the block add two
    sentinel frames to every video: a normal one with score 0 and an anomalous
    one with score 1. That defines all values and raises them slightly.

    Args:
        scores_by_video: As for `micro_auc`. With sentinel frames the scores lie
            in [0, 1]; `normalize_per_video` brings them there and does not
            change the order of a video's frames.
        labels_by_video: As for `micro_auc`.
        single_class: `"sentinel"` adds the two frames to every video; `"skip"`
            adds none and takes the mean over the videos with both classes.

    Raises:
        ValueError: As of `micro_auc`; also if no video has both classes, with
            `"skip"`, or a score lies outside [0, 1], with `"sentinel"`.

    Example:
        >>> macro_auc([[0.1, 0.2], [0.3, 0.4]], [[0, 1], [0, 1]]).value
        1.0
    """
    standardize_choice(single_class, ("sentinel", "skip"), "single_class")
    videos = standardize_frames(scores_by_video, labels_by_video)
    per_video: dict[Any, float | None] = {}
    for video, (labels, scores) in videos.items():
        if single_class == "sentinel":
            if scores.min() < 0 or scores.max() > 1:
                raise ValueError(
                    "With sentinel frames of score 0 and 1 all scores must lie "
                    f"in [0, 1]. Received: scores from {scores.min():g} to "
                    f"{scores.max():g} in video {video!r}. Apply "
                    "`normalize_per_video` first, or pass single_class='skip'."
                )
            labels = np.concatenate([[False], labels, [True]])
            scores = np.concatenate([[0.0], scores, [1.0]])
        per_video[video] = _auroc(labels, scores)
    values = [value for value in per_video.values() if value is not None]
    if not values:
        raise ValueError(
            "No video has both normal and anomalous frames. Received: "
            f"{len(videos)} videos of a single class with single_class='skip'. "
            "Pass single_class='sentinel'."
        )
    single = tuple(v for v, pair in videos.items() if _is_single_class(pair[0]))
    return FrameAuc(float(np.mean(values)), per_video, single)


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Returns the AUROC, or None where there is a single class."""
    return None if _is_single_class(labels) else auroc(labels, scores)


def _is_single_class(labels: np.ndarray) -> bool:
    return bool(labels.all() or not labels.any())
