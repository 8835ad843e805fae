"""Frame-level metrics of videos: one score and one label a frame."""

import dataclasses
from typing import Any

import numpy as np

from keras_sspcab.checks import require_both_classes, standardize_choice
from keras_sspcab.metrics.frame_scores import standardize_frames
from keras_sspcab.metrics.image_level import auroc


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
