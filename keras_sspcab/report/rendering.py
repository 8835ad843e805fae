"""From a run and a template to a page that needs no other file."""

import base64
import datetime
import hashlib
import importlib.resources
import os
from typing import Any

import jinja2
from markupsafe import Markup

from keras_sspcab.hosts.registry import get_application
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.report.content import EvaluatedRun
from keras_sspcab.report.heat import COLOR_TABLE, DEFAULT_ALPHA, HeatScale
from keras_sspcab.runs.parsing import arguments_of


def render(
    template: str, run: EvaluatedRun, scale: HeatScale, **content: Any
) -> str:
    """Fills a template of this folder."""
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
        run=run,
        nouns=run.nouns,
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode("ascii"),
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


def _facts(run: EvaluatedRun) -> list[tuple[str, str]]:
    """Returns what identifies a run, as far as it is on record."""
    data, model, training = (
        run.config.get(name, {}) for name in ("data", "model", "training")
    )
    size = data.get("image_size")
    channels = {1: "gray", 3: "RGB"}.get(data.get("channels"), "")
    evaluated = run.record.get("evaluated", {})
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
        and f"{evaluated['split']} {run.nouns.data}",
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
    """Returns where the block is; the host's own place is not in the file."""
    place = model.get("sspcab")
    if "sspcab" not in model and "name" in model:
        try:
            arguments = arguments_of(get_application(model["name"]))
        except ValueError:
            return None
        if "sspcab" not in arguments:
            return None
        place = arguments["sspcab"].default or "none"
    return ", ".join(place) if isinstance(place, (list, tuple)) else place


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")


def _title(run: EvaluatedRun) -> str:
    data = run.config.get("data", {}).get("path", "")
    return os.path.basename(os.path.normpath(data)) if data else run.path


def _clip(data: dict[str, Any]) -> str:
    """Returns what the model looks at to score a frame."""
    length, stride = data.get("clip_length"), data.get("stride", 1)
    if length is None:
        return ""
    return f"{length} frames" + (f", {stride} apart" if stride != 1 else "")


def _date(run: EvaluatedRun) -> str:
    """Returns when the run was evaluated."""
    recorded = run.record.get("evaluated", {}).get("time")
    if recorded is not None:
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
