"""Reading of an evaluated run folder."""

import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_sspcab.runs import RunFolder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_COLUMNS = ("path", "label", "defect", "anomaly_score", "is_anomalous")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One row of `predictions/scores.csv`.

    Attributes:
        path: The image, as written there.
        label: 1 for a defect, 0 for normal, None if unknown.
        defect: Its kind; `"good"` for normal images, may be empty.
        score: In standard deviations above the mean of normal images.
        is_anomalous: Whether the score reached the threshold.
        mask_path: Ground truth, or None.
        map_path: Anomaly map (`.npy`), or None if there is none.
    """

    path: str
    label: int | None
    defect: str
    score: float
    is_anomalous: bool
    mask_path: str | None
    map_path: str | None

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""
        if self.map_path is None:
            return None
        try:
            values = np.load(self.map_path, allow_pickle=False)
        except (EOFError, ValueError) as error:
            raise _broken(self.map_path, str(error)) from error
        if values.ndim != 2 or not np.isfinite(values).all():
            raise _broken(
                self.map_path,
                "expected finite values of shape (height, width), found "
                f"shape {values.shape}",
            )
        return values.astype("float32")


@dataclasses.dataclass(frozen=True)
class RunData:
    """All that a report shows.

    Attributes:
        path: The run folder.
        config: Sections of `config.toml`.
        metrics: Content of `metrics.json`.
        record: Content of `run.json`; empty if there is none.
        history: Columns of `history.csv`, NaN where a value is missing; empty
            if there is none.
        predictions: In the order of the file.
    """

    path: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    record: dict[str, Any]
    history: dict[str, np.ndarray]
    predictions: list[Prediction]

    @property
    def threshold(self) -> float | None:
        """Score from which on an image is anomalous; None: uncalibrated."""
        return self._calibration("threshold")

    @property
    def pixel_threshold(self) -> float | None:
        """The same for a pixel of the map."""
        return self._calibration("pixel_threshold")

    def _calibration(self, name: str) -> float | None:
        value = (self.metrics.get("calibration") or {}).get(name)
        return None if value is None else float(value)


def read_run(run_folder: str | os.PathLike[str]) -> RunData:
    """Reads a run that has been evaluated.

    Args:
        run_folder: Its folder.

    Returns:
        The content.

    Raises:
        ValueError: If a file is missing or broken. The message names the file
            and the command that writes it.
    """
    run = RunFolder(os.fspath(run_folder))
    evaluate = f"keras-sspcab evaluate {run.path}"
    config_path = run.require("config.toml", "keras-sspcab train")
    metrics_path = run.require("metrics.json", evaluate)
    scores_path = run.require("predictions/scores.csv", evaluate)
    with open(config_path, "rb") as file:
        try:
            config = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{config_path} is no valid TOML: {error}"
            ) from error
    with open(metrics_path, encoding="utf-8") as file:
        try:
            metrics = json.load(file)
        except ValueError as error:
            raise _broken(metrics_path, f"no valid JSON: {error}") from error
    if not isinstance(metrics, dict):
        raise _broken(metrics_path, "expected one object of metrics")
    predictions = list(_read_predictions(scores_path))
    expected = metrics.get("num_test_images", len(predictions))
    if expected != len(predictions):
        raise _broken(
            scores_path,
            f"{len(predictions)} images, where metrics.json counts {expected}",
        )
    history_path = run.file("history.csv")
    return RunData(
        path=run.path,
        config=config,
        metrics=metrics,
        record=run.record,
        history=(
            _read_history(history_path) if os.path.exists(history_path) else {}
        ),
        predictions=predictions,
    )


def _read_predictions(path: str) -> Iterator[Prediction]:
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise _broken(path, f"no column {', '.join(sorted(missing))}")
        for row in reader:
            try:
                yield _prediction(row, folder)
            except (TypeError, ValueError, KeyError) as error:
                raise _broken(
                    path, f"line {reader.line_num}: {error}"
                ) from error


def _prediction(row: dict[str, str], folder: str) -> Prediction:
    score = float(row["anomaly_score"])
    if not math.isfinite(score):
        raise ValueError(f"the anomaly_score is {score}")
    label = int(row["label"]) if row["label"] else None
    if label not in (None, 0, 1):
        raise ValueError(f"the label must be 0, 1 or empty, not {label}")
    map_path = None
    if row.get("map_file"):
        map_path = os.path.join(folder, row["map_file"])
        if not os.path.exists(map_path):
            map_path = None
    verdicts = {"1": True, "0": False, "true": True, "false": False}
    return Prediction(
        path=row["path"],
        label=label,
        defect=row["defect"] or "",
        score=score,
        is_anomalous=verdicts[row["is_anomalous"].lower()],
        mask_path=row.get("mask_path") or None,
        map_path=map_path,
    )


def _read_history(path: str) -> dict[str, np.ndarray]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in (rows[0] if rows else ())
        }
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is broken: {error}. Remove it to leave the training "
            "curves out"
        ) from error


def _broken(path: str, problem: str) -> ValueError:
    return ValueError(
        f"{path} is broken: {problem}. Write it anew with "
        "`keras-sspcab evaluate`"
    )
