"""Scores of the frames of videos from those of the objects in them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.hosts.video_scoring import ScoredFrame

if TYPE_CHECKING:
    from keras_sspcab.data.objects import CubeFile

# Longer side of the map of a frame, at most.
_MAP_SIDE = 160


def score_objects(
    model: ObjectModel, files: "Sequence[CubeFile]", *, batch_size: int = 64
) -> Iterator[ScoredFrame]:
    """Scores all frames of videos by their objects, in constant memory.

    A frame is as abnormal as its most abnormal object; one without objects has
    the `empty_score` of the model.

    Args:
        model: A host that looks at objects.
        files: The objects of each video, from
            `keras_sspcab.data.objects.extract_cubes`.
        batch_size: Objects that are scored at once. Defaults to 64.

    Yields:
        The frames, by video and frame. Their outputs are `anomaly_score`,
        `is_anomalous` and `raw_score` `()`; `anomaly_map` `(height, width)`, in
        which the map of each object lies in the place of its box, on 0, the
        mean of normal pixels; and of the objects `boxes` `(objects, 4)`
        (x_min, y_min, x_max, y_max, inclusive, in pixels of the frame) and
        `object_scores` `(objects,)`, calibrated.

    Raises:
        ValueError: If files cannot be read or do not fit the model.

    Example:
    >>> for scored in score_objects(model, files):  # doctest: +SKIP
    ...     print(scored.frame, scored.outputs["anomaly_score"])
    """
    batch_size = standardize_int(batch_size, "batch_size", 1)
    for video, file in enumerate(files):
        frames, boxes = file.read("frames"), file.read("boxes")[:, :4]
        objects = _scored_objects(model, file, frames, batch_size)
        starts = np.searchsorted(frames, np.arange(file.num_frames + 1))
        for frame in range(file.num_frames):
            rows = slice(starts[frame], starts[frame + 1])
            scored = [next(objects) for _ in boxes[rows]]
            yield ScoredFrame(
                video,
                frame,
                _frame_outputs(model, file.frame_size, boxes[rows], scored),
            )


def _scored_objects(
    model: ObjectModel, file: "CubeFile", frames: np.ndarray, batch_size: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Yields raw score and map of each object of a file."""
    from keras_sspcab.data.objects import cube_dataset

    if not file.num_objects:
        return
    dataset = cube_dataset(
        [file], model.cube_inputs, batch_size=batch_size, with_index=True
    )
    last = file.num_frames - 1
    for objects, index in dataset:
        inputs = {name: part.numpy() for name, part in objects.items()}
        outputs = {
            name: np.asarray(part)
            for name, part in model.predict_on_batch(inputs).items()
        }
        frame = frames[index["object"].numpy()]
        scores = model.object_scores(outputs, frame == 0, frame == last)
        yield from zip(scores.tolist(), outputs["anomaly_map"], strict=True)


def _frame_outputs(
    model: ObjectModel,
    frame_size: tuple[int, int],
    boxes: np.ndarray,
    scored: list[tuple[float, np.ndarray]],
) -> dict[str, np.ndarray]:
    calibration = model.calibration

    def calibrated(raw: Any) -> np.ndarray:
        return (np.asarray(raw) - calibration.score_mean) / (
            calibration.score_std
        )

    raw_scores = [raw for raw, _ in scored]
    raw_score = max(raw_scores, default=model.empty_score)
    score = np.float32(calibrated(raw_score))
    threshold = calibration.threshold
    return {
        "anomaly_score": np.asarray(score),
        "anomaly_map": paint_maps(frame_size, boxes, [m for _, m in scored]),
        "is_anomalous": np.asarray(
            threshold is not None and bool(score >= threshold)
        ),
        "raw_score": np.asarray(raw_score, "float32"),
        "boxes": boxes,
        "object_scores": calibrated(raw_scores).astype("float32"),
    }


def paint_maps(
    frame_size: tuple[int, int],
    boxes: np.ndarray,
    maps: Sequence[np.ndarray],
) -> np.ndarray:
    """Puts the maps of objects in the places of their boxes.

    Where boxes overlap, the larger value counts.

    Args:
        frame_size: Height and width of the frame.
        boxes: Boxes `(n, 4)` in its pixels, inclusive.
        maps: The map of each, `(height, width)`.

    Returns:
        float32 array `(height, width)`, of the frame's proportions, with 160
        pixels on the longer side at most; 0 where there is no object.
    """
    scale = min(1.0, _MAP_SIDE / max(frame_size))
    height, width = (max(1, round(side * scale)) for side in frame_size)
    painted = np.full((height, width), -np.inf, "float32")
    for box, values in zip(boxes.tolist(), maps, strict=True):
        left, right = _span(box[0], box[2], scale, width)
        top, bottom = _span(box[1], box[3], scale, height)
        rows = np.arange(bottom - top) * values.shape[0] // (bottom - top)
        columns = np.arange(right - left) * values.shape[1] // (right - left)
        area = painted[top:bottom, left:right]
        np.maximum(area, values[np.ix_(rows, columns)], out=area)
    return np.where(np.isneginf(painted), 0.0, painted).astype("float32")


def _span(
    first: float, last: float, scale: float, length: int
) -> tuple[int, int]:
    """Returns the pixels that a side of a box takes, one at least."""
    start = min(max(int(first * scale), 0), length - 1)
    return start, min(max(int(np.ceil((last + 1) * scale)), start + 1), length)
