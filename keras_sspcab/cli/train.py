"""`keras-sspcab train`, `import-weights` and `calibrate`: make a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._console import (
    FinishedRun,
    ImageSize,
    Log,
    NewRun,
    OnError,
    Settings,
    say,
)
from keras_sspcab.cli.models import NAMES, list_names

if TYPE_CHECKING:
    from keras_sspcab.runs import Run

Feedback = Annotated[
    Path | None,
    typer.Option(
        help="Folder of images marked as false alarm or missed; see "
        "`keras-sspcab mark`."
    ),
]


def train(
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder of images (MVTec layout, or only normal) or of videos."
        ),
    ] = None,
    products: Annotated[
        bool | None,
        typer.Option(
            "--products",
            help="--data holds a folder for each of several products: one "
            "model of them all, with statistics for each.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=list_names(NAMES["images"][0]))
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file; options override it.")
    ] = None,
    run: NewRun = None,
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
    image_size: ImageSize = None,
    fit: Annotated[
        str | None,
        typer.Option(
            help="How images of another aspect ratio fit in: stretch, pad "
            "(gray beside them) or crop (their middle). Default: stretch."
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
    symmetric: Annotated[
        str | None,
        typer.Option(
            help="What leaves a normal image normal: rotate, flip, or "
            "rotate,flip. Helps where images are few."
        ),
    ] = None,
    brightness: Annotated[
        float | None,
        typer.Option(
            help="Share by which normal images may be darker or brighter, such "
            "as 0.1."
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side of the tiles that large images are looked at in, in "
            "pixels. Default: the whole image at once, made smaller."
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Share of a tile that its neighbor sees too. Default: 0.25."
        ),
    ] = None,
    roi: Annotated[
        str | None,
        typer.Option(
            help="Regions of interest: a mask, or shapes in TOML. What is "
            "outside does not count."
        ),
    ] = None,
    align: Annotated[
        bool | None,
        typer.Option(
            "--align",
            help="Rotate and shift each image so that it lies as a normal one.",
        ),
    ] = None,
    feedback: Feedback = None,
    on_error: OnError = None,
    log: Log = None,
    settings: Settings = None,
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
        "data.layout": "products" if products else None,
        "data.image_size": image_size,
        "data.fit": fit,
        "data.channels": channels,
        "data.patch_size": patch_size,
        "data.symmetric": symmetric,
        "data.brightness": brightness,
        "data.on_error": on_error,
        "inspection.tile": tile,
        "inspection.overlap": overlap,
        "inspection.roi": roi,
        "inspection.align": align,
        "model.name": model,
        "model.sspcab": sspcab,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "training.seed": seed,
        "tracking.loggers": log,
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
        if feedback is None and opened.is_up_to_date:
            opened.train(resume)
            say(_finished(opened))
            return
    opened.train(resume, ConsoleProgress(), feedback=feedback)
    say(f"The model is in {opened.file('model.keras')}", style="green")


def _finished(run: "Run") -> str:
    if not run.can_be_trained_further:
        return f"The run {run.path} is finished: there is nothing to continue."
    return (
        f"The run {run.path} is finished, after {run.config.training.epochs} "
        "epochs. A larger --epochs trains it further."
    )


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
    run: NewRun = None,
    channel_order: Annotated[
        str | None,
        typer.Option(
            help="Order of the colors that the checkpoint was trained on: bgr "
            "or rgb. Default: that of its authors."
        ),
    ] = None,
    image_size: ImageSize = None,
    settings: Settings = None,
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


def calibrate(
    run: FinishedRun,
    data: Annotated[
        str | None,
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
    feedback: Feedback = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Score of images to flag from, such as 4.2; or f1: that of "
            "the best F1 of the test images that were evaluated last."
        ),
    ] = None,
    restore: Annotated[
        str | None,
        typer.Option(help="Put a former calibration back, such as: training."),
    ] = None,
    product: Annotated[
        str | None,
        typer.Option(help="Which of several products. Default: each."),
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
        feedback=feedback,
        threshold=_threshold(threshold),
        product=product,
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


def _threshold(text: str | None) -> float | str | None:
    from keras_sspcab.runs.thresholds import BEST_F1

    if text is None or text == BEST_F1:
        return text
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"The `threshold` argument must be a score, or {BEST_F1}. "
            f"Received: threshold={text!r}"
        ) from error
