"""From the scores of video frames to the figures of `metrics.json`."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_sspcab.runs import Config, EvaluationConfig

if TYPE_CHECKING:
    import numpy as np

    from keras_sspcab.cli._video_evaluation import ScoredVideo
    from keras_sspcab.data.video import Video

Series = dict[str, "np.ndarray"]


def video_scores(
    model: Any, scored: "list[ScoredVideo]", evaluation: EvaluationConfig
) -> Series:
    """Returns the scores that micro and macro AUC are measured on.

    Args:
        model: The host, which knows how its paper scores whole videos.
        scored: The videos.
        evaluation: How to normalise and smooth.

    Returns:
        Array of each video by its name.
    """
    import numpy as np

    from keras_sspcab import metrics

    series: Series = {}
    for found in scored:
        values = {
            name: np.asarray(found.series[name], "float64")
            for name in found.series
        }
        if evaluation.normalisation == "per_video":
            series[found.video.name] = model.score_video(values)
        else:
            series[found.video.name] = values["anomaly_score"]
    size = evaluation.smoothing_size
    if evaluation.smoothing == "median":
        return metrics.smooth_median(series, int(size))
    if evaluation.smoothing == "mean":
        return metrics.smooth_mean(series, int(size))
    if evaluation.smoothing == "gaussian":
        return metrics.smooth_gaussian(series, size)
    return series


def cut_regions(
    name: str,
    maps: Iterable[Any],
    levels: list[float],
    evaluation: EvaluationConfig,
    frame_size: tuple[int, int],
    first_frame: int = 0,
) -> "dict[str, np.ndarray]":
    """Returns the boxes around what smoothed anomaly maps show.

    Args:
        name: Name of the video.
        maps: Those of its scored frames, one in memory at a time.
        levels: At which regions are cut.
        evaluation: How maps are smoothed, and how small a region may be.
        frame_size: Height and width that boxes are scaled to.
        first_frame: Position of the first map.
    """
    from scipy import ndimage

    from keras_sspcab.metrics import regions_from_maps

    share = evaluation.region_smoothing
    smoothed = (
        ndimage.gaussian_filter(m.astype("float64"), share * m.shape[0])
        for m in maps
    )
    return regions_from_maps(
        {name: smoothed},
        levels,
        evaluation.region_min_area,
        first_frame=first_frame,
        frame_size=frame_size,
    )


class Regions:
    """Boxes around what anomaly maps show, and the tracks they are held to.

    Args:
        evaluation: How regions are cut.
        pixel_threshold: That of the model; without one there are no regions.
    """

    def __init__(
        self, evaluation: EvaluationConfig, pixel_threshold: float | None
    ) -> None:
        self._evaluation = evaluation
        self._levels: list[float] = []
        if pixel_threshold is not None and pixel_threshold > 0:
            self._levels = [
                pixel_threshold * 2.0 ** (level - 1)
                for level in range(evaluation.region_levels)
            ]
        self._tables: list[dict[str, np.ndarray]] = []

    @property
    def exist(self) -> bool:
        """Whether regions can be cut."""
        return bool(self._levels)

    def describe(self) -> str:
        """Says how regions came about."""
        if not self.exist:
            return "none: the model is not calibrated"
        evaluation = self._evaluation
        return (
            "connected pixels of the anomaly map, smoothed by a Gaussian of "
            f"{evaluation.region_smoothing:g} of its height, at "
            f"{evaluation.region_levels} levels from half the pixel threshold "
            f"on, {evaluation.region_min_area} pixels at least"
        )

    def add(
        self, video: "Video", maps: Iterable[Any], first_frame: int
    ) -> None:
        """Goes through the maps of a video, one in memory at a time.

        Args:
            video: The video.
            maps: Those of its scored frames, in order.
            first_frame: Position of the first of them.
        """
        from keras_sspcab.data.video import iterate_frames

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

    def detections(self) -> "dict[str, np.ndarray]":
        """Returns the regions of all videos as one table."""
        return _concatenate(self._tables)

    def tracks(
        self, scored: "list[ScoredVideo]"
    ) -> "tuple[dict[str, np.ndarray] | None, str]":
        """Returns the tracks of the ground truth, and where they come from.

        Track files come first; without any, tracks are derived from masks.
        None if a video has anomalies without either.
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


