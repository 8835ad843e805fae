"""Joins waiting requests into one run of the model."""

import asyncio
import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor

import numpy as np

from keras_sspcab.export.serving.server.signature import Arrays


@dataclasses.dataclass(frozen=True)
class Part:
    """What runs at once: inputs, how many rows they have, and their cost.

    `convert`, if there is one, is what the inputs go through when they run.
    """

    inputs: Arrays
    rows: int
    cost: int = 0
    convert: Callable[[Arrays], Arrays] | None = None

    def load(self) -> Arrays:
        """Returns the inputs as the model takes them."""
        if self.convert is None:
            return self.inputs
        return self.convert(self.inputs)


@dataclasses.dataclass(eq=False)
class _Request:
    part: Part
    since: float
    result: "asyncio.Future[Arrays]"


@dataclasses.dataclass(eq=False)
class _Group:
    """Requests that may run together."""

    run: Callable[[Arrays], Arrays]
    waiting: "collections.deque[_Request]" = dataclasses.field(
        default_factory=collections.deque
    )
    running: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def waits_since(self) -> float:
        """When its first request came."""
        return self.waiting[0].since if self.waiting else math.inf


class Batcher:
    """Runs requests in batches that grow with the load.

    A request that finds its model idle runs at once. While the model runs,
    requests gather, until it is free again, they fill a batch (`max_rows`, or
    `max_cost`, such as pixels to decode), or the first has waited for `timeout`
    seconds; the last two run beside it if one of the `threads` is free.

    `observe` is called for every run with its rows, its requests, and the
    seconds that the first of them waited. All methods belong to one event loop.
    """

    def __init__(
        self,
        executor: Executor,
        threads: int,
        max_rows: int,
        max_cost: int,
        timeout: float,
        observe: Callable[[int, int, float], None],
    ) -> None:
        self._executor = executor
        self._free = threads
        self._max_rows = max_rows
        self._max_cost = max_cost
        self._timeout = timeout
        self._observe = observe
        self._groups: dict[Hashable, _Group] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait for a run."""
        return sum(len(group.waiting) for group in self._groups.values())

    async def run(
        self,
        key: Hashable,
        run: Callable[[Arrays], Arrays],
        part: Part,
    ) -> Arrays:
        """Returns the outputs of a request.

        Requests with the same key, which have the same `run`, may be joined
        along the first axis of their inputs.
        """
        loop = asyncio.get_running_loop()
        request = _Request(part, loop.time(), loop.create_future())
        group = self._groups.setdefault(key, _Group(run))
        group.waiting.append(request)
        self._dispatch(key, group)
        return await request.result

    def _dispatch(self, key: Hashable, group: _Group) -> None:
        now = asyncio.get_running_loop().time()
        while self._free and self._is_due(group, now):
            batch = self._take(group)
            if batch:
                self._start(group, batch, now)
        if group.timer is not None:
            group.timer.cancel()
            group.timer = None
        if group.waiting and self._free:
            group.timer = asyncio.get_running_loop().call_at(
                group.waiting[0].since + self._timeout,
                self._dispatch,
                key,
                group,
            )
        elif not group.waiting and not group.running:
            self._groups.pop(key, None)

    def _is_due(self, group: _Group, now: float) -> bool:
        if not group.waiting:
            return False
        return (
            group.running == 0
            or now >= group.waiting[0].since + self._timeout
            or sum(r.part.rows for r in group.waiting) >= self._max_rows
            or sum(r.part.cost for r in group.waiting) >= self._max_cost
        )

    def _take(self, group: _Group) -> list[_Request]:
        batch: list[_Request] = []
        rows = cost = 0
        while group.waiting:
            request = group.waiting[0]
            if not request.result.done():  # else its client has gone
                rows += request.part.rows
                cost += request.part.cost
                if batch and (rows > self._max_rows or cost > self._max_cost):
                    break
                batch.append(request)
            group.waiting.popleft()
        return batch

    def _start(self, group: _Group, batch: list[_Request], now: float) -> None:
        self._free -= 1
        group.running += 1
        self._observe(
            sum(request.part.rows for request in batch),
            len(batch),
            now - batch[0].since,
        )
        parts = [request.part for request in batch]
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(
                self._executor, _run_joined, group.run, parts
            )
        except RuntimeError as error:  # the server stops
            future = loop.create_future()
            future.set_exception(error)
        future.add_done_callback(functools.partial(self._finish, group, batch))

    def _finish(
        self,
        group: _Group,
        batch: list[_Request],
        future: "asyncio.Future[list[Arrays | BaseException]]",
    ) -> None:
        results: Sequence[Arrays | BaseException]
        if future.cancelled():
            results = [asyncio.CancelledError()] * len(batch)
        elif error := future.exception():
            results = [error] * len(batch)
        else:
            results = future.result()
        for request, result in zip(batch, results, strict=True):
            if request.result.done():
                continue
            if isinstance(result, BaseException):
                request.result.set_exception(result)
            else:
                request.result.set_result(result)
        self._free += 1
        group.running -= 1
        # Who has waited longest comes first, or a busy key would starve others.
        longest = sorted(
            self._groups.items(), key=lambda item: item[1].waits_since
        )
        for key, waiting in longest:
            self._dispatch(key, waiting)


def _run_joined(
    run: Callable[[Arrays], Arrays], parts: list[Part]
) -> list[Arrays | BaseException]:
    """Runs requests together and returns the outputs or error of each.

    If the run fails, each request runs alone, so that only those fail that
    cause it.
    """
    try:
        if len(parts) == 1:
            return [run(parts[0].load())]
        loaded = [part.load() for part in parts]
        outputs = run(
            {
                name: np.concatenate([inputs[name] for inputs in loaded])
                for name in loaded[0]
            }
        )
        ends = np.cumsum([part.rows for part in parts])
        if any(len(value) != ends[-1] for value in outputs.values()):
            raise ValueError("The outputs have another number of rows.")
        return [
            {k: v[end - part.rows : end] for k, v in outputs.items()}
            for part, end in zip(parts, ends, strict=True)
        ]
    except Exception as error:
        if len(parts) == 1:
            return [error]
    return [_run_joined(run, [part])[0] for part in parts]
