"""Scores the test videos of a run and measures how good the scores are."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._key_frames import KeyFrames
from keras_sspcab.cli._object_data import ObjectSource
from keras_sspcab.cli._regions import (
    ObjectRegions,
    Regions,
    find_tracks,
    measure_levels,
)
from keras_sspcab.cli._sources import Source, source_of
from keras_sspcab.cli._video_metrics import (
    figures,
    frames_dropped,
    video_scores,
)
from keras_sspcab.runs import Config, RunFolder, files

if TYPE_CHECKING:
    import numpy as np

    from keras_sspcab.applications import ScoredFrame
    from keras_sspcab.data.video import Video

COLUMNS = (
    "video",
    "frame",
    "label",
    "anomaly_score",
    "is_anomalous",
    "raw_score",
    "video_score",
)


@dataclasses.dataclass(frozen=True)
class VideoEvaluation:
    """What `evaluate_videos` found.

    Attributes:
        metrics: As written to `metrics.json`.
        split: `"test"`, or `"validation"` where there are no test videos.
        unlabeled: Names of test videos without ground truth.
    """

    metrics: dict[str, Any]
    split: str
    unlabeled: tuple[str, ...]


@dataclasses.dataclass
class ScoredVideo:
    """The scores of one video.

    Attributes:
        video: The video.
        frames: Positions of the scored frames.
        series: Values of these frames by name of the output.
        labels: Those of these frames, or None.
    """

    video: "Video"
    frames: list[int]
    series: "dict[str, list[np.ndarray]]"
    labels: "np.ndarray | None"


def evaluate_videos(
    run: RunFolder, config: Config, model: Any
) -> VideoEvaluation:
    """Writes `predictions/` and `metrics.json` of a run.

    Args:
        run: A finished run.
        config: Its configuration; `data.path` may be another folder.
        model: Its model.

    Returns:
        The metrics, and what they were measured on.

    Raises:
        ValueError: If videos cannot be used.
    """
    from keras_sspcab.metrics import write_detections, write_tracks

    source = source_of(config, run)
    videos, split, root = source.samples_to_evaluate(config)
    regions: Regions | ObjectRegions
    if isinstance(source, ObjectSource):
        regions = ObjectRegions(config)
    else:
        normal = source.held_out(config)
        levels = measure_levels(model, normal, config)
        regions = Regions(config.evaluation, levels)
    with files.replacing_folder(run.file("predictions")) as predictions:
        key_frames = KeyFrames(predictions)
        scored = [
            _score_video(video, frames, model, config, regions, key_frames)
            for video, frames in _scored_frames(source, model, videos, config)
        ]
        series = video_scores(model, scored, config.evaluation)
        _write_scores(os.path.join(predictions, "scores.csv"), scored, series)
        key_frames.write()
        if regions.exist:
            write_detections(
                regions.detections(),
                os.path.join(predictions, "detections"),
                [video.name for video in videos],
            )
        tracks, origin = find_tracks(scored)
        if tracks is not None:
            write_tracks(tracks, os.path.join(predictions, "tracks"))
        metrics = figures(scored, series, config, regions, tracks, origin)
    metrics["calibration"] = model.calibration.to_dict()
    run.record_evaluation(metrics, split, root)
    return VideoEvaluation(
        metrics,
        split,
        tuple(found.video.name for found in scored if found.labels is None),
    )


def _scored_frames(
    source: Source, model: Any, videos: "Sequence[Video]", config: Config
) -> "Iterator[tuple[Video, Iterator[ScoredFrame]]]":
    from keras_sspcab.applications import score_frames, score_objects
    from keras_sspcab.cli._progress import frame_progress
    from keras_sspcab.data.video import count_frames

    if isinstance(source, ObjectSource):
        scored = score_objects(model, source.cut_out(videos, config))
    else:
        scored = score_frames(
            model,
            videos,
            stride=config.data.stride,
            **config.evaluation.options,
        )
    dropped = frames_dropped(config)
    total = sum(count_frames(video) for video in videos)
    with frame_progress("Scoring frames", total) as advance:

        def counted() -> "Iterator[ScoredFrame]":
            for frame in scored:
                advance()
                if frame.frame >= dropped:
                    yield frame

        groups = itertools.groupby(counted(), lambda frame: frame.video)
        for position, frames in groups:
            yield videos[position], frames


def _score_video(
    video: "Video",
    frames: "Iterator[ScoredFrame]",
    model: Any,
    config: Config,
    regions: "Regions | ObjectRegions",
    key_frames: KeyFrames,
) -> ScoredVideo:
    import numpy as np

    from keras_sspcab.data.video import frame_labels

    labels = frame_labels(video) if video.has_ground_truth else None
    names = {
        *("anomaly_score", "is_anomalous", "raw_score"),
        *model.video_score_outputs,
    }
    found = ScoredVideo(video, [], {name: [] for name in names}, None)

    def seen() -> "Iterator[ScoredFrame]":
        for scored in frames:
            found.frames.append(scored.frame)
            for name, values in found.series.items():
                values.append(scored.outputs[name])
            label = None if labels is None else int(labels[scored.frame])
            key_frames.consider(video, scored, label)
            yield scored

    regions.add(video, seen(), frames_dropped(config))
    if labels is not None:
        found.labels = np.asarray(labels)[found.frames]
    return found


def _write_scores(
    path: str, scored: list[ScoredVideo], series: "dict[str, np.ndarray]"
) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for found in scored:
            values = found.series
            for i, frame in enumerate(found.frames):
                yield {
                    "video": found.video.name,
                    "frame": frame,
                    "label": "" if found.labels is None else found.labels[i],
                    "anomaly_score": float(values["anomaly_score"][i]),
                    "is_anomalous": int(values["is_anomalous"][i]),
                    "raw_score": float(values["raw_score"][i]),
                    "video_score": float(series[found.video.name][i]),
                }

    files.write_csv(path, COLUMNS, rows())
