"""`keras-sspcab train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say
from keras_sspcab.cli.models import NAMES, list_names

if TYPE_CHECKING:
    from keras_sspcab.runs import Run


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(train))


def train(
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of images (MVTec layout, or only normal) or of videos."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=list_names(NAMES["images"][0]))
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file; options override it.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/MODEL-DATA-NUMBER."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --run.")
    ] = False,
    sspcab: Annotated[
        str | None,
        typer.Option(
            help="Where the block sits, such as late; or none. "
            "Default: the model's."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs in total. Default: the model's, 5 to 100."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Patches, images or clips in one step. Default: the model's."
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: that of the model's paper.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all random numbers. Default: 0.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side that images, frames or objects are resized to. "
            "Default: the model's, such as 320, 256 or 64."
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(help="1 for gray, 3 for color. Default: 3, or 1."),
    ] = None,
    patch_size: Annotated[
        int | None,
        typer.Option(
            help="Side of training crops; 0 for whole images, the default but "
            "for autoencoder."
        ),
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="Broken images or videos: raise (default) or skip."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting, such as model.smoothing=5. Repeatable. "
            "`keras-sspcab settings MODEL` lists all, with defaults.",
        ),
    ] = None,
) -> None:
    """Train on normal images or videos, calibrate, and save the model.

    All of it lies in a run folder. Killed or interrupted, a run continues with
    --resume as if it had never stopped.
    """
    from keras_sspcab.runs import ConfigError, Run
    from keras_sspcab.runs.parsing import parse_setting
    from keras_sspcab.runs.run import merge_settings

    named = {
        "data.path": data,
        "data.image_size": image_size,
        "data.channels": channels,
        "data.patch_size": patch_size,
        "data.on_error": on_error,
        "model.name": model,
        "model.sspcab": sspcab,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "training.seed": seed,
    }
    values = merge_settings(dict(map(parse_setting, settings or [])), named)
    import_backend()
    from keras_sspcab.cli._progress import ConsoleProgress

    if not resume:
        opened = Run.create(run, config=config, settings=values)
    elif run is None:
        raise ConfigError("--resume continues the run in --run. Name it")
    elif config is not None:
        raise ConfigError(
            "A run that is resumed has its configuration, in config.toml. "
            f"Received: --config {config}. Leave it out"
        )
    else:
        opened = Run(run, values)
        if opened.is_up_to_date:
            say(_finished(opened))
            return
    opened.train(resume, ConsoleProgress())
    say(f"Saved {opened.file('model.keras')}", style="green")


def _finished(run: "Run") -> str:
    if not run.can_be_trained_further:
        return f"The run {run.path} is finished: there is nothing to continue."
    return (
        f"The run {run.path} is finished, after {run.config.training.epochs} "
        "epochs. A larger --epochs trains it further."
    )
