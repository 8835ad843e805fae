"""Scores the test videos of a run and measures how good the scores are."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_sspcab import metrics
from keras_sspcab.data.video import Video, count_frames, frame_labels
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.runs.config import Config, EvaluationConfig
from keras_sspcab.runs.key_frames import KeyFrames
from keras_sspcab.runs.measures import Measured, alarm_rates, ranking_curves
from keras_sspcab.runs.outputs import FrameScore, write_frame_scores
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.regions import (
    Regions,
    Table,
    ground_truth_tracks,
    regions_of,
)
from keras_sspcab.runs.sources import VideoSource

Series = dict[str, np.ndarray]


@dataclasses.dataclass
class _ScoredVideo:
    """The scores of one video.

    Attributes:
        video: The video.
        truth: Labels of all its frames, or None.
        frames: Positions of the scored frames.
        outputs: Values of these frames by name of the output.
    """

    video: Video
    truth: np.ndarray | None
    frames: list[int]
    outputs: dict[str, list[float]]

    def add(self, scored: ScoredFrame) -> int | None:
        """Takes a frame; returns its label."""
        self.frames.append(scored.frame)
        for name, values in self.outputs.items():
            values.append(float(scored.outputs[name]))
        return None if self.truth is None else int(self.truth[scored.frame])

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the scored frames, or None."""
        return None if self.truth is None else self.truth[self.frames]

    def series(self, name: str) -> np.ndarray:
        """Returns an output of the scored frames, in float64."""
        return np.array(self.outputs[name], "float64")


def evaluate_videos(
    model: Any,
    source: VideoSource,
    videos: Sequence[Video],
    folder: str,
    progress: Progress,
) -> Measured:
    """Scores test videos; writes scores, key frames, regions and tracks."""
    config = source.config
    regions, key_frames = regions_of(model, source), KeyFrames(folder)
    scored: list[_ScoredVideo] = []
    with progress.count("Scoring frames", _num_frames(videos)) as advance:
        for frame in source.score_frames(
            model, videos, **config.evaluation.options
        ):
            advance()
            if frame.frame < _frames_dropped(config):
                continue
            video = videos[frame.video]
            if not scored or scored[-1].video is not video:
                scored.append(_begin(video, model))
            label = scored[-1].add(frame)
            regions.add(video, frame)
            key_frames.consider(video, frame, label)
    video_scores = _video_scores(model, scored, config.evaluation)
    rows = [row for one in scored for row in _rows(one, video_scores)]
    write_frame_scores(folder, rows)
    key_frames.write()
    if regions.exist:
        metrics.write_detections(
            regions.detections(),
            os.path.join(folder, "detections"),
            [video.name for video in videos],
        )
    tracks, origin = ground_truth_tracks(
        [one.video for one in scored],
        [
            one.video
            for one in scored
            if one.labels is not None and one.labels.any()
        ],
    )
    if tracks is not None:
        metrics.write_tracks(tracks, os.path.join(folder, "tracks"))
    labeled = [row for row in rows if row.label is not None]
    return Measured(
        _metrics(
            scored, video_scores, labeled, config, regions, tracks, origin
        ),
        {
            **ranking_curves("frame", labeled, lambda row: row.video_score),
            **ranking_curves("streaming", labeled, lambda row: row.score),
        },
        tuple(one.video.name for one in scored if one.truth is None),
    )


def _begin(video: Video, model: Any) -> _ScoredVideo:
    truth = np.asarray(frame_labels(video)) if video.has_ground_truth else None
    names = ("anomaly_score", "is_anomalous", "raw_score")
    outputs: dict[str, list[float]] = {
        name: [] for name in (*names, *model.video_score_outputs)
    }
    return _ScoredVideo(video, truth, [], outputs)


def _frames_dropped(config: Config) -> int:
    """Returns how many frames at the start of a video are not scored."""
    return (config.data.clip_length - 1) * config.data.stride


def _num_frames(videos: Iterable[Video]) -> int:
    return sum(map(count_frames, videos))


