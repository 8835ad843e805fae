"""A comparison as far as it has come: a grid and the results in it."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

from keras_sspcab.compare.classes import DataClass
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.kinds import Kind, Metric
from keras_sspcab.compare.states import read_conventions, read_metrics
from keras_sspcab.runs import RunFolder


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished cell has given.

    Attributes:
        metrics: Numbers by name, as in `metrics.json`.
        record: What `run.json` says.
        conventions: How they were measured, as in `metrics.json`.
    """

    metrics: Mapping[str, float]
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conventions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def seconds(self, part: str = "training") -> float | None:
        """Returns the time of a part, `"training"` or `"evaluation"`."""
        return self.record.get("seconds", {}).get(part)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A grid and its results so far.

    Attributes:
        grid: The cells.
        kind: What kind of data they are on.
        shown: The metrics to show.
        classes: The data classes.
        parameters: Number of parameters by host and block.
        results: Those of the finished cells.
        ensembles: Those of ensembles over the seeds, as cells of seed 0; None
            if they are not asked for.
    """

    grid: Grid
    kind: Kind
    shown: tuple[Metric, ...]
    classes: tuple[DataClass, ...]
    parameters: Mapping[tuple[str, str], int]
    results: Mapping[Cell, Result]
    ensembles: Mapping[Cell, Result] | None = None

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
        """Estimates how long cells will take, from those finished.

        Args:
            cells: The cells that are to come.

        Returns:
            Seconds, by the mean over the cells of the same host, or over all
            where there are none; None if nothing is known.
        """
        times: dict[str, list[float]] = {}
        for cell, result in self.results.items():
            parts = [result.seconds(p) for p in ("training", "evaluation")]
            if parts[0] is not None:
                times.setdefault(cell.model, []).append(
                    sum(part for part in parts if part is not None)
                )
        known = [seconds for found in times.values() for seconds in found]
        if not known:
            return None
        return sum(
            sum(found) / len(found)
            for cell in cells
            for found in [times.get(cell.model, known)]
        )

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


def read_results(root: str, grid: Grid) -> dict[Cell, Result]:
    """Reads the results of the finished cells.

    Args:
        root: The folder of the comparison.
        grid: The cells.
    """
    results = {}
    for cell in grid:
        run = RunFolder(os.path.join(root, cell.folder))
        if run.exists and run.is_finished:
            metrics = read_metrics(run)
            if metrics is not None:
                conventions = read_conventions(run)
                results[cell] = Result(metrics, run.record, conventions)
    return results
