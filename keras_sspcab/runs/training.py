"""From a configuration to a trained and calibrated model in a run folder."""

import contextlib
import csv
import os
import shlex
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_sspcab import files
from keras_sspcab.data import tile_dataset
from keras_sspcab.hosts import AnomalyModel, InspectionModel, ObjectModel
from keras_sspcab.layers.predictive_block import PredictiveBlock
from keras_sspcab.progress import Progress
from keras_sspcab.runs.calibration import (
    FITTED,
    calibrate_on_own,
    is_measured_on_own,
    propose_symmetries,
    save_model,
    tell_calibration,
)
from keras_sspcab.runs.config import Config
from keras_sspcab.runs.folder import RunFolder, now
from keras_sspcab.runs.marks import (
    keep_marks,
    marks_of,
    tell_missed,
    with_marks,
)
from keras_sspcab.runs.models import build_model, compile_model, construct
from keras_sspcab.runs.parsing import is_free_setting, write_config
from keras_sspcab.runs.sources import Source, source_of
from keras_sspcab.runs.tracking import tracked_training
from keras_sspcab.training import train
from keras_sspcab.training.callbacks import (
    FlushedTensorBoard,
    TrainingInterrupted,
)
from keras_sspcab.training.checkpoint import CheckpointError


def take_moved_data(run: RunFolder, config: Config) -> bool:
    """Gives a finished run its images at another place, if they are the same.

    Returns whether they are, by their names and their number.
    """
    source = source_of(config, RunFolder(run.path))
    folder = source.split()
    if not source.is_of_training(folder):
        return False
    write_config(run.file("config.toml"), config)
    known = run.record.get("data", {})
    run.update_record(data={**known, "root": folder.root})
    return True


def train_run(
    run: RunFolder,
    config: Config,
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    imported: AnomalyModel | None = None,
    feedback: str | None = None,
) -> None:
    """Trains, calibrates and saves the model of a run; see `Run.train`.

    A model that is imported is not trained.
    """
    progress = progress or Progress()
    with tracked_training(run, config.tracking, progress) as tracker:
        # By then the epoch before is in the history.
        logged = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: tracker.update()
        )
        callbacks = [*callbacks, logged]
        _train(run, config, resume, progress, callbacks, imported, feedback)