def _rows(scored: _ScoredVideo, video_scores: Series) -> list[FrameScore]:
    outputs, labels = scored.outputs, scored.labels
    return [
        FrameScore(
            scored.video.name,
            frame,
            None if labels is None else int(labels[i]),
            outputs["anomaly_score"][i],
            bool(outputs["is_anomalous"][i]),
            outputs["raw_score"][i],
            float(video_scores[scored.video.name][i]),
        )
        for i, frame in enumerate(scored.frames)
    ]


def _video_scores(
    model: Any, scored: list[_ScoredVideo], evaluation: EvaluationConfig
) -> Series:
    """Returns the scores that micro and macro AUC are measured on, by video."""
    scores = {one.video.name: one.series("anomaly_score") for one in scored}
    if evaluation.normalization == "per_video":
        # The host knows how its paper scores whole videos.
        scores = {
            one.video.name: model.score_video(
                {name: one.series(name) for name in one.outputs}
            )
            for one in scored
        }
    size = evaluation.smoothing_size
    if evaluation.smoothing == "median":
        return metrics.smooth_median(scores, int(size))
    if evaluation.smoothing == "mean":
        return metrics.smooth_mean(scores, int(size))
    if evaluation.smoothing == "gaussian":
        return metrics.smooth_gaussian(scores, size)
    return scores


def _metrics(
    scored: list[_ScoredVideo],
    video_scores: Series,
    labeled: list[FrameScore],
    config: Config,
    regions: Regions,
    tracks: Table | None,
    origin: str,
) -> dict[str, Any]:
    """Returns the content of `metrics.json`, but for the calibration."""
    evaluation = config.evaluation
    labels = {
        one.video.name: one.labels for one in scored if one.labels is not None
    }
    num_frames = _num_frames(one.video for one in scored)
    ranking, auc = _ranking(scored, video_scores, labels, evaluation)
    criteria = {}
    if regions.exist and tracks is not None and tracks["frame"].size:
        measured = metrics.rbdc_tbdc(
            regions.detections(),
            tracks,
            num_frames,
            evaluation.iou_threshold,
            evaluation.track_threshold,
        )
        criteria = {"rbdc": measured.rbdc, "tbdc": measured.tbdc}
    per_video: dict[str, dict[str, Any]] = {}
    for one in scored:
        name = one.video.name
        per_video[name] = {
            "num_frames": _num_frames([one.video]),
            "num_scored_frames": len(one.frames),
        }
        if name in labels:
            per_video[name] |= _counts(labels[name])
        if auc.get(name) is not None:
            per_video[name]["auc"] = auc[name]
    smoothing: str = evaluation.smoothing
    if smoothing != "none":
        smoothing = f"{smoothing} {evaluation.smoothing_size:g}"
    return {
        "kind": "video",
        "num_test_videos": len(scored),
        "num_frames": num_frames,
        "num_scored_frames": sum(len(one.frames) for one in scored),
        **_counts(np.array([row.label for row in labeled], "int64")),
        **ranking,
        **criteria,
        **alarm_rates(labeled),
        "per_video": per_video,
        "conventions": {
            "normalization": evaluation.normalization,
            "smoothing": smoothing,
            "single_class": evaluation.single_class,
            "frames_dropped": _frames_dropped(config),
            "regions": regions.describe(),
            "tracks": origin,
        },
    }


def _counts(labels: np.ndarray) -> dict[str, int]:
    abnormal = int(labels.sum())
    return {
        "num_normal_frames": labels.size - abnormal,
        "num_abnormal_frames": abnormal,
    }


def _ranking(
    scored: list[_ScoredVideo],
    video_scores: Series,
    labels: Series,
    evaluation: EvaluationConfig,
) -> tuple[dict[str, float], dict[Any, float | None]]:
    """Returns the AUCs as far as they are defined, and those by video."""
    if len({int(label) for values in labels.values() for label in values}) < 2:
        return {}, {}
    known = {name: video_scores[name] for name in labels}
    streaming = {
        one.video.name: one.series("anomaly_score")
        for one in scored
        if one.video.name in labels
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
            metrics.normalize_per_video(known), labels, evaluation.single_class
        ).value
    return result, micro.per_video
