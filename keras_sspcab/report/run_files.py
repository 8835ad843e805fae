"""What runs of images and of video have in common, and how it is read."""

import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Collection, Iterator
from typing import Any, Protocol

import numpy as np

from keras_sspcab.runs import RunFolder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_EVALUATE = "keras-sspcab evaluate"
_VERDICTS = {"1": True, "0": False, "true": True, "false": False}


class ScoredPicture(Protocol):
    """An image or a frame of a video that the gallery can show."""

    @property
    def path(self) -> str:
        """The image file."""

    @property
    def label(self) -> int | None:
        """1 for anomalous, 0 for normal, None if unknown."""

    @property
    def score(self) -> float:
        """In standard deviations above the mean of normal data."""

    @property
    def is_anomalous(self) -> bool:
        """Whether the score reached the threshold."""

    @property
    def mask_path(self) -> str | None:
        """Ground truth, or None."""

    @property
    def map_path(self) -> str | None:
        """Anomaly map, or None."""

    def load_map(self) -> np.ndarray | None:
        """Returns the anomaly map `(height, width)` in float32, or None."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What every evaluated run has.

    Attributes:
        path: The run folder.
        config: Sections of `config.toml`.
        metrics: Content of `metrics.json`.
        record: Content of `run.json`; empty if there is none.
        history: Columns of `history.csv`, NaN where a value is missing; empty
            if there is none.
    """

    path: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    record: dict[str, Any]
    history: dict[str, np.ndarray]

    @property
    def is_video(self) -> bool:
        """Whether its test data are videos."""
        return self.metrics.get("kind") == "video"

    @property
    def pictures(self) -> list[Any]:
        """What the gallery can show, each a `ScoredPicture`."""
        return []

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


def evaluate_command(run_path: str) -> str:
    """Returns the command that writes metrics and predictions of a run."""
    return f"{_EVALUATE} {run_path}"


def read_basics(run_folder: str | os.PathLike[str]) -> Run:
    """Reads all of an evaluated run but its predictions.

    Args:
        run_folder: Its folder.

    Returns:
        The content.

    Raises:
        ValueError: If a file is missing or broken. The message names the file
            and the command that writes it.
    """
    run = RunFolder(os.fspath(run_folder))
    evaluate = evaluate_command(run.path)
    config_path = run.require("config.toml", "keras-sspcab train")
    metrics_path = run.require("metrics.json", evaluate)
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
            raise broken(
                metrics_path, f"no valid JSON: {error}", evaluate
            ) from error
    if not isinstance(metrics, dict):
        raise broken(metrics_path, "expected one object of metrics", evaluate)
    history_path = run.file("history.csv")
    return Run(
        path=run.path,
        config=config,
        metrics=metrics,
        record=run.record,
        history=(
            _read_history(history_path) if os.path.exists(history_path) else {}
        ),
    )


def read_rows(
    path: str, columns: Collection[str], command: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the rows of a CSV file with the number of their last line.

    Args:
        path: The file.
        columns: Those that must be there.
        command: What writes the file, for the error message.
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        try:
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise broken(
                    path, f"no column {', '.join(sorted(missing))}", command
                )
            for row in reader:
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"after line {reader.line_num}"
            raise broken(path, f"{place}: {error}", command) from error


def parse_score(row: dict[str, str], column: str = "anomaly_score") -> float:
    """Returns a finite number of a row."""
    score = float(row[column])
    if not math.isfinite(score):
        raise ValueError(f"the {column} is {score}")
    return score


def parse_label(row: dict[str, str]) -> int | None:
    """Returns the label of a row, None where it is unknown."""
    label = int(row["label"]) if row["label"] else None
    if label not in (None, 0, 1):
        raise ValueError(f"the label must be 0, 1 or empty, not {label}")
    return label


def parse_verdict(row: dict[str, str]) -> bool:
    """Returns whether a row is flagged."""
    verdict = _VERDICTS.get(row["is_anomalous"].lower())
    if verdict is None:
        raise ValueError(
            f"is_anomalous must be 0 or 1, not {row['is_anomalous']!r}"
        )
    return verdict


def parse_frame(row: dict[str, str]) -> int:
    """Returns the number of a frame, counted from 0."""
    frame = int(row["frame"])
    if frame < 0:
        raise ValueError(f"the frame is {frame}")
    return frame


def find_map(row: dict[str, str], folder: str) -> str | None:
    """Returns the path of a row's anomaly map, None if it is not there."""
    name = row.get("map_file")
    if not name:
        return None
    path = os.path.join(folder, name)
    return path if os.path.exists(path) else None


def load_map(path: str, command: str = _EVALUATE) -> np.ndarray:
    """Loads an anomaly map.

    Args:
        path: The `.npy` file.
        command: What writes it, for the error message.

    Returns:
        Float32 array `(height, width)`.

    Raises:
        ValueError: If the file is broken.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise broken(path, str(error), command) from error
    if values.ndim != 2 or not np.isfinite(values).all():
        raise broken(
            path,
            "expected finite values of shape (height, width), found "
            f"shape {values.shape}",
            command,
        )
    return values.astype("float32")


def broken(path: str, problem: str, command: str = _EVALUATE) -> ValueError:
    """Returns the error for a file that cannot be what was written."""
    return ValueError(
        f"{path} is broken: {problem}. Write it anew with `{command}`"
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
