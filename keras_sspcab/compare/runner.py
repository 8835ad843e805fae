"""Runs the cells of a comparison, one after the other."""

import contextlib
import csv
import dataclasses
import gc
import os
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_sspcab.compare import cell as processes
from keras_sspcab.compare.classes import find_classes
from keras_sspcab.compare.conditions import describe_conditions, format_seconds
from keras_sspcab.compare.grid import OFF, ON, Cell, Grid
from keras_sspcab.compare.kinds import KINDS, Kind
from keras_sspcab.compare.page import write_files
from keras_sspcab.compare.published import PublishedTable
from keras_sspcab.compare.results import (
    CellState,
    Comparison,
    read_ensembles,
    read_results,
    state_of,
)
from keras_sspcab.compare.settings import HostSettings
from keras_sspcab.hosts import get_application
from keras_sspcab.locks import folder_lock
from keras_sspcab.progress import Progress
from keras_sspcab.runs import Config, ConfigError, RunFolder
from keras_sspcab.runs.models import construct
from keras_sspcab.runs.parsing import CHANGE_NO_RESULT, differences
from keras_sspcab.runs.sources import source_of


@dataclasses.dataclass(frozen=True)
class ComparisonSpec:
    """What to compare, and how.

    Attributes:
        data: Folder of a data class, or of several.
        out: Folder of the comparison.
        models: Names of the hosts.
        blocks: Which block, and where, as in `--sspcab`: `"off"`, `"on"`,
            places such as `"early+late"`, or variants such as `"ssmctb@late"`.
        seeds: Seeds of the trainings.
        config: A TOML file, or None; see `HostSettings`.
        settings: Settings such as `"training.epochs=5"`, or of one host,
            `"draem:training.epochs=5"`.
        preset: Weaker settings than those of the file, in its form.
        metrics: Keys of the metrics to show; empty for the usual ones.
        has_ensembles: Whether ensembles over the seeds are measured.
        command: What to call to continue, for messages.
        public_command: The same without folders of this machine, for the page.
        published: A table of the paper to show beside; None takes its Table 2
            or 3, by the kind of data.

    Example:
        >>> spec = ComparisonSpec("mvtec/screw", "out", models=("draem",))
        >>> spec.blocks, spec.seeds
        (('off', 'on'), (0, 1, 2))
    """

    data: str
    out: str
    models: tuple[str, ...]
    blocks: tuple[str, ...] = (OFF, ON)
    seeds: tuple[int, ...] = (0, 1, 2)
    config: str | None = None
    settings: Sequence[str] = ()
    preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Sequence[str] = ()
    has_ensembles: bool = False
    command: str = "the same call"
    public_command: str = "a call of the library"
    published: PublishedTable | None = None


class CellRun(NamedTuple):
    """A cell, the folder of its run, and its configuration."""

    cell: Cell
    run: RunFolder
    config: Config


