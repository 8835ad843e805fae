"""Calls a function for many items in threads, with a progress bar."""

import collections
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def parallel_map(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str,
    progress: bool = True,
) -> list[_Result]:
    """Returns `[function(item) for item in items]`; see `parallel_iterate`."""
    return list(parallel_iterate(function, items, description, progress))


def parallel_iterate(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    description: str,
    progress: bool = True,
) -> Iterator[_Result]:
    """Yields `function(item)` for each item, in order, a few items ahead.

    The first exception is raised and the items that have not begun are
    dropped. The bar is shown on a terminal only, and disappears at the end.
    """
    console = Console(stderr=True)
    # More threads than cores: remote files keep them waiting.
    num_threads = min(16, 2 * (os.cpu_count() or 1) + 2)
    pool = ThreadPoolExecutor(num_threads)
    pending: collections.deque[Future[_Result]] = collections.deque()
    try:
        for item in track(
            items,
            description,
            console=console,
            transient=True,
            disable=not progress or not console.is_terminal,
        ):
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
