"""Scores of objects to detections, and to scores of frames."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.data.objects.boxes import BOX_COLUMNS, standardize_boxes
from keras_sspcab.data.objects.dataset import standardize_cube_files

Index = dict[str, np.ndarray]


def object_index(files: Any) -> tuple[Index, np.ndarray]:
    """Returns where all objects of files are, in their order.

    Args:
        files: From `extract_cubes`, or paths.

    Returns:
        The index that `cube_dataset(files, with_index=True)` gives without
        shuffling, its batches in one, and the boxes `(n, 5)`.
    """
    given = standardize_cube_files(files)
    counts = [file.num_objects for file in given]
    index = {
        "video": np.repeat(np.arange(len(given), dtype="int32"), counts),
        "frame": np.concatenate([file.read("frames") for file in given]),
        "object": np.concatenate(
            [np.arange(count, dtype="int32") for count in counts]
        ),
    }
    return index, np.concatenate([file.read("boxes") for file in given])


def objects_to_detections(
    index: Mapping[str, Any],
    boxes: Any,
    scores: Any,
    videos: Sequence[Any] | None = None,
) -> dict[str, np.ndarray]:
    """Makes a table of detections: each object is a region with its score.

    Args:
        index: Arrays `(n,)` `"video"` and `"frame"`, as `cube_dataset` and
            `object_index` give.
        boxes: Boxes of these objects, `(n, 4)` or `(n, 5)`.
        scores: Their scores `(n,)`, higher where more abnormal.
        videos: The videos or files that `"video"` counts, or their names. None
            (the default) keeps the numbers.

    Returns:
        Dict of arrays `(n,)`: `video`, `frame`, `x_min`, `y_min`, `x_max`,
        `y_max` and `score`, as `keras_sspcab.metrics.rbdc_tbdc` and
        `write_detections` take it.

    Raises:
        ValueError: If lengths differ, or there are not as many videos.
    """
    video, frame, values = _aligned(index, scores)
    found = standardize_boxes(boxes, "The `boxes` of objects")
    if len(found) != len(values):
        raise ValueError(
            "There must be one box for each score. Received: "
            f"{len(found)} boxes and {len(values)} scores"
        )
    of_video = video
    if videos is not None:
        names = np.array([getattr(v, "name", v) for v in videos], dtype=str)
        _require_videos(video, len(names))
        of_video = names[video]
    return {
        "video": of_video,
        "frame": frame,
        **dict(zip(BOX_COLUMNS[:4], found[:, :4].T, strict=True)),
        "score": values,
    }


def frame_scores(
    index: Mapping[str, Any],
    scores: Any,
    num_frames: Sequence[Any],
    empty: float,
) -> list[np.ndarray]:
    """Scores each frame by its most abnormal object.

    Args:
        index: Arrays `(n,)` `"video"` and `"frame"`, as `cube_dataset` and
            `object_index` give.
        scores: Scores of the objects `(n,)`, higher where more abnormal.
        num_frames: Frames of each video; or the files, which know it.
        empty: Score of a frame without objects.

    Returns:
        float64 array `(frames,)` for each video.

    Raises:
        ValueError: If lengths differ, or an object is in a frame or video that
            does not exist.
    """
    video, frame, values = _aligned(index, scores)
    counts = [
        standardize_int(getattr(n, "num_frames", n), "num_frames", 1)
        for n in num_frames
    ]
    _require_videos(video, len(counts))
    late = frame >= np.array([*counts, 0])[video]
    if (late | (frame < 0)).any():
        row = int(np.argmax(late | (frame < 0)))
        raise ValueError(
            "Objects must be in frames of their videos. Received: frame "
            f"{frame[row]} of video {video[row]}, which has "
            f"{counts[video[row]]} frames"
        )
    starts = np.cumsum([0, *counts])
    highest = np.full(starts[-1], -np.inf)
    np.maximum.at(highest, starts[video] + frame, values)
    occupied = np.zeros(starts[-1], bool)
    occupied[starts[video] + frame] = True
    highest[~occupied] = empty
    return np.split(highest, starts[1:-1])


def _aligned(
    index: Mapping[str, Any], scores: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    video, frame = (np.asarray(index[name]) for name in ("video", "frame"))
    values = np.asarray(scores, "float64")
    if values.ndim != 1 or not video.shape == frame.shape == values.shape:
        raise ValueError(
            "There must be a video, a frame and a score for each object. "
            f"Received: shapes {video.shape}, {frame.shape} and {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "Scores of objects must be finite. Received: scores with "
            f"{values[~np.isfinite(values)][0]} at object "
            f"{int(np.argmin(np.isfinite(values)))}"
        )
    return video.astype("int64"), frame.astype("int64"), values


def _require_videos(video: np.ndarray, count: int) -> None:
    if len(video) and not 0 <= video.min() <= video.max() < count:
        raise ValueError(
            "Videos of objects must be among those given. Received: numbers "
            f"from {video.min()} to {video.max()} and {count} videos"
        )
