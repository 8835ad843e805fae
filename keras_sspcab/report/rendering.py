"""From a run and a template to a page that needs no other file."""

import base64
import datetime
import hashlib
import importlib.resources
import os
from collections.abc import Iterable
from typing import Any

import jinja2
from markupsafe import Markup

from keras_sspcab.report import charts
from keras_sspcab.report.heat import COLOR_TABLE, DEFAULT_ALPHA, HeatScale
from keras_sspcab.report.run_files import Run

Meanings = Iterable[tuple[str, str, str]]


def render(template: str, run: Run, scale: HeatScale, **content: Any) -> str:
    """Fills a template of this folder.

    Args:
        template: Its file name.
        run: What the page is about.
        scale: Of the colors of all maps.
        **content: What the template names besides.

    Returns:
        The page.
    """
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
        style=Markup(_read("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(digest).decode("ascii"),
        title=_title(run),
        versions=run.record.get("versions", {}),
        training_charts=charts.training_charts(run),
        has_maps=any(p.map_path for p in run.pictures),
        has_masks=any(p.mask_path for p in run.pictures),
        scale=scale,
        gradient=_gradient(),
        default_alpha=round(DEFAULT_ALPHA * 100),
    )
    return environment.get_template(template).render(**content)


def measured(metrics: dict[str, Any], meanings: Meanings) -> list[tuple]:
    """Returns title, value and meaning of the metrics that are there.

    Args:
        metrics: Values by key.
        meanings: Key, title and meaning of each.
    """
    return [
        (title, metrics[key], text)
        for key, title, text in meanings
        if isinstance(metrics.get(key), (int, float))
    ]


def facts(run: Run, things: str, clip: str = "") -> list[tuple[str, str]]:
    """Returns what identifies a run, as far as it is on record.

    Args:
        run: The run.
        things: What was scored.
        clip: What the model looks at to score a frame.
    """
    data, model, training = (
        run.config.get(name, {}) for name in ("data", "model", "training")
    )
    size = data.get("image_size")
    channels = {1: "gray", 3: "RGB"}.get(data.get("channels"), "")
    evaluated = run.record.get("evaluated", {})
    options = ", ".join(
        f"{key} {value}"
        for key, value in model.items()
        if key not in ("name", "sspcab") and not isinstance(value, dict)
    )
    found = {
        "Model": model.get("name"),
        "SSPCAB": model.get("sspcab"),
        "Options": options,
        "Data": data.get("path"),
        "Scored": evaluated.get("split") and f"{evaluated['split']} {things}",
        "Clip": clip,
        "Image size": size
        and " \u00d7 ".join(
            map(str, size if isinstance(size, list) else [size] * 2)
        )
        + (f" px, {channels}" if channels else " px"),
        # Some models have nothing to train.
        "Epochs": training.get("epochs") if run.history else None,
        "Seed": training.get("seed"),
        "Date": _date(run),
    }
    return [
        (name, str(value))
        for name, value in found.items()
        if value not in (None, "")
    ]


def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text("utf-8")


def _title(run: Run) -> str:
    data = run.config.get("data", {}).get("path", "")
    return os.path.basename(os.path.normpath(data)) if data else run.path


def _date(run: Run) -> str:
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
