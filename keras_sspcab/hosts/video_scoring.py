"""Scores of the frames of videos: whole or by objects, and of a camera."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.frames import FrameModel
from keras_sspcab.hosts.objects import ObjectModel
from keras_sspcab.scoring import describe_fault

if TYPE_CHECKING:
    from keras_sspcab.data.objects import CubeFile
    from keras_sspcab.data.video import Video

# Longer side of the map of a frame, at most.
_MAP_SIDE = 160


@dataclasses.dataclass(frozen=True)
class ScoredFrame:
    """What a model says about one frame.

    Attributes:
        video: Position of its video, from 0.
        frame: Its position in the video, from 0.
        outputs: The outputs of `predict` for the clip that ends with it,
            without the batch axis: `anomaly_score` `()`, `anomaly_map`
            `(height, width)`, `is_anomalous` `()`, and so on.

    Example:
    >>> ScoredFrame(0, 4, {"anomaly_score": np.array(2.5)}).frame
    4
    """

    video: int
    frame: int
    outputs: dict[str, np.ndarray]


def score_frames(
    model: FrameModel,
    videos: "Sequence[Video]",
    *,
    stride: int = 1,
    batch_size: int = 8,
    **options: Any,
) -> Iterator[ScoredFrame]:
    """Scores the frames of videos, one after the other, in constant memory.

    A frame is scored by the clip that ends with it. The first frames of a
    video, which no clip ends with, are left out: `(frames of a clip - 1) *
    stride` of them.

    Args:
        model: A host of video with a known frame size.
        videos: Videos from `keras_sspcab.data.video`.
        stride: Steps from one frame of a clip to the next, as in training.
        batch_size: Clips that are scored at once.
        **options: Those in `model.evaluation_options`, such as
            `update_memory=True` for `MNAD`.

    Yields:
        The scored frames, by video and frame.

    Raises:
        ValueError: If the model has no known frame size or no such option, or
            if a video is too short or cannot be read.

    Example:
    >>> from PIL import Image
    >>> from keras_sspcab.applications import MNAD
    >>> from keras_sspcab.data.video import Video
    >>> for number in range(4):
    ...     Image.new("L", (16, 16)).save(f"{number}.png")
    >>> model = MNAD((2, 16, 16, 1), base_width=1)
    >>> videos = [Video("camera", ".", "frames")]
    >>> [scored.frame for scored in score_frames(model, videos)]
    [1, 2, 3]
    """
    from keras_sspcab.data.video import clip_dataset

    count, size, channels = _clip_of(model)
    how = model.preprocessing
    if unknown := sorted(set(options) - set(model.evaluation_options)):
        allowed = sorted(model.evaluation_options) or "none"
        raise ValueError(
            f"{type(model).__name__} has no option named {unknown[0]!r} for "
            f"its scores. Its options are: {allowed}"
        )
    dataset = clip_dataset(
        [dataclasses.replace(v, preprocessing=how) for v in videos],
        count,
        size,
        channels,
        stride=stride,
        batch_size=batch_size,
        with_index=True,
    )
    index: collections.deque[tuple[int, int]] = collections.deque()

    def clips() -> Iterator[np.ndarray]:
        for batch, origin in dataset:
            pairs = zip(
                origin["video"].numpy().tolist(),
                origin["frame"].numpy().tolist(),
                strict=True,
            )
            index.extend(pairs)
            yield batch.numpy()

    for outputs in model.score_clips(clips(), **options):
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        for row in range(len(arrays["anomaly_score"])):
            video, frame = index.popleft()
            yield ScoredFrame(
                video, frame, {name: a[row] for name, a in arrays.items()}
            )


class VideoStream:
    """Scores the frames of a live video as they come.

    Nothing after a frame is looked at, and of those before only as many as a
    clip spans are kept.

    Args:
        model: A calibrated host of video with a known frame size.
        stride: Steps from one frame of a clip to the next, as in training.
        average: `anomaly_score` is the mean of those of the last so many
            frames, which is calmer and later. 1 (the default) leaves it alone.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> from keras_sspcab.applications import MNAD
    >>> stream = VideoStream(MNAD((2, 16, 16, 1), base_width=1))
    >>> camera = [np.zeros((16, 16), "uint8")] * 3
    >>> [scored and scored.frame for scored in map(stream.push, camera)]
    [None, 1, 2]
    """

    def __init__(
        self, model: FrameModel, stride: int = 1, average: int = 1
    ) -> None:
        self._model = model
        self._stride = standardize_int(stride, "stride", 1)
        count, self._size, self._channels = _clip_of(model)
        span = (count - 1) * self._stride + 1
        self._window: collections.deque[np.ndarray] = collections.deque(
            maxlen=span
        )
        self._scores: collections.deque[float] = collections.deque(
            maxlen=standardize_int(average, "average", 1)
        )
        self._next = 0

    @property
    def span(self) -> int:
        """Frames that a clip spans, from its first to its last."""
        return self._window.maxlen or 1

    def push(self, frame: Any, score: bool = True) -> ScoredFrame | None:
        """Takes the next frame and scores it.

        Args:
            frame: Pillow image, or uint8 array `(height, width)`, `(height,
                width, 1)` or `(height, width, 3)` (RGB) of any size; not
                floats.
            score: Whether to score it, the default. Where frames come faster
                than they can be scored, leave some unscored, but push all: the
                model sees motion from one to the next.

        Returns:
            The scored frame; None until there are as many as a clip spans.

        Raises:
            ValueError: If it is no frame, or the model gives a score or map
                that is not finite.
        """
        from keras_sspcab.data.video import fit_frame

        how = self._model.preprocessing
        pixels = fit_frame(frame, self._size, self._channels, how)
        self._window.append(pixels.astype("float32") / 255.0)
        number, self._next = self._next, self._next + 1
        if not score or len(self._window) < self.span:
            return None
        clip = np.stack(list(self._window)[:: self._stride])
        scored = self._model.predict_on_batch(clip[None])
        outputs = {n: np.asarray(value)[0] for n, value in scored.items()}
        if fault := describe_fault(outputs):
            raise ValueError(f"Frame {number} has no verdict: {fault}")
        self._scores.append(float(outputs["anomaly_score"]))
        if self._scores.maxlen != 1:
            mean = np.float32(np.mean(self._scores))
            outputs["anomaly_score"] = np.asarray(mean)
            outputs["is_anomalous"] = self._model.calibration.decide(
                mean, outputs["anomaly_map"]
            )
        return ScoredFrame(0, number, outputs)

    def reset(self) -> None:
        """Forgets all frames, for another video."""
        self._window.clear()
        self._scores.clear()
        self._next = 0


def _clip_of(model: FrameModel) -> tuple[int, tuple[int, int], int]:
    """Returns frames, size and channels of the clips of a model."""
    count, height, width, channels = model.input_shape[1:]
    if height is None or width is None:
        raise ValueError(
            "The model takes frames of any size, so it does not say which one "
            "they should have. Build it with a known input_shape. "
            f"Received: input_shape={tuple(model.input_shape[1:])}"
        )
    return count, (height, width), channels


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

    # Without objects there are no pixels to decide by.
    empty = (model.empty_score, np.full((1, 1), -1e30, "float32"))
    raw_scores, maps = zip(*(scored or [empty]), strict=True)
    # Of NaN too, which `max` may pass over.
    raw_score = np.max(raw_scores)
    scores = calibrated(raw_scores).astype("float32")
    return {
        "anomaly_score": np.asarray(scores.max()),
        "anomaly_map": _paint_maps(frame_size, boxes, [m for _, m in scored]),
        "is_anomalous": calibration.decide(scores, np.stack(maps)).any(),
        "raw_score": np.asarray(raw_score, "float32"),
        "boxes": boxes,
        "object_scores": scores[: len(boxes)],
    }


def _paint_maps(
    frame_size: tuple[int, int], boxes: np.ndarray, maps: Sequence[np.ndarray]
) -> np.ndarray:
    """Puts the maps of objects in the places of their boxes, on 0.

    Where boxes overlap, the larger value counts. The longer side has 160 pixels
    at most.
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
