"""A call of `fit` for each epoch, and a checkpoint in between."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_sspcab import files
from keras_sspcab.signals import deferred_signals
from keras_sspcab.training.callbacks import (
    DivergenceGuard,
    Restorer,
    Saver,
    TrainCallbacks,
)
from keras_sspcab.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    TrainingState,
    read_checkpoint,
)


def train(
    model: keras.Model,
    make_dataset: Callable[[int], Any],
    epochs: int,
    checkpoint: str,
    *,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    every_steps: int = 0,
    every_seconds: float = 60.0,
    history_csv: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Trains with `model.fit`, and continues where an earlier call stopped.

    All state lies in the checkpoint, which is written after each epoch and
    within it. After a kill, the same call continues with the very next batch,
    and ends as if it had never been interrupted.

    For that, the data of an epoch must follow from its number, as those of
    `keras_sspcab.data.image_dataset(..., epoch=epoch)` do. Keras and TensorFlow
    are seeded for each epoch, before its data set is made. Layers must draw
    random numbers from a `keras.random.SeedGenerator` of their own. Callbacks
    lose what they remember.

    Ctrl-C and SIGTERM let the current step end, write a checkpoint and raise
    `TrainingInterrupted`; a second Ctrl-C stops at once.

    Args:
        model: A compiled model. If the checkpoint exists, its weights are
            replaced.
        make_dataset: Function from the index of an epoch to its
            `tf.data.Dataset` of batches, of known length.
        epochs: Epochs in total, those done before included.
        checkpoint: File for the state, ending in `.npz`.
        seed: Seed from which those of the epochs are derived.
        settings: What must stay the same over all calls, as plain values.
        every_steps: A checkpoint is due after so many steps; 0: no such rule.
        every_seconds: The same after so many seconds; 0: no such rule.
        history_csv: File for the history, one row an epoch; written after each.
        callbacks: Keras callbacks. They see one training, and true numbers of
            steps; `params["first_epoch"]` and `params["first_step"]` say where
            it continues. One may set `model.stop_training`, as `EarlyStopping`
            does; another call goes on from there.

    Returns:
        One dict an epoch: `epoch` (from 1), `loss` and what else `fit` reports.

    Raises:
        TrainingDiverged: If a result is NaN or infinite.
        TrainingInterrupted: On Ctrl-C or SIGTERM.
        CheckpointError: If the checkpoint is broken, has more epochs behind it,
            or is that of another model or with other settings.

    Example:
    >>> import tempfile
    >>> import numpy as np
    >>> import tensorflow as tf
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> def make_dataset(epoch):
    ...     x = np.random.default_rng(epoch).random((8, 2))
    ...     return tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = train(model, make_dataset, 1, f"{folder}/a.npz")
    ...     rows = train(model, make_dataset, 3, f"{folder}/a.npz")
    >>> [row["epoch"] for row in rows]
    [1, 2, 3]
    """
    _check(model, checkpoint)
    # As they come back from the file.
    settings = json.loads(json.dumps(dict(settings or {})))
    state, saved = TrainingState(settings=settings), None
    if os.path.exists(checkpoint):
        saved = read_checkpoint(checkpoint)
        state = saved.state
        _check_settings(checkpoint, state.settings, settings)
    if history_csv is not None:
        # It may lag behind if the kill came between the two files.
        _write_history(history_csv, state.history)
    if saved is not None and (state.epoch, state.step) > (epochs, 0):
        raise CheckpointError(
            f"{checkpoint} has {state.epoch} epochs and {state.step} steps "
            f"behind it. Received: epochs={epochs}. Choose more, or start a "
            "new run"
        )
    if saved is not None and state.epoch == epochs:
        saved.restore_weights(model)
        return state.history

    with deferred_signals() as stop:
        saver = Saver(checkpoint, state, every_steps, every_seconds, stop)
        # What others set where an epoch begins, such as a rate, must last; and
        # a state with NaN must never be written. The saver comes last: what it
        # says is done, the others have seen.
        train_callbacks = TrainCallbacks(
            [Restorer(saved), DivergenceGuard(), *callbacks, saver],
            model,
            epochs,
        )
        for epoch in range(state.epoch, epochs):
            dataset = _dataset_of(model, make_dataset, seed, epoch)
            steps = _num_steps(dataset, epoch)
            if state.step >= steps:
                raise CheckpointError(
                    f"{checkpoint} was written after step {state.step} of an "
                    f"epoch that has {steps} steps now. Have the data changed? "
                    "Start a new run"
                )
            if saved is not None:
                _create_variables(model, dataset, saved)
                saved = None
                # What is iterated again simulates other anomalies.
                dataset = _dataset_of(model, make_dataset, seed, epoch)
            train_callbacks.begin_epoch(epoch, steps, state.step)
            # Not the host's own `fit`, which would prepare the data again.
            keras.Model.fit(
                model,
                dataset.skip(state.step),
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=train_callbacks,
                shuffle=False,
                verbose=0,
            )
            if history_csv is not None:
                _write_history(history_csv, state.history)
            saver.raise_if_stopped()
            if model.stop_training:
                break
        train_callbacks.end_training()
    return state.history


def _check(model: keras.Model, checkpoint: str) -> None:
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "Resumable training needs the TensorFlow backend of Keras. "
            f"Received: backend={keras.config.backend()!r}"
        )
    if not checkpoint.endswith(".npz"):
        raise ValueError(
            "The checkpoint must end in .npz. "
            f"Received: checkpoint={checkpoint!r}"
        )
    # In mixed precision another is around it.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if getattr(optimizer, "use_ema", False):
        # `fit` overwrites the weights by their average when it returns.
        raise ValueError(
            "An optimizer with use_ema=True cannot be resumed. Train without "
            "it, or with `fit`"
        )


def _check_settings(
    path: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise CheckpointError(
                f"{path} was written with {name}={before.get(name)!r}. "
                f"Received: {name}={now.get(name)!r}. Go on with the same "
                "value, or start a new run"
            )


def _dataset_of(
    model: keras.Model,
    make_dataset: Callable[[int], Any],
    seed: int,
    epoch: int,
) -> Any:
    """Seeds an epoch and makes its data set."""
    # Any fixed mixture; Keras takes 32 bits.
    mixed = (seed * 1_000_003 + epoch * 7919 + 1) % 2**32
    keras.utils.set_random_seed(mixed)
    dataset = make_dataset(epoch)
    # Hosts that make training examples from images: `skip` must count these.
    prepare = getattr(model, "prepare_training_data", None)
    return dataset if prepare is None else prepare(dataset)


def _create_variables(
    model: keras.Model, dataset: Any, saved: Checkpoint
) -> None:
    """Takes a step in which optimizers and metrics create their variables."""
    # Not for its effect, but it refuses a checkpoint of another model.
    saved.restore_weights(model)
    keras.Model.fit(model, dataset.take(1), shuffle=False, verbose=0)


def _num_steps(dataset: Any, epoch: int) -> int:
    steps = int(dataset.cardinality())
    if steps <= 0:
        raise ValueError(
            "The data set of an epoch must hold at least one batch and know "
            f"its length. Received: cardinality {steps} in epoch {epoch + 1}. "
            "Use tf.data.experimental.assert_cardinality"
        )
    return steps


def _write_history(path: str, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    files.write_csv(path, columns or ["epoch", "loss"], history)
