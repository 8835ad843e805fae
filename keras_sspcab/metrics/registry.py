"""The metrics and conventions of `metrics.json`: their names and meanings."""

import dataclasses
from collections.abc import Iterable

_IMAGE, _VIDEO = ("image",), ("video",)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measure of a detector, a share in [0, 1]; `key` in `metrics.json`."""

    key: str
    title: str
    meaning: str
    kinds: tuple[str, ...]
    at_threshold: bool = False  # depends on the calibration; others rank
    higher_is_better: bool = True

    @property
    def heading(self) -> str:
        """The title as it begins a line."""
        return self.title[:1].upper() + self.title[1:]


#: The metrics by key, in the order of tables.
METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            "image_auroc",
            "image AUROC",
            "How well scores rank defective images above normal ones; 0.5 is "
            "chance.",
            _IMAGE,
        ),
        Metric(
            "image_ap",
            "image AP",
            "Average precision: the area under precision over recall.",
            _IMAGE,
        ),
        Metric(
            "image_f1",
            "best image F1",
            "At the threshold that suits these images best, not the calibrated "
            "one.",
            _IMAGE,
        ),
        Metric(
            "pixel_auroc",
            "pixel AUROC",
            "The same ranking for pixels; mostly normal ones, so easily high.",
            _IMAGE,
        ),
        Metric(
            "pixel_ap",
            "pixel AP",
            "Average precision for pixels; chance is the share of defective "
            "ones.",
            _IMAGE,
        ),
        Metric(
            "aupro",
            "AUPRO",
            "Overlap with each defective region, up to 30 % false positives.",
            _IMAGE,
        ),
        Metric(
            "micro_auc",
            "micro AUC",
            "AUROC over the frames of all videos together, scored with the "
            "whole video at hand; 0.5 is chance.",
            _VIDEO,
        ),
        Metric(
            "macro_auc",
            "macro AUC",
            "Mean of the videos' own AUROCs, each video with the same weight.",
            _VIDEO,
        ),
        Metric(
            "streaming_micro_auc",
            "streaming micro AUC",
            "Micro AUC of scores that are not normalized by video, for which "
            "one would have to wait for its end.",
            _VIDEO,
        ),
        Metric(
            "rbdc",
            "RBDC",
            "Where, not only when: the share of abnormal regions found, over "
            "false regions per frame from 0 to 1.",
            _VIDEO,
        ),
        Metric(
            "tbdc",
            "TBDC",
            "The same for tracks: an anomaly counts as found once enough of "
            "its regions over time are.",
            _VIDEO,
        ),
        Metric(
            "detection_rate",
            "detection rate",
            "Share of the anomalous images or frames that are flagged.",
            _IMAGE + _VIDEO,
            at_threshold=True,
        ),
        Metric(
            "false_alarm_rate",
            "false alarm rate",
            "Share of the normal images or frames that are flagged.",
            _IMAGE + _VIDEO,
            at_threshold=True,
            higher_is_better=False,
        ),
    )
}

#: What metrics of videos depend on, by key of `conventions` in `metrics.json`:
#: a title, and what its values mean; others explain themselves.
CONVENTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "normalization": (
        "Normalization",
        {
            "per_video": "the scores of each video are brought to [0, 1] by "
            "its own smallest and largest one",
            "none": "none, the scores of all videos are compared as they are",
            "raw": "none, the scores before calibration are compared",
        },
    ),
    "smoothing": (
        "Smoothing over time",
        {"none": "none, each frame keeps its own score"},
    ),
    "single_class": (
        "Videos of one class",
        {
            "sentinel": "macro AUC adds two sentinel frames to each video, a "
            "normal one of score 0 and an abnormal one of score 1, so that all "
            "videos count",
            "skip": "macro AUC leaves them out, as their own AUROC is not "
            "defined",
        },
    ),
    "update_memory": (
        "Memory",
        {
            "True": "learns from the frames that look normal while it scores",
            "False": "stays as it was trained",
        },
    ),
    "frames_dropped": ("Frames without a score", {}),
    "regions": ("Regions", {}),
    "tracks": (
        "Tracks of the ground truth",
        {
            "files": "read from the files of the data set",
            "masks": "derived from the ground-truth masks",
            "none": "there are none, so RBDC and TBDC are not defined",
        },
    ),
}


def metrics_of(kind: str, keys: Iterable[str] | None = None) -> list[Metric]:
    """Returns the metrics of a kind of host, as far as they are in `keys`."""
    kind = "video" if kind == "objects" else kind
    chosen = None if keys is None else set(keys)
    return [
        metric
        for metric in METRICS.values()
        if kind in metric.kinds and (chosen is None or metric.key in chosen)
    ]


def describe_convention(key: str, value: object) -> tuple[str, str]:
    """Returns the title of a convention and what its value means."""
    title, meanings = CONVENTIONS.get(key, (key, {}))
    text = meanings.get(str(value), str(value))
    if key == "frames_dropped":
        text = f"{value} at the beginning of each video"
    if key == "smoothing":
        filter_name, _, size = text.partition(" ")
        if filter_name in ("median", "mean"):
            text = f"{filter_name} over {size} frames"
        elif filter_name == "gaussian":
            text = f"Gaussian with a standard deviation of {size} frames"
    return title, text