def figures(
    scored: "list[ScoredVideo]",
    series: Series,
    config: Config,
    regions: Regions,
    tracks: "dict[str, np.ndarray] | None",
    source: str,
) -> dict[str, Any]:
    """Returns the content of `metrics.json`, but for the calibration.

    Args:
        scored: The videos.
        series: What `video_scores` gives.
        config: The configuration.
        regions: Those of the videos.
        tracks: The tracks of the ground truth, or None.
        source: Where they come from.
    """
    labels: Series = {
        found.video.name: found.labels
        for found in scored
        if found.labels is not None
    }
    counts = {name: _counts(values) for name, values in labels.items()}
    num_frames = _total(found.video for found in scored)
    ranking, auc = _ranking(scored, series, labels, config.evaluation)
    return {
        "kind": "video",
        "num_test_videos": len(scored),
        "num_frames": num_frames,
        "num_scored_frames": sum(len(found.frames) for found in scored),
        **{
            key: sum(count[key] for count in counts.values())
            for key in ("num_normal_frames", "num_abnormal_frames")
        },
        **ranking,
        **_criteria(regions, tracks, num_frames, config.evaluation),
        **_rates(scored, labels),
        "per_video": {
            found.video.name: {
                "num_frames": _total([found.video]),
                "num_scored_frames": len(found.frames),
                **counts.get(found.video.name, {}),
                **_if_known(auc=auc.get(found.video.name)),
            }
            for found in scored
        },
        "conventions": _conventions(config, regions, source),
    }


def _ranking(
    scored: "list[ScoredVideo]",
    series: Series,
    labels: Series,
    evaluation: EvaluationConfig,
) -> tuple[dict[str, float], dict[Any, float | None]]:
    """Returns the AUCs as far as they are defined, and those by video."""
    import numpy as np

    from keras_sspcab import metrics

    classes = {
        int(label) for values in labels.values() for label in set(values)
    }
    if len(classes) < 2:
        return {}, {}
    known = {name: series[name] for name in labels}
    streaming = {
        found.video.name: np.asarray(found.series["anomaly_score"], "float64")
        for found in scored
        if found.video.name in labels
    }
    micro = metrics.micro_auc(known, labels)
    result = {
        "micro_auc": micro.value,
        "streaming_micro_auc": metrics.micro_auc(streaming, labels).value,
    }
    has_pairs = len(micro.single_class) < len(labels)
    if has_pairs or evaluation.single_class == "sentinel":
        # Each video has its own AUC: the scale matters to sentinels alone.
        result["macro_auc"] = metrics.macro_auc(
            metrics.normalise_per_video(known), labels, evaluation.single_class
        ).value
    return result, micro.per_video


def _criteria(
    regions: Regions,
    tracks: "dict[str, np.ndarray] | None",
    num_frames: int,
    evaluation: EvaluationConfig,
) -> dict[str, float]:
    from keras_sspcab.metrics import rbdc_tbdc

    if not regions.exist or tracks is None or not tracks["frame"].size:
        return {}
    found = rbdc_tbdc(
        regions.detections(),
        tracks,
        num_frames,
        evaluation.iou_threshold,
        evaluation.track_threshold,
    )
    return {"rbdc": found.rbdc, "tbdc": found.tbdc}


def _rates(scored: "list[ScoredVideo]", labels: Series) -> dict[str, float]:
    """Returns how many frames of either class reach the threshold."""
    import numpy as np

    flags = {
        found.video.name: np.asarray(found.series["is_anomalous"], bool)
        for found in scored
    }
    rates = {}
    for name, label in (("false_alarm_rate", 0), ("detection_rate", 1)):
        chosen = [flags[video][labels[video] == label] for video in labels]
        values = np.concatenate([np.empty(0, bool), *chosen])
        if values.size:
            rates[name] = float(values.mean())
    return rates


def _conventions(
    config: Config, regions: Regions, source: str
) -> dict[str, Any]:
    """Returns what figures must share to be comparable."""
    data, evaluation = config.data, config.evaluation
    smoothing = evaluation.smoothing
    if smoothing != "none":
        smoothing += f" {evaluation.smoothing_size:g}"
    return {
        "normalisation": evaluation.normalisation,
        "smoothing": smoothing,
        "single_class": evaluation.single_class,
        "frames_dropped": (data.clip_length - 1) * data.stride,
        "regions": regions.describe(),
        "tracks": source,
    }


def _counts(labels: "np.ndarray") -> dict[str, int]:
    abnormal = int(labels.sum())
    return {
        "num_normal_frames": labels.size - abnormal,
        "num_abnormal_frames": abnormal,
    }


def _total(videos: "Iterable[Video]") -> int:
    from keras_sspcab.data.video import count_frames

    return sum(map(count_frames, videos))


def _if_known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read_tracks(videos: "list[Video]") -> "dict[str, np.ndarray]":
    import numpy as np

    from keras_sspcab.metrics import read_tracks

    paths = [video.tracks for video in videos if video.tracks is not None]
    folders = sorted({os.path.dirname(path) for path in paths})
    table = _concatenate([read_tracks(folder) for folder in folders])
    kept = np.isin(table["video"], [video.name for video in videos])
    return {name: values[kept] for name, values in table.items()}


def _concatenate(
    tables: "list[dict[str, np.ndarray]]",
) -> "dict[str, np.ndarray]":
    import numpy as np

    # An empty table has no names, and so no text to join.
    filled = [table for table in tables if table["frame"].size] or tables[:1]
    return {
        name: np.concatenate([table[name] for table in filled])
        for name in filled[0]
    }
