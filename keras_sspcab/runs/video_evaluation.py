"""Scores the test videos of a run and measures how good the scores are."""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_sspcab import metrics
from keras_sspcab.data.video import (
    Video,
    count_frames,
    frame_labels,
    iterate_masks,
    read_frames,
)
from keras_sspcab.hosts import ScoredFrame
from keras_sspcab.progress import Progress
from keras_sspcab.runs.config import Config, EvaluationConfig
from keras_sspcab.runs.measures import (
    SCORED,
    Measured,
    alarm_rates,
    ranking_curves,
)
from keras_sspcab.runs.outputs import (
    OUTCOMES,
    FrameScore,
    KeyFrame,
    write_map,
    write_rows,
)
from keras_sspcab.runs.regions import (
    Regions,
    Table,
    ground_truth_tracks,
    of_videos,
    regions_of,
)
from keras_sspcab.runs.sources import VideoSource
from keras_sspcab.scoring import describe_fault

# Of key frames.
_PER_VIDEO = 2

# By outcome, a frame and its anomaly map.
_Best = dict[str, tuple[KeyFrame, np.ndarray]]


class KeyFrames:
    """The frames of each test video that are worth a look, for the report."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._best: dict[Video, _Best] = {}

    def consider(
        self, video: Video, scored: ScoredFrame, label: int | None
    ) -> None:
        """Keeps a frame if it tells more than those of its video so far."""
        best = self._best.setdefault(video, {})
        number = len(self._best) - 1
        stem = f"{self._folder}/key_frames/{number:04d}-{scored.frame:06d}"
        row = KeyFrame(
            video.name,
            scored.frame,
            label,
            float(scored.outputs["anomaly_score"]),
            bool(scored.outputs["is_anomalous"]),
            path=f"{stem}.png",
            mask_path=f"{stem}-mask.png",
            map_path=f"{stem}.npy",
        )
        # Of those that were missed, the one furthest below the threshold.
        sign = -1 if row.outcome == "missed" else 1
        before = best.get(row.outcome)
        if before is None or sign * row.score > sign * before[0].score:
            # Of a view, the whole batch would be kept.
            best[row.outcome] = row, scored.outputs["anomaly_map"].copy()

    def write(self) -> None:
        """Writes pictures, maps, masks and the table of key frames."""
        os.makedirs(os.path.join(self._folder, "key_frames"))
        rows = [
            row
            for video, best in self._best.items()
            for row in _write_video(video, best)
        ]
        write_rows(self._folder, KeyFrame, rows)


def _write_video(video: Video, best: _Best) -> Iterator[KeyFrame]:
    # The most instructive ones come first.
    outcomes = [name for name in OUTCOMES.values() if name in best]
    chosen = [best[name] for name in outcomes[:_PER_VIDEO]]
    positions = sorted({row.frame for row, _ in chosen})
    pictures = read_frames(video, positions)
    masks: dict[int, np.ndarray] = {}
    if video.masks is not None:
        first_ones = itertools.islice(iterate_masks(video), positions[-1] + 1)
        masks = {i: m for i, m in enumerate(first_ones) if i in positions}
    for row, anomaly_map in chosen:
        Image.fromarray(pictures[row.frame]).save(row.path)
        write_map(str(row.map_path), anomaly_map)
        mask = masks.get(row.frame)
        if mask is None or not mask.any():
            yield dataclasses.replace(row, mask_path=None)
        else:
            pixels = mask.astype("uint8") * 255
            Image.fromarray(pixels).save(str(row.mask_path))
            yield row


Series = dict[str, np.ndarray]


class _ScoredVideo:
    """The scores of one video: values of its scored frames by output."""

    def __init__(self, video: Video, model: Any) -> None:
        self.name, self.video = video.name, video
        self.num_frames = count_frames(video)
        # Labels of all frames, or None.
        self.truth: np.ndarray | None = None
        if video.has_ground_truth:
            self.truth = np.asarray(frame_labels(video))
        self.frames: list[int] = []
        names = ("anomaly_score", "is_anomalous", "raw_score")
        self._outputs: dict[str, list[float]] = {
            name: [] for name in (*names, *model.video_score_outputs)
        }

    def add(self, scored: ScoredFrame) -> int | None:
        """Takes a frame; returns its label."""
        self.frames.append(scored.frame)
        for name, values in self._outputs.items():
            values.append(float(scored.outputs[name]))
        return None if self.truth is None else int(self.truth[scored.frame])

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the scored frames, or None."""
        return None if self.truth is None else self.truth[self.frames]

    @property
    def series(self) -> Series:
        """All outputs of the scored frames, in float64."""
        return {k: np.array(v, "float64") for k, v in self._outputs.items()}

    def rows(self, video_scores: np.ndarray) -> list[FrameScore]:
        """Returns the rows of `scores.csv`."""
        outputs, labels = self._outputs, self.labels
        return [
            FrameScore(
                self.name,
                frame,
                None if labels is None else int(labels[i]),
                outputs["anomaly_score"][i],
                bool(outputs["is_anomalous"][i]),
                outputs["raw_score"][i],
                float(video_scores[i]),
            )
            for i, frame in enumerate(self.frames)
        ]


