"""The scores of a video over time: drawn as SVG, and told in words."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import AsinhLocator, NullLocator

from keras_sspcab.metrics import Curve
from keras_sspcab.report import figures
from keras_sspcab.report.charts import Chart
from keras_sspcab.report.content import OutcomeCounts, VideoScores
from keras_sspcab.report.figures import ACCENT, ANOMALOUS, INK, NORMAL
from keras_sspcab.runs.outputs import KeyFrame

# Width and height in inches, at which text has 10 points.
_WIDE, _NARROW = (6.6, 2.3), (4.2, 2.3)
_MAX_POINTS = 600
_MAX_STRETCHES = 6


def timeline_chart(
    name: str,
    video: VideoScores,
    threshold: float | None,
    key_frames: Sequence[KeyFrame] = (),
) -> Chart | None:
    """Returns the scores of a video over time; None without scores."""
    if not video.frames:
        return None
    scores = [frame.score for frame in video.frames]
    first, last = video.frames[0].frame, video.frames[-1].frame
    line = "no threshold" if threshold is None else f"threshold {threshold:.2f}"
    description = (
        f"{summarize(video, threshold)} Scores from {min(scores):.2f} to "
        f"{max(scores):.2f} in frames {first} to {last}; {line}."
    )
    if key_frames:
        marked = sorted(key_frame.frame for key_frame in key_frames)
        description += f" Key frames: {_listed([str(n) for n in marked])}."
    return Chart(
        video.name,
        description,
        draw(f"{name}-wide", video, threshold, key_frames, _WIDE),
        draw(f"{name}-narrow", video, threshold, key_frames, _NARROW),
    )


def summarize(video: VideoScores, threshold: float | None) -> str:
    """Says what became of a video's frames, and when."""
    outcome = OutcomeCounts(video.frames)
    counts = []
    if outcome.anomalous:
        counts.append(
            f"{outcome.found} of {outcome.anomalous} abnormal frames found"
        )
    if outcome.normal:
        counts.append(
            f"{outcome.false_alarms} of {outcome.normal} normal frames flagged"
        )
    if outcome.unlabeled:
        counts.append(
            f"{outcome.flagged} of {outcome.unlabeled} frames without a label "
            "flagged"
        )
    parts = [f"{', '.join(counts)}."]
    if outcome.anomalous:
        parts.append(f"Abnormal: {stretches(video.abnormal_intervals)}.")
    elif outcome.normal:
        parts.append("Nothing is abnormal.")
    if alarms := video.flagged_intervals:
        parts.append(f"Flagged: {stretches(alarms)}.")
    elif threshold is not None:
        parts.append("Nothing is flagged.")
    return " ".join(parts)


def stretches(intervals: Sequence[tuple[int, int]]) -> str:
    """Returns intervals of frames in words; of many, the longest ones."""
    # Of equally long ones the first stay.
    by_length = sorted(intervals, key=lambda pair: pair[0] - pair[1])
    texts = _listed(
        [
            f"{first} to {last}" if last > first else str(first)
            for first, last in sorted(by_length[:_MAX_STRETCHES])
        ]
    )
    if len(intervals) > _MAX_STRETCHES:
        return f"{len(intervals)} times, longest in frames {texts}"
    is_one = len(intervals) == 1 and intervals[0][0] == intervals[0][1]
    return f"{'frame' if is_one else 'frames'} {texts}"


def draw(
    name: str,
    video: VideoScores,
    threshold: float | None,
    key_frames: Sequence[KeyFrame],
    size: tuple[float, float],
) -> str:
    """Returns the timeline of a video as an `<svg>` element."""
    numbers = np.array([frame.frame for frame in video.frames])
    scores = np.array([frame.score for frame in video.frames])
    curve = thin_extremes(numbers, scores, _MAX_POINTS)
    *_, middle = figures.score_range(scores, threshold)
    with figures.page_axes(name, size) as (axes, result):
        axes.broken_barh(
            [
                (first - 0.5, last - first + 1)
                for first, last in video.abnormal_intervals
            ],
            (0, 1),
            transform=axes.get_xaxis_transform(),
            color=ANOMALOUS,
            alpha=0.18,
            linewidth=0,
        )
        marker = "." if len(curve.x) == 1 else None
        axes.plot(*curve, color=ACCENT, linewidth=1.4, marker=marker)
        if threshold is not None:
            axes.axhline(threshold, color=INK, lw=1.2, ls="--")
        for key_frame in key_frames:
            marker, color = "D", INK
            if key_frame.label is not None:
                is_right = key_frame.label == key_frame.is_anomalous
                marker, color = ("o", NORMAL) if is_right else ("X", ANOMALOUS)
            axes.plot(
                key_frame.frame,
                key_frame.score,
                marker,
                color=color,
                markersize=7,
                clip_on=False,
            )
        if middle is not None:
            axes.set_yscale("asinh", linear_width=middle)
            axes.yaxis.set_major_locator(AsinhLocator(middle, numticks=7))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(int(numbers[0]) - 0.5, int(numbers[-1]) + 0.5)
        axes.margins(y=0.06)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel="frame", ylabel="score")
    return re.sub("<[^>]*>", _shorten_numbers, result[0])


def _shorten_numbers(tag: re.Match[str]) -> str:
    # A tenth of a point is finer than any screen.
    return re.sub(
        r"\d+\.\d{2,}",
        lambda match: f"{float(match[0]):.1f}".removesuffix(".0"),
        tag[0],
    )


def thin_extremes(x: np.ndarray, y: np.ndarray, max_points: int) -> Curve:
    """Keeps the smallest and the largest value of each stretch of a curve.

    Peaks stay as high as they are, in their place, however thin they are; both
    ends stay as well.
    """
    if x.size <= max_points:
        return Curve(x, y)
    num_bins = (max_points - 2) // 2
    kept = {0, x.size - 1}
    for part in np.array_split(np.arange(x.size), num_bins):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return Curve(x[order], y[order])


def _listed(texts: Sequence[str]) -> str:
    """Returns texts as one, the last two joined by `and`."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last
