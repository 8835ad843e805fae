"""What requests may take: places, time, and memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from grpc import StatusCode
from starlette.requests import ClientDisconnect, Request

from keras_sspcab.export.serving.server.errors import ServingError, too_large
from keras_sspcab.export.serving.server.options import ServerOptions

Result = TypeVar("Result")


async def read_body(
    request: Request, hold: Callable[[int], None], max_bytes: int
) -> bytes:
    """Returns the body of a request, held from its first byte on."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                # Discarded: a client that is still sending reads no answer.
                parts.clear()
            else:
                hold(len(part))
                parts.append(part)
    except ClientDisconnect as error:
        raise ServingError(
            StatusCode.CANCELLED, "The client has gone."
        ) from error
    if size > max_bytes:
        raise too_large(f"A request may have {max_bytes} bytes.")
    return b"".join(parts)


class Limits:
    """The limits of a server; all methods belong to one event loop.

    Bytes of requests are held from their arrival to their answer, and refused
    where they are too many. Memory for work is waited for, in turn.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        # What ends a request that is waited for.
        self._ends: set[Callable[[ServingError], None]] = set()
        self._is_stopped = False
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self.pending = 0
        self.held_bytes = 0
        self.work_bytes = 0

    async def receive(self, reading: Awaitable[Result]) -> Result:
        """Waits for a request to arrive, for `read_timeout` at most."""
        late = ServingError(
            StatusCode.DEADLINE_EXCEEDED,
            "The request did not come in time.",
            http=408,
        )
        return await self._bounded(reading, self._options.read_timeout, late)

    async def answer(
        self, answering: Awaitable[Result], timeout: float | None = None
    ) -> Result:
        """Awaits the answer to a request, or refuses it if too many wait.

        `timeout` is the time that the client waits, if it has said so.
        """
        seconds = self._options.timeout
        if timeout is not None:
            seconds = min(seconds, timeout)
        late = ServingError(
            StatusCode.DEADLINE_EXCEEDED,
            f"There is no answer after {seconds:g} seconds.",
        )
        if self.pending >= self._options.max_queue:
            if asyncio.iscoroutine(answering):
                answering.close()
            raise ServingError(
                StatusCode.RESOURCE_EXHAUSTED,
                f"The server has {self.pending} requests to answer already. "
                "Try again later.",
            )
        self.pending += 1
        try:
            return await self._bounded(answering, seconds, late)
        finally:
            self.pending -= 1

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[int], None]]:
        """Yields a function that reserves bytes of a request, or refuses.

        They are given back at the end of the block.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self.held_bytes + size > self._options.max_pending_bytes:
                raise ServingError(
                    StatusCode.RESOURCE_EXHAUSTED,
                    "The server is busy with other requests. Try again later.",
                )
            self.held_bytes += size
            held += size

        try:
            yield hold
        finally:
            self.held_bytes -= held

    async def take_memory(self, size: int) -> None:
        """Takes memory once it is free; refuses what never fits."""
        limit = self._options.max_work_bytes
        if size > limit:
            raise too_large(
                f"The request is too large: it takes {size >> 20} MiB of "
                f"memory, of {limit >> 20} MiB allowed. Send fewer rows at a "
                "time, or images as files instead of numbers."
            )
        if not size:  # else who holds memory would wait for who waits for it
            return
        async with self._turn:
            while self.work_bytes + size > limit:
                self._freed.clear()
                await self._freed.wait()
            self.work_bytes += size

    def return_memory(self, size: int) -> None:
        """Gives back memory and wakes the request that waits for it."""
        self.work_bytes -= size
        self._freed.set()

    @contextlib.asynccontextmanager
    async def memory(self, size: int) -> AsyncIterator[None]:
        """Has memory within the block."""
        await self.take_memory(size)
        try:
            yield
        finally:
            self.return_memory(size)

    def stop(self) -> None:
        """Ends all requests, and those to come, with UNAVAILABLE."""
        self._is_stopped = True
        for end in self._ends:
            end(_stopping())

    async def _bounded(
        self, work: Awaitable[Result], seconds: float, late: ServingError
    ) -> Result:
        # In the task of the request: one more for each would take longer.
        task: Any = asyncio.current_task()
        reason: ServingError | None = None

        def end(error: ServingError) -> None:
            nonlocal reason
            reason = error
            task.cancel()

        if self._is_stopped:
            seconds, late = 0, _stopping()
        timer = asyncio.get_running_loop().call_later(seconds, end, late)
        self._ends.add(end)
        try:
            return await work
        except asyncio.CancelledError:
            if reason is None:  # the client has gone
                raise
            if hasattr(task, "uncancel"):  # since Python 3.11
                task.uncancel()
            raise reason from None
        finally:
            timer.cancel()
            self._ends.discard(end)


def _stopping() -> ServingError:
    return ServingError(StatusCode.UNAVAILABLE, "The server is stopping.")
