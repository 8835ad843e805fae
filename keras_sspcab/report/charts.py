"""Which charts a report has, made from the content of a run."""

import dataclasses

import numpy as np

from keras_sspcab.metrics import Curve, average_precision
from keras_sspcab.metrics.image_level import thin_curve
from keras_sspcab.metrics.pixel_level import FPR_LIMIT
from keras_sspcab.report import figures
from keras_sspcab.report.content import EvaluatedRun

_POINTS = 300

# Legend, color, name of the curves, and metrics that are areas below them.
_IMAGE_RANKINGS = (
    ("images", figures.ACCENT, "image", "image_auroc", "image_ap"),
    ("pixels", figures.ANOMALOUS, "pixel", "pixel_auroc", "pixel_ap"),
)
_VIDEO_RANKINGS = (
    ("whole video", figures.ACCENT, "frame", "micro_auc", ""),
    ("streaming", figures.ANOMALOUS, "streaming", "streaming_micro_auc", ""),
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart of the page, drawn again for narrow screens if it is wide."""

    title: str
    description: str
    svg: str
    narrow_svg: str | None = None


def score_chart(run: EvaluatedRun) -> Chart | None:
    """Returns the histogram of the scores; None if nothing has a score."""
    if not run.scored:
        return None
    things = run.nouns.things
    series = []
    for label, legend, color in (
        (0, "normal", figures.NORMAL),
        (1, run.nouns.anomalous, figures.ANOMALOUS),
        (None, "no label", figures.ACCENT),
    ):
        scores = [one.score for one in run.scored if one.label == label]
        if scores:
            series.append((legend, color, scores))
    ranges = "; ".join(
        f"{legend}: {len(scores)} {things} from {min(scores):.2f} to "
        f"{max(scores):.2f}"
        for legend, _, scores in series
    )
    line = (
        "The model is not calibrated, so there is no threshold."
        if run.threshold is None
        else f"The dashed line is the threshold, {run.threshold:.2f}."
    )
    wide, narrow = (
        figures.score_histogram(name, series, run.threshold, size, things)
        for name, size in (
            ("scores", (8.4, 3.4)),
            ("scores-narrow", (4.2, 3.4)),
        )
    )
    description = f"How many {things} have which score. {ranges}. {line}"
    return Chart("Scores", description, wide, narrow)


def ranking_charts(run: EvaluatedRun) -> list[Chart]:
    """Returns ROC, precision-recall and PRO, as far as there are curves."""
    rankings = _VIDEO_RANKINGS if run.is_video else _IMAGE_RANKINGS
    curves = {
        name: thin_curve(*curve, _POINTS)
        for name, curve in (run.curves or {}).items()
    }

    def chosen(kind: str) -> list[tuple[str, str, Curve]]:
        return [
            (legend, color, curves[f"{name}_{kind}"])
            for legend, color, name, *_ in rankings
            if f"{name}_{kind}" in curves
        ]

    charts = []
    if roc := chosen("roc"):
        areas = _values(run, {key: what for what, _, _, key, _ in rankings})
        charts.append(
            Chart(
                "ROC",
                f"Share of {run.nouns.anomalies} found over share of normal "
                f"ones flagged, for every threshold. Area: {areas}. The dotted "
                "line is chance, 0.5.",
                figures.unit_curves(
                    "roc",
                    roc,
                    ("false positive rate", "true positive rate"),
                    chance=True,
                ),
            )
        )
    if precision_recall := chosen("precision_recall"):
        areas = _values(run, {key: what for what, *_, key in rankings})
        if run.is_video:
            areas = _average_precisions(run)
        charts.append(
            Chart(
                "Precision and recall",
                "Share of alarms that are right over share of "
                f"{run.nouns.anomalies} found. Average precision: {areas}.",
                figures.unit_curves(
                    "precision-recall",
                    precision_recall,
                    ("recall", "precision"),
                    steps=True,
                ),
            )
        )
    if "pro" in curves:
        charts.append(
            Chart(
                "Per-region overlap (PRO)",
                "Mean covered share of the defective regions over share of "
                "normal pixels flagged. The tinted area up to "
                f"{FPR_LIMIT}, divided by {FPR_LIMIT}, is AUPRO: "
                f"{_values(run, {'aupro': ''})}.",
                figures.unit_curves(
                    "pro",
                    [("overlap", figures.ANOMALOUS, curves["pro"])],
                    ("false positive rate", "per-region overlap"),
                    limit=FPR_LIMIT,
                ),
            )
        )
    return charts


def training_charts(run: EvaluatedRun) -> list[Chart]:
    """Returns the loss and the part of the block in it."""
    history = run.history
    epochs = history.get("epoch")
    if epochs is None:
        return []
    charts = []
    for column, title, description in (
        ("loss", "Loss", "What the training minimizes, all parts together"),
        (
            "sspcab_loss",
            "SSPCAB loss",
            "The part of it that the self-supervised block adds",
        ),
    ):
        series = [
            (legend, color, history[name])
            for name, legend, color in (
                (column, "training", figures.ACCENT),
                (f"val_{column}", "validation", figures.ANOMALOUS),
            )
            if name in history and np.isfinite(history[name]).any()
        ]
        if not series:
            continue
        ends = "; ".join(
            f"{legend}: from {values[np.isfinite(values)][0]:.4g} to "
            f"{values[np.isfinite(values)][-1]:.4g}"
            for legend, _, values in series
        )
        name = column.replace("_", "-")
        charts.append(
            Chart(
                title,
                f"{description}, after each epoch. {ends}.",
                figures.training_curve(name, series, epochs),
            )
        )
    return charts


def _values(run: EvaluatedRun, names: dict[str, str]) -> str:
    """Returns metrics in words, such as `images 0.950`, by their keys."""
    values = [
        f"{what} {run.metrics[key]:.3f}".strip()
        for key, what in names.items()
        if isinstance(run.metrics.get(key), float)
    ]
    return ", ".join(values) or "not measured"


def _average_precisions(run: EvaluatedRun) -> str:
    """Returns those of frames in words; they are no metric of a run."""
    frames = [
        frame
        for video in run.videos
        for frame in video.frames
        if frame.label is not None
    ]
    labels = [frame.label for frame in frames]
    whole = average_precision(labels, [frame.video_score for frame in frames])
    streaming = average_precision(labels, [frame.score for frame in frames])
    return f"whole video {whole:.3f}, streaming {streaming:.3f}"
