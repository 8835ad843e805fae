"""What a run says while it works."""

import contextlib
from collections.abc import Callable
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
        self, title: str, total: int
    ) -> AbstractContextManager[Callable[[], object]]:
        """Returns a context that yields a function to call after each step."""
        return contextlib.nullcontext(lambda: None)

    def training(self) -> AbstractContextManager[list[Any]]:
        """Returns a context that yields Keras callbacks for a training.

        Their `params` hold `first_epoch` and `first_step`, where a training
        that was interrupted continues.
        """
        return contextlib.nullcontext([])