def _train(
    run: RunFolder,
    config: Config,
    resume: bool,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
    imported: AnomalyModel | None,
    feedback: str | None,
) -> None:
    source = source_of(config, run)
    folder = source.split()
    # With the size of the images, if it was not given.
    config = source.config
    if feedback is not None:
        keep_marks(run, source, feedback, resume)
    folder = with_marks(folder, source)
    progress.message(folder.summary())
    source.warn_of_ratio(folder)
    source.preprocessing = source.measure_preprocessing(folder)
    how, default = source.preprocessing, source.host.preprocessing
    if (white := how.white_level) != default.white_level:
        progress.message(
            f"Images with 16 bits a value hold {white.bit_length()}: their "
            f"white is {white}, for this model and whatever it scores."
        )
    if how.fit == "crop":
        progress.message(
            "Of images of another aspect ratio than "
            f"{config.data.image_size[0]} x {config.data.image_size[1]} the "
            "middle is seen, nothing else."
        )
    if how.resize != default.resize:
        progress.message(
            f"What has another size is resized by the method {how.resize!r}, "
            "for this model and whatever it scores."
        )
    with (
        _precision(config.training.mixed_precision),
        _kept_if_refused(run),
    ):
        # Before anything is written: the settings must fit the host.
        model = imported or build_model(config)
        if not model.needs_training:
            _tell_unused(source)
        if resume and run.exists:
            write_config(run.file("config.toml"), config)
        else:
            run.start(config)
        run.update_record(
            state="training",
            data={
                "root": folder.root,
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
            f"parameters, predictive blocks: {blocks}"
        )
        if model.backbone_weights is not None:
            run.update_record(backbone=model.backbone_weights)
        if isinstance(model, InspectionModel) and model.alignment is not None:
            _align(model, source.scoring_dataset(folder.train), progress)
        if model.needs_training and imported is None:
            _fit(source, folder, model, run, progress, callbacks)
        weights = model.get_weights()
    _finish(source, folder, weights, run, progress)


@contextlib.contextmanager
def _kept_if_refused(run: RunFolder) -> Iterator[None]:
    """Restores config.toml and run.json if the checkpoint is refused."""
    names = ("config.toml", "run.json")
    before = {
        name: Path(run.file(name)).read_text("utf-8")
        for name in names
        if os.path.exists(run.file(name))
    }
    try:
        yield
    except CheckpointError:
        for name, text in before.items():
            files.write_text(run.file(name), text)
        raise


def _tell_unused(source: Source) -> None:
    """Warns of training settings that have no effect on this model."""
    keys = ("data.flip", "training.epochs", "training.learning_rate")
    unused = [key for key in keys if not source.is_default(key)]
    if unused:
        warnings.warn(
            f"Nothing of {source.config.model.name} is trained without a "
            f"block, so that {', '.join(unused)} makes no difference. Where "
            "parts may lie mirrored, say so by `data.symmetric`",
            stacklevel=2,
        )


def _align(model: InspectionModel, normal: Any, progress: Progress) -> None:
    """Fits the alignment of a model; says what it is worth."""
    gain = model.fit_alignment(normal)
    assert gain is not None
    text = (
        f"mean correlation of edges {gain.before:.2f} as they are, "
        f"{gain.after:.2f} aligned, {gain.chance:.2f} by chance"
    )
    if gain.is_significant:
        progress.message(f"Images are aligned with a normal one: {text}.")
    else:
        warnings.warn(
            "Images are not aligned, because the normal ones do not fit each "
            f"other better by that than by chance: {text}",
            stacklevel=2,
        )


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
    run: RunFolder,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a model, or one stage of it after the other."""
    config, training = source.config, source.config.training
    if model.guide.needs_gpu and not _has_gpu():
        warnings.warn(
            f"{config.model.name} needs a GPU to be useful, and there "
            "is none here. `keras-sspcab models` lists others",
            stacklevel=2,
        )
    settings = {
        **_fixed_settings(config, model),
        f"training {source.noun}": source.fingerprint(folder),
    }
    if source.preprocessing != source.host.preprocessing:
        settings |= source.preprocessing.identity()

    def fit(training_part: TrainingPart, stage: str = "") -> str:
        part, make_dataset, epoch_size = training_part
        compile_model(part, config, epoch_size)
        suffix = f"-{stage}" if stage else ""
        history = run.file(f"history{suffix}.csv")
        logs = []
        if "tensorboard" in config.tracking.loggers:
            logs.append(FlushedTensorBoard(run.file("logs", stage)))
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
            callbacks=[*shown, *callbacks, *logs],
        )
        return history

    try:
        with progress.training() as shown:
            parts = training_parts(model, source, folder)
            histories: list[str] = []
            if not isinstance(model, ObjectModel):
                fit(parts[0])
                return
            for number, part in enumerate(parts, 1):
                name = part.model.name
                progress.message(f"Stage {number} of {len(parts)}: {name}")
                histories.append(fit(part, name))
                _join_histories(run.file("history.csv"), histories)
    except TrainingInterrupted as error:
        raise TrainingInterrupted(
            error.signal,
            f"{error}. Continue with: "
            f"keras-sspcab train --run {shlex.quote(run.path)} --resume",
        ) from error


class TrainingPart(NamedTuple):
    """What is trained by itself: a model, or a stage of one.

    `make_dataset` takes the number of an epoch, of so many samples.
    """

    model: Any
    make_dataset: Callable[[int], Any]
    epoch_size: int


def training_parts(
    model: AnomalyModel, source: Source, folder: Any
) -> list[TrainingPart]:
    """Returns what is trained, in this order, and on what."""
    size, training = source.epoch_size(folder), source.config.training
    if isinstance(model, ObjectModel):
        return [
            TrainingPart(
                stage,
                source.training_datasets(folder, stage.needs_pseudo_abnormal),
                size,
            )
            for stage in model.training_stages()
        ]
    images = source.training_datasets(folder)
    if not isinstance(model, InspectionModel):
        return [TrainingPart(model, images, size)]

    def tiles(epoch: int) -> Any:
        return tile_dataset(
            images(epoch),
            size,
            **model.tiling,
            batch_size=training.batch_size,
            seed=training.seed,
            epoch=epoch,
        )

    return [TrainingPart(model.host, tiles, size * model.tiles_per_image)]


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _fixed_settings(config: Config, model: AnomalyModel) -> dict[str, Any]:
    """Returns what must be the same when a training is continued."""
    is_of_objects = model.kind == "objects"
    values = {
        f"{section}.{key}": value
        for section, values in config.to_dict().items()
        for key, value in values.items()
        if (section != "objects" or is_of_objects)
        # Checkpoints of before know none of these.
        and (key not in ("symmetric", "brightness") or value)
        and (section != "inspection" or config.inspection.is_used)
    }
    if isinstance(model, InspectionModel) and model.regions is not None:
        # What is in the file, wherever it lies.
        values["inspection.roi"] = zlib.crc32(model.regions.labels.tobytes())
    # What follows from it counts.
    free = {"data.white_level", "data.resize", "data.fit"}
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
    origin = calibrate_on_own(
        model, source, folder, progress, seeks_symmetries=True
    )
    _tell_lost_thresholds(run)
    # Those of the model that is replaced come back if it stays.
    with (
        files.set_aside(run.file("calibrations.json")),
        files.set_aside(run.file("metrics.json")),
    ):
        save_model(run, model)
    run.update_record(state="finished", finished=now())
    tell_calibration(model, source, origin, progress)
    propose_symmetries(model, progress)
    tell_missed(model, source, marks_of(run), progress)


def _tell_lost_thresholds(run: RunFolder) -> None:
    """Warns of thresholds that this training does not measure again.

    They were set by hand, or measured on other images.
    """
    lost = []
    # A broken file is no reason to lose a training.
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        known = files.read_json(run.file("calibrations.json"), "")
        lost = [
            f"{one['threshold']:g} ({name})"
            for name, one in known.items()
            if not is_measured_on_own(name) and one.get("threshold") is not None
        ]
    if lost:
        warnings.warn(
            "Thresholds that were set by hand, or measured on other images, "
            "are of the model before. They give way to those of this training: "
            f"{', '.join(lost)}",
            stacklevel=2,
        )
