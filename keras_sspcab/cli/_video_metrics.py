"""From the scores of video frames to the figures of `metrics.json`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._regions import ObjectRegions, Regions
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
        evaluation: How to normalize and smooth.

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
        if evaluation.normalization == "per_video":
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


def figures(
    scored: "list[ScoredVideo]",
    series: Series,
    config: Config,
    regions: "Regions | ObjectRegions",
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
            metrics.normalize_per_video(known), labels, evaluation.single_class
        ).value
    return result, micro.per_video


def _criteria(
    regions: "Regions | ObjectRegions",
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
    config: Config, regions: "Regions | ObjectRegions", source: str
) -> dict[str, Any]:
    """Returns what figures must share to be comparable."""
    evaluation = config.evaluation
    smoothing = evaluation.smoothing
    if smoothing != "none":
        smoothing += f" {evaluation.smoothing_size:g}"
    return {
        "normalization": evaluation.normalization,
        "smoothing": smoothing,
        "single_class": evaluation.single_class,
        "frames_dropped": frames_dropped(config),
        "regions": regions.describe(),
        "tracks": source,
    }


def frames_dropped(config: Config) -> int:
    """Returns how many frames at the start of a video are not scored."""
    return (config.data.clip_length - 1) * config.data.stride


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
