"""How long to try, how often, and how long to pause in between."""

import dataclasses
import math
import random
import time

from keras_sspcab.export.serving.client.errors import ServingClientError

# Timers may go off a little before their time.
_EARLY = 0.02


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    Args:
        retries: Further attempts after the first. Defaults to 3.
        backoff: Seconds of the first pause, at most; each is twice as long as
            the one before. Between half of it and all is drawn at random, so
            that clients that failed together do not come back together.
            Defaults to 0.1.
        max_backoff: Seconds of a pause, at most, unless the server asks for
            more. Defaults to 2.

    Raises:
        ValueError: If a number is out of its range.
    """

    retries: int = 3
    backoff: float = 0.1
    max_backoff: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.retries, int) or self.retries < 0:
            raise ValueError(
                "`retries` must be a number from 0. "
                f"Received: retries={self.retries!r}"
            )
        if not 0 < self.backoff <= self.max_backoff < math.inf:
            raise ValueError(
                "Pauses must be positive seconds, and the longest not shorter "
                f"than the first. Received: backoff={self.backoff!r}, "
                f"max_backoff={self.max_backoff!r}"
            )

    def pause(self, attempt: int) -> float:
        """Returns the seconds to wait after an attempt, counted from 0."""
        # Beyond 2**32 it is the maximum anyway; floats end.
        longest = min(self.backoff * 2.0 ** min(attempt, 32), self.max_backoff)
        return random.uniform(longest / 2, longest)


class Deadline:
    """The time that is left for a call, with all its requests and retries.

    Args:
        seconds: From now on; None for ever.

    Raises:
        ValueError: If it is no positive number.
    """

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(
                "`timeout` must be positive seconds, or None. "
                f"Received: timeout={seconds!r}"
            )
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Returns the seconds that are left, 0 at least; None for ever."""
        if self._end is None:
            return None
        return max(0.0, self._end - time.monotonic())

    def allows(self, seconds: float) -> bool:
        """Whether more than so many seconds are left."""
        remaining = self.remaining()
        return remaining is None or remaining > seconds

    def exceeded(
        self, last: ServingClientError | None = None
    ) -> ServingClientError:
        """Returns the error that says so, and what has gone wrong before."""
        message = f"There is no answer after {self.seconds:g} seconds."
        if last is not None:
            message += f" The last attempt: {last}"
        return ServingClientError("DEADLINE_EXCEEDED", message)


class Attempts:
    """The attempts at one request.

    Args:
        policy: How often, and with which pauses.
        deadline: Until when.
    """

    def __init__(self, policy: RetryPolicy, deadline: Deadline) -> None:
        self._policy = policy
        self._deadline = deadline
        self._failed = 0
        self._last: ServingClientError | None = None

    def timeout(self) -> float | None:
        """Returns the seconds that the next attempt may take.

        Raises:
            ServingClientError: If none are left.
        """
        remaining = self._deadline.remaining()
        if remaining == 0:
            raise self._deadline.exceeded(self._last)
        return remaining

    def pause_after(self, error: ServingClientError) -> float:
        """Returns the seconds to wait before the next attempt.

        Raises:
            ServingClientError: If there is to be none.
        """
        if error.code == "DEADLINE_EXCEEDED":
            if self._deadline.allows(_EARLY):
                raise error  # it is the server that has given up
            raise self._deadline.exceeded(self._last) from error
        if not error.retriable or self._failed >= self._policy.retries:
            raise error
        pause = max(error.retry_after, self._policy.pause(self._failed))
        if not self._deadline.allows(pause):
            raise self._deadline.exceeded(error) from error
        self._failed += 1
        self._last = error
        return pause
