"""Shows on the console what a run does; imported only where Keras is."""

import contextlib
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

from keras_sspcab import runs
from keras_sspcab.cli._console import console, say
from keras_sspcab.compare.conditions import format_seconds

_SHOWN = ("loss", "sspcab_loss")


class ConsoleProgress(runs.Progress):
    """Prints messages; shows bars on a terminal, and lines elsewhere."""

    def message(self, text: str) -> None:
        say(text)

    @contextlib.contextmanager
    def count(
        self, title: str, total: int | None
    ) -> Iterator[Callable[[], object]]:
        shown = console()
        if not shown.is_terminal:
            yield _Lines(title, total).advance
            return
        with _bar(shown, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda: bar.advance(task)

    @contextlib.contextmanager
    def training(self) -> Iterator[list[Any]]:
        shown = TrainingProgress()
        try:
            yield [shown]
        finally:
            shown.close()


class _Lines:
    """Prints a line now and then where there is no terminal for a bar."""

    #: From one line to the next.
    SECONDS = 30.0

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        self._title = title
        self._total = total
        self._done = self._shown = done
        self._shown_at = time.monotonic()
        self._is_first = True

    def advance(self, results: str = "") -> None:
        self._done += 1
        is_first, self._is_first = self._is_first, False
        if is_first and self._done != self._total:
            # The first tells nothing of the rest: it compiles.
            self._shown, self._shown_at = self._done, time.monotonic()
            return
        seconds = time.monotonic() - self._shown_at
        if seconds < self.SECONDS:
            return
        # Of late, for the machine may be busy with other things.
        rate = (self._done - self._shown) / max(seconds, 1e-9)
        text = f"{self._title}: {self._done:,}"
        if self._total:
            text += f" of {self._total:,} ({self._done / self._total:.0%})"
        text += f", {rate:,.3g} a second"
        if self._total:
            left = format_seconds((self._total - self._done) / rate)
            text += f", about {left} left"
        say(f"{text}  {results}".rstrip())
        self._shown, self._shown_at = self._done, time.monotonic()


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


class TrainingProgress(keras.callbacks.Callback):
    """Shows a training: on a terminal by a bar, elsewhere by lines.

    A line is printed every 30 seconds and at the end of each epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = console()
        self._bar: Progress | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        steps, params = self.params["steps"], self.params
        total = params["epochs"] * steps
        done = params["first_epoch"] * steps + params["first_step"]
        self._lines = _Lines("Training steps", total, done)
        if not self._console.is_terminal:
            return
        self.close()
        self._bar = _bar(self._console, TextColumn("{task.fields[results]}"))
        self._task = self._bar.add_task(
            "Training", total=total, completed=done, results=""
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
        if self._bar is None:
            self._lines.advance(_results(logs))
            return
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


def _results(logs: dict[str, float] | None) -> str:
    logs = logs or {}
    names = [name for name in _SHOWN if name in logs]
    return "  ".join(f"{name} {logs[name]:.3e}" for name in names)
