"""Runs the cells of a comparison, one after the other."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from keras_sspcab.cli import _cell
from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._comparison_setup import (
    check_data_sections,
    count_parameters,
    hide_gpus,
    kind_of,
)
from keras_sspcab.cli._console import say, warn
from keras_sspcab.cli._sources import source_of
from keras_sspcab.compare.classes import find_classes
from keras_sspcab.compare.comparison import Comparison, read_results
from keras_sspcab.compare.conditions import describe_conditions, format_seconds
from keras_sspcab.compare.grid import Cell, Grid
from keras_sspcab.compare.settings import Settings
from keras_sspcab.compare.states import State, changed_settings, state_of
from keras_sspcab.runs import Config, ConfigError, DataConfig, RunFolder


@dataclasses.dataclass(frozen=True)
class Job:
    """A cell, the folder of its run, and its configuration."""

    cell: Cell
    run: RunFolder
    config: Config


@dataclasses.dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        data: Folder of a data class, or of several.
        out: Folder of the comparison.
        models: Names of the hosts.
        blocks: Where the block is.
        seeds: Seeds of the trainings.
        config: A TOML file, or None.
        settings: Settings of the command line.
        metrics: Metrics to show; empty for the usual ones.
        has_ensembles: Whether ensembles are measured.
        command: The command to go on with.
        public_command: The same without folders of this machine.
    """

    data: str
    out: str
    models: tuple[str, ...]
    blocks: tuple[str, ...]
    seeds: tuple[int, ...]
    config: str | None
    settings: Sequence[str]
    metrics: Sequence[str]
    has_ensembles: bool
    command: str
    public_command: str


