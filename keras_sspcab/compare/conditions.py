"""Under which conditions a comparison was measured."""

import collections
import dataclasses
import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from keras_sspcab.compare.grid import Cell
from keras_sspcab.compare.results import Comparison
from keras_sspcab.metrics.registry import describe_convention

_CPU_INFO = "/proc/cpuinfo"

# Of the versions in a run's record, those that results depend on most.
_PACKAGES = (
    "keras-sspcab",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "numpy",
    "python",
)


def hardware() -> str:
    """Describes the processors of this machine; imports TensorFlow."""
    import tensorflow as tf

    parts = [f"{_cpu_model()}, {_num_cores()} cores"]
    for device in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(device)
        parts.append(str(details.get("device_name", device.name)))
    return "; ".join(parts)


def _cpu_model() -> str:
    if os.path.isfile(_CPU_INFO):
        with open(_CPU_INFO, encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name" and value.strip():
                    return value.strip()
    return platform.processor() or platform.machine()


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe_conditions(
    comparison: Comparison,
    command: str,
    changed: Mapping[str, Mapping[str, Any]],
    variants: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Returns the conditions, one line each.

    `changed` are settings by host, and `variants` options of blocks by name.
    """
    grid = comparison.grid
    records = [result.record for result in comparison.results.values()]
    lines = [f"Command: `{command}`"]
    for model in grid.models:
        text = _in_words(changed.get(model, {}))
        lines.append(f"Settings of {model}: {text or 'its defaults'}")
    for name, options in variants.items():
        lines.append(f"Block {name}: {_in_words(options)}")
    for model in grid.models:
        sizes = (
            f"{comparison.parameters[model, block]:,} ({block})"
            for block in grid.blocks
        )
        lines.append(f"Parameters of {model}: {', '.join(sizes)}")
    lines.append(f"Seeds: {', '.join(map(str, grid.seeds))}")
    counts = comparison.kind.nouns.counts
    lines += [
        counts.format(**dataclasses.asdict(c)) for c in comparison.classes
    ]
    lines += _conventions(comparison)
    if records:
        machines = [r.get("hardware", "not recorded") for r in records]
        lines.append(f"Hardware: {_distinct(machines)}")
        lines.append(f"Versions: {_distinct(map(_versions_in, records))}")
    lines.append(_times(comparison))
    return lines


def _in_words(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={without_folders(value)!r}" for key, value in settings.items()
    )


def without_folders(value: Any) -> Any:
    """Returns a setting whose paths are reduced to the names of their ends."""
    if isinstance(value, str):
        is_path = os.path.isabs(value) or value.startswith(("~", "."))
        if is_path or "://" in value:
            return value.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
        return value
    if isinstance(value, Mapping):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(part) for part in value]
    return value


def format_seconds(seconds: float) -> str:
    """Formats a duration: `12 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _versions_in(record: Mapping[str, Any]) -> str:
    versions = record.get("versions", {})
    texts = [f"{p} {versions[p]}" for p in _PACKAGES if p in versions]
    return ", ".join(texts) or "not recorded"


def _conventions(comparison: Comparison) -> list[str]:
    """Says what all results share, or which cells have which conventions."""
    described: dict[str, dict[Cell, str]] = {}
    for cell, result in comparison.results.items():
        for key, value in result.conventions.items():
            title, text = describe_convention(key, value)
            described.setdefault(title, {})[cell] = text
    return [f"{title}: {_by_axis(t)}" for title, t in described.items()]


def _by_axis(texts: Mapping[Cell, str]) -> str:
    """Joins texts; names the hosts or data that have each if they differ."""
    for axis in ("model", "data_class"):
        names: dict[str, dict[str, None]] = {}
        for cell, text in texts.items():
            names.setdefault(text, {})[getattr(cell, axis)] = None
        all_names = [name for own in names.values() for name in own]
        if len(names) > 1 and len(all_names) == len(set(all_names)):
            return "; ".join(f"{t} ({', '.join(n)})" for t, n in names.items())
    return _distinct(texts.values())


def _distinct(texts: Iterable[str]) -> str:
    """Joins texts; says how many cells have which if they differ."""
    counts = collections.Counter(texts)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({n} cells)" for text, n in counts.items())


def _times(comparison: Comparison) -> str:
    def total(part: str) -> str:
        seconds = (r.seconds(part) or 0.0 for r in comparison.results.values())
        return format_seconds(sum(seconds))

    return (
        f"Time: {total('training')} of training and calibration, "
        f"{total('evaluation')} of evaluation"
    )
