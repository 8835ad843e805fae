"""The steps of a training, from a configuration to a model in a run folder."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._console import number, say, warn
from keras_sspcab.cli._model import build_model, compile_model, construct
from keras_sspcab.cli._sources import Source, source_of
from keras_sspcab.runs import Config, RunFolder, files
from keras_sspcab.runs.folder import now
from keras_sspcab.runs.parsing import write_config

if TYPE_CHECKING:
    from keras_sspcab.applications import AnomalyModel

# With fewer held-out images, the threshold is little more than a guess.
_FEW_IMAGES = 20

# May change between the start and the continuation of a run.
FREE_SETTINGS = (
    "data.path",
    "data.on_error",
    "data.cache",
    "objects.folder",
    "training.epochs",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_seconds",
    "calibration.quantile",
    "calibration.pixel_quantile",
)


def may_change(name: str) -> bool:
    """Whether a setting may change between start and continuation of a run."""
    return name in FREE_SETTINGS or name.startswith("evaluation.")


def train_run(run: RunFolder, config: Config, resume: bool = False) -> None:
    """Trains, calibrates and saves the model of a run.

    Args:
        run: The folder: a new one, or with `resume` one that `train_run` has
            begun.
        config: Its configuration.
        resume: Whether to go on with a run.
    """
    source = source_of(config, run)
    folder = source.split(config)
    say(folder.summary())
    with _precision(config.training.mixed_precision):
        # Before anything is written: the settings must fit the host.
        model = build_model(config)
        if resume:
            write_config(run.file("config.toml"), config)
        else:
            run.create(config)
        count = source.count(config, folder)
        run.update_record(
            state="training",
            data={
                "root": os.path.abspath(folder.root),
                "train": len(folder.train),
                "validation": len(folder.validation),
                "test": len(folder.test),
                f"training_{source.noun}": source.fingerprint(folder),
                "notes": list(folder.notes),
            },
        )
        say(f"Run {run.path}: {config.model.name}, {_describe(model)}")
        if model.backbone_weights is not None:
            run.update_record(backbone=model.backbone_weights)
        if model.needs_training:
            _fit(run, config, source, folder, model, count)
        weights = model.get_weights()
    _finish(run, config, source, folder, weights)


def _describe(model: "AnomalyModel") -> str:
    from keras_sspcab.layers import SSPCABLayer

    layers = model._flatten_layers(include_self=False)
    blocks = sum(isinstance(layer, SSPCABLayer) for layer in layers)
    return f"{model.count_params():,} parameters, SSPCAB blocks: {blocks}"


def _fit(
    run: RunFolder,
    config: Config,
    source: Source,
    folder: Any,
    model: "AnomalyModel",
    count: int,
) -> None:
    from keras_sspcab.applications import ObjectModel
    from keras_sspcab.cli._progress import DurationEstimate, TrainingProgress
    from keras_sspcab.cli._stages import train_stages
    from keras_sspcab.cli._tensorboard import FlushedTensorBoard
    from keras_sspcab.training import TrainingInterrupted, train

    training = config.training
    progress = TrainingProgress()
    callbacks = [progress]
    if model.guide.needs_gpu and not _has_gpu():
        warn(
            f"{config.model.name} needs a GPU to be useful at its defaults, "
            "and there is none here. `keras-sspcab models` lists others"
        )
        callbacks.append(DurationEstimate())

    def resumable(*arguments: Any, log_folder: str, **options: Any) -> None:
        train(
            *arguments,
            seed=training.seed,
            settings={
                **_fixed_settings(config, model),
                f"training {source.noun}": source.fingerprint(folder),
            },
            every_steps=training.checkpoint_every_steps,
            every_seconds=training.checkpoint_every_seconds,
            callbacks=[*callbacks, FlushedTensorBoard(log_folder)],
            **options,
        )

    datasets = source.training_datasets(run, config, folder)
    try:
        if isinstance(model, ObjectModel):
            train_stages(run, config, model, count, datasets, resumable)
        else:
            compile_model(model, config, count)
            resumable(
                model,
                datasets,
                training.epochs,
                run.file("checkpoint.npz"),
                history_csv=run.file("history.csv"),
                log_folder=run.file("logs"),
            )
    except TrainingInterrupted as error:
        raise TrainingInterrupted(
            error.signal,
            f"{error}. Continue with: "
            f"keras-sspcab train --run {shlex.quote(run.path)} --resume",
        ) from error
    finally:
        progress.close()


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _fixed_settings(config: Config, model: "AnomalyModel") -> dict[str, Any]:
    """Returns what must be the same when a training goes on."""
    values = {
        f"{section}.{key}": value
        for section, values in config.to_dict().items()
        for key, value in values.items()
        if section != "objects" or model.kind == "objects"
    }
    # A stage that is done cannot be trained further: others follow it.
    keeps_epochs = model.kind == "objects"
    return {
        name: value
        for name, value in values.items()
        if not may_change(name) or (keeps_epochs and name == "training.epochs")
    }


def _finish(
    run: RunFolder,
    config: Config,
    source: Source,
    folder: Any,
    weights: list[Any],
) -> None:
    """Calibrates a model of the images' size, in float32, and saves it."""
    model = construct(config, config.data.image_size)
    model.set_weights(weights)
    noun = {"videos": "frames"}.get(source.noun, source.noun)
    thresholds = (
        config.calibration.quantile,
        config.calibration.pixel_quantile,
    )
    if model.calibrates_by_folds:
        say(f"Fitting statistics to {len(folder.train)} normal {noun}")
        model.fit_scoring(source.statistics_dataset(run, config, folder.train))
        calibration = model.calibrate(None, *thresholds)
        origin = "each scored by the statistics of others"
        if not model.fold_scores.are_held_out:
            origin = (
                "which the statistics come from as well, so that nearly every "
                "other image lies above"
            )
    else:
        model.fit_scoring(source.scoring_dataset(folder.train, config))
        held_out = source.scoring_dataset(folder.validation, config)
        calibration = model.calibrate(held_out, *thresholds)
        origin = "held out of the training"
    with files.replacing(run.file("model.keras")) as temporary:
        model.save(temporary)
    run.update_record(state="finished", finished=now())
    if calibration.num_images < _FEW_IMAGES:
        warn(
            f"The threshold is rough: it was measured on only "
            f"{calibration.num_images} normal {noun}, {origin}. More help"
        )
    say(
        f"Calibrated on {calibration.num_images} normal {noun}, {origin}: "
        f"anomalous from score {number(calibration.threshold)} on."
    )
    say(f"Saved {run.file('model.keras')}", style="green")


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
