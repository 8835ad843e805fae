"""One self-contained page about a run."""

import base64
import dataclasses
import datetime
import hashlib
import importlib.resources
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from keras_sspcab.report import charts, gallery
from keras_sspcab.report.heat import COLOR_TABLE, DEFAULT_ALPHA, HeatScale
from keras_sspcab.report.run_data import Prediction, RunData, read_run
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
    misses. The colours of the maps are fixed by the calibration, from 0 to
    twice the pixel threshold, and never by the single image.

    Labels, masks, maps and even the images may be missing; what depends on them
    is left out then, and the page says so.

    Args:
        run_folder: Folder of a run, after `keras-sspcab evaluate`.
        output: File to write. Defaults to `report.html` in the folder.
        max_images: How many images the gallery shows; about 30 KB each.

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
    run = read_run(run_folder)
    path = Path(run.path, "report.html") if output is None else Path(output)
    files.write_text(str(path), _render(run, max_images))
    return path


def _render(run: RunData, max_images: int) -> str:
    folder = importlib.resources.files(__package__)
    style, script, template = (
        (folder / name).read_text("utf-8")
        for name in ("report.css", "report.js", "report.html")
    )
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    has_maps = any(p.map_path for p in run.predictions)
    scale = HeatScale.of_run(run)
    groups = gallery.group_predictions(run.predictions, max_images)
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return environment.from_string(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode("ascii"),
        svg=Markup,
        run=run,
        title=_title(run),
        facts=_facts(run),
        versions=run.record.get("versions", {}),
        metrics=[
            (title, run.metrics[key], text)
            for key, title, text in _METRICS
            if isinstance(run.metrics.get(key), (int, float))
        ],
        outcome=_Outcome.of(run.predictions),
        defects=_defect_rows(run),
        defect_columns=_defect_columns(run),
        score_chart=charts.score_chart(run),
        ranking_charts=charts.ranking_charts(run),
        training_charts=charts.training_charts(run),
        groups=[
            (group, (gallery.make_card(p, scale) for p in group.members[:n]))
            for group in groups
            for n in (group.shown,)
        ],
        num_shown=sum(group.shown for group in groups),
        common=_common_folder(p.path for p in run.predictions),
        has_maps=has_maps,
        has_masks=any(p.mask_path for p in run.predictions),
        scale=scale,
        gradient=_gradient(),
        default_alpha=round(DEFAULT_ALPHA * 100),
    )


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Counts at the threshold."""

    found: int
    missed: int
    false_alarms: int
    passed: int
    unlabelled: int
    flagged: int

    @classmethod
    def of(cls, predictions: Iterable[Prediction]) -> "_Outcome":
        outcomes = [(p.label, p.is_anomalous) for p in predictions]
        return cls(
            found=outcomes.count((1, True)),
            missed=outcomes.count((1, False)),
            false_alarms=outcomes.count((0, True)),
            passed=outcomes.count((0, False)),
            unlabelled=sum(label is None for label, _ in outcomes),
            flagged=sum(flag for _, flag in outcomes),
        )

    @property
    def defective(self) -> int:
        return self.found + self.missed

    @property
    def normal(self) -> int:
        return self.false_alarms + self.passed


def _title(run: RunData) -> str:
    data = run.config.get("data", {}).get("path", "")
    return os.path.basename(os.path.normpath(data)) if data else run.path


def _facts(run: RunData) -> list[tuple[str, str]]:
    """Returns what identifies a run, as far as it is on record."""
    data, model, training = (
        run.config.get(name, {}) for name in ("data", "model", "training")
    )
    size = data.get("image_size")
    channels = {1: "grey", 3: "RGB"}.get(data.get("channels"), "")
    evaluated = run.record.get("evaluated", {})
    options = ", ".join(
        f"{key} {value}"
        for key, value in model.items()
        if key not in ("name", "sspcab") and not isinstance(value, dict)
    )
    facts = {
        "Model": model.get("name"),
        "SSPCAB": model.get("sspcab"),
        "Options": options,
        "Data": data.get("path"),
        "Scored": evaluated.get("split") and f"{evaluated['split']} images",
        "Image size": size
        and " \u00d7 ".join(
            map(str, size if isinstance(size, list) else [size] * 2)
        )
        + (f" px, {channels}" if channels else " px"),
        "Epochs": training.get("epochs"),
        "Seed": training.get("seed"),
        "Date": _date(run),
    }
    return [
        (name, str(value))
        for name, value in facts.items()
        if value not in (None, "")
    ]


def _date(run: RunData) -> str:
    """Returns when the run was evaluated."""
    recorded = run.record.get("evaluated", {}).get("time")
    if recorded is not None:
        time = datetime.datetime.fromisoformat(recorded)
    else:
        seconds = os.path.getmtime(os.path.join(run.path, "metrics.json"))
        time = datetime.datetime.fromtimestamp(seconds).astimezone()
    return time.strftime("%Y-%m-%d %H:%M %Z").strip()


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


def _gradient() -> str:
    """Returns the colour scale as stops of a CSS gradient."""
    rows = COLOR_TABLE[:: len(COLOR_TABLE) // 32].tolist()
    rows.append(COLOR_TABLE[-1].tolist())
    stops = (
        f"rgb({red} {green} {blue} / {alpha / 255:.3f})"
        for red, green, blue, alpha in rows
    )
    return ", ".join(stops)


def _number(value: Any, digits: int = 3) -> str:
    if value is None:
        return "\u2013"
    return f"{value:.{digits}f}".replace("-", "\u2212")