class ComparisonRun:
    """The runs of a comparison. What can be checked is checked at once.

    Attributes:
        kind: What kind of data is compared on.
        grid: The cells.
        classes: The data classes.
        left_out: Names of folders that are no data class.
        cells: The cells with their runs.
        changed: By host, the settings that are not its defaults.
        notes: What else is to be said under the conditions.

    Args:
        spec: What to compare.
        progress: Takes what there is to say.
        cell_command: Arguments of Python that start the process of a cell.
        environment: The variables of these processes; None for those of this
            one.

    Raises:
        ValueError: If an argument, the data or a setting cannot be used.

    Example:
        >>> spec = ComparisonSpec("mvtec", "out", models=("padim", "draem"))
        >>> runs = ComparisonRun(spec)  # doctest: +SKIP
        >>> failures = runs.run()  # doctest: +SKIP
        >>> comparison, paths = runs.write()  # doctest: +SKIP
    """

    def __init__(
        self,
        spec: ComparisonSpec,
        progress: Progress | None = None,
        cell_command: Sequence[str] = processes.CELL_COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        _hide_gpus()
        self.spec = spec
        self._progress = progress or Progress()
        self._cell_command = cell_command
        self._environment = environment
        self.kind = _kind_of(spec.models)
        self._shown = self.kind.choose_metrics(spec.metrics)
        if spec.has_ensembles and not self.kind.has_ensembles:
            raise ConfigError(
                f"Scores of {self.kind.nouns.samples} are not averaged over "
                "seeds. Received: --ensemble with --models "
                f"{','.join(spec.models)}. Leave --ensemble out"
            )
        # Objects are cut out once for all cells.
        objects = {"folder": os.path.abspath(os.path.join(spec.out, "objects"))}
        preset = {**spec.preset}
        preset["objects"] = {**objects, **preset.get("objects", {})}
        settings = HostSettings(spec.models, spec.config, spec.settings, preset)
        self.changed = {m: settings.changed(m) for m in spec.models}
        self._variants = settings.variants_in(spec.blocks)
        configs = [settings.config(m, "", OFF, 0) for m in spec.models]
        for config in configs:
            source_of(config).check()
        self.classes, self.left_out = find_classes(
            spec.data, self.kind, configs[0].data.layout
        )
        names = tuple(data_class.name for data_class in self.classes)
        self.grid = Grid(names, spec.models, spec.blocks, spec.seeds)
        self._parameters = {
            (model, block): _count_parameters(settings, model, block)
            for model in spec.models
            for block in spec.blocks
        }
        self.notes: tuple[str, ...] = ()
        self._present: dict[Any, dict[str, Any]] = {}
        self.cells: list[CellRun] = []
        paths = {found.name: found.path for found in self.classes}
        for cell in self.grid:
            run = RunFolder(os.path.join(spec.out, cell.folder))
            data = paths[cell.data_class]
            config = settings.config(cell.model, data, cell.block, cell.seed)
            self.cells.append(CellRun(cell, run, config))

    def describe(self) -> str:
        """Says how many cells there are, and in which states."""
        states = [state_of(one.run) for one in self.cells]
        counts = {state: states.count(state) for state in CellState}
        parts = [f"{n} {state.value}" for state, n in counts.items() if n]
        return f"{len(states)} cells: {', '.join(parts)}"

    def examine(self) -> Iterator[tuple[Cell, CellState, dict[str, Any]]]:
        """Yields cells, their states, and settings that are others now."""
        for one in self.cells:
            yield one.cell, state_of(one.run), self._changes(one)

    def run(self) -> dict[Cell, str]:
        """Runs all cells that are not done.

        Tables and figure are written after each but the last. Returns the
        cells that have failed, with the reasons.

        Raises:
            ValueError: If a cell was run with other settings, or another
                comparison is running in the folder.
            CellInterrupted: On Ctrl-C or SIGTERM.
        """
        with self._locked():
            return self._run_cells()

    def _locked(self) -> AbstractContextManager[bool]:
        # Each cell has a lock of its own.
        return folder_lock(self.spec.out, is_deep=False)

    def _run_cells(self) -> dict[Cell, str]:
        self._refuse_changed()
        self._progress.message(f"{self.describe()}, in {self.spec.out}")
        self._tell_left_out()
        began = time.monotonic()
        failures: dict[Cell, str] = {}
        for number, one in enumerate(self.cells, 1):
            if state_of(one.run) is CellState.DONE:
                continue
            title = f"cell {number}/{len(self.cells)}: {one.cell}"
            times = self._times(number, time.monotonic() - began)
            self._progress.message(f"\n{title}{times}")
            try:
                processes.run_in_own_process(
                    one.run,
                    one.config,
                    self._cell_command,
                    self._environment,
                    shlex.split(self.spec.command),
                )
            except processes.CellInterrupted as error:
                raise processes.CellInterrupted(
                    error.signal,
                    f"Stopped in {title}. What is done is kept. "
                    f"Continue with: {self.spec.command}",
                ) from error
            except processes.CellError as error:
                failures[one.cell] = str(error)
                warnings.warn(f"{one.cell}, has failed. {error}", stacklevel=2)
                continue
            if number < len(self.cells):
                self._write()
        return failures

    def _tell_left_out(self) -> None:
        """Names hosts of an earlier comparison that new tables leave out."""
        path = Path(self.spec.out, "comparison.csv")
        if not path.exists():
            return
        with path.open(encoding="utf-8", newline="") as file:
            hosts = {row["model"] for row in csv.DictReader(file)}
        if left_out := sorted(hosts.difference(self.grid.models)):
            self._progress.message(
                "The tables of before are replaced, and lose "
                f"{', '.join(left_out)}: name these as well for tables of all, "
                "or choose another folder. Their runs stay."
            )

    def write(self) -> tuple[Comparison, list[str]]:
        """Writes tables and figure of the cells that are done.

        Returns what was written, and the paths of the files.
        """
        with self._locked():
            return self._write()

    def _write(self) -> tuple[Comparison, list[str]]:
        comparison = self._results()
        if self.spec.has_ensembles:
            done = comparison.results
            ensembles = read_ensembles(self.spec.out, self.grid, done)
            comparison = dataclasses.replace(comparison, ensembles=ensembles)
        conditions = describe_conditions(
            comparison, self.spec.public_command, self.changed, self._variants
        )
        conditions += self.notes
        return comparison, write_files(self.spec.out, comparison, conditions)

    def _results(self) -> Comparison:
        return Comparison(
            self.grid,
            self.kind,
            self._shown,
            self.classes,
            self._parameters,
            read_results(self.spec.out, self.grid),
            published=self.spec.published,
        )

    def _refuse_changed(self) -> None:
        lines = []
        for one in self.cells:
            texts = [
                f"{key} was {old!r} and is {new!r} now"
                for key, (old, new) in self._changes(one).items()
            ]
            if texts:
                lines.append(f"{one.run.path}: {', '.join(texts)}")
        if lines:
            raise ValueError(
                f"{len(lines)} of {len(self.cells)} cells were run with other "
                "settings:\n" + "\n".join(lines) + "\nUse the same settings, "
                "choose another --out, or remove these folders to run them "
                "again"
            )

    def _changes(self, one: CellRun) -> dict[str, tuple[Any, Any]]:
        """Returns what a run was started with that is another now."""
        if not one.run.exists:
            return {}
        before = one.run.config
        changes = {
            key: values
            for key, values in differences(before, one.config).items()
            if key not in CHANGE_NO_RESULT and not key.startswith("tracking.")
        }
        if not changes and (known := one.run.record.get("data")):
            # By names and numbers: the folder may lie in another place.
            noun, present = self._present_data(one.config)
            for key, title in (
                (f"training_{noun}", f"the training {noun}"),
                ("test", f"the number of test {noun}"),
            ):
                if known.get(key) not in (None, present[key]):
                    changes[title] = known[key], present[key]
        return changes

    def _present_data(self, config: Config) -> tuple[str, dict[str, Any]]:
        """Returns the noun of samples, and what `run.json` has of them, now."""
        source = source_of(config)
        if config.data not in self._present:
            folder = source.split()
            self._present[config.data] = {
                f"training_{source.noun}": source.fingerprint(folder),
                "test": len(folder.test),
            }
        return source.noun, self._present[config.data]

    def _times(self, number: int, elapsed: float) -> str:
        """Says how long it has taken and will take, as far as is known."""
        comparison = self._results()
        rest = {one.cell for one in self.cells[number - 1 :]}
        left = comparison.seconds_left(rest & {*comparison.missing})
        if left is None:
            return ""
        return (
            f" ({format_seconds(elapsed)} so far, about "
            f"{format_seconds(left)} left)"
        )


def _hide_gpus() -> None:
    """Leaves the GPUs to the processes of the cells."""
    if tf.config.list_physical_devices("GPU"):
        # Too late where something else in this process uses them.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


def _kind_of(models: Sequence[str]) -> Kind:
    """Returns the kind of data that all hosts look at."""
    kinds = {model: get_application(model).kind for model in models}
    if len({KINDS[kind].name for kind in kinds.values()}) > 1:
        raise ConfigError(
            "Models are compared that look at the same kind of data. "
            f"Received: {', '.join(f'{m} ({k})' for m, k in kinds.items())}"
        )
    return KINDS[kinds[models[0]]]


def _count_parameters(settings: HostSettings, model: str, block: str) -> int:
    """Builds a model as the training will; returns its size."""
    config = settings.config(model, "", block, 0)
    try:
        if config.data.patch_size:
            construct(config, (None, None))
        return construct(config, config.data.image_size).count_params()
    except ConfigError as error:
        if block in (OFF, ON):
            raise
        raise ConfigError(
            "--sspcab must name places that all models know, and variants of "
            f"the block that can be built. Received: {block}. {error}"
        ) from error
    finally:
        keras.backend.clear_session()
        gc.collect()
