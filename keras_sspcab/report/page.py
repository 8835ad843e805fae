"""One self-contained page about a run."""

import base64
import dataclasses
import datetime
import hashlib
import importlib.resources
import itertools
import os
import re
import shutil
import urllib.parse
from collections import ChainMap, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from keras_sspcab import files
from keras_sspcab.checks import standardize_int
from keras_sspcab.hosts.registry import get_application
from keras_sspcab.metrics.diagnosis import describe_failures, describe_shortcut
from keras_sspcab.metrics.registry import describe_convention, metrics_of
from keras_sspcab.pages import data_url, design
from keras_sspcab.pictures.heat import COLOR_TABLE, DEFAULT_ALPHA, HeatScale
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.report import charts, gallery, timeline
from keras_sspcab.report.charts import Chart
from keras_sspcab.report.content import (
    EvaluatedRun,
    OutcomeCounts,
    VideoScores,
    read_evaluated_run,
)
from keras_sspcab.runs import RunFolder
from keras_sspcab.runs.folder import evaluated_elsewhere
from keras_sspcab.runs.outputs import KeyFrame
from keras_sspcab.runs.parsing import arguments_of
from keras_sspcab.runs.thresholds import ThresholdChoice, threshold_choices
from keras_sspcab.runs.tracking import log_run
from keras_sspcab.scoring.false_alarms import just_above

# How many timelines are open; the others are one click away.
NUM_OPEN = 12
# How many pictures are in the page itself, about 30 KB each.
MAX_EMBEDDED = 300


def write_report(
    run_folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    max_images: int = 60,
) -> Path:
    """Writes an HTML page about an evaluated run.

    The page needs no network and, up to 300 pictures, no other file: it can be
    mailed. More are in a folder beside it, such as `report_pictures`, and are
    loaded when they come into view. It shows what was trained, the metrics,
    curves, and a gallery that begins with the worst misses. The colors of the
    maps are fixed by the calibration, from 0 to twice the pixel threshold, and
    never by the single image. Of a run on videos it shows the scores over time
    and the most telling frames instead. Of several products each has a page, to
    which this one leads.

    Labels, masks, maps, curves and even the images may be missing: the page
    says so.

    Args:
        run_folder: Folder of a run, after `keras-sspcab evaluate`.
        output: File to write. Defaults to `report.html` in the folder.
        max_images: How many images or frames the gallery shows; about 30 KB
            each.

    Raises:
        ValueError: If a file of the run is missing or broken; the message names
            it, and the command that writes it. A page that was there stays.
            Also if the folder for pictures holds anything else.

    Example:
        >>> write_report("runs/screws")  # doctest: +SKIP
        PosixPath('runs/screws/report.html')
    """
    standardize_int(max_images, "max_images", 0)
    folder = RunFolder(os.fspath(run_folder))
    folder.require("config.toml", "keras-sspcab train")
    path = Path(folder.path, "report.html") if output is None else Path(output)
    # The configuration may be one that this version cannot read.
    if folder.record.get("products"):
        return _write_products(folder, path, max_images)
    # It could be evaluated anew while it is read.
    with folder.locked():
        run = read_evaluated_run(run_folder)
        groups = gallery.group_pictures(run.pictures, max_images, run.nouns)
        pictures = path.with_name(f"{path.stem}_pictures")
        if sum(group.shown for group in groups) <= MAX_EMBEDDED:
            files.write_text(str(path), _render(run, groups, data_url))
            if _holds_pictures(pictures):
                shutil.rmtree(pictures)
        else:
            if pictures.exists() and not _holds_pictures(pictures):
                raise ValueError(
                    f"{pictures} is where the pictures of the page belong, but "
                    "holds other files. Move them, or choose another `output`"
                )
            with files.replacing_folder(str(pictures)) as temporary:
                keep = _Keeper(temporary, pictures.name)
                page = _render(run, groups, keep, pictures.name)
            files.write_text(str(path), page)
        log_run(folder)
    return path


