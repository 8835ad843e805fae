"""One self-contained page about a run."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from keras_sspcab.metrics.shortcuts import describe_shortcut
from keras_sspcab.report import charts, gallery, rendering, video_page
from keras_sspcab.report.heat import HeatScale
from keras_sspcab.report.outcome import Outcome
from keras_sspcab.report.run_data import Prediction, RunData, read_run
from keras_sspcab.report.run_files import read_basics
from keras_sspcab.report.video_run import read_video_run
from keras_sspcab.runs import files

_METRICS = (
    (
        "image_auroc",
        "Image AUROC",
        "How well scores rank defective images above normal ones; 0.5 is "
        "chance.",
    ),
    (
        "image_ap",
        "Image AP",
        "Average precision: the area under precision over recall.",
    ),
    (
        "image_f1",
        "Best image F1",
        "At the threshold that suits these images best, not the calibrated "
        "one.",
    ),
    (
        "pixel_auroc",
        "Pixel AUROC",
        "The same ranking for pixels; mostly normal ones, so easily high.",
    ),
    (
        "pixel_ap",
        "Pixel AP",
        "Average precision for pixels; chance is the share of defective ones.",
    ),
    (
        "aupro",
        "AUPRO",
        "Overlap with each defective region, up to 30 % false positives.",
    ),
)


def write_report(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    max_images: int = 60,
) -> Path:
    """Writes an HTML page about an evaluated run.

    The page needs no network and no other file: it can be mailed. It shows what
    was trained, the metrics, curves, and a gallery that begins with the worst
    misses. The colors of the maps are fixed by the calibration, from 0 to
    twice the pixel threshold, and never by the single image. Of a run on videos
    it shows the scores over time and the most telling frames instead.

    Labels, masks, maps and even the images may be missing; what depends on them
    is left out then, and the page says so.

    Args:
        run_folder: Folder of a run, after `keras-sspcab evaluate`.
        output: File to write. Defaults to `report.html` in the folder.
        max_images: How many images or frames the gallery shows; about 30 KB
            each.

    Returns:
        The path of the page.

    Raises:
        ValueError: If a file of the run is missing or broken; the message names
            it, and the command that writes it. A page that was there stays.
    """
    if max_images < 0:
        raise ValueError(
            "The `max_images` argument must not be negative. "
            f"Received: max_images={max_images}"
        )
    basics = read_basics(run_folder)
    if basics.is_video:
        page = video_page.render(read_video_run(run_folder), max_images)
    else:
        page = _render(read_run(run_folder), max_images)
    path = Path(basics.path, "report.html") if output is None else Path(output)
    files.write_text(str(path), page)
    return path


def _render(run: RunData, max_images: int) -> str:
    scale = HeatScale.of_run(run)
    groups = gallery.group_predictions(run.predictions, max_images)
    common = _common_folder(p.path for p in run.predictions)
    return rendering.render(
        "report.html",
        run,
        scale,
        facts=rendering.facts(run, "images"),
        metrics=rendering.measured(run.metrics, _METRICS),
        shortcut=describe_shortcut(run.metrics),
        outcome=Outcome.of(run.predictions),
        defects=_defect_rows(run),
        defect_columns=_defect_columns(run),
        score_chart=charts.score_chart(run),
        ranking_charts=charts.ranking_charts(run),
        groups=[(group, _cards(group, scale, common)) for group in groups],
        num_shown=sum(group.shown for group in groups),
    )


def _cards(
    group: gallery.Group[Prediction], scale: HeatScale, common: str
) -> Iterator[gallery.Card]:
    for prediction in group.members[: group.shown]:
        yield gallery.make_card(
            prediction,
            scale,
            name=prediction.path[len(common) :],
            kind=prediction.defect if prediction.label else "",
        )


def _defect_columns(run: RunData) -> list[tuple[str, str]]:
    per_defect = run.metrics.get("per_defect") or {}
    return [
        (key, title)
        for key, title, _ in _METRICS
        if any(key in values for values in per_defect.values())
    ]


def _defect_rows(run: RunData) -> list[dict[str, Any]]:
    """Returns counts and metrics of each kind of defect, worst found first."""
    rows = []
    per_defect = run.metrics.get("per_defect") or {}
    defective = [p for p in run.predictions if p.label == 1]
    for defect in sorted({p.defect for p in defective} | set(per_defect)):
        own = [p for p in defective if p.defect == defect]
        found = sum(p.is_anomalous for p in own)
        rows.append(
            {
                "defect": defect or "(unnamed)",
                "total": len(own),
                "found": found,
                "share": found / len(own) if own else 0.0,
                "metrics": per_defect.get(defect, {}),
            }
        )
    return sorted(rows, key=lambda row: row["share"])


def _common_folder(paths: Iterable[str]) -> str:
    """Returns the folder that all images lie in, with its separator."""
    try:
        folder = os.path.commonpath([os.path.dirname(p) for p in paths])
    except ValueError:  # none at all, or relative and absolute ones
        return ""
    return os.path.join(folder, "") if folder else ""
