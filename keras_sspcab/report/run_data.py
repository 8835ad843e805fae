"""Reading of a run whose test data are images."""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from keras_sspcab.report import run_files
from keras_sspcab.report.run_files import Run
from keras_sspcab.runs import RunFolder

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
        return (
            None if self.map_path is None else run_files.load_map(self.map_path)
        )


@dataclasses.dataclass(frozen=True)
class RunData(Run):
    """All that a report on images shows.

    Attributes:
        predictions: In the order of the file.
    """

    predictions: list[Prediction]

    @property
    def pictures(self) -> list[Prediction]:
        """What the gallery can show: all images."""
        return self.predictions


def read_run(run_folder: str | os.PathLike[str]) -> RunData:
    """Reads a run that has been evaluated on images.

    Args:
        run_folder: Its folder.

    Returns:
        The content.

    Raises:
        ValueError: If a file is missing or broken, or if the test data are
            videos. The message names the file and the command that writes it.
    """
    basics = run_files.read_basics(run_folder)
    if basics.is_video:
        raise ValueError(
            f"{basics.path} is a run of videos, not of images. Look at it with "
            f"`keras-sspcab report {basics.path}`"
        )
    evaluate = run_files.evaluate_command(basics.path)
    path = RunFolder(basics.path).require("predictions/scores.csv", evaluate)
    predictions = list(_read_predictions(path, evaluate))
    expected = basics.metrics.get("num_test_images", len(predictions))
    if expected != len(predictions):
        raise run_files.broken(
            path,
            f"{len(predictions)} images, where metrics.json counts {expected}",
            evaluate,
        )
    return RunData(**vars(basics), predictions=predictions)


def _read_predictions(path: str, command: str) -> Iterator[Prediction]:
    folder = os.path.dirname(path)
    for line, row in run_files.read_rows(path, _COLUMNS, command):
        try:
            yield _prediction(row, folder)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            raise run_files.broken(
                path, f"line {line}: {error}", command
            ) from error


def _prediction(row: dict[str, str], folder: str) -> Prediction:
    return Prediction(
        path=row["path"],
        label=run_files.parse_label(row),
        defect=row["defect"] or "",
        score=run_files.parse_score(row),
        is_anomalous=run_files.parse_verdict(row),
        mask_path=row.get("mask_path") or None,
        map_path=run_files.find_map(row, folder),
    )
