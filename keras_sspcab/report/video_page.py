"""The page about a run on videos."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras_sspcab.report import gallery, rendering, video_charts
from keras_sspcab.report.charts import Chart
from keras_sspcab.report.heat import HeatScale
from keras_sspcab.report.key_frames import KeyFrame
from keras_sspcab.report.outcome import Outcome
from keras_sspcab.report.video_run import VideoRun, VideoScores

# How many timelines are open; the others are one click away.
NUM_OPEN = 12
_METRICS = (
    (
        "micro_auc",
        "Micro AUC",
        "AUROC over the frames of all videos together, scored with the whole "
        "video at hand; 0.5 is chance.",
    ),
    (
        "macro_auc",
        "Macro AUC",
        "Mean of the videos' own AUROCs, each video with the same weight.",
    ),
    (
        "streaming_micro_auc",
        "Streaming micro AUC",
        "Micro AUC of the scores that a live video gets: no look ahead, and "
        "nothing is normalized by video.",
    ),
    (
        "rbdc",
        "RBDC",
        "Where, not only when: the share of abnormal regions found, over false "
        "regions per frame from 0 to 1.",
    ),
    (
        "tbdc",
        "TBDC",
        "The same for tracks: an anomaly counts as found once enough of its "
        "regions over time are.",
    ),
)
# Title of each convention, and what its values mean.
_CONVENTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "normalization": (
        "Normalization",
        {
            "per_video": "Per video: the scores of each are brought to [0, 1] "
            "by its own smallest and largest one.",
            "none": "None: the scores of all videos are compared as they are.",
        },
    ),
    "smoothing": (
        "Smoothing over time",
        {"none": "None: each frame keeps its own score."},
    ),
    "single_class": (
        "Videos of one class",
        {
            "sentinel": "Macro AUC adds two sentinel frames to each video, a "
            "normal one of score 0 and an abnormal one of score 1, so that all "
            "videos count.",
            "skip": "Macro AUC leaves them out, as their own AUROC is not "
            "defined.",
        },
    ),
    "frames_dropped": ("Frames without a score", {}),
    "regions": ("Regions", {}),
    "tracks": (
        "Tracks of the ground truth",
        {
            "files": "Read from the files of the data set.",
            "masks": "Derived from the ground-truth masks.",
            "none": "There are none, so RBDC and TBDC are not defined.",
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class VideoRow:
    """One video of the page.

    Attributes:
        key: Identifier in the page.
        video: Its scores.
        outcome: What became of its frames.
        chart: Its timeline, or None if no frame has a score.
        summary: The same in a few words.
    """

    key: str
    video: VideoScores
    outcome: Outcome
    chart: Chart | None
    summary: str


def render(run: VideoRun, max_images: int) -> str:
    """Returns the page.

    Args:
        run: What it is about.
        max_images: How many key frames it shows at most.
    """
    scale = HeatScale.of_run(run)
    groups = gallery.group_predictions(run.pictures, max_images, gallery.FRAMES)
    rows = _rows(run)
    targets = {row.video.name: row.key for row in rows if row.chart}
    return rendering.render(
        "report_video.html",
        run,
        scale,
        facts=rendering.facts(run, "videos", _clip(run)),
        metrics=rendering.measured(run.metrics, _METRICS),
        conventions=conventions(run.metrics.get("conventions") or {}),
        outcome=Outcome.of(run.frames),
        rows=rows,
        num_open=NUM_OPEN,
        timelines=[row for row in rows if row.chart],
        num_without_auc=sum(
            row.video.auc is None and row.video.is_labeled for row in rows
        ),
        num_unscored=sum(not row.video.frames for row in rows),
        score_chart=video_charts.score_chart(run),
        ranking_charts=video_charts.ranking_charts(run),
        groups=[(group, _cards(group, scale, targets)) for group in groups],
        num_shown=sum(group.shown for group in groups),
    )


def conventions(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns title and meaning of what the figures depend on.

    Args:
        values: As `metrics.json` has them. What is not known here is shown as
            it stands there.
    """
    found = []
    for key, value in values.items():
        title, meanings = _CONVENTIONS.get(key, (key, {}))
        text = meanings.get(str(value), str(value))
        if key == "frames_dropped":
            text = f"{value} at the beginning of each video."
        elif key == "smoothing":
            text = _smoothing(text)
        text = text[:1].upper() + text[1:]
        is_known = key in _CONVENTIONS
        found.append((title, text.rstrip(".") + "." if is_known else text))
    return found


def _smoothing(text: str) -> str:
    """Returns `median 17` in words."""
    kind, _, size = text.partition(" ")
    if kind in ("median", "mean"):
        return f"{kind} over {size} frames."
    if kind == "gaussian":
        return f"Gaussian with a standard deviation of {size} frames."
    return text


def _rows(run: VideoRun) -> list[VideoRow]:
    """Returns the videos, those with the lowest AUC first."""
    marked: dict[str, list[KeyFrame]] = {}
    for key_frame in run.pictures:
        marked.setdefault(key_frame.video, []).append(key_frame)
    rows = []
    for number, video in enumerate(sorted(run.videos, key=_badness), 1):
        key = f"video-{number}"
        chart = video_charts.timeline_chart(
            f"{key}-time", video, run.threshold, marked.get(video.name, ())
        )
        rows.append(
            VideoRow(
                key=key,
                video=video,
                outcome=Outcome.of(video.frames),
                chart=chart,
                summary=video_charts.summarize(video, run.threshold),
            )
        )
    return rows


def _badness(video: VideoScores) -> tuple[bool, bool, float]:
    """Orders by AUC; then by the share of wrong (or just flagged) frames."""
    if video.auc is not None:
        return (False, False, video.auc)
    if not video.frames:
        return (True, True, 0.0)
    wrong = sum(f.is_anomalous != (f.label == 1) for f in video.frames)
    return (True, False, -wrong / len(video.frames))


def _cards(
    group: gallery.Group[KeyFrame], scale: HeatScale, targets: dict[str, str]
) -> Iterator[gallery.Card]:
    for key_frame in group.members[: group.shown]:
        yield gallery.make_card(
            key_frame,
            scale,
            name=f"{key_frame.video}, frame {key_frame.frame}",
            target=targets.get(key_frame.video, ""),
        )


def _clip(run: VideoRun) -> str:
    """Returns what the model looks at to score a frame."""
    data = run.config.get("data", {})
    length, stride = data.get("clip_length"), data.get("stride", 1)
    if length is None:
        return ""
    return f"{length} frames" + (f", {stride} apart" if stride != 1 else "")
