"""Ctrl-C and SIGTERM, noted instead of breaking off in mid-step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class StopRequest:
    """Whether a signal has asked this process to stop."""

    #: Number of the first signal; 0 as long as there was none.
    signal = 0


@contextlib.contextmanager
def deferred_signals(
    on_signal: Callable[[int], None] | None = None,
    message: str = "",
) -> Iterator[StopRequest]:
    """Notes Ctrl-C and SIGTERM within the block; outside, all is as before.

    The request is to be looked at where it is safe to stop. `on_signal` takes
    the number of each signal; without it the second raises `KeyboardInterrupt`
    with `message`. In other threads than the main one, which get no signals, it
    does nothing.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: Any) -> None:
        if on_signal is not None:
            on_signal(number)
        elif request.signal:
            raise KeyboardInterrupt(message)
        request.signal = request.signal or number

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, note) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
