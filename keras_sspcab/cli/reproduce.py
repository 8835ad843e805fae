"""`keras-sspcab reproduce`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import say, show, warn
from keras_sspcab.cli.compare import (
    ModelSettings,
    run_all,
    show_cells,
    spell,
    start,
)

if TYPE_CHECKING:
    from keras_sspcab.compare import ComparisonRun


def reproduce(
    table: Annotated[
        str,
        typer.Argument(
            help="table1 (the block's design), table2 (images), table3 "
            "(videos), table4 (places), table5 (mask) or table6 (time)."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the data sets, or of one. table6 needs none."
        ),
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="paper: its sizes and epochs; cpu: small settings for two "
            "CPU cores, see --dry-run."
        ),
    ] = "paper",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for all. Default: runs/TABLE-BUDGET-DATA."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="How many seeds, or a list such as 3,5,7."),
    ] = None,
    settings: ModelSettings = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only list what there is to do, and measure a few steps and "
            "scores to say how long it would take.",
        ),
    ] = False,
) -> None:
    """Run the comparison behind a table of the SSPCAB paper.

    Says first what the paper had that is not there. Writes a page with the
    table, intervals and the paper's numbers. The same command continues where
    it was stopped. Exit codes: 0 done, 1 some have failed, 2 an error.
    """
    environment = dict(os.environ)
    import_backend()
    from keras_sspcab.checks import standardize_choice
    from keras_sspcab.compare import ComparisonSpec
    from keras_sspcab.compare.grid import parse_seeds
    from keras_sspcab.compare.paper import (
        BUDGETS,
        PAPER_TABLES,
        read_paper_table,
    )

    standardize_choice(table, (*PAPER_TABLES, "table6"), "TABLE")
    budget = standardize_choice(budget, BUDGETS, "budget")
    if table == "table6":
        given = {"--data": data, "--seeds": seeds, "--set": settings}
        if extra := [option for option, value in given.items() if value]:
            raise ValueError(
                "table6 measures time, on random images. Received: "
                f"{', '.join(extra)}. Leave it out"
            )
        _time(budget, out or Path("runs") / f"table6-{budget}", dry_run)
        return
    if data is None:
        raise ValueError(f"{table} needs --data, the folder of its data sets")
    paper = read_paper_table(table, budget)
    seeds = seeds or str(paper.seeds)
    data = data.expanduser().absolute()
    out = out or Path("runs") / f"{table}-{budget}-{data.resolve().name}"
    parts = {
        "": table,
        "--data": data,
        "--budget": budget,
        "--out": out,
        "--seeds": seeds,
        "--set": settings,
    }
    numbers = parse_seeds(seeds)
    runs = start(
        ComparisonSpec(
            data=str(data),
            out=str(out),
            models=paper.models,
            blocks=paper.blocks,
            seeds=numbers,
            settings=settings or (),
            preset=paper.preset,
            metrics=paper.metrics,
            has_ensembles=paper.has_ensembles and len(numbers) > 1,
            command=spell("reproduce", parts),
            public_command=spell("reproduce", parts, is_public=True),
            published=paper.published,
        ),
        environment,
    )
    missing = paper.missing(runs)
    runs.notes += (*paper.notes, *missing)
    say(f"{paper.title}: {paper.about}. {' '.join(paper.notes)}")
    for line in missing:
        warn(line)
    if dry_run:
        show_cells(runs)
        _estimate(runs)
    else:
        run_all(runs)


def _estimate(runs: "ComparisonRun") -> None:
    """Measures a few steps and scores of each kind of run that is left."""
    from keras_sspcab.compare.paper import estimate_cells

    rows = Table(
        *("model", "block", "runs", "seconds a step", "hours"),
        title="Runs that are left, from a few steps and samples",
    )
    total = 0.0
    for estimate in estimate_cells(runs):
        total += estimate.hours
        rows.add_row(
            estimate.model,
            estimate.blocks,
            str(estimate.count),
            f"{estimate.run.seconds_per_step:.3g}",
            f"{estimate.hours:.2f}",
        )
    show(rows)
    say(
        f"About {total:.1f} hours on this machine, without the first reading "
        "of the data and the metrics."
    )


def _time(budget: str, out: Path, dry_run: bool) -> None:
    from keras_sspcab.compare import timing

    if dry_run:
        say(f"{len(timing.cases(budget))} hosts, a few minutes in all")
        return
    from keras_sspcab.cli._progress import ConsoleProgress

    rows = timing.measure(budget, progress=ConsoleProgress())
    paths = timing.write_page(str(out), budget, rows)
    shown = Table(*timing.COLUMNS, title=timing.TITLE)
    for row in rows:
        shown.add_row(*row.cells())
    show(shown)
    say(f"Wrote {', '.join(paths)}", style="green")
