"""How far a cell has come, and whether it is the same cell as before."""

import enum
import json
import math
import os
from typing import Any

from keras_sspcab.runs import Config, RunFolder
from keras_sspcab.runs.parsing import differences

# Settings that change no result.
_FREE_SETTINGS = (
    "data.path",
    "data.cache",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_seconds",
)


class State(enum.Enum):
    """The state of a cell; its value says it in words."""

    NEW = "to do"
    BEGUN = "begun"
    TRAINED = "trained, to be evaluated"
    DONE = "done"


def state_of(run: RunFolder) -> State:
    """Returns how far the run of a cell has come."""
    if not run.exists:
        return State.NEW
    if not run.is_finished:
        return State.BEGUN
    return State.TRAINED if read_metrics(run) is None else State.DONE


def read_metrics(run: RunFolder) -> dict[str, float] | None:
    """Returns the numbers in `metrics.json`, those in tables left out.

    Returns:
        Numbers by name; None if the run has not been evaluated, or if the file
        is broken.
    """
    values = _read(run)
    if values is None:
        return None
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def read_conventions(run: RunFolder) -> dict[str, Any]:
    """Returns how the metrics were measured, as `metrics.json` says.

    Returns:
        Values by name of the convention; none if it does not say.
    """
    conventions = (_read(run) or {}).get("conventions")
    return conventions if isinstance(conventions, dict) else {}


def _read(run: RunFolder) -> dict[str, Any] | None:
    path = run.file("metrics.json")
    if not os.path.isfile(path):
        return None
    with open(path, encoding="utf-8") as file:
        try:
            values = json.load(file)
        except ValueError:
            return None
    return values if isinstance(values, dict) else None


def changed_settings(
    run: RunFolder, config: Config
) -> dict[str, tuple[Any, Any]]:
    """Returns what a run was started with that is another now, by key.

    Settings that change no result do not count.
    """
    if not run.exists:
        return {}
    return {
        key: values
        for key, values in differences(run.config, config).items()
        if key not in _FREE_SETTINGS
    }
