"""Boxes around what anomaly maps show, and the tracks they are held to."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.runs import Config, EvaluationConfig

if TYPE_CHECKING:
    import numpy as np

    from keras_sspcab.applications import ScoredFrame
    from keras_sspcab.cli._video_evaluation import ScoredVideo
    from keras_sspcab.data.video import Video

Table = dict[str, "np.ndarray"]

# Normal maps that levels are measured on, at most: what is held in memory.
_MAX_MAPS = 400


@dataclasses.dataclass(frozen=True)
class RegionLevels:
    """Where anomaly maps are cut.

    Attributes:
        levels: The values, ascending; none where nothing can be cut.
        normal_map: `(height, width)`, what smoothed maps of normal frames show
            on average, which is subtracted first; or 0.
        source: What they follow from, in words.
    """

    levels: tuple[float, ...]
    normal_map: Any
    source: str


def measure_levels(
    model: Any, videos: "Sequence[Video]", config: Config
) -> RegionLevels:
    """Measures what smoothed maps of normal videos show.

    A network errs more in some places than in others, such as along the border
    of the frame, also where all is normal: levels hold for what exceeds that.

    Args:
        model: The host.
        videos: Normal videos that were not trained on; without any, levels
            follow from the pixel threshold of the model.
        config: The configuration.
    """
    import numpy as np

    from keras_sspcab.applications import score_frames
    from keras_sspcab.data.video import count_clips

    data, evaluation = config.data, config.evaluation
    if not videos:
        limit = model.calibration.pixel_threshold
        return RegionLevels(
            _doubled(limit, evaluation), 0.0, "the pixel threshold"
        )
    total = count_clips(videos, data.clip_length, stride=data.stride)
    step = -(-total // _MAX_MAPS)
    frames = score_frames(model, videos, stride=data.stride)
    maps = np.stack(
        [
            smooth_map(frame.outputs["anomaly_map"], evaluation)
            for number, frame in enumerate(frames)
            if number % step == 0
        ]
    ).astype("float32")
    normal_map = maps.mean(axis=0)
    quantile = config.calibration.pixel_quantile
    limit = float(np.quantile(maps - normal_map, quantile))
    return RegionLevels(
        _doubled(limit, evaluation),
        normal_map,
        f"what {100 * quantile:g} % of the pixels of held-out normal frames "
        "stay below",
    )


def _doubled(
    limit: float | None, evaluation: EvaluationConfig
) -> tuple[float, ...]:
    """Returns levels from half the limit on, each twice the one before."""
    if limit is None or limit <= 0:
        return ()
    count = evaluation.region_levels
    return tuple(limit * 2.0 ** (level - 1) for level in range(count))


def smooth_map(
    anomaly_map: "np.ndarray", evaluation: EvaluationConfig
) -> "np.ndarray":
    """Returns a map smoothed as regions are cut from it, in float64."""
    from scipy import ndimage

    sigma = evaluation.region_smoothing * anomaly_map.shape[0]
    return ndimage.gaussian_filter(anomaly_map.astype("float64"), sigma)


def cut_regions(
    name: str,
    maps: Iterable[Any],
    levels: RegionLevels,
    evaluation: EvaluationConfig,
    frame_size: tuple[int, int],
    first_frame: int = 0,
) -> Table:
    """Returns the boxes around what smoothed anomaly maps show.

    Args:
        name: Name of the video.
        maps: Those of its scored frames, one in memory at a time.
        levels: Where they are cut.
        evaluation: How maps are smoothed, and how small a region may be.
        frame_size: Height and width that boxes are scaled to.
        first_frame: Position of the first map.
    """
    from keras_sspcab.metrics import regions_from_maps

    excess = (smooth_map(m, evaluation) - levels.normal_map for m in maps)
    return regions_from_maps(
        {name: excess},
        levels.levels,
        evaluation.region_min_area,
        first_frame=first_frame,
        frame_size=frame_size,
    )


class Regions:
    """The regions of a set of videos.

    Args:
        evaluation: How regions are cut.
        levels: Where.
    """

    def __init__(
        self, evaluation: EvaluationConfig, levels: RegionLevels
    ) -> None:
        self._evaluation = evaluation
        self._levels = levels
        self._tables: list[Table] = []

    @property
    def exist(self) -> bool:
        """Whether regions can be cut."""
        return bool(self._levels.levels)

    def describe(self) -> str:
        """Says how regions came about."""
        if not self.exist:
            return "none: the model is not calibrated"
        evaluation = self._evaluation
        less = ", less its mean over them" * (
            self._levels.source != "the pixel threshold"
        )
        return (
            "connected pixels of the anomaly map, smoothed by a Gaussian of "
            f"{evaluation.region_smoothing:g} of its height, at "
            f"{evaluation.region_levels} levels from half of "
            f"{self._levels.source}{less} on, {evaluation.region_min_area} "
            "pixels at least"
        )

    def add(
        self, video: "Video", frames: "Iterable[ScoredFrame]", first_frame: int
    ) -> None:
        """Goes through the frames of a video, one in memory at a time.

        Args:
            video: The video.
            frames: Its scored frames, in order.
            first_frame: Position of the first of them.
        """
        from keras_sspcab.data.video import iterate_frames

        maps = (frame.outputs["anomaly_map"] for frame in frames)
        if not self.exist:
            for _ in maps:
                pass
            return
        size = next(iterate_frames(video, channels=1)).shape[:2]
        self._tables.append(
            cut_regions(
                video.name,
                maps,
                self._levels,
                self._evaluation,
                first_frame=first_frame,
                frame_size=size,
            )
        )

    def detections(self) -> Table:
        """Returns the regions of all videos as one table."""
        return join_tables(self._tables)


class ObjectRegions:
    """Objects as regions, each a box with its score.

    Args:
        config: The configuration, which says how objects are found.
    """

    exist = True

    def __init__(self, config: Config) -> None:
        self._objects = config.objects
        self._tables: list[Table] = []

    def describe(self) -> str:
        """Says how regions came about."""
        boxes = self._objects.boxes
        if boxes == "motion":
            return "objects that move, found without a detector"
        return f"objects of {os.path.basename(boxes)}" + (
            ", and what else moves" * self._objects.with_motion
        )

    def add(
        self, video: "Video", frames: "Iterable[ScoredFrame]", first_frame: int
    ) -> None:
        """Takes the objects of a video.

        Args:
            video: The video.
            frames: Its scored frames, in order.
            first_frame: Position of the first of them.
        """
        import numpy as np

        from keras_sspcab.data.objects import objects_to_detections

        of_frame, boxes = [np.empty(0, "int64")], [np.empty((0, 4))]
        scores = [np.empty(0)]
        for frame in frames:
            outputs = frame.outputs
            boxes.append(outputs["boxes"])
            scores.append(outputs["object_scores"])
            of_frame.append(np.full(len(scores[-1]), frame.frame))
        frame_numbers = np.concatenate(of_frame)
        self._tables.append(
            objects_to_detections(
                {
                    "video": np.zeros(len(frame_numbers), "int64"),
                    "frame": frame_numbers,
                },
                np.concatenate(boxes),
                np.concatenate(scores),
                [video],
            )
        )

    def detections(self) -> Table:
        """Returns the objects of all videos as one table."""
        return join_tables(self._tables)


def find_tracks(scored: "list[ScoredVideo]") -> tuple[Table | None, str]:
    """Returns the tracks of the ground truth, and where they come from.

    Track files come first; without any, tracks are derived from masks. None if
    a video has anomalies without either.
    """
    from keras_sspcab.data.video import tracks_from_masks

    videos = [found.video for found in scored]
    if any(video.tracks is not None for video in videos):
        return _read_tracks(videos), "files"
    abnormal = [
        found.video
        for found in scored
        if found.labels is not None and found.labels.any()
    ]
    if not abnormal or any(video.masks is None for video in abnormal):
        return None, "none"
    return tracks_from_masks(videos), "masks"


def _read_tracks(videos: "list[Video]") -> Table:
    import numpy as np

    from keras_sspcab.metrics import read_tracks

    paths = [video.tracks for video in videos if video.tracks is not None]
    folders = sorted({os.path.dirname(path) for path in paths})
    table = join_tables([read_tracks(folder) for folder in folders])
    kept = np.isin(table["video"], [video.name for video in videos])
    return {name: values[kept] for name, values in table.items()}


def join_tables(tables: list[Table]) -> Table:
    """Returns tables with the same columns as one."""
    import numpy as np

    # An empty table has no names, and so no text to join.
    filled = [table for table in tables if table["frame"].size] or tables[:1]
    return {
        name: np.concatenate([table[name] for table in filled])
        for name in filled[0]
    }
