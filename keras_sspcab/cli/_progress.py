"""Shows how far a training has come; imported only where Keras is."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keras_sspcab.cli._console import console, say

_SHOWN = ("loss", "sspcab_loss")


def _bar(shown: Console, *more: ProgressColumn, **options: Any) -> Progress:
    """Makes a bar with what is known about times, and more columns."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *more,
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=shown,
        **options,
    )


@contextlib.contextmanager
def frame_progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows a bar over frames on a terminal.

    Args:
        title: What is done.
        total: How many frames there are.

    Yields:
        A function to call after each frame.
    """
    shown = console()
    bar = _bar(shown, disable=not shown.is_terminal, transient=True)
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


class TrainingProgress(keras.callbacks.Callback):
    """A bar over all steps on a terminal, else one line an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._console = console()
        self._bar: Progress | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._console.is_terminal:
            return
        self._bar = _bar(self._console, TextColumn("{task.fields[results]}"))
        steps = self.params["steps"]
        self._task = self._bar.add_task(
            "Training",
            total=self.params["epochs"] * steps,
            completed=self.params["first_epoch"] * steps
            + self.params["first_step"],
            results="",
        )
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._started = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, description=self._title())

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=self._epoch * self.params["steps"] + batch + 1,
                results=_results(logs),
            )

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        if self._bar is None:
            seconds = time.monotonic() - self._started
            say(f"{self._title()}  {_results(logs)}  {seconds:.1f} s")

    def close(self) -> None:
        """Leaves the terminal in order, however the training ended."""
        if self._bar is not None:
            self._bar.stop()

    def _title(self) -> str:
        return f"epoch {self._epoch + 1}/{self.params['epochs']}"


class DurationEstimate(keras.callbacks.Callback):
    """Says once how long a training will take, going by its first steps."""

    # The first one is longer: the step is compiled in it.
    _MEASURED = 3

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._steps > self._MEASURED:
            return
        if self._steps == 0:
            self._started = time.monotonic()
        if self._steps == self._MEASURED:
            seconds = (time.monotonic() - self._started) / self._MEASURED
            epochs = self.params["epochs"] - self._epoch
            left = epochs * self.params["steps"] - batch - 1
            minutes = math.ceil(left * seconds / 60)
            say(
                f"On this machine {left} more steps will take about {minutes} "
                f"minute{'s' * (minutes != 1)}."
            )
        self._steps += 1


def _results(logs: dict[str, float] | None) -> str:
    logs = logs or {}
    names = [name for name in _SHOWN if name in logs]
    return "  ".join(f"{name} {logs[name]:.3e}" for name in names)
