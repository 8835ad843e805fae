"""Callbacks of a training that can be resumed."""

import math
import time
from typing import Any

import keras

from keras_sspcab.signals import StopRequest
from keras_sspcab.training.checkpoint import (
    Checkpoint,
    TrainingState,
    write_checkpoint,
)


class TrainingDiverged(ValueError):  # noqa: N818 (it is no fault of the code)
    """The loss has become NaN or infinite.

    Example:
    >>> issubclass(TrainingDiverged, ValueError)
    True
    """


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal; its state is on disk.

    Attributes:
        signal: Number of the signal.

    Example:
    >>> TrainingInterrupted(15, "Stopped in epoch 3").signal
    15
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number

    def __reduce__(self) -> Any:
        return type(self), (self.signal, str(self))


class TrainCallbacks(keras.callbacks.CallbackList):
    """Makes several calls of `fit`, one an epoch, look like a single one."""

    def __init__(
        self,
        callbacks: list[keras.callbacks.Callback],
        model: keras.Model,
        epochs: int,
    ) -> None:
        super().__init__(
            callbacks, add_history=True, model=model, epochs=epochs
        )
        self._epochs = epochs
        self._first_step = 0
        self._has_begun = False

    def begin_epoch(self, epoch: int, steps: int, first_step: int) -> None:
        self._first_step = first_step
        self.set_params(
            {
                "verbose": 0,
                "epochs": self._epochs,
                "steps": steps,
                "first_epoch": epoch,
                "first_step": first_step,
            }
        )

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._has_begun:
            self._has_begun = True
            super().on_train_begin(logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_begin(batch + self._first_step, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch + self._first_step, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._last_logs = logs

    def end_training(self) -> None:
        if self._has_begun:
            super().on_train_end(self._last_logs)


class Restorer(keras.callbacks.Callback):
    """Restores a checkpoint, if there is one, when the first epoch begins."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            # Only now: `fit` has reset the metrics.
            checkpoint.restore(self.model)
            if checkpoint.state.step == 0:
                # Those restored belong to the epoch before.
                self.model.reset_metrics()


class Saver(keras.callbacks.Callback):
    """Keeps the state of the training, and writes checkpoints."""

    def __init__(
        self,
        path: str,
        state: TrainingState,
        every_steps: int,
        every_seconds: float,
        stop: StopRequest,
    ) -> None:
        super().__init__()
        self.path = path
        self.state = state
        self._every_steps = every_steps
        self._every_seconds = every_seconds
        self._stop = stop
        self._unsaved_steps = 0
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._unsaved_steps += batch + 1 - self.state.step
        self.state.step = batch + 1
        if self.state.step == self.params["steps"]:
            return  # The end of the epoch follows at once.
        if self._is_due() or self._stop.signal:
            self._save()
        self.raise_if_stopped()

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.state.history.append({"epoch": epoch + 1, **row})
        self.state.epoch, self.state.step = epoch + 1, 0
        self._save()

    def raise_if_stopped(self) -> None:
        """Stops the training if a signal has asked for it."""
        if self._stop.signal:
            raise TrainingInterrupted(
                self._stop.signal,
                f"Training stopped in epoch {self.state.epoch + 1} after "
                f"{self.state.step} steps; the state is in {self.path}",
            )

    def _is_due(self) -> bool:
        seconds = time.monotonic() - self._saved_at
        return 0 < self._every_steps <= self._unsaved_steps or (
            0 < self._every_seconds <= seconds
        )

    def _save(self) -> None:
        write_checkpoint(self.path, self.model, self.state)
        self._unsaved_steps = 0
        self._saved_at = time.monotonic()


class DivergenceGuard(keras.callbacks.Callback):
    """Stops as soon as a result is NaN or infinite."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                rate = keras.ops.convert_to_numpy(
                    self.model.optimizer.learning_rate
                )
                raise TrainingDiverged(
                    f"The training has diverged. Received: {name}={value} in "
                    f"epoch {self._epoch + 1}, step {batch + 1} of "
                    f"{self.params['steps']}, at learning rate {rate:g}. Use a "
                    "smaller learning rate, and float32 if the precision is "
                    "mixed"
                )


class FlushedTensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback, with each epoch on disk before its checkpoint."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir, write_graph=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()
