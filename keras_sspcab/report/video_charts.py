"""Which charts a report on videos has."""

from collections.abc import Iterable, Sequence

import numpy as np

from keras_sspcab.metrics import (
    average_precision,
    precision_recall_curve,
    roc_curve,
)
from keras_sspcab.report import charts, figures, timeline
from keras_sspcab.report.charts import Chart
from keras_sspcab.report.key_frames import KeyFrame
from keras_sspcab.report.outcome import Outcome
from keras_sspcab.report.video_run import VideoRun, VideoScores

_WIDE, _NARROW = (6.6, 2.3), (4.2, 2.3)
_MAX_STRETCHES = 6


def timeline_chart(
    name: str,
    video: VideoScores,
    threshold: float | None,
    key_frames: Iterable[KeyFrame] = (),
) -> Chart | None:
    """Returns the scores of a video over time; None without scores.

    Args:
        name: Identifier, unique in the page.
        video: Its scores.
        threshold: From which score on a frame is flagged, or None.
        key_frames: Those that are marked.
    """
    if not video.frames:
        return None
    marks = [(k.frame, k.score, k.is_right) for k in key_frames]
    content = timeline.Timeline(
        frames=video.numbers,
        scores=video.scores,
        threshold=threshold,
        truth=video.intervals_of_truth(),
        marks=marks,
    )
    return Chart(
        video.name,
        describe(video, threshold, sorted(frame for frame, *_ in marks)),
        timeline.draw(f"{name}-wide", content, _WIDE),
        timeline.draw(f"{name}-narrow", content, _NARROW),
    )


def summarize(video: VideoScores, threshold: float | None) -> str:
    """Says what became of a video's frames, and when."""
    outcome = Outcome.of(video.frames)
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
        parts.append(f"Abnormal: {stretches(video.intervals_of_truth())}.")
    elif outcome.normal:
        parts.append("Nothing is abnormal.")
    if alarms := video.intervals_of_alarm():
        parts.append(f"Flagged: {stretches(alarms)}.")
    elif threshold is not None:
        parts.append("Nothing is flagged.")
    return " ".join(parts)


def describe(
    video: VideoScores, threshold: float | None, marked: Sequence[int] = ()
) -> str:
    """Says what the timeline of a video shows, to those who cannot see it."""
    numbers, scores = video.numbers, video.scores
    line = "no threshold" if threshold is None else f"threshold {threshold:.2f}"
    text = (
        f"{summarize(video, threshold)} Scores from {scores.min():.2f} to "
        f"{scores.max():.2f} in frames {numbers[0]} to {numbers[-1]}; {line}."
    )
    if marked:
        text += f" Key frames: {_listed(list(map(str, marked)))}."
    return text


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


def score_chart(run: VideoRun) -> Chart | None:
    """Returns the histogram of the streaming scores."""
    return charts.histogram_chart(
        run.frames, run.threshold, "frames", "abnormal"
    )


def ranking_charts(run: VideoRun) -> list[Chart]:
    """Returns ROC and precision-recall over the frames of all videos."""
    labeled = [f for f in run.frames if f.label is not None]
    labels = np.array([f.label for f in labeled])
    if len(set(labels.tolist())) < 2:
        return []
    series = (
        ("whole video", figures.ACCENT, [f.video_score for f in labeled]),
        ("streaming", figures.ANOMALOUS, [f.score for f in labeled]),
    )
    areas = charts.metric_values(
        run, micro_auc="whole video", streaming_micro_auc="streaming"
    )
    precisions = ", ".join(
        f"{legend} {average_precision(labels, scores):.3f}"
        for legend, _, scores in series
    )
    return [
        charts.roc_chart(
            [
                (legend, color, roc_curve(labels, scores, charts.POINTS))
                for legend, color, scores in series
            ],
            "abnormal frames found over share of normal frames flagged",
            areas,
        ),
        charts.precision_recall_chart(
            [
                (
                    legend,
                    color,
                    precision_recall_curve(labels, scores, charts.POINTS),
                )
                for legend, color, scores in series
            ],
            "abnormal frames found",
            precisions,
        ),
    ]


def _listed(texts: Sequence[str]) -> str:
    """Returns texts as one, the last two joined by `and`."""
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last
