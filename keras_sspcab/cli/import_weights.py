"""`keras-sspcab import-weights`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command("import-weights")(command(import_weights))


def import_weights(
    model: Annotated[
        str,
        typer.Argument(help="draem, cutpaste, future_frame, mnad or hf2vad."),
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files of the checkpoint: .pth, .pckl, .tch, .safetensors or "
            ".npz. draem: both networks; mnad: the network and its memory; "
            "future_frame: what the files of TensorFlow begin with."
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Folder of normal images or videos, to fit the score and to "
            "calibrate; `evaluate` takes the test data in it."
        ),
    ],
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/MODEL-DATA-NUMBER."),
    ] = None,
    channel_order: Annotated[
        str | None,
        typer.Option(
            help="Order of the colors that the checkpoint was trained on: bgr "
            "or rgb. Default: that of its authors."
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side that images or frames are resized to. "
            "Default: the model's, such as 256."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting that the files do not decide. Repeatable.",
        ),
    ] = None,
) -> None:
    """Make a run of a published checkpoint, without training.

    Widths, tasks and blocks are found from the arrays. Nothing in the files is
    run: a pickled module is refused, with the way to convert it. Afterwards the
    run is evaluated, exported and served like any other.
    """
    from keras_sspcab.runs import Run
    from keras_sspcab.runs.parsing import parse_setting
    from keras_sspcab.runs.run import merge_settings

    named = {"data.image_size": image_size}
    values = merge_settings(dict(map(parse_setting, settings or [])), named)
    import_backend()
    from keras_sspcab.cli._progress import ConsoleProgress

    opened = Run.create(run, data=data, model=model, settings=values)
    opened.import_weights(
        *paths, channel_order=channel_order, progress=ConsoleProgress()
    )
    say(f"Saved {opened.file('model.keras')}", style="green")
