"""From a configuration to a trained and calibrated model in a run folder."""

import contextlib
import csv
import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sspcab.hosts import AnomalyModel, ObjectModel
from keras_sspcab.layers.predictive_block import PredictiveBlock
from keras_sspcab.runs import files
from keras_sspcab.runs.calibration import (
    FITTED,
    calibrate_on_own,
    forget_calibrations,
    save_model,
    tell_calibration,
)
from keras_sspcab.runs.callbacks import FlushedTensorBoard, TrainingInterrupted
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder, now
from keras_sspcab.runs.models import build_model, compile_model, construct
from keras_sspcab.runs.parsing import write_config
from keras_sspcab.runs.progress import Progress
from keras_sspcab.runs.sources import Source, source_of
from keras_sspcab.training import train

_FREE_SETTINGS = {
    "data.path",
    "data.on_error",
    "data.cache",
    "objects.folder",
    "training.epochs",
    "training.checkpoint_every_steps",
    "training.checkpoint_every_seconds",
    "calibration.quantile",
    "calibration.pixel_quantile",
    "calibration.decision",
}


def is_free_setting(name: str) -> bool:
    """Whether a setting may change between the start of a run and its end."""
    return name in _FREE_SETTINGS or name.startswith("evaluation.")


def train_run(
    run: RunFolder,
    config: Config,
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    imported: AnomalyModel | None = None,
) -> None:
    """Trains, calibrates and saves the model of a run; see `Run.train`.

    A model that is imported is not trained.
    """
    progress = progress or Progress()
    source = source_of(config, run)
    folder = source.split()
    progress.message(folder.summary())
    source.preprocessing = source.measure_preprocessing(folder)
    how, default = source.preprocessing, source.host.preprocessing
    if (white := how.white_level) != default.white_level:
        progress.message(
            f"Images with 16 bits a value hold {white.bit_length()}: their "
            f"white is {white}, for this model and whatever it scores."
        )
    if how.resize != default.resize:
        progress.message(
            f"What has another size is resized by the method {how.resize!r}, "
            "for this model and whatever it scores."
        )
    with _precision(config.training.mixed_precision):
        # Before anything is written: the settings must fit the host.
        model = imported or build_model(config)
        if resume:
            write_config(run.file("config.toml"), config)
        else:
            run.start(config)
        epoch_size = source.epoch_size(folder)
        run.update_record(
            state="training",
            data={
                "root": os.path.abspath(folder.root),
                "train": len(folder.train),
                "validation": len(folder.validation),
                "test": len(folder.test),
                f"training_{source.noun}": source.fingerprint(folder),
                "notes": list(folder.notes),
                "preprocessing": source.preprocessing.to_dict(),
            },
        )
        layers = model._flatten_layers(include_self=False)
        blocks = sum(isinstance(layer, PredictiveBlock) for layer in layers)
        progress.message(
            f"Run {run.path}: {config.model.name}, {model.count_params():,} "
            f"parameters, SSPCAB blocks: {blocks}"
        )
        if model.backbone_weights is not None:
            run.update_record(backbone=model.backbone_weights)
        if model.needs_training and imported is None:
            _fit(source, folder, model, epoch_size, run, progress, callbacks)
        weights = model.get_weights()
    _finish(source, folder, weights, run, progress)


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _fit(
    source: Source,
    folder: Any,
    model: AnomalyModel,
    epoch_size: int,
    run: RunFolder,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a model, or one stage of it after the other."""
    config, training = source.config, source.config.training
    if model.guide.needs_gpu and not _has_gpu():
        warnings.warn(
            f"{config.model.name} needs a GPU to be useful at its defaults, "
            "and there is none here. `keras-sspcab models` lists others",
            stacklevel=2,
        )
    settings = {
        **_fixed_settings(config, model),
        f"training {source.noun}": source.fingerprint(folder),
    }
    if source.preprocessing != source.host.preprocessing:
        settings |= source.preprocessing.identity()

    def fit(
        part: Any, make_dataset: Callable[[int], Any], stage: str = ""
    ) -> str:
        compile_model(part, config, epoch_size)
        suffix = f"-{stage}" if stage else ""
        history = run.file(f"history{suffix}.csv")
        logs = FlushedTensorBoard(run.file("logs", stage))
        train(
            part,
            make_dataset,
            training.epochs,
            run.file(f"checkpoint{suffix}.npz"),
            seed=training.seed,
            settings=settings,
            every_steps=training.checkpoint_every_steps,
            every_seconds=training.checkpoint_every_seconds,
            history_csv=history,
            callbacks=[*shown, *callbacks, logs],
        )
        return history

    try:
        with progress.training() as shown:
            if not isinstance(model, ObjectModel):
                fit(model, source.training_datasets(folder))
                return
            stages, histories = model.training_stages(), []
            for number, stage in enumerate(stages, 1):
                progress.message(
                    f"Stage {number} of {len(stages)}: {stage.name}"
                )
                datasets = source.training_datasets(
                    folder, stage.needs_pseudo_abnormal
                )
                histories.append(fit(stage, datasets, stage.name))
                _join_histories(run.file("history.csv"), histories)
    except TrainingInterrupted as error:
        raise TrainingInterrupted(
            error.signal,
            f"{error}. Continue with: "
            f"keras-sspcab train --run {shlex.quote(run.path)} --resume",
        ) from error


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _fixed_settings(config: Config, model: AnomalyModel) -> dict[str, Any]:
    """Returns what must be the same when a training is continued."""
    is_of_objects = model.kind == "objects"
    values = {
        f"{section}.{key}": value
        for section, values in config.to_dict().items()
        for key, value in values.items()
        if section != "objects" or is_of_objects
    }
    # What follows from it counts.
    free = {"data.white_level", "data.resize"}
    free |= {name for name in values if is_free_setting(name)}
    if is_of_objects:
        # A stage that is done cannot be trained further: others follow it.
        free -= {"training.epochs"}
    return {k: value for k, value in values.items() if k not in free}


def _join_histories(path: str, parts: Sequence[str]) -> None:
    """Writes the epochs of all stages, one after the other."""
    rows: list[dict[str, Any]] = []
    for number, part in enumerate(parts, 1):
        with open(part, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({**row, "epoch": len(rows) + 1, "stage": number})
    names = (name for row in rows for name in row)
    files.write_csv(path, list(dict.fromkeys(["epoch", "stage", *names])), rows)


def _finish(
    source: Source,
    folder: Any,
    weights: list[Any],
    run: RunFolder,
    progress: Progress,
) -> None:
    """Calibrates a model of the images' size, in float32, and saves it."""
    config = source.config
    model = construct(config, config.data.image_size)
    model.set_weights(weights)
    model.preprocessing = source.preprocessing
    if not model.calibrates_by_folds:
        normal = source.scoring_dataset(folder.train)
        model.fit_scoring(progress.track(normal, FITTED))
    origin = calibrate_on_own(model, source, folder, progress)
    # Those of the model that is replaced.
    forget_calibrations(run)
    save_model(run, model)
    run.update_record(state="finished", finished=now())
    tell_calibration(model, source, origin, progress)
