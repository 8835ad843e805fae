"""`keras-sspcab compare`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from keras_sspcab.cli._console import command, say, show, warn

if TYPE_CHECKING:
    from keras_sspcab.cli._comparison import Jobs
    from keras_sspcab.compare.comparison import Comparison
    from keras_sspcab.compare.grid import Cell
    from keras_sspcab.compare.statistics import PairedDifference


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(compare))


def compare(
    data: Annotated[
        Path,
        typer.Option(
            help="Folder in MVTec layout or of videos, or a folder of such."
        ),
    ],
    models: Annotated[
        str,
        typer.Option(
            help="Models, such as autoencoder,draem or future_frame,mnad."
        ),
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
            help="A setting of all models, or of one. Repeatable.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Show this metric, as aupro or rbdc. Repeatable."),
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
    The same command goes on where it was stopped. Exit codes: 0 done, 1 some
    have failed, 2 an error.
    """
    from keras_sspcab.compare.grid import (
        parse_blocks,
        parse_names,
        parse_seeds,
    )

    names, blocks = parse_names(models, "--models"), parse_blocks(sspcab)
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
        parts += ["--ensemble"] * ensemble
        return shlex.join(["keras-sspcab", "compare", *parts])

    from keras_sspcab.cli._comparison import Jobs, Request

    request = Request(
        data=str(data),
        out=str(out),
        models=names,
        blocks=blocks,
        seeds=numbers,
        config=None if config is None else str(config),
        settings=settings or (),
        metrics=metric or (),
        has_ensembles=ensemble,
        command=spell(is_public=False),
        public_command=spell(is_public=True),
    )
    jobs = Jobs(request)
    if jobs.left_out:
        names_left_out = ", ".join(jobs.left_out)
        words = jobs.kind.words
        warn(f"No {words.data_classes}, left out: {names_left_out}")
    if dry_run:
        _list(jobs)
        return
    failures = jobs.run()
    comparison, paths = jobs.write()
    _show(comparison)
    say(f"Wrote {', '.join(paths)}", style="green")
    _report(failures)


def _list(jobs: "Jobs") -> None:
    table = Table(title=jobs.describe())
    table.add_column("cell", justify="right")
    table.add_column("what")
    table.add_column("state")
    for number, (cell, state, changed) in enumerate(jobs.examine(), 1):
        text = state.value
        if changed:
            text += f", with other settings: {', '.join(changed)}"
        table.add_row(str(number), str(cell), text)
    show(table)


def _show(comparison: "Comparison") -> None:
    """Prints the means over all classes, and the paired differences."""
    from keras_sspcab.compare import tables

    if not comparison.results:
        return
    grid = comparison.grid
    shorts = comparison.kind.words.shorts
    over = "" if len(grid.classes) == 1 else f", mean of all {shorts}"
    table = Table(title=f"Percent{over}")
    blocks = tables.blocks_in_words(comparison)
    of_pairs = ("difference", "interval", "detectable", "pairs")
    for title in ("model", "metric", blocks, *of_pairs):
        table.add_column(title)
    differences = tables.differences(comparison)
    for model in grid.models:
        for metric in comparison.metrics:
            summaries = tables.summaries_of(
                comparison, metric.key, grid.classes, model
            )
            values = tables.ARROW.join(
                tables.percent(summary, len(grid.seeds))
                for summary in summaries
            )
            found = [
                differences[model, block, metric.title]
                for block in grid.blocks
                if block != grid.reference
            ]
            table.add_row(
                model,
                metric.title,
                values,
                *("\n".join(column) for column in _columns(found)),
            )
    show(table)


def _columns(
    found: "Sequence[PairedDifference | None]",
) -> list[list[str]]:
    from keras_sspcab.compare import tables

    return [
        [tables.signed(d.mean) if d else tables.NOTHING for d in found],
        [tables.interval(d) if d else tables.NOTHING for d in found],
        [tables.detectable(d) if d else tables.NOTHING for d in found],
        [str(d.count) if d else "0" for d in found],
    ]


def _report(failures: "dict[Cell, str]") -> None:
    if not failures:
        return
    for cell, reason in failures.items():
        say(f"Failed: {cell}. {reason}", style="red")
    say(
        f"{len(failures)} cells have failed. The same command tries them "
        "again; remove the folder of a run to begin it anew."
    )
    raise typer.Exit(1)
