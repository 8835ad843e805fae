"""Retries with exponential backoff, within one deadline."""

import dataclasses
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.serving.client.results import ServingClientError

Result = TypeVar("Result")

# Timers may go off slightly early.
_TIMER_SLACK = 0.02


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    Args:
        retries: Attempts after the first one. Defaults to 3.
        backoff: Longest first pause in seconds; it doubles with each attempt.
            Each pause is drawn between half of its length and all of it, so
            that clients that failed together do not come back together.
            Defaults to 0.1.
        max_backoff: Longest pause in seconds, unless the server asks for more.
            Defaults to 2.

    Raises:
        ValueError: If a number is out of its range.

    Example:
    >>> policy = RetryPolicy(backoff=0.1, max_backoff=0.4)
    >>> 0.2 <= policy.pause(attempt=5) <= 0.4
    True
    """

    retries: int = 3
    backoff: float = 0.1
    max_backoff: float = 2.0

    def __post_init__(self) -> None:
        standardize_int(self.retries, "retries", 0)
        if not 0 < self.backoff <= self.max_backoff < math.inf:
            raise ValueError(
                "Pauses must be positive seconds, and the longest not shorter "
                f"than the first. Received: backoff={self.backoff!r}, "
                f"max_backoff={self.max_backoff!r}"
            )

    def pause(self, attempt: int) -> float:
        """Returns the seconds to wait after an attempt, counted from 0."""
        # The exponent is capped because floats overflow.
        longest = min(self.backoff * 2.0 ** min(attempt, 32), self.max_backoff)
        return random.uniform(longest / 2, longest)


class Deadline:
    """Time left for a call with all its requests and retries.

    Seconds are counted from now; None is no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(
                "`timeout` must be positive seconds, or None. "
                f"Received: timeout={seconds!r}"
            )
        self.seconds = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Returns the seconds left, at least 0; None for no limit."""
        left = self._end - time.monotonic()
        return None if left == math.inf else max(0.0, left)

    def allows(self, seconds: float) -> bool:
        """Returns whether more than so many seconds are left."""
        return self._end - time.monotonic() > seconds

    def cancel(self) -> None:
        """Ends the time now, so that nothing more is sent."""
        self._end = -math.inf

    def exceeded(
        self, last: ServingClientError | None = None
    ) -> ServingClientError:
        """Returns the error to raise, with the last failure if there is one."""
        message = f"There is no answer after {self.seconds} seconds."
        if last is not None:
            message += f" The last attempt: {last}"
        return ServingClientError("DEADLINE_EXCEEDED", message)


def call_with_retries(
    send: Callable[[float | None], Result],
    policy: RetryPolicy,
    deadline: Deadline,
) -> Result:
    """Calls `send(seconds left)` until it succeeds or must not be retried.

    Raises the failure of the last attempt, or that time is up.
    """
    last: ServingClientError | None = None
    attempt = 0
    while True:
        if not deadline.allows(0):
            raise deadline.exceeded(last)
        try:
            return send(deadline.remaining())
        except ServingClientError as error:
            if error.code == "DEADLINE_EXCEEDED":
                if deadline.allows(_TIMER_SLACK):
                    raise  # the server gave up, not this client
                raise deadline.exceeded(last) from error
            if not error.retriable or attempt >= policy.retries:
                raise
            last = error
        pause = max(last.retry_after, policy.pause(attempt))
        if not deadline.allows(pause):
            raise deadline.exceeded(last) from last
        time.sleep(pause)
        attempt += 1
