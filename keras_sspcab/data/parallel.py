"""Calls a function for many items in threads, with a progress bar."""

import collections
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Seconds between lines where there is no terminal.
_PAUSE = 30.0


def parallel_map(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str = "",
) -> list[_Result]:
    """Returns `[function(item) for item in items]`; see `parallel_iterate`."""
    return list(parallel_iterate(function, items, description))


def parallel_iterate(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str = "",
    ahead: int | None = None,
) -> Iterator[_Result]:
    """Yields `function(item)` for each item in order, computed in threads.

    They compute up to `ahead` items in advance, by default twice as many as
    there are threads; fewer take less memory. The first exception is raised and
    the items that have not begun are dropped. With a description, a bar is
    shown on a terminal, and disappears at the end; where there is none, a line
    tells now and then how far it is.
    """
    console = Console(stderr=True)
    # More threads than cores: remote files keep them waiting.
    num_threads = min(16, 2 * (os.cpu_count() or 1) + 2)
    ahead = 2 * num_threads if ahead is None else ahead
    pool = ThreadPoolExecutor(min(num_threads, ahead))
    pending: collections.deque[Future[_Result]] = collections.deque()
    told = time.monotonic()
    try:
        for number, item in enumerate(
            track(
                items,
                description,
                console=console,
                transient=True,
                disable=not description or not console.is_terminal,
            )
        ):
            now = time.monotonic()
            is_due = now > told + _PAUSE
            if description and is_due and not console.is_terminal:
                console.print(f"{description}: {number} of {len(items)}")
                told = now
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
