"""Regions of frames of video, and the tracks that they are measured against."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from keras_sspcab.data.video import (
    Video,
    count_clips,
    iterate_frames,
    tracks_from_masks,
)
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.metrics import read_tracks
from keras_sspcab.metrics.boxes import BOX_COLUMNS
from keras_sspcab.metrics.pixel_level import EIGHT_NEIGHBORS
from keras_sspcab.runs.config import EvaluationConfig, ObjectsConfig
from keras_sspcab.runs.sources import ObjectSource, VideoSource

Table = dict[str, np.ndarray]


# Normal maps that levels are measured on, at most: what is held in memory.
_MAX_MAPS = 400


@dataclasses.dataclass(frozen=True)
class RegionLevels:
    """Cuts anomaly maps into regions of connected pixels, at several levels."""

    #: Ascending; none where nothing can be cut.
    values: tuple[float, ...]
    #: `(height, width)`, what smoothed maps of normal frames show on average,
    #: which is subtracted first; None for nothing.
    normal_map: np.ndarray | None
    #: What the levels follow from, in words.
    source: str
    evaluation: EvaluationConfig

    def cut(
        self, anomaly_map: np.ndarray, frame_size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes in a frame of that size, and their scores, of a map.

        A region is scored by its largest value. Of equal boxes from several
        levels one stays; those of higher levels come first.
        """
        excess = _smooth(anomaly_map, self.evaluation)
        if self.normal_map is not None:
            excess = excess - self.normal_map
        best: dict[tuple[int, ...], float] = {}
        for level in reversed(self.values):
            labels, count = ndimage.label(excess >= level, EIGHT_NEIGHBORS)
            areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
            peaks = ndimage.maximum(excess, labels, np.arange(1, count + 1))
            places = ndimage.find_objects(labels)
            for (y, x), area, peak in zip(places, areas, peaks, strict=True):
                if area >= self.evaluation.region_min_area:
                    box = (x.start, y.start, x.stop, y.stop)
                    best[box] = max(float(peak), best.get(box, -np.inf))
        height, width = frame_size
        factors = np.array([width, height] * 2) / ([*excess.shape[::-1]] * 2)
        # Both ends belong to a box: a pixel at x covers x to x + 1.
        boxes = np.array(list(best), "float64").reshape(-1, 4) * factors
        return boxes - [0, 0, 1, 1], np.array(list(best.values()), "float64")

    def describe(self) -> str:
        """Says how regions come about."""
        if not self.values:
            return "none: the model is not calibrated"
        evaluation = self.evaluation
        less = "" if self.normal_map is None else ", less its mean over them"
        return (
            "connected pixels of the anomaly map, smoothed by a Gaussian of "
            f"{evaluation.region_smoothing:g} of its height, at "
            f"{evaluation.region_levels} levels from half of {self.source}"
            f"{less} on, {evaluation.region_min_area} pixels at least"
        )


class Regions:
    """Gathers the regions of scored frames: boxes with scores.

    Args:
        description: How regions come about.
        levels: Cuts them from anomaly maps; None takes scored objects.
    """

    def __init__(
        self, description: str, levels: RegionLevels | None = None
    ) -> None:
        self.description = description
        self._levels = levels
        self._size: tuple[str, tuple[int, int]] | None = None
        self._videos: list[str] = []
        self._frames: list[int] = []
        self._boxes: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []

    @property
    def exist(self) -> bool:
        """Whether there are regions at all."""
        return self._levels is None or bool(self._levels.values)

    def add(self, video: Video, scored: ScoredFrame) -> None:
        """Takes a frame of a video."""
        if not self.exist:
            return
        if self._levels is None:
            boxes = scored.outputs["boxes"]
            scores = scored.outputs["object_scores"]
        else:
            boxes, scores = self._levels.cut(
                scored.outputs["anomaly_map"], self._frame_size(video)
            )
        self._videos += [video.name] * len(scores)
        self._frames += [scored.frame] * len(scores)
        self._boxes.append(boxes)
        self._scores.append(scores)

    def detections(self) -> Table:
        """Returns all regions as a table, for `rbdc_tbdc`."""
        boxes = np.concatenate([np.empty((0, 4)), *self._boxes])
        return {
            "video": np.array(self._videos, dtype=str),
            "frame": np.array(self._frames, dtype="int64"),
            **dict(zip(BOX_COLUMNS, boxes.T, strict=True)),
            "score": np.concatenate([np.empty(0), *self._scores]),
        }

    def _frame_size(self, video: Video) -> tuple[int, int]:
        if self._size is None or self._size[0] != video.path:
            height, width = next(iterate_frames(video, channels=1)).shape[:2]
            self._size = video.path, (height, width)
        return self._size[1]