def evaluate_videos(
    model: Any,
    source: VideoSource,
    videos: Sequence[Video],
    split: str,
    folder: str,
    progress: Progress,
) -> Measured:
    """Scores test videos; writes scores, key frames, regions and tracks."""
    config = source.config
    regions, key_frames = regions_of(model, source), KeyFrames(folder)
    scored = [_ScoredVideo(video, model) for video in videos]
    total = sum(map(count_frames, videos))
    with progress.count("Scoring frames", total) as advance:
        for frame in source.score_frames(
            model, videos, **config.evaluation.options
        ):
            advance()
            if frame.frame < _frames_dropped(config):
                continue
            video = videos[frame.video]
            if fault := describe_fault(frame.outputs):
                raise ValueError(
                    f"{video.path}, frame {frame.frame}, cannot be "
                    f"measured: {fault}. Has the training diverged?"
                )
            label = scored[frame.video].add(frame)
            regions.add(video, frame)
            key_frames.consider(video, frame, label)
    # Objects are scored in videos that are shorter than a clip, too.
    lasting = [one for one in scored if one.frames]
    video_scores = _video_scores(model, lasting, config.evaluation)
    rows = [row for one in lasting for row in one.rows(video_scores[one.name])]
    write_rows(folder, FrameScore, rows)
    key_frames.write()
    if regions.exist:
        metrics.write_detections(
            regions.detections(),
            os.path.join(folder, "detections"),
            [video.name for video in videos],
        )
    tracks, origin = ground_truth_tracks(
        {one.video: one.labels for one in scored}
    )
    if tracks is not None:
        metrics.write_tracks(tracks, os.path.join(folder, "tracks"))
    labeled = [row for row in rows if row.label is not None]
    values = _metrics(
        scored, video_scores, labeled, config, regions, tracks, origin
    )
    curves = {
        **ranking_curves("frame", labeled, lambda row: row.video_score),
        **ranking_curves("streaming", labeled, lambda row: row.score),
    }
    return Measured(values, curves, _gaps(scored, values, split))


def _frames_dropped(config: Config) -> int:
    """Returns how many frames at the start of a video are not scored."""
    return (config.data.clip_length - 1) * config.data.stride


def _gaps(
    scored: list[_ScoredVideo], values: dict[str, Any], split: str
) -> list[str]:
    if split != "test":
        return [
            f"There are no test videos; the {SCORED[split]} videos were scored"
        ]
    gaps = []
    if too_short := sum(not one.frames for one in scored):
        gaps.append(f"{too_short} test videos are shorter than a clip")
    if without_truth := sum(one.truth is None for one in scored):
        gaps.append(
            f"{without_truth} test videos have no ground truth and count for "
            "no metric"
        )
    kinds = "abnormal", "normal"
    missing = [kind for kind in kinds if not values[f"num_{kind}_frames"]]
    if missing and without_truth < len(scored):
        gaps.append(
            f"No test frame is {missing[0]}: there is nothing to tell apart"
        )
    return gaps


def _video_scores(
    model: Any, scored: list[_ScoredVideo], evaluation: EvaluationConfig
) -> Series:
    """Returns the scores that micro and macro AUC are measured on, by video."""
    is_raw = evaluation.normalization == "raw"
    output = "raw_score" if is_raw else "anomaly_score"
    scores = {one.name: one.series[output] for one in scored}
    if evaluation.normalization == "per_video":
        # The host knows how its paper scores whole videos.
        scores = {one.name: model.score_video(one.series) for one in scored}
    method, size = evaluation.smoothing, evaluation.smoothing_size
    if method == "none" or not scores:
        return scores
    size = size if method == "gaussian" else int(size)
    return metrics.smooth_frames(scores, method, size)


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
    ranking, auc = _ranking(scored, video_scores, evaluation)
    criteria = {}
    if regions.exist and tracks is not None and tracks["frame"].size:
        known = _known(scored)
        measured = metrics.rbdc_tbdc(
            of_videos(regions.detections(), [one.name for one in known]),
            tracks,
            sum(one.num_frames for one in known),
            evaluation.iou_threshold,
            evaluation.track_threshold,
        )
        criteria = {"rbdc": measured.rbdc, "tbdc": measured.tbdc}
    per_video: dict[str, dict[str, Any]] = {}
    for one in scored:
        values = per_video[one.name] = {
            "num_frames": one.num_frames,
            "num_scored_frames": len(one.frames),
        }
        if one.labels is not None:
            values |= _counts(one.labels)
        if auc.get(one.name) is not None:
            values["auc"] = auc[one.name]
    smoothing: str = evaluation.smoothing
    if smoothing != "none":
        smoothing = f"{smoothing} {evaluation.smoothing_size:g}"
    return {
        "kind": "video",
        "num_test_videos": len(scored),
        "num_frames": sum(one.num_frames for one in scored),
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
            **evaluation.options,
            "frames_dropped": _frames_dropped(config),
            "regions": regions.description,
            "tracks": origin,
        },
    }


def _known(scored: list[_ScoredVideo]) -> list[_ScoredVideo]:
    """Returns the videos of which it is known where they are abnormal.

    Where track files are all that there is, videos without have no anomaly.
    """
    if all(one.truth is None for one in scored):
        return scored
    return [v for v in scored if v.truth is not None or v.video.tracks]


def _counts(labels: np.ndarray) -> dict[str, int]:
    abnormal = int(labels.sum())
    return {
        "num_normal_frames": labels.size - abnormal,
        "num_abnormal_frames": abnormal,
    }


def _ranking(
    scored: list[_ScoredVideo],
    video_scores: Series,
    evaluation: EvaluationConfig,
) -> tuple[dict[str, float], dict[Any, float | None]]:
    """Returns the AUCs as far as they are defined, and those by video."""
    labels = {
        one.name: one.labels
        for one in scored
        if one.labels is not None and one.frames
    }
    if len({int(label) for values in labels.values() for label in values}) < 2:
        return {}, {}
    known = {name: video_scores[name] for name in labels}
    streaming = {
        one.name: one.series["anomaly_score"]
        for one in scored
        if one.name in labels
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
