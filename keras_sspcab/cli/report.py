"""`keras-sspcab report`."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._console import command, say


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(report))


def report(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run that was evaluated.")
    ],
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open it in the browser.")
    ] = False,
) -> None:
    """Write report.html: curves, metrics, and pictures of the anomalies."""
    from keras_sspcab.report import write_report

    path = write_report(run)
    say(f"Wrote {path}", style="green")
    if open_browser:
        webbrowser.open(path.resolve().as_uri())