def _write_products(folder: RunFolder, path: Path, max_images: int) -> Path:
    """Writes a page about each product, and one that leads to them."""
    file = folder.require("metrics.json", "keras-sspcab evaluate")
    metrics = files.read_json(file, "Evaluate the run again")
    rows = []
    for name, values in metrics["per_product"].items():
        page = write_report(folder.product(name).path, max_images=max_images)
        link = os.path.relpath(page, path.parent).replace(os.sep, "/")
        recognized = {
            key: counts.get(name, 0)
            for key, counts in metrics["recognition"].items()
            if isinstance(counts, dict)
        }
        rows.append(
            {
                "name": name,
                "link": urllib.parse.quote(link),
                "metrics": values,
                "recognized": recognized,
            }
        )
    content = _environment().get_template("report_products.html")
    text = content.render(
        title=os.path.basename(os.path.abspath(folder.path)),
        path=folder.path,
        rows=rows,
        mean=metrics,
        # Products without defects have fewer.
        columns=metrics_of("image", ChainMap(*metrics["per_product"].values())),
    )
    files.write_text(str(path), text)
    return path


class _Keeper:
    """Writes pictures into a folder; returns their addresses beside it."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = folder, urllib.parse.quote(name)
        self._numbers = itertools.count()

    def __call__(self, content: bytes, kind: str) -> str:
        file = f"{next(self._numbers):06d}.{kind}"
        Path(self._folder, file).write_bytes(content)
        return f"{self._name}/{file}"


def _holds_pictures(folder: Path) -> bool:
    """Returns whether this is a folder that `_Keeper` has filled."""
    return folder.is_dir() and all(
        re.fullmatch(r"\d{6,}\.(jpeg|png)", path.name)
        for path in folder.iterdir()
    )


@dataclasses.dataclass(frozen=True)
class VideoRow:
    """One video of the page."""

    key: str
    video: VideoScores
    outcome: OutcomeCounts
    chart: Chart | None
    summary: str


def _render(
    run: EvaluatedRun,
    groups: Sequence[gallery.Group],
    keep: Callable[[bytes, str], str],
    pictures: str = "",
) -> str:
    scale = HeatScale.of(
        run.pixel_threshold, (picture.load_map() for picture in run.pictures)
    )
    outcome = OutcomeCounts(run.scored)
    kind = "video" if run.is_video else "image"
    rankings = [
        metric
        for metric in metrics_of(kind, run.metrics)
        if not metric.at_threshold
    ]
    own = _video_content(run) if run.is_video else _image_content(run)
    targets = {r.video.name: r.key for r in own.get("rows", ()) if r.chart}
    cards = [
        (group, gallery.make_cards(run, group, scale.limit, targets, keep))
        for group in groups
    ]
    kinds = sorted({card["filter"] for _, each in cards for card in each})
    return _fill(
        "report_video.html" if run.is_video else "report.html",
        run,
        scale,
        failures=describe_failures(run.metrics),
        metrics=[(m.heading, run.metrics[m.key], m.meaning) for m in rankings],
        outcome=outcome,
        lacks_curves=run.curves is None
        and bool(outcome.anomalous and outcome.normal),
        score_chart=charts.score_chart(run),
        ranking_charts=charts.ranking_charts(run),
        training_charts=charts.training_charts(run),
        groups=cards,
        pictures=pictures,
        outcomes=[(g.key, g.title) for g in groups if g.shown],
        kinds=[(kind, kind) for kind in kinds],
        num_shown=sum(group.shown for group in groups),
        **own,
    )


def _image_content(run: EvaluatedRun) -> dict[str, Any]:
    per_defect = run.metrics.get("per_defect") or {}
    keys = {key for values in per_defect.values() for key in values}
    columns = [
        (metric.key, metric.heading)
        for metric in metrics_of("image", keys)
        if not metric.at_threshold
    ]
    return {
        "shortcut": describe_shortcut(run.metrics),
        "notes": run.metrics.get("notes", ()),
        "inputs": _input_rows(run),
        "choices": _threshold_rows(run),
        "calibrated": _calibrated_run(run),
        "defects": _defect_rows(run, per_defect),
        "defect_columns": columns,
    }


def _calibrated_run(run: EvaluatedRun) -> str:
    """Returns what `keras-sspcab calibrate` is to be given."""
    folder = RunFolder(run.path)
    if (whole := folder.joined) is None:
        return run.path
    return f"{whole.path} --product {folder.product_name}"


def _threshold_rows(run: EvaluatedRun) -> list[ThresholdChoice]:
    """Returns the threshold in use, and others to choose from."""
    calibration = run.calibration
    if calibration.threshold is None or calibration.decision != "score":
        return []
    if calibration.regions:
        # They flag images as well.
        return []
    thresholds = {"in use": calibration.threshold}
    if (best := run.metrics.get("image_f1_threshold")) is not None:
        thresholds["best F1 of these images"] = best
    normal = [image.score for image in run.images if image.label == 0]
    if normal:
        thresholds["above all normal ones of these images"] = just_above(
            max(normal)
        )
    return threshold_choices(run.images, thresholds)


def _input_rows(run: EvaluatedRun) -> list[dict[str, Any]]:
    """Returns what normal images are like, and what the test images are."""
    reference = run.calibration.reference
    drift = run.metrics.get("drift") or {}
    values = drift.get("values", {})
    if reference is None:
        return []
    changed = {each["statistic"] for each in drift.get("drifts", ())}
    return [
        {
            "range": each,
            "value": values[each.name],
            "shift": each.shift(values[each.name]),
            "is_drifting": each.name in changed,
        }
        for each in reference.ranges
        if each.name in values
    ]


def _defect_rows(
    run: EvaluatedRun, per_defect: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns counts and metrics of each kind of defect, worst found first."""
    rows = []
    defective = [image for image in run.images if image.label == 1]
    for defect in sorted({i.defect for i in defective} | set(per_defect)):
        own = [image for image in defective if image.defect == defect]
        num_found = sum(image.is_anomalous for image in own)
        rows.append(
            {
                "defect": defect or "(unnamed)",
                "total": len(own),
                "found": num_found,
                "share": num_found / len(own) if own else 0.0,
                "metrics": per_defect.get(defect, {}),
            }
        )
    return sorted(rows, key=lambda row: row["share"])