class Jobs:
    """The runs of a comparison. What can be checked is checked at once.

    Args:
        request: What to compare.

    Raises:
        ValueError: If an argument, the data or a setting cannot be used.
    """

    def __init__(self, request: Request) -> None:
        # As the user has set it: `import_backend` silences this process.
        self._environment = dict(os.environ)
        import_backend()
        hide_gpus()
        from keras_sspcab.applications import available_applications

        self.request = request
        self.kind = kind_of(request.models)
        self.shown = self.kind.choose_metrics(request.metrics)
        if request.has_ensembles and not self.kind.has_ensembles:
            raise ConfigError(
                f"Scores of {self.kind.words.samples} are not averaged over "
                "seeds. Received: --ensemble with --models "
                f"{','.join(request.models)}. Leave --ensemble out"
            )
        self.settings = Settings(
            request.models,
            available_applications(),
            request.config,
            request.settings,
        )
        layout = check_data_sections(self.settings, request.models)
        self.classes, self.left_out = find_classes(
            request.data, self.kind, layout
        )
        self.grid = Grid(
            tuple(data_class.name for data_class in self.classes),
            request.models,
            request.blocks,
            request.seeds,
        )
        self.parameters = {
            (model, block): count_parameters(self.settings, model, block)
            for model in request.models
            for block in request.blocks
        }
        paths = {found.name: found.path for found in self.classes}
        self._fingerprints: dict[DataConfig, str] = {}
        self.jobs = [
            Job(
                cell,
                RunFolder(os.path.join(request.out, cell.folder)),
                self.settings.config(
                    cell.model, paths[cell.data_class], cell.block, cell.seed
                ),
            )
            for cell in self.grid
        ]

    def describe(self) -> str:
        """Says how many cells there are, and in which states."""
        states = [state_of(job.run) for job in self.jobs]
        counts = {state: states.count(state) for state in State}
        parts = [f"{n} {state.value}" for state, n in counts.items() if n]
        return f"{len(self.jobs)} cells: {', '.join(parts)}"

    def examine(self) -> Iterator[tuple[Cell, State, dict[str, Any]]]:
        """Yields cells, their states, and settings that are others now."""
        for job in self.jobs:
            yield job.cell, state_of(job.run), self._changes(job)

    def run(self) -> dict[Cell, str]:
        """Runs all cells that are not done.

        What there is, is written after each but the last.

        Returns:
            Those that have failed, with the reasons.

        Raises:
            ValueError: If a cell was run with other settings.
            TrainingInterrupted: On Ctrl-C or SIGTERM.
        """
        self._refuse_changed()
        say(f"{self.describe()}, in {self.request.out}")
        began = time.monotonic()
        failures: dict[Cell, str] = {}
        for number, job in enumerate(self.jobs, 1):
            if state_of(job.run) is State.DONE:
                continue
            title = f"cell {number}/{len(self.jobs)}: {job.cell}"
            times = self._times(number, time.monotonic() - began)
            say(f"\n{title}{times}", style="bold")
            try:
                _cell.run_in_own_process(job.run, job.config, self._environment)
            except KeyboardInterrupt as error:
                raise self._stopped(title, error) from error
            except _cell.CellError as error:
                failures[job.cell] = str(error)
                warn(f"{job.cell}, has failed. {error}")
                continue
            if number < len(self.jobs):
                self.write()
        return failures

    def write(self) -> tuple[Comparison, list[str]]:
        """Writes tables and figure of the cells that are done.

        Returns:
            What was written, and the paths of the files.
        """
        from keras_sspcab.compare.outputs import write_outputs

        comparison, out = self._comparison(), self.request.out
        if self.request.has_ensembles:
            from keras_sspcab.compare.ensembles import read_ensembles

            ensembles = read_ensembles(out, self.grid, comparison.results)
            comparison = dataclasses.replace(comparison, ensembles=ensembles)
        changed = {m: self.settings.changed(m) for m in self.grid.models}
        conditions = describe_conditions(
            comparison, self.request.public_command, changed
        )
        return comparison, write_outputs(out, comparison, conditions)

    def _comparison(self) -> Comparison:
        return Comparison(
            self.grid,
            self.kind,
            self.shown,
            self.classes,
            self.parameters,
            read_results(self.request.out, self.grid),
        )

    def _refuse_changed(self) -> None:
        lines = []
        for job in self.jobs:
            texts = [
                f"{key} was {old!r} and is {new!r} now"
                for key, (old, new) in self._changes(job).items()
            ]
            if texts:
                lines.append(f"{job.run.path}: {', '.join(texts)}")
        if lines:
            raise ValueError(
                f"{len(lines)} of {len(self.jobs)} cells were run with other "
                "settings:\n" + "\n".join(lines) + "\nUse the same settings, "
                "choose another --out, or remove these folders to run them "
                "anew"
            )

    def _changes(self, job: Job) -> dict[str, Any]:
        """Returns what a run was started with that is another now."""
        changed: dict[str, Any] = changed_settings(job.run, job.config)
        if changed or not job.run.exists:
            return changed
        data = job.config.data
        if job.run.config.data.path != data.path:
            # It may be the same folder in another place.
            source = source_of(job.config)
            known = job.run.record.get("data", {})
            before = known.get(f"training_{source.noun}")
            if data not in self._fingerprints:
                found = source.fingerprint(source.split(job.config))
                self._fingerprints[data] = found
            now = self._fingerprints[data]
            if before not in (None, now):
                changed[f"the training {source.noun}"] = (before, now)
        return changed

    def _times(self, number: int, elapsed: float) -> str:
        """Says how long it has taken and will take, as far as is known."""
        to_come = [
            job.cell
            for job in self.jobs[number - 1 :]
            if state_of(job.run) is not State.DONE
        ]
        left = self._comparison().seconds_left(to_come)
        if left is None:
            return ""
        return (
            f" ({format_seconds(elapsed)} so far, about "
            f"{format_seconds(left)} left)"
        )

    def _stopped(
        self, title: str, error: KeyboardInterrupt
    ) -> KeyboardInterrupt:
        import signal

        from keras_sspcab.runs.callbacks import TrainingInterrupted

        return TrainingInterrupted(
            getattr(error, "signal", signal.SIGINT),
            f"Stopped in {title}. What is done is kept. "
            f"Continue with: {self.request.command}",
        )
