"""The tables of the SSPCAB paper as comparisons."""

import dataclasses
import functools
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.compare.grid import OFF
from keras_sspcab.compare.kinds import KINDS, canonical_name
from keras_sspcab.compare.published import TABLES, PublishedTable
from keras_sspcab.compare.results import CellState, state_of
from keras_sspcab.compare.runner import CellRun, ComparisonRun
from keras_sspcab.hosts import get_application
from keras_sspcab.runs.estimation import RunEstimate, estimate_run
from keras_sspcab.runs.parsing import read_toml

#: The tables of detectors; Table 6 is about time, see `timing`.
PAPER_TABLES = ("table1", "table2", "table3", "table4", "table5")

#: How much is computed: as in the paper, or what two CPU cores do in hours.
BUDGETS = ("paper", "cpu")


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of the paper, in the settings of a budget.

    Attributes:
        name: Such as `"table1"`.
        about: What is compared, in a few words.
        models: Names of the hosts.
        blocks: As in `compare --sspcab`.
        metrics: Keys of the metrics.
        seeds: How many trainings each.
        has_ensembles: Whether the table has ensembles over the seeds.
        preset: Settings, in the form of the file of a comparison.
        published: The numbers of the paper.
        data: The paper's data by name: what they are called, and where from.
        notes: What is to be known of the settings.

    Example:
    >>> read_paper_table("table5", "cpu").blocks
    ('off', 'mask_1x1', 'mask_3x3')
    """

    name: str
    about: str
    models: tuple[str, ...]
    blocks: tuple[str, ...]
    metrics: tuple[str, ...]
    seeds: int
    has_ensembles: bool
    preset: Mapping[str, Any]
    published: PublishedTable
    data: Mapping[str, Mapping[str, str]]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """What to call it: `"Table 1"`."""
        return _title(self.name)

    def missing(self, run: ComparisonRun) -> list[str]:
        """Says what the paper had and this comparison has not, and where from.

        Data sets of which no class is compared, and weights and pictures for
        which no setting is given.
        """
        # In their order, each once.
        names = dict.fromkeys(map(canonical_name, run.grid.classes))
        of_mvtec = {*TABLES["image"].classes}
        missing = [
            facts
            for key, facts in self.data.items()
            if not names.keys() & (of_mvtec if key == "mvtec" else {key})
        ]
        instead = "It has no numbers here"
        if len(missing) == len(self.data):
            instead = (
                f"{', '.join(names)} takes its place, and its numbers are "
                "others"
            )
        lines = [
            f"{self.title} of the paper is of {facts['name']}, which is not "
            f"there: {facts['source']}. {instead}"
            for facts in missing
        ]
        for need in _read_file()["needs"]:
            hosts = [host for host in need["hosts"] if host in run.changed]
            given = [run.changed[host] for host in hosts]
            if given and not all(need["key"] in changed for changed in given):
                lines.append(need["text"])
        return lines


@dataclasses.dataclass(frozen=True)
class CellsEstimate:
    """What the runs of a host that are left would take.

    Attributes:
        model: The host.
        blocks: `"off"`, or those that are taken to be alike.
        count: Runs.
        run: What one of them takes.
        hours: What all of them take.
    """

    model: str
    blocks: str
    count: int
    run: RunEstimate
    hours: float


def estimate_cells(run: ComparisonRun) -> Iterator[CellsEstimate]:
    """Measures a few steps of each host, without and with a block.

    Only of what has not been begun.
    """
    groups: dict[tuple[str, bool], list[CellRun]] = {}
    for one in run.cells:
        if state_of(one.run) is CellState.NEW:
            key = one.cell.model, one.cell.block == OFF
            groups.setdefault(key, []).append(one)
    prepared = set()
    for (model, _), cells in groups.items():
        blocks = dict.fromkeys(one.cell.block for one in cells)
        one_run = estimate_run(cells[0].config)
        hours = len(cells) * one_run.hours
        if model not in prepared:
            # The runs of a host share their objects.
            hours += one_run.preparation_seconds / 3600
            prepared.add(model)
        yield CellsEstimate(
            model, ", ".join(blocks), len(cells), one_run, hours
        )


def read_paper_table(name: str, budget: str) -> PaperTable:
    """Returns a table of the paper.

    Args:
        name: One of `PAPER_TABLES`.
        budget: One of `BUDGETS`.

    Raises:
        ValueError: If one is unknown.

    Example:
    >>> table = read_paper_table("table4", "paper")
    >>> table.published.texts("object_autoencoder", "rbdc", "avenue")["late"]
    '53.81'
    """
    name = standardize_choice(name, PAPER_TABLES, "name")
    budget = standardize_choice(budget, BUDGETS, "budget")
    everything = _read_file()
    table = everything[name]
    settings = everything["settings"][table["settings"]][budget]
    models, metrics = tuple(table["models"]), tuple(table["metrics"])
    if "published" in table:
        published = _read_published(name, table, models, metrics)
    else:
        published = TABLES[KINDS[get_application(models[0]).kind].name]
    return PaperTable(
        name=name,
        about=table["about"],
        models=models,
        blocks=tuple(table["blocks"]),
        metrics=metrics,
        seeds=settings["seeds"],
        has_ensembles=table.get("has_ensembles", False),
        preset={**settings["config"], "blocks": table.get("variants", {})},
        published=published,
        data={key: everything["data"][key] for key in table["data"]},
        notes=tuple(settings["notes"]),
    )


@functools.cache
def _read_file() -> dict[str, Any]:
    folder = importlib.resources.files("keras_sspcab.compare")
    return read_toml(str(folder / "paper_tables.toml"))


def _title(name: str) -> str:
    return name.replace("table", "Table ")


def _read_published(
    name: str,
    table: Mapping[str, Any],
    models: Sequence[str],
    metrics: Sequence[str],
) -> PublishedTable:
    """Reads lines of a block and its numbers, of one host and data set."""
    lines = [line.split() for line in table["published"].strip().splitlines()]
    by_metric = {
        metric: {block: numbers[i] for block, *numbers in lines}
        for i, metric in enumerate(metrics)
    }
    return PublishedTable(
        _title(name),
        {
            (models[0], metric): {table["data"][0]: texts}
            for metric, texts in by_metric.items()
        },
    )