def regions_of(model: Any, source: VideoSource) -> Regions:
    """Returns what gathers the regions of a run's test videos."""
    if isinstance(source, ObjectSource):
        return Regions(_describe_objects(source.config.objects))
    levels = measure_levels(model, source, source.held_out())
    return Regions(levels.describe(), levels)


def _describe_objects(objects: ObjectsConfig) -> str:
    if objects.boxes == "motion":
        return "objects that move, found without a detector"
    others = ", and what else moves" if objects.with_motion else ""
    return f"objects of {os.path.basename(objects.boxes)}{others}"


def measure_levels(
    model: Any, source: VideoSource, videos: Sequence[Video]
) -> RegionLevels:
    """Measures what smoothed maps of normal videos show.

    A network errs more in some places than in others, such as along the border
    of the frame, also where all is normal: levels hold for what exceeds that.

    The videos are normal and were not trained on; without any, levels follow
    from the pixel threshold of the model.
    """
    data, evaluation = source.data, source.config.evaluation
    if not videos:
        limit = model.calibration.pixel_threshold
        values = _doubled(limit, evaluation)
        return RegionLevels(values, None, "the pixel threshold", evaluation)
    total = count_clips(videos, data.clip_length, stride=data.stride)
    step = -(-total // _MAX_MAPS)
    maps = np.stack(
        [
            _smooth(scored.outputs["anomaly_map"], evaluation)
            for number, scored in enumerate(source.score_frames(model, videos))
            if number % step == 0
        ]
    ).astype("float32")
    normal_map = maps.mean(axis=0)
    quantile = source.config.calibration.pixel_quantile
    limit = float(np.quantile(maps - normal_map, quantile))
    return RegionLevels(
        _doubled(limit, evaluation),
        normal_map,
        f"what {100 * quantile:g} % of the pixels of held-out normal frames "
        "stay below",
        evaluation,
    )


def _doubled(
    limit: float | None, evaluation: EvaluationConfig
) -> tuple[float, ...]:
    """Returns levels from half the limit on, each twice the one before."""
    if limit is None or not limit > 0:
        return ()
    count = evaluation.region_levels
    return tuple(limit * 2.0 ** (level - 1) for level in range(count))


def _smooth(
    anomaly_map: np.ndarray, evaluation: EvaluationConfig
) -> np.ndarray:
    sigma = evaluation.region_smoothing * anomaly_map.shape[0]
    return ndimage.gaussian_filter(anomaly_map.astype("float64"), sigma)


def of_videos(table: Table, names: Sequence[str]) -> Table:
    """Returns the rows of a table that are of some videos."""
    kept = np.isin(table["video"], names)
    return {column: values[kept] for column, values in table.items()}


def ground_truth_tracks(
    labels: Mapping[Video, np.ndarray | None],
) -> tuple[Table | None, str]:
    """Returns the tracks of labeled videos, and where they come from.

    Track files come first (`"files"`), if all videos that are abnormal have
    one; else tracks are derived from masks (`"masks"`). There are none
    (`"none"`) if one of the videos that are abnormal lacks a mask as well.
    """
    videos = list(labels)
    paths = [video.tracks for video in videos if video.tracks is not None]
    abnormal = [
        v for v, of_v in labels.items() if of_v is not None and of_v.any()
    ]
    if paths and all(video.tracks is not None for video in abnormal):
        folders = sorted({os.path.dirname(path) for path in paths})
        tables = [read_tracks(folder) for folder in folders]
        # An empty table has no names, and so no text to join.
        tables = [t for t in tables if t["frame"].size] or tables[:1]
        table = {
            name: np.concatenate([t[name] for t in tables])
            for name in tables[0]
        }
        return of_videos(table, [video.name for video in videos]), "files"
    if not abnormal or any(video.masks is None for video in abnormal):
        return None, "none"
    return tracks_from_masks(videos), "masks"
