"""What a run says while it works."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any


class Progress:
    """Takes what a run says while it works; this one is silent.

    A subclass shows it. The command line has one that prints.

    Example:
    >>> class Printed(Progress):
    ...     def message(self, text):
    ...         print(text)
    >>> Printed().message("12 images to train on")
    12 images to train on
    """

    def message(self, text: str) -> None:
        """Takes a sentence about what has been done, or comes next."""

    def count(
        self, title: str, total: int | None
    ) -> AbstractContextManager[Callable[[], object]]:
        """Returns a context that yields a function to call after each step.

        `total` is the number of steps, None if it is not known.
        """
        return contextlib.nullcontext(lambda: None)

    def track(self, items: Any, title: str) -> Iterable[Any]:
        """Returns the items, counted each time that they are gone through.

        If they have a method `part(numbers)`, so do the items returned.
        """
        if hasattr(items, "part"):
            return _TrackedParts(self, items, title)
        return _Tracked(self, items, title)

    def training(self) -> AbstractContextManager[list[Any]]:
        """Returns a context that yields Keras callbacks for a training.

        Their `params` hold `first_epoch` and `first_step`, where a training
        that was interrupted continues.
        """
        return contextlib.nullcontext([])


class _Tracked:
    def __init__(self, progress: Progress, items: Any, title: str) -> None:
        self._progress = progress
        self._items = items
        self._title = title

    def __iter__(self) -> Iterator[Any]:
        try:
            total = len(self._items)
        except TypeError:  # data sets that are filtered do not know
            total = None
        with self._progress.count(self._title, total) as advance:
            for item in self._items:
                yield item
                advance()


class _TrackedParts(_Tracked):
    def part(self, numbers: Any) -> "_TrackedParts":
        return _TrackedParts(
            self._progress, self._items.part(numbers), self._title
        )
