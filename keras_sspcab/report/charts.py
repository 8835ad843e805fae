"""Which charts a report has, made from the content of a run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_sspcab.metrics import (
    Curve,
    PixelScores,
    precision_recall_curve,
    roc_curve,
)
from keras_sspcab.report import figures, pictures
from keras_sspcab.report.run_data import RunData
from keras_sspcab.report.run_files import Run

_FPR_LIMIT = 0.3
POINTS = 300
LabeledCurve = tuple[str, str, Curve]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart of the page.

    Attributes:
        title: Heading.
        description: What it shows, for those who cannot see it, too.
        svg: The `<svg>` element.
        narrow_svg: Another one for narrow screens, if that one is too wide.
    """

    title: str
    description: str
    svg: str
    narrow_svg: str | None = None


def score_chart(run: RunData) -> Chart | None:
    """Returns the histogram of the scores; None without predictions."""
    return histogram_chart(
        run.predictions, run.threshold, "images", "defective"
    )


def histogram_chart(
    scored: Sequence[Any], threshold: float | None, things: str, anomalous: str
) -> Chart | None:
    """Returns the histogram of anything with `label` and `score`.

    Args:
        scored: Images or frames; None is returned if there are none.
        threshold: From which score on they are flagged, or None.
        things: What they are called.
        anomalous: What those with an anomaly are called.
    """
    if not scored:
        return None
    kinds = (
        (0, "normal", figures.NORMAL),
        (1, anomalous, figures.ANOMALOUS),
        (None, "no label", figures.ACCENT),
    )
    series = []
    for label, legend, color in kinds:
        scores = [p.score for p in scored if p.label == label]
        if scores:
            series.append((legend, color, scores))
    ranges = "; ".join(
        f"{legend}: {len(scores)} {things} from {min(scores):.2f} to "
        f"{max(scores):.2f}"
        for legend, _, scores in series
    )
    line = (
        "The model is not calibrated, so there is no threshold."
        if threshold is None
        else f"The dashed line is the threshold, {threshold:.2f}."
    )
    return Chart(
        "Scores",
        f"How many {things} have which score. {ranges}. {line}",
        *(
            figures.score_histogram(name, series, threshold, size, things)
            for name, size in (
                ("scores", (8.4, 3.4)),
                ("scores-narrow", (4.2, 3.4)),
            )
        ),
    )


def ranking_charts(run: RunData) -> list[Chart]:
    """Returns ROC, precision-recall and PRO, as far as they are defined."""
    labeled = [p for p in run.predictions if p.label is not None]
    labels = [p.label for p in labeled]
    scores = [p.score for p in labeled]
    pixels = gather_pixels(run)
    has_images = len(set(labels)) == 2
    has_pixels = pixels.num_normal > 0 and pixels.num_anomalous > 0
    roc: list[LabeledCurve] = []
    precision_recall: list[LabeledCurve] = []
    if has_images:
        roc.append(
            ("images", figures.ACCENT, roc_curve(labels, scores, POINTS))
        )
        precision_recall.append(
            (
                "images",
                figures.ACCENT,
                precision_recall_curve(labels, scores, POINTS),
            )
        )
    if has_pixels:
        roc.append(("pixels", figures.ANOMALOUS, pixels.roc_curve(POINTS)))
        precision_recall.append(
            (
                "pixels",
                figures.ANOMALOUS,
                pixels.precision_recall_curve(POINTS),
            )
        )
    charts = []
    if roc:
        areas = metric_values(run, image_auroc="images", pixel_auroc="pixels")
        charts.append(
            roc_chart(
                roc, "defects found over share of normal ones flagged", areas
            )
        )
        areas = metric_values(run, image_ap="images", pixel_ap="pixels")
        charts.append(
            precision_recall_chart(precision_recall, "defects found", areas)
        )
    if has_pixels:
        charts.append(
            Chart(
                "Per-region overlap (PRO)",
                "Mean covered share of the defective regions over share of "
                "normal pixels flagged. The tinted area up to "
                f"{_FPR_LIMIT}, divided by {_FPR_LIMIT}, is AUPRO: "
                f"{metric_values(run, aupro='')}.",
                figures.unit_curves(
                    "pro",
                    [
                        (
                            "overlap",
                            figures.ANOMALOUS,
                            pixels.pro_curve(POINTS),
                        )
                    ],
                    ("false positive rate", "per-region overlap"),
                    limit=_FPR_LIMIT,
                ),
            )
        )
    return charts


def roc_chart(curves: Sequence[LabeledCurve], shares: str, areas: str) -> Chart:
    """Returns receiver operating characteristics.

    Args:
        curves: Legend, color and points of each.
        shares: What is drawn over what, in words.
        areas: The areas below them, in words.
    """
    return Chart(
        "ROC",
        f"Share of {shares}, for every threshold. Area: {areas}. The dotted "
        "line is chance, 0.5.",
        figures.unit_curves(
            "roc",
            curves,
            ("false positive rate", "true positive rate"),
            chance=True,
        ),
    )


def precision_recall_chart(
    curves: Sequence[LabeledCurve], found: str, areas: str
) -> Chart:
    """Returns precision over recall.

    Args:
        curves: Legend, color and points of each.
        found: What the recall is the share of, in words.
        areas: The average precision of each, in words.
    """
    return Chart(
        "Precision and recall",
        f"Share of alarms that are right over share of {found}. Average "
        f"precision: {areas}.",
        figures.unit_curves(
            "precision-recall",
            curves,
            ("recall", "precision"),
            steps=True,
        ),
    )


def training_charts(run: Run) -> list[Chart]:
    """Returns the loss and the part of the block in it."""
    history = run.history
    epochs = history.get("epoch")
    if epochs is None:
        return []
    parts = (
        ("loss", "Loss", "What the training minimizes, all parts together"),
        (
            "sspcab_loss",
            "SSPCAB loss",
            "The part of it that the self-supervised block adds",
        ),
    )
    charts = []
    for column, title, description in parts:
        series = [
            (legend, color, history[name])
            for name, legend, color in (
                (column, "training", figures.ACCENT),
                (f"val_{column}", "validation", figures.ANOMALOUS),
            )
            if name in history and np.isfinite(history[name]).any()
        ]
        if series:
            ends = "; ".join(
                f"{legend}: from {values[np.isfinite(values)][0]:.4g} to "
                f"{values[np.isfinite(values)][-1]:.4g}"
                for legend, _, values in series
            )
            charts.append(
                Chart(
                    title,
                    f"{description}, after each epoch. {ends}.",
                    figures.training_curve(
                        column.replace("_", "-"), series, epochs
                    ),
                )
            )
    return charts


def gather_pixels(run: RunData) -> PixelScores:
    """Returns maps with masks; defective images without a mask are left out."""
    pixels = PixelScores()
    for prediction in run.predictions:
        if prediction.label is None:
            continue
        if prediction.label == 1 and prediction.mask_path is None:
            continue
        anomaly_map = prediction.load_map()
        if anomaly_map is None:
            continue
        mask = None
        if prediction.label == 1 and prediction.mask_path is not None:
            mask = pictures.load_mask(prediction.mask_path, anomaly_map.shape)
            if mask is None:
                continue
        pixels.add(mask, anomaly_map)
    return pixels


def metric_values(run: Run, **names: str) -> str:
    """Returns metrics of the run in words, such as `images 0.950`."""
    found = [
        f"{what} {run.metrics[key]:.3f}".strip()
        for key, what in names.items()
        if isinstance(run.metrics.get(key), float)
    ]
    return ", ".join(found) or "not measured"
