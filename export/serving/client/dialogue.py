"""What is said to a server, apart from how it gets there.

A dialogue yields what to do next, a request to send or a time to wait, and is
told what has come of it. So the clients with and without `await` share all but
a loop of ten lines.
"""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeAlias, TypeVar

from keras_sspcab.export.serving.client.errors import ServingClientError
from keras_sspcab.export.serving.client.retries import (
    Attempts,
    Deadline,
    RetryPolicy,
)
from keras_sspcab.export.serving.client.wire import Call

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Send:
    """Send a request, and reply with the answer or an error."""

    call: Call
    timeout: float | None


@dataclasses.dataclass(frozen=True)
class Wait:
    """Wait for some seconds."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Done(Generic[Result]):
    """The end."""

    result: Result


Steps: TypeAlias = Generator[Send | Wait, bytes, Result]


class Dialogue(Generic[Result]):
    """Steps, one at a time.

    Args:
        steps: They yield `Send` and `Wait`, and return the result.
    """

    def __init__(self, steps: Steps[Result]) -> None:
        self._steps = steps

    def start(self) -> Send | Wait | Done[Result]:
        """Returns the first step."""
        return self._advance(next, self._steps)

    def reply(self, answer: bytes) -> Send | Wait | Done[Result]:
        """Takes the answer, or anything after a pause; gives the next step."""
        return self._advance(self._steps.send, answer)

    def fail(self, error: ServingClientError) -> Send | Wait | Done[Result]:
        """Takes an error instead; gives the next step, or raises it."""
        return self._advance(self._steps.throw, error)

    def _advance(self, function: Callable[..., Any], argument: Any) -> Any:
        try:
            return function(argument)
        except StopIteration as end:
            return Done(end.value)


def ask(call: Call, policy: RetryPolicy, deadline: Deadline) -> Steps[bytes]:
    """Sends a request, again where that may help; returns the answer."""
    attempts = Attempts(policy, deadline)
    while True:
        try:
            return (yield Send(call, attempts.timeout()))
        except ServingClientError as error:
            pause = attempts.pause_after(error)
        yield Wait(pause)
