"""Reading of a run whose test data are videos."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from keras_sspcab.report import run_files
from keras_sspcab.report.key_frames import KeyFrame, read_key_frames
from keras_sspcab.report.run_files import Run
from keras_sspcab.runs import RunFolder

Number = TypeVar("Number", int, float)

_COLUMNS = (
    "video",
    "frame",
    "label",
    "anomaly_score",
    "is_anomalous",
    "video_score",
)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One row of `predictions/scores.csv`.

    Attributes:
        frame: Its number in the video, from 0.
        label: 1 if it shows something abnormal, 0 if not, None if unknown.
        score: Streaming score, in standard deviations above the mean of normal
            frames.
        is_anomalous: Whether that score reached the threshold.
        video_score: After normalization and smoothing over the whole video.
    """

    frame: int
    label: int | None
    score: float
    is_anomalous: bool
    video_score: float


@dataclasses.dataclass(frozen=True)
class VideoScores:
    """The scored frames of one video.

    Attributes:
        name: Of the video.
        num_frames: All of them, scored or not; None if unknown.
        auc: Frame-level AUROC, or None where it is not defined.
        frames: The scored ones, in order.
    """

    name: str
    num_frames: int | None
    auc: float | None
    frames: list[Frame]

    @property
    def numbers(self) -> np.ndarray:
        """Number of each scored frame, int64 `(n,)`."""
        return np.array([f.frame for f in self.frames], dtype="int64")

    @property
    def scores(self) -> np.ndarray:
        """Streaming score of each scored frame, float64 `(n,)`."""
        return np.array([f.score for f in self.frames], dtype="float64")

    @property
    def is_labeled(self) -> bool:
        """Whether at least one frame has a label."""
        return any(f.label is not None for f in self.frames)

    def intervals_of_truth(self) -> list[tuple[int, int]]:
        """Returns first and last frame of each abnormal stretch."""
        return intervals((f.frame, f.label == 1) for f in self.frames)

    def intervals_of_alarm(self) -> list[tuple[int, int]]:
        """Returns first and last frame of each flagged stretch."""
        return intervals((f.frame, f.is_anomalous) for f in self.frames)


@dataclasses.dataclass(frozen=True)
class VideoRun(Run):
    """All that a report on videos shows.

    Attributes:
        videos: In the order of the file; those without a scored frame last.
        key_frames: In the order of the file; None if there is no file.
    """

    videos: list[VideoScores]
    key_frames: list[KeyFrame] | None

    @property
    def frames(self) -> list[Frame]:
        """The scored frames of all videos."""
        return [frame for video in self.videos for frame in video.frames]

    @property
    def pictures(self) -> list[KeyFrame]:
        """What the gallery can show: the key frames."""
        return self.key_frames or []


def read_video_run(run_folder: str | os.PathLike[str]) -> VideoRun:
    """Reads a run that has been evaluated on videos.

    Args:
        run_folder: Its folder.

    Returns:
        The content.

    Raises:
        ValueError: If a file is missing or broken. The message names the file,
            the line and the command that writes it.
    """
    basics = run_files.read_basics(run_folder)
    evaluate = run_files.evaluate_command(basics.path)
    folder = RunFolder(basics.path)
    scores_path = folder.require("predictions/scores.csv", evaluate)
    frames: dict[str, list[Frame]] = {}
    for video, frame in _read_frames(scores_path, evaluate):
        frames.setdefault(video, []).append(frame)
    videos = _videos(basics, frames, scores_path)
    key_path = folder.file("predictions/key_frames.csv")
    key_frames = None
    if os.path.exists(key_path):
        scored = {video.name: set(video.numbers.tolist()) for video in videos}
        key_frames = list(read_key_frames(key_path, basics.path, scored))
    return VideoRun(**vars(basics), videos=videos, key_frames=key_frames)


def _videos(
    run: Run, frames: dict[str, list[Frame]], scores_path: str
) -> list[VideoScores]:
    """Joins the scores with what the metrics say about each video."""
    per_video = run.metrics.get("per_video") or {}
    evaluate = run_files.evaluate_command(run.path)
    counts = [("all videos", run.metrics, sum(map(len, frames.values())))]
    for name in {**frames, **per_video}:
        counts.append(
            (name, per_video.get(name, {}), len(frames.get(name, ())))
        )
    for name, metrics, count in counts:
        expected = metrics.get("num_scored_frames", count)
        if expected != count:
            raise run_files.broken(
                scores_path,
                f"{count} frames of {name}, where metrics.json counts "
                f"{expected}",
                evaluate,
            )
    return [
        VideoScores(
            name=name,
            num_frames=metrics.get("num_frames"),
            auc=metrics.get("auc"),
            frames=frames.get(name, []),
        )
        for name, metrics, _ in counts[1:]
    ]


def _read_frames(path: str, command: str) -> Iterator[tuple[str, Frame]]:
    finished: set[str] = set()
    current, last = None, -1
    for line, row in run_files.read_rows(path, _COLUMNS, command):
        try:
            video = row["video"]
            frame = Frame(
                frame=run_files.parse_frame(row),
                label=run_files.parse_label(row),
                score=run_files.parse_score(row),
                is_anomalous=run_files.parse_verdict(row),
                video_score=run_files.parse_score(row, "video_score"),
            )
            if video != current:
                if not video or video in finished:
                    raise ValueError(
                        f"video {video!r} is not in one piece"
                        if video
                        else "the video has no name"
                    )
                finished.add(video)
                current, last = video, -1
            if frame.frame <= last:
                raise ValueError(f"frame {frame.frame} follows frame {last}")
            last = frame.frame
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise run_files.broken(
                path, f"line {line}: {error}", command
            ) from error
        yield video, frame


def intervals(
    marked: Iterable[tuple[Number, Any]],
) -> list[tuple[Number, Number]]:
    """Returns first and last of each stretch of marked ones.

    Args:
        marked: Numbers of frames, or times, in order, and whether each is in.
    """
    found = []
    for is_inside, group in itertools.groupby(
        marked, key=lambda pair: bool(pair[1])
    ):
        if is_inside:
            numbers = [number for number, _ in group]
            found.append((numbers[0], numbers[-1]))
    return found
