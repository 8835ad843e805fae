"""How far a comparison has come: the state of its cells and their results."""

import dataclasses
import enum
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.compare.classes import DataClass
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.kinds import Kind
from keras_sspcab.compare.published import PublishedTable
from keras_sspcab.metrics import image_metrics
from keras_sspcab.metrics.registry import Metric
from keras_sspcab.runs import RunFolder, outputs
from keras_sspcab.runs.folder import evaluated_elsewhere
from keras_sspcab.runs.outputs import ImageScore

# Blocks in a cell of a table, at most.
_MOST_SIDE_BY_SIDE = 4


class CellState(enum.Enum):
    """How far a cell has come; the value says it in words."""

    NEW = "to do"
    BEGUN = "begun"
    TRAINED = "trained, to be evaluated"
    DONE = "done"


def state_of(run: RunFolder) -> CellState:
    """Returns how far the run of a cell has come."""
    if not run.exists:
        return CellState.NEW
    if not run.is_finished:
        return CellState.BEGUN
    is_evaluated = _read_metrics(run) is not None and _is_evaluated_here(run)
    return CellState.DONE if is_evaluated else CellState.TRAINED


def _is_evaluated_here(run: RunFolder) -> bool:
    """Whether the last evaluation used the run's own data and settings."""
    settings = run.record.get("evaluated", {}).get("settings")
    own = run.config.evaluation.model_dump(mode="json")
    return not evaluated_elsewhere(run.record) and settings in (None, own)


@dataclasses.dataclass(frozen=True)
class Result:
    """The numbers of `metrics.json`, its conventions, and `run.json`."""

    metrics: Mapping[str, float]
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conventions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def seconds(self, part: str = "training") -> float | None:
        """Returns the time of a part, `"training"` or `"evaluation"`."""
        return self.record.get("seconds", {}).get(part)


def read_results(root: str, grid: Grid) -> dict[Cell, Result]:
    """Reads the results of the finished cells."""
    results = {}
    for cell in grid:
        run = RunFolder(os.path.join(root, cell.folder))
        if state_of(run) is CellState.DONE:
            metrics = outputs.read_metrics(run)
            numbers = {
                key: value
                for key, value in metrics.items()
                if isinstance(value, (int, float)) and math.isfinite(value)
            }
            conventions = metrics.get("conventions")
            if not isinstance(conventions, dict):
                conventions = {}
            results[cell] = Result(numbers, run.record, conventions)
    return results


def _read_metrics(run: RunFolder) -> dict[str, Any] | None:
    """Returns `metrics.json`; None if it is missing or broken."""
    try:
        return outputs.read_metrics(run)
    except ValueError:
        return None


def read_ensembles(
    root: str, grid: Grid, finished: Collection[Cell]
) -> dict[Cell, Result]:
    """Measures the ensembles that have all their seeds, as cells of seed 0."""
    results = {}
    for cell in dataclasses.replace(grid, seeds=(0,)):
        members = [dataclasses.replace(cell, seed=s) for s in grid.seeds]
        if all(member in finished for member in members):
            runs = [RunFolder(os.path.join(root, m.folder)) for m in members]
            results[cell] = Result(ensemble_metrics(runs))
    return results


def ensemble_metrics(runs: Sequence[RunFolder]) -> dict[str, float]:
    """Returns the detection metrics of an ensemble.

    As in the CutPaste paper (Li et al., CVPR 2021), anomaly scores are averaged
    over models that were trained with different seeds. Ours are calibrated, in
    standard deviations of normal images, so that none outweighs the others.
    """
    members = [_scores_by_image(run) for run in runs]
    labels = {image: row.label for image, row in members[0].items()}
    for run, rows in zip(runs, members, strict=True):
        if {image: row.label for image, row in rows.items()} != labels:
            raise ValueError(
                "An ensemble takes scores of the same images from each seed. "
                f"Received: {run.path} with other images than {runs[0].path}. "
                "Evaluate both with `keras-sspcab evaluate`"
            )
    means = [np.mean([m[image].score for m in members]) for image in labels]
    return image_metrics(list(labels.values()), means)


def _scores_by_image(run: RunFolder) -> dict[str, ImageScore]:
    """Returns scores by path below the data, which may have been moved."""
    root = run.record.get("evaluated", {}).get("root", "")
    return {
        row.path.removeprefix(root).strip("/\\"): row
        for row in outputs.read_image_scores(run)
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A grid and its results so far.

    `parameters` are by host and block; `ensembles` are cells of seed 0, or None
    if they are not asked for; `published` is the table of the paper to show.
    """

    grid: Grid
    kind: Kind
    shown: tuple[Metric, ...]
    classes: tuple[DataClass, ...]
    parameters: Mapping[tuple[str, str], int]
    results: Mapping[Cell, Result]
    ensembles: Mapping[Cell, Result] | None = None
    published: PublishedTable | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether there are too many blocks to stand side by side."""
        return len(self.grid.blocks) > _MOST_SIDE_BY_SIDE

    @property
    def rows(self) -> str:
        """What stands in the rows, `"hosts"` or `"classes"`."""
        return "hosts" if self.is_crowded else self.kind.rows

    def values(self, key: str) -> dict[Cell, float]:
        """Returns a metric of the finished cells, in the order of the grid."""
        return {
            cell: self.results[cell].metrics[key]
            for cell in self.grid
            if cell in self.results and key in self.results[cell].metrics
        }

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics to show, without those that no finished cell has."""
        if not self.results:
            return self.shown
        return tuple(m for m in self.shown if self.values(m.key))

    @property
    def missing(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.grid if cell not in self.results]

    def classes_without(self, key: str) -> list[str]:
        """Returns classes whose finished cells all lack a metric."""
        having = {cell.data_class for cell in self.values(key)}
        finished = {cell.data_class for cell in self.results}
        return [name for name in self.grid.classes if name in finished - having]

    def seconds_left(self, cells: Collection[Cell]) -> float | None:
        """Estimates how long cells will take, from those of the same host."""
        times: dict[str, list[float]] = {}
        for cell, result in self.results.items():
            if (training := result.seconds("training")) is not None:
                evaluation = result.seconds("evaluation") or 0.0
                times.setdefault(cell.model, []).append(training + evaluation)
        known = [seconds for values in times.values() for seconds in values]
        if not known:
            return None
        values_of = [times.get(cell.model, known) for cell in cells]
        return sum(sum(values) / len(values) for values in values_of)

    def of_ensembles(self) -> "Comparison | None":
        """Returns the ensembles as a comparison of their own."""
        if not self.ensembles:
            return None
        return dataclasses.replace(
            self,
            grid=dataclasses.replace(self.grid, seeds=(0,)),
            results=self.ensembles,
            ensembles=None,
        )
