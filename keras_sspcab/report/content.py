"""What a report shows of a run: all that is on record about it."""

import collections
import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_sspcab.metrics import Curve
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs import RunFolder, outputs
from keras_sspcab.runs.outputs import (
    FrameScore,
    ImageScore,
    KeyFrame,
    intervals,
)
from keras_sspcab.runs.parsing import read_toml
from keras_sspcab.scoring import Calibration


class Nouns(NamedTuple):
    """What the things are called that have a score."""

    thing: str
    things: str
    anomalous: str
    anomalies: str
    data: str


IMAGES = Nouns("image", "images", "defective", "defects", "images")
FRAMES = Nouns("frame", "frames", "abnormal", "abnormal frames", "videos")


class OutcomeCounts:
    """How many images or frames ended in which way at the threshold."""

    def __init__(self, scored: Iterable[Any]) -> None:
        counts = collections.Counter(
            outputs.OUTCOMES[one.label, one.is_anomalous] for one in scored
        )
        self.found = counts["found"]
        self.missed = counts["missed"]
        self.false_alarms = counts["false_alarm"]
        self.passed = counts["passed"]
        self.flagged = counts["flagged"]
        self.anomalous = self.found + self.missed
        self.normal = self.false_alarms + self.passed
        self.unlabeled = self.flagged + counts["unflagged"]
        self.total = self.anomalous + self.normal + self.unlabeled


@dataclasses.dataclass(frozen=True)
class VideoScores:
    """The scored frames of one video."""

    name: str
    num_frames: int | None  # scored or not
    auc: float | None
    frames: list[FrameScore]

    @property
    def is_labeled(self) -> bool:
        """Whether at least one frame has a label."""
        return any(frame.label is not None for frame in self.frames)

    @property
    def abnormal_intervals(self) -> list[tuple[int, int]]:
        """First and last frame of each abnormal stretch."""
        return intervals((f.frame, f.label == 1) for f in self.frames)

    @property
    def flagged_intervals(self) -> list[tuple[int, int]]:
        """First and last frame of each flagged stretch."""
        return intervals((f.frame, f.is_anomalous) for f in self.frames)


@dataclasses.dataclass(frozen=True)
class EvaluatedRun:
    """All that a report shows; of images or of videos, one is empty.

    `history` holds the columns of `history.csv`, NaN where a value is missing.
    `curves` and `key_frames` are None if the run has no file of them.
    """

    path: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    record: Mapping[str, Any]
    history: Mapping[str, np.ndarray]
    curves: Mapping[str, Curve] | None
    images: list[ImageScore]
    videos: list[VideoScores]
    key_frames: list[KeyFrame] | None

    @property
    def is_video(self) -> bool:
        """Whether the test data are videos."""
        return self.metrics.get("kind") == "video"

    @property
    def nouns(self) -> Nouns:
        """What the things are called that have a score."""
        return FRAMES if self.is_video else IMAGES

    @property
    def scored(self) -> list[ImageScore] | list[FrameScore]:
        """All that has a score: images, or frames of all videos."""
        if self.is_video:
            return [frame for video in self.videos for frame in video.frames]
        return self.images

    @property
    def pictures(self) -> list[ImageScore] | list[KeyFrame]:
        """What can be shown: images, or key frames."""
        return (self.key_frames or []) if self.is_video else self.images

    @property
    def calibration(self) -> Calibration:
        """Scale and thresholds of the model when it was evaluated."""
        return Calibration.from_dict(self.metrics.get("calibration") or {})

    @property
    def threshold(self) -> float | None:
        """Score from which on an image is anomalous; None: uncalibrated."""
        return self.calibration.threshold

    @property
    def pixel_threshold(self) -> float | None:
        """The same for a pixel of the map."""
        return self.calibration.pixel_threshold

    @property
    def preprocessing(self) -> Preprocessing:
        """The white level and the resizing that the images were read with."""
        return Preprocessing(**(self.metrics.get("preprocessing") or {}))


def read_evaluated_run(run_folder: str | os.PathLike[str]) -> EvaluatedRun:
    """Reads a run that has been evaluated."""
    run = RunFolder(os.fspath(run_folder))
    config = read_toml(run.require("config.toml", "keras-sspcab train"))
    metrics = outputs.read_metrics(run)
    is_video = metrics.get("kind") == "video"
    return EvaluatedRun(
        path=run.path,
        config=config,
        metrics=metrics,
        record=run.record,
        history=_read_history(run.file("history.csv")),
        curves=outputs.read_curves(run),
        images=[] if is_video else outputs.read_image_scores(run),
        videos=_read_videos(run, metrics) if is_video else [],
        key_frames=outputs.read_key_frames(run) if is_video else None,
    )


def _read_videos(
    run: RunFolder, metrics: Mapping[str, Any]
) -> list[VideoScores]:
    """Joins the scores with what the metrics say about each video."""
    frames = outputs.read_frame_scores(run)
    per_video = metrics.get("per_video") or {}
    return [
        VideoScores(
            name=name,
            num_frames=per_video.get(name, {}).get("num_frames"),
            auc=per_video.get(name, {}).get("auc"),
            frames=frames.get(name, []),
        )
        for name in {**frames, **per_video}
    ]


def _read_history(path: str) -> dict[str, np.ndarray]:
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in (rows[0] if rows else ())
        }
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is broken: {error}. Remove it to leave the training "
            "curves out"
        ) from error
