"""`keras-sspcab compare`."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import options, say, show, warn
from keras_sspcab.cli.models import list_names

if TYPE_CHECKING:
    from keras_sspcab.compare import ComparisonRun
    from keras_sspcab.compare.grid import Cell
    from keras_sspcab.compare.results import Comparison


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
            help="off, on (the model's own place for the block), or places."
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
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[MODEL:]SECTION.KEY=VALUE",
            help="A setting of all models, or of one. Repeatable. "
            "`keras-sspcab settings MODEL` lists them, with defaults.",
        ),
    ] = None,
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
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.compare import ComparisonRun, ComparisonSpec
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

    def spell(is_public: bool) -> str:
        """The command; for the page without the folders of this machine."""
        from keras_sspcab.compare.conditions import without_folders

        parts = ["--models", models, "--sspcab", sspcab, "--seeds", seeds]
        parts += ["--data", data.resolve().name if is_public else str(data)]
        if not is_public:
            parts += ["--out", str(out)]
        if config is not None:
            parts += ["--config", config.name if is_public else str(config)]
        for text in settings or ():
            key, equals, value = text.partition("=")
            shown = without_folders(value) if is_public else value
            parts += ["--set", f"{key}{equals}{shown}"]
        for key in metric or ():
            parts += ["--metric", key]
        if ensemble:
            parts.append("--ensemble")
        return shlex.join(["keras-sspcab", "compare", *parts])

    cell_command = ["-m", "keras_sspcab.cli._cell"]
    if options.debug:
        cell_command.append("--debug")
    runs = ComparisonRun(
        ComparisonSpec(
            data=str(data),
            out=str(out),
            models=parse_names(models, "--models"),
            blocks=parse_blocks(sspcab),
            seeds=numbers,
            config=None if config is None else str(config),
            settings=settings or (),
            metrics=metric or (),
            has_ensembles=ensemble,
            command=spell(is_public=False),
            public_command=spell(is_public=True),
        ),
        ConsoleProgress(),
        cell_command,
        environment,
    )
    if runs.left_out:
        nouns = runs.kind.nouns
        warn(f"No {nouns.data_classes}, left out: {', '.join(runs.left_out)}")
    if dry_run:
        _list(runs)
        return
    failures = runs.run()
    comparison, paths = runs.write()
    if comparison.results:
        _show(comparison)
    say(f"Wrote {', '.join(paths)}", style="green")
    if failures:
        _show_failures(failures)
        raise typer.Exit(1)


def _list(runs: "ComparisonRun") -> None:
    table = Table(title=runs.describe())
    table.add_column("cell", justify="right")
    table.add_column("what")
    table.add_column("state")
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
    table = Table(title=f"Percent{over}")
    blocks = tables.blocks_in_words(grid.blocks)
    for title in ("model", "metric", blocks, *tables.DIFFERENCE_TITLES):
        table.add_column(title)
    for (model, metric), by_block in tables.differences(comparison).items():
        summaries = tables.summaries_of(
            comparison, metric.key, grid.classes, model
        )
        values = tables.ARROW.join(
            tables.percent(summary, len(grid.seeds)) for summary in summaries
        )
        cells = map(tables.difference_cells, by_block.values())
        columns = ["\n".join(column) for column in zip(*cells, strict=True)]
        table.add_row(model, metric.title, values, *columns)
    show(table)


def _show_failures(failures: "dict[Cell, str]") -> None:
    for cell, reason in failures.items():
        say(f"Failed: {cell}. {reason}", style="red")
    say(
        f"{len(failures)} cells have failed. The same command tries them "
        "again; remove the folder of a run to begin it from scratch."
    )
