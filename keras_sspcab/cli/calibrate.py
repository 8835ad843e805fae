"""`keras-sspcab calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(calibrate))


def calibrate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of normal images or videos that were not trained on. "
            "Default: those that the training calibrates on."
        ),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Share of normal images that may be flagged, such as 0.01. "
            "Default: as it is set in the run."
        ),
    ] = None,
    decision: Annotated[
        str | None,
        typer.Option(
            help="What flags an image: score, pixels (one is higher than in "
            "normal images), or either."
        ),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(help="Put a former calibration back, such as: training."),
    ] = None,
) -> None:
    """Measure new thresholds for a trained model, without training it.

    The calibrations before are kept, in calibrations.json. Exports are those of
    the calibration that they were made with.
    """
    import_backend()
    from keras_sspcab.cli._progress import ConsoleProgress
    from keras_sspcab.runs import Run

    opened = Run(run)
    result = opened.calibrate(
        data,
        false_alarms=false_alarms,
        decision=decision,
        restore=restore,
        progress=ConsoleProgress(),
    )
    verb = "Put back" if restore is not None else "Set"
    say(
        f"{verb} the calibration {result.name or restore}: anomalous "
        f"{result.describe_rule()}. `--restore NAME` puts another one of "
        f"{opened.file('calibrations.json')} back.",
        style="green",
    )
    say(
        "Metrics, reports and exports are still those of the calibration "
        f"before: run `keras-sspcab evaluate {opened.path}`, `report` and "
        "`export` again."
    )
