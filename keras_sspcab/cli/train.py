"""`keras-sspcab train`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import command, say
from keras_sspcab.cli._pipeline import may_change, train_run
from keras_sspcab.runs import Config, ConfigError, RunFolder, default_run_path
from keras_sspcab.runs.parsing import differences, load_config, parse_setting


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(command(train))


def train(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images (MVTec layout, or only normal) or of videos."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model, such as autoencoder or mnad.")
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
        typer.Option(help="Where the block sits, such as late; or none."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in total.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Patches, images or clips in one step.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Default: that of the model's paper.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of all random numbers.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side that images or frames are resized to."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="1 for gray, 3 for color.")
    ] = None,
    patch_size: Annotated[
        int | None,
        typer.Option(help="Side of training crops; 0 for whole images."),
    ] = None,
    on_error: Annotated[
        str | None, typer.Option(help="Broken images or videos: raise or skip.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any other setting, such as model.smoothing=5. Repeatable.",
        ),
    ] = None,
) -> None:
    """Train on normal images or videos, calibrate, and save the model.

    All of it lies in a run folder. Killed or interrupted, a run continues with
    --resume as if it had never stopped.
    """
    overrides: dict[str, Any] = dict(map(parse_setting, settings or []))
    named = {
        "data.path": None if data is None else str(data),
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
    overrides |= {k: v for k, v in named.items() if v is not None}
    if resume:
        folder, resolved = _continue(run, config, overrides)
    else:
        resolved = resolve(config, overrides)
        folder = RunFolder(
            default_run_path(resolved) if run is None else str(run)
        )
        folder.check_free()
    if resume and folder.is_finished and resolved == folder.config:
        say(
            f"The run {folder.path} is finished, after "
            f"{resolved.training.epochs} epochs. A larger --epochs trains it "
            "further."
        )
        return
    train_run(folder, resolved, resume)


def resolve(config: Path | None, overrides: dict[str, Any]) -> Config:
    """Reads a configuration and makes the path of the data absolute.

    A relative path counts from the working folder, not from the file.
    """
    import_backend()
    resolved = load_config(None if config is None else str(config), overrides)
    path = resolved.data.path
    if path and "://" not in path and not os.path.isabs(path):
        absolute = {"data.path": os.path.abspath(path)}
        return resolve(config, {**overrides, **absolute})
    return resolved


def _continue(
    run: Path | None, config: Path | None, overrides: dict[str, Any]
) -> tuple[RunFolder, Config]:
    """Returns a run that was begun, and its configuration."""
    if run is None:
        raise ConfigError("--resume continues the run in --run. Name it")
    if config is not None:
        raise ConfigError(
            "A run that is resumed has its configuration, in config.toml. "
            f"Received: --config {config}. Leave it out"
        )
    folder = RunFolder(str(run))
    before = folder.config
    after = resolve(Path(folder.file("config.toml")), overrides)
    for name, (old, new) in differences(before, after).items():
        if not may_change(name):
            raise ConfigError(
                f"The run {folder.path} was started with {name}={old!r}. "
                f"Received: {new!r}. Leave it out, or start a new run"
            )
    if folder.is_finished and after.training.epochs < before.training.epochs:
        raise ConfigError(
            f"The run {folder.path} has {before.training.epochs} epochs behind "
            f"it. Received: --epochs {after.training.epochs}. Choose more, or "
            "start a new run"
        )
    return folder, after
