"""Runs a function over many items in threads, with a progress bar."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """Returns `[function(item) for item in items]`.

    The first exception is raised and the items that have not begun are
    dropped. The bar is shown on a terminal only, and disappears at the end.
    """
    console = Console(stderr=True)
    # More threads than cores: remote files keep them waiting.
    pool = ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1) + 2))
    try:
        results = pool.map(function, items)
        return list(
            track(
                results,
                description,
                total=len(items),
                console=console,
                transient=True,
                disable=not progress or not console.is_terminal,
            )
        )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
