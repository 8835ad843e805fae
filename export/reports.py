"""Reads what an export notes beside a SavedModel."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_sspcab.scoring import Calibration


def read_report(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the report of a SavedModel; empty if there is none to read."""
    try:
        report = json.loads((folder / "parity.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def calibration_in(report: Mapping[str, Any]) -> Calibration | None:
    """Returns the calibration in a report; None if it is one of others."""
    try:
        return Calibration.from_dict(report["calibration"])
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