def _video_content(run: EvaluatedRun) -> dict[str, Any]:
    rows = _video_rows(run)
    conventions = [
        describe_convention(key, value)
        for key, value in (run.metrics.get("conventions") or {}).items()
    ]
    return {
        "conventions": [
            (title, f"{text[:1].upper()}{text[1:]}.")
            for title, text in conventions
        ],
        "rows": rows,
        "num_open": NUM_OPEN,
        "timelines": [row for row in rows if row.chart],
        "num_without_auc": sum(
            row.video.auc is None and row.video.is_labeled for row in rows
        ),
        "num_unscored": sum(not row.video.frames for row in rows),
    }


def _video_rows(run: EvaluatedRun) -> list[VideoRow]:
    """Returns the videos, those with the lowest AUC first."""
    marked: dict[str, list[KeyFrame]] = defaultdict(list)
    for key_frame in run.key_frames or ():
        marked[key_frame.video].append(key_frame)
    rows = []
    for number, video in enumerate(sorted(run.videos, key=_badness), 1):
        key = f"video-{number}"
        rows.append(
            VideoRow(
                key=key,
                video=video,
                outcome=OutcomeCounts(video.frames),
                chart=timeline.timeline_chart(
                    f"{key}-time", video, run.threshold, marked[video.name]
                ),
                summary=timeline.summarize(video, run.threshold),
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


def _fill(
    template: str, run: EvaluatedRun, scale: HeatScale, **content: Any
) -> str:
    """Fills a template of this folder."""
    environment = _environment()
    environment.globals.update(
        run=run,
        nouns=run.nouns,
        title=_title(run),
        facts=_facts(run),
        versions=run.record.get("versions", {}),
        has_maps=any(p.map_path for p in run.pictures),
        has_masks=any(p.mask_path for p in run.pictures),
        scale=scale,
        gradient=_gradient(),
        default_alpha=round(DEFAULT_ALPHA * 100),
    )
    return environment.get_template(template).render(**content)


def _environment() -> jinja2.Environment:
    script = _read("report.js")
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["svg"] = Markup
    environment.globals.update(
        style=Markup(design() + _read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode("ascii"),
    )
    return environment


def _facts(run: EvaluatedRun) -> list[tuple[str, str]]:
    """Returns what identifies a run, as far as it is on record."""
    data, model, training = (
        run.config.get(name, {}) for name in ("data", "model", "training")
    )
    size = data.get("image_size")
    channels = {1: "gray", 3: "RGB"}.get(data.get("channels"), "")
    evaluated = run.record.get("evaluated", {})
    elsewhere = evaluated_elsewhere(run.record)
    of_others = f" of {elsewhere}" if elsewhere else ""
    reading = run.metrics.get("preprocessing") or {}
    white = reading.get("white_level")
    options = ", ".join(
        f"{key} {value}"
        for key, value in model.items()
        if key not in ("name", "sspcab") and not isinstance(value, dict)
    )
    facts = {
        "Model": model.get("name"),
        "SSPCAB": _block(model),
        "Options": options,
        "Data": data.get("path"),
        "Scored": evaluated.get("split")
        and f"{evaluated['split']} {run.nouns.data}{of_others}",
        "Clip": _clip(data) if run.is_video else "",
        "Image size": size
        and " \u00d7 ".join(
            map(str, size if isinstance(size, list) else [size] * 2)
        )
        + (f" px, {channels}" if channels else " px"),
        "Resizing": reading.get("resize"),
        "White": white if white != Preprocessing.white_level else None,
        # Some models have nothing to train.
        "Epochs": training.get("epochs") if run.history else None,
        "Seed": training.get("seed"),
        "Date": _date(run),
    }
    return [
        (name, str(value))
        for name, value in facts.items()
        if value not in (None, "")
    ]


def _block(model: dict[str, Any]) -> str | None:
    """Returns where the block is, and its options.

    The host's own place is not in the file.
    """
    place = model.get("sspcab")
    if "sspcab" not in model and "name" in model:
        try:
            arguments = arguments_of(get_application(model["name"]))
        except ValueError:
            return None
        if "sspcab" not in arguments:
            return None
        place = arguments["sspcab"].default or "none"
    if isinstance(place, (list, tuple)):
        place = ", ".join(place)
    options = model.get("sspcab_options") or {}
    described = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{place} ({described})" if described else place


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")


def _title(run: EvaluatedRun) -> str:
    own = run.config.get("data", {}).get("path", "")
    data = evaluated_elsewhere(run.record) or own
    return os.path.basename(os.path.normpath(data)) if data else run.path


def _clip(data: dict[str, Any]) -> str:
    """Returns what the model looks at to score a frame."""
    length, stride = data.get("clip_length"), data.get("stride", 1)
    if length is None:
        return ""
    return f"{length} frames" + (f", {stride} apart" if stride != 1 else "")


def _date(run: EvaluatedRun) -> str:
    """Returns when the run was evaluated."""
    if recorded := run.record.get("evaluated", {}).get("time"):
        time = datetime.datetime.fromisoformat(recorded)
    else:
        seconds = os.path.getmtime(os.path.join(run.path, "metrics.json"))
        time = datetime.datetime.fromtimestamp(seconds).astimezone()
    return time.strftime("%Y-%m-%d %H:%M %Z").strip()


def _gradient() -> str:
    """Returns the color scale as stops of a CSS gradient."""
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
