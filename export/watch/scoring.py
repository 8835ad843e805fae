"""Models that score the newest frame of a camera."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import standardize_number
from keras_sspcab.data.resizing import compiled_resize
from keras_sspcab.data.video import fit_frame
from keras_sspcab.export.scorer import ImageScorer, load_scorer, scorer_of
from keras_sspcab.export.watch.source import Frame
from keras_sspcab.hosts import AnomalyModel, VideoStream
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs import RunFolder, load_detector
from keras_sspcab.scoring import Calibration, describe_fault

Outputs = dict[str, np.ndarray]


class FrameScorer:
    """Scores the last of some successive frames; `score` says how.

    `load_frame_scorer` makes those of models. One of a model of video remembers
    frames, so that it serves one `Watch` at a time.

    Args:
        name: Name of the model.
        calibration: Its thresholds, which alarms and the page state.
        preprocessing: Has the white level of cameras of 16 bits.
        span: Successive frames that it looks at. Defaults to 1.

    Example:
    >>> class Brightness(FrameScorer):
    ...     def score(self, frames):
    ...         score = np.float32(frames[-1].pixels.mean())
    ...         return {"anomaly_score": score, "is_anomalous": score >= 200}
    >>> Brightness("light", Calibration(threshold=200.0), Preprocessing()).span
    1
    """

    def __init__(
        self,
        name: str,
        calibration: Calibration,
        preprocessing: Preprocessing,
        span: int = 1,
    ) -> None:
        self.name = name
        self.calibration = calibration
        self.preprocessing = preprocessing
        self.span = span
        self._is_overruled = False

    def overrule(self, threshold: float) -> None:
        """Makes frames anomalous from a score on, whatever the model says."""
        self.calibration = dataclasses.replace(
            self.calibration,
            threshold=threshold,
            decision="score",
            regions=(),
            products=(),
        )
        self._is_overruled = True

    def __call__(self, frames: Sequence[Frame]) -> Outputs | None:
        """Returns the outputs for the last frame, without a batch axis.

        `frames` are those since the last call, or the `span` newest of them.
        None where the model has not seen enough of them yet. A ValueError says
        what is not finite.
        """
        outputs = self.score(frames)
        if outputs is not None and self._is_overruled:
            score = outputs["anomaly_score"]
            outputs["is_anomalous"] = score >= self.calibration.threshold
        return outputs

    def judged_by(self, outputs: Outputs) -> tuple[Calibration, str]:
        """Returns the thresholds that a frame was judged by, and the rule.

        Of a model for several products they are those of the frame's product.
        Where it is unknown there is no threshold, and pixels are shown by the
        mean of those of all products.
        """
        whole = self.calibration
        index = outputs.get("product_index")
        if not whole.products:
            return whole, whole.describe_rule()
        unknown = dataclasses.replace(whole, threshold=None)
        if index is None:
            return unknown, whole.describe_rule()
        if index < 0:
            return unknown, "as an unknown product"
        part = whole.of_product(index)
        return part, f"{part.name}: {part.describe_rule()}"

    def score(self, frames: Sequence[Frame]) -> Outputs | None:
        """Returns what a call returns; this is what a subclass defines.

        `anomaly_score` and `is_anomalous` `()` and, if there is one,
        `anomaly_map` `(height, width)`.
        """
        raise NotImplementedError


class _ImageFrames(FrameScorer):
    """Scores each frame as an image."""

    def __init__(self, name: str, scorer: ImageScorer) -> None:
        calibration = scorer.calibration or Calibration()
        super().__init__(name, calibration, scorer.preprocessing)
        self._scorer = scorer
        self._resize = compiled_resize(
            scorer.image_size, scorer.channels, scorer.preprocessing
        )

    def score(self, frames: Sequence[Frame]) -> Outputs:
        pixels = fit_frame(frames[-1].pixels, None, self._scorer.channels)
        results = self._scorer(self._resize(pixels).numpy()[np.newaxis])
        outputs = {
            name: np.asarray(value)[0] for name, value in results.items()
        }
        if fault := describe_fault(outputs):
            number = frames[-1].number
            raise ValueError(f"Frame {number} has no verdict: {fault}")
        if "anomaly_map" in outputs:
            outputs["anomaly_map"] = self._scorer.preprocessing.restore(
                outputs["anomaly_map"], pixels.shape[:2]
            )
        return outputs


class _VideoFrames(FrameScorer):
    """Scores the newest clip of successive frames.

    A clip has the pace of the camera however slow the model is: what is left
    out are whole clips, never frames within one, where motion would look
    faster than it is.
    """

    def __init__(self, name: str, detector: AnomalyModel, stride: int) -> None:
        self._stream = VideoStream(detector, stride)
        super().__init__(
            name,
            detector.calibration,
            detector.preprocessing,
            self._stream.span,
        )
        self._connection: int | None = None

    def score(self, frames: Sequence[Frame]) -> Outputs | None:
        if frames[-1].connection != self._connection:
            self._connection = frames[-1].connection
            self._stream.reset()
        for frame in frames[:-1]:
            self._stream.push(frame.pixels, score=False)
        scored = self._stream.push(frames[-1].pixels)
        return None if scored is None else scored.outputs


def load_frame_scorer(
    path: Any, stride: int | None = None, threshold: float | None = None
) -> FrameScorer:
    """Loads a model to watch a camera with.

    Args:
        path: Run folder, `.keras` file or version of a SavedModel. It may look
            at single images or, if it is no SavedModel, at frames of video.
        stride: For hosts of video, steps from one frame of a clip to the next.
            None (the default) takes those of the training, or 1.
        threshold: From which score on a frame is anomalous; None for the
            model's own rule.

    Raises:
        ValueError: If there is no such model, if it looks at objects, or if it
            is not calibrated and no `threshold` is given.

    Example:
    >>> from keras_sspcab.applications import AutoEncoder
    >>> model = AutoEncoder((32, 32, 1), filters=(4, 4, 2))
    >>> model.save("a.keras")
    >>> load_frame_scorer("a.keras", threshold=3.0).span
    1
    """
    folder = pathlib.Path(path)
    if folder.is_file() and folder.suffix != ".keras":
        raise ValueError(
            "A camera is watched with a run folder, a .keras file or a "
            f"SavedModel. Received: {path}"
        )
    scorer: FrameScorer
    if folder.is_dir() and not (folder / "model.keras").is_file():
        # An export, or none of what can be loaded: that says which is what.
        images = load_scorer(path)
        if images.calibration is None and threshold is None:
            raise ValueError(
                f"{path} does not say its thresholds. Give the `threshold` "
                "argument, such as threshold=3"
            )
        name = f"{folder.parent.name}/{folder.name}".strip("/")
        scorer = _ImageFrames(name, images)
    else:
        scorer = _load_detector(str(path), stride)
    if stride is not None and not isinstance(scorer, _VideoFrames):
        raise ValueError(
            "The `stride` argument is for hosts of video. "
            f"Received: stride={stride} for {path}"
        )
    if threshold is not None:
        scorer.overrule(standardize_number(threshold, "threshold", -math.inf))
    elif not scorer.calibration.is_calibrated:
        raise ValueError(
            f"{path} is not calibrated: nothing would be flagged. Calibrate it "
            "with `keras-sspcab calibrate`, or give the `threshold` argument"
        )
    return scorer


def _load_detector(path: str, stride: int | None) -> FrameScorer:
    detector = load_detector(path)
    is_run = not path.endswith(".keras")
    name = pathlib.Path(path).resolve().name if is_run else detector.name
    if detector.kind == "image":
        return _ImageFrames(name, scorer_of(detector, path))
    if detector.kind == "video":
        if stride is None:
            stride = RunFolder(path).config.data.stride if is_run else 1
        return _VideoFrames(name, detector, stride)
    raise ValueError(
        f"The model {detector.name!r} in {path} looks at objects, which are "
        "cut out of whole videos, and a camera has no end. Use a host of "
        "images or frames (mnad, future_frame), or `keras-sspcab predict RUN "
        "--video VIDEO`"
    )
