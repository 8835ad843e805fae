"""`keras-sspcab compare`."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import Log, options, say, show, warn
from keras_sspcab.cli.models import list_names

if TYPE_CHECKING:
    from keras_sspcab.compare import ComparisonRun, ComparisonSpec
    from keras_sspcab.compare.grid import Cell
    from keras_sspcab.compare.results import Comparison


ModelSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[MODEL:]SECTION.KEY=VALUE",
        help="A setting of all models, or of one. Repeatable. "
        "`keras-sspcab settings MODEL` lists them, with defaults.",
    ),
]


def compare(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder in MVTec layout or of videos, or a folder of such."
        ),
    ],
    models: Annotated[
        str,
        typer.Option(help=f"Separated by commas, of one kind. {list_names()}"),
    ],
    sspcab: Annotated[
        str,
        typer.Option(
            help="off, on (the model's own place for the block), places such "
            "as early+late, and variants such as ssmctb, ssmctb@late or those "
            "of tables [blocks.NAME] in --config."
        ),
    ] = "off,on",
    seeds: Annotated[
        str, typer.Option(help="How many seeds, or a list such as 3,5,7.")
    ] = "3",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all. Default: runs/compare-DATA."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file; a table draem.training is for one model alone."
        ),
    ] = None,
    log: Log = None,
    settings: ModelSettings = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Show this metric, as aupro or rbdc. Repeatable. Default: "
            "pixel_auroc, pixel_ap, image_auroc and aupro; of videos "
            "micro_auc, macro_auc, rbdc and tbdc."
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Images: also average scores over the seeds."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what there is to do.")
    ] = False,
) -> None:
    """Measure models with and without the block, over seeds and data.

    Trains and evaluates each in a run folder, and writes tables and a figure.
    The same command continues where it was stopped. Exit codes: 0 done, 1 some
    have failed, 2 an error.
    """
    # As the user has set it: `import_backend` silences this process.
    environment = dict(os.environ)
    import_backend()
    from keras_sspcab.compare import ComparisonSpec
    from keras_sspcab.compare.grid import (
        parse_blocks,
        parse_names,
        parse_seeds,
    )

    numbers = parse_seeds(seeds)
    if ensemble and len(numbers) < 2:
        raise ValueError(
            f"--ensemble needs several seeds. Received: --seeds {seeds}"
        )
    data = data.expanduser().absolute()
    out = out or Path("runs") / f"compare-{data.resolve().name}"
    given = {
        "--models": models,
        "--sspcab": sspcab,
        "--seeds": seeds,
        "--data": data,
        "--out": out,
        "--config": config,
        "--log": log,
        "--set": settings,
        "--metric": metric,
        "--ensemble": ensemble,
    }
    logged = [f"tracking.loggers={log}"] if log else []
    runs = start(
        ComparisonSpec(
            data=str(data),
            out=str(out),
            models=parse_names(models, "--models"),
            blocks=parse_blocks(sspcab),
            seeds=numbers,
            config=None if config is None else str(config),
            settings=[*logged, *(settings or ())],
            metrics=metric or (),
            has_ensembles=ensemble,
            command=spell("compare", given),
            public_command=spell("compare", given, is_public=True),
        ),
        environment,
    )
    if dry_run:
        show_cells(runs)
    else:
        run_all(runs)


def spell(name: str, given: Mapping[str, Any], is_public: bool = False) -> str:
    """Returns the command; for the page without folders of this machine."""
    from keras_sspcab.compare.conditions import without_folders
    from keras_sspcab.runs.parsing import parse_setting

    parts = ["keras-sspcab", name]
    for option, values in given.items():
        values = values if isinstance(values, list) else [values]
        for one in values:
            if one is None or one is False or (is_public and option == "--out"):
                continue
            if is_public and isinstance(one, Path):
                one = one.resolve().name
            if is_public and option == "--set":
                # As it is read: paths may stand in quotes, or in a list.
                key, value = parse_setting(one)
                if (public := without_folders(value)) != value:
                    one = f"{key}={public}"
            if option:
                parts.append(option)
            if one is not True:
                parts.append(str(one))
    return shlex.join(parts)


def start(
    spec: "ComparisonSpec", environment: Mapping[str, str]
) -> "ComparisonRun":
    """Checks what is to be compared; cells get the environment of the user."""
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.compare import ComparisonRun

    cell_command = ["-m", "keras_sspcab.cli._cell"]
    if options.debug:
        cell_command.append("--debug")
    runs = ComparisonRun(spec, ConsoleProgress(), cell_command, environment)
    if runs.left_out:
        nouns = runs.kind.nouns
        warn(f"No {nouns.data_classes}, left out: {', '.join(runs.left_out)}")
    return runs


def run_all(runs: "ComparisonRun") -> None:
    """Runs all cells, and shows the results."""
    failures = runs.run()
    comparison, paths = runs.write()
    if comparison.results:
        _show(comparison)
    say(f"Wrote {', '.join(paths)}", style="green")
    if failures:
        _show_failures(failures)
        raise typer.Exit(1)


def show_cells(runs: "ComparisonRun") -> None:
    """Lists the cells and their states."""
    table = Table(
        Column("cell", justify="right"),
        "what",
        "state",
        title=runs.describe(),
    )
    for number, (cell, state, changed) in enumerate(runs.examine(), 1):
        text = state.value
        if changed:
            text += f", with other settings: {', '.join(changed)}"
        table.add_row(str(number), str(cell), text)
    show(table)


def _show(comparison: "Comparison") -> None:
    """Prints the means over all classes, and the paired differences."""
    from keras_sspcab.compare import tables

    grid, nouns = comparison.grid, comparison.kind.nouns
    is_one = len(grid.classes) == 1
    over = "" if is_one else f", mean of all {nouns.data_classes}"
    titles = ("model", "metric", "block", "percent", *tables.DIFFERENCE_TITLES)
    table = Table(*titles, title=f"Percent{over}")
    for (model, metric), by_block in tables.differences(comparison).items():
        summaries = tables.summaries_of(
            comparison, metric.key, grid.classes, model
        )
        for block, summary in zip(grid.blocks, summaries, strict=True):
            table.add_row(
                model,
                metric.title,
                block,
                tables.percent(summary, len(grid.seeds)),
                *(
                    tables.difference_cells(by_block[block])
                    if block in by_block
                    else ()
                ),
            )
    show(table)


def _show_failures(failures: "dict[Cell, str]") -> None:
    for cell, reason in failures.items():
        say(f"Failed: {cell}. {reason}", style="red")
    say(
        f"{len(failures)} cells have failed. The same command tries them "
        "again; remove the folder of a run to begin it from scratch."
    )
