"""Answers a request, whichever protocol it came by."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.export.serving.server.batching import Batcher
from keras_sspcab.export.serving.server.errors import (
    Code,
    ServingError,
    as_serving_error,
)
from keras_sspcab.export.serving.server.images import (
    ENCODED_INPUT,
    count_pixels,
)
from keras_sspcab.export.serving.server.metrics import Metrics
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.signature import Arrays, Signature
from keras_sspcab.export.serving.server.versions import Target


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer to a request.

    Attributes:
        model: Name of the model.
        version: Number of the version that has answered.
        signature: Name of the signature.
        outputs: Arrays by name.
    """

    model: str
    version: int
    signature: str
    outputs: Arrays


@dataclasses.dataclass(frozen=True)
class _Checked:
    inputs: Arrays
    rows: int
    pixels: list[int] | None


class Predictor:
    """Checks requests, has them run in batches, and guards the limits.

    All methods belong to one event loop.

    Args:
        models: The models.
        options: Limits and sizes.
        metrics: What is told of runs.
    """

    def __init__(
        self, models: Models, options: ServerOptions, metrics: Metrics
    ) -> None:
        self.models = models
        self._options = options
        threads = options.num_threads
        # Apart, so that parsing goes on while all models run.
        self._runners = ThreadPoolExecutor(threads, "keras-sspcab-run")
        self._parsers = ThreadPoolExecutor(threads, "keras-sspcab-parse")
        self._batcher = Batcher(
            self._runners,
            threads,
            options.max_batch_size,
            options.max_image_pixels,
            options.batch_timeout,
            metrics.count_batch,
        )
        self._pending = 0
        self._bytes = 0
        metrics.watch("pending_requests", lambda: self._pending)
        metrics.watch("pending_bytes", lambda: self._bytes)
        metrics.watch("waiting_requests", lambda: self._batcher.waiting)

    async def predict(
        self,
        target: Target,
        signature_name: str,
        read: Callable[[Signature], Arrays],
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        missing: Code = Code.FAILED_PRECONDITION,
    ) -> Prediction:
        """Runs a model.

        Args:
            target: Which one.
            signature_name: Its signature; empty for the default.
            read: Turns the request into inputs; runs in a thread.
            outputs: Names of outputs to give; empty for all.
            timeout: Seconds that the client waits, if it has said so.
            missing: Code of the error if there is no such signature.

        Raises:
            ServingError: If it cannot be answered.
        """
        limit = self._options.timeout
        if timeout is not None:
            limit = min(limit, timeout)
        with self._admitted():
            try:
                return await asyncio.wait_for(
                    self._predict(
                        target, signature_name, read, list(outputs), missing
                    ),
                    limit,
                )
            except asyncio.TimeoutError as error:
                raise ServingError(
                    Code.DEADLINE_EXCEEDED,
                    f"There is no answer after {limit:g} seconds.",
                ) from error
            except asyncio.CancelledError:
                raise
            except Exception as error:
                raise as_serving_error(error) from error

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Reads or writes messages beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._parsers, function, *args)

    def hold(self, size: int) -> None:
        """Accounts for bytes of a request that has not been answered.

        Raises:
            ServingError: If the server holds too many already.
        """
        if self._bytes + size > self._options.max_pending_bytes:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                "The server is busy with other requests. Try again later.",
            )
        self._bytes += size

    def release(self, size: int) -> None:
        """Forgets bytes that `hold` has taken."""
        self._bytes -= size

    def close(self) -> None:
        """Ends all threads when they have finished."""
        for pool in (self._runners, self._parsers):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._pending >= self._options.max_queue:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The server has {self._pending} requests to answer already. "
                "Try again later.",
            )
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def _predict(
        self,
        target: Target,
        signature_name: str,
        read: Callable[[Signature], Arrays],
        names: list[str],
        missing: Code,
    ) -> Prediction:
        with self.models.use(target) as version:
            if version.loaded is None:
                raise ServingError(Code.UNAVAILABLE, "The version has ended.")
            signature = version.loaded.signature(signature_name, missing)
            signature.check_outputs(names)
            checked = await self.in_thread(self._check, signature, read)
            parts = await asyncio.gather(
                *(
                    self._batcher.run(
                        *self._group(signature, inputs), inputs, rows, cost
                    )
                    for inputs, rows, cost in self._parts(checked)
                )
            )
            return Prediction(
                version.model,
                version.number,
                signature.name,
                {
                    name: _join([part[name] for part in parts])
                    for name in names or signature.outputs
                },
            )

    def _check(
        self, signature: Signature, read: Callable[[Signature], Arrays]
    ) -> _Checked:
        inputs = read(signature)
        rows = signature.check_values(inputs, self._options.allow_non_finite)
        pixels = None
        spec = signature.inputs.get(ENCODED_INPUT)
        if spec is not None and spec.dtype == tf.string:
            limit = self._options.max_image_pixels
            pixels = count_pixels(inputs[ENCODED_INPUT], limit)
            if not signature.is_batched or len(pixels) != rows:
                # One run decodes them all.
                pixels = [sum(pixels)]
        return _Checked(inputs, rows, pixels)

    def _group(
        self, signature: Signature, inputs: Arrays
    ) -> tuple[Any, Callable[[Arrays], Arrays]]:
        """Returns what may run together, and what runs it."""
        if not signature.is_batched:
            return object(), signature.run
        shapes = tuple(
            (name, inputs[name].shape[1:]) for name in sorted(inputs)
        )
        return (signature.function, shapes), signature.run

    def _parts(self, checked: _Checked) -> Iterator[tuple[Arrays, int, int]]:
        """Splits a request that is too large for a run, or too dear."""
        pixels = checked.pixels or [0] * checked.rows
        if checked.rows <= 1 or len(pixels) != checked.rows:
            yield checked.inputs, checked.rows, sum(pixels)
            return
        start = cost = 0
        for row, pixel in enumerate(pixels):
            is_full = row - start >= self._options.max_batch_size
            if is_full or cost + pixel > self._options.max_image_pixels:
                yield _slice(checked.inputs, start, row), row - start, cost
                start, cost = row, 0
            cost += pixel
        rows = checked.rows - start
        yield _slice(checked.inputs, start, checked.rows), rows, cost


def _slice(inputs: Arrays, start: int, end: int) -> Arrays:
    return {name: value[start:end] for name, value in inputs.items()}


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
