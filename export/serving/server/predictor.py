"""Answers requests of both protocols."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from keras_sspcab.export.serving.server.batching import Batcher
from keras_sspcab.export.serving.server.errors import (
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
from keras_sspcab.export.serving.server.versions import ModelSpec


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outputs of a request, and the model, version and signature used."""

    model: str
    version: int
    signature: str
    outputs: Arrays


@dataclasses.dataclass(frozen=True)
class _Part:
    """What runs at once: rows of a request, and pixels to decode for them."""

    inputs: Arrays
    rows: int
    pixels: int = 0


class Predictor:
    """Checks requests, runs them in batches, and enforces the limits.

    All methods belong to one event loop.

    Args:
        models: The models.
        options: Limits and sizes.
        metrics: Counts runs.
    """

    def __init__(
        self, models: Models, options: ServerOptions, metrics: Metrics
    ) -> None:
        self.models = models
        self._options = options
        threads = options.num_threads
        # Separate, so that parsing goes on while all models run.
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
        metrics.watch(
            "pending_requests",
            "Requests not yet answered.",
            lambda: self._pending,
        )
        metrics.watch(
            "pending_bytes",
            "Bytes of requests not yet answered.",
            lambda: self._bytes,
        )
        metrics.watch(
            "waiting_requests",
            "Requests that wait for a run.",
            lambda: self._batcher.waiting,
        )

    async def predict(
        self,
        spec: ModelSpec,
        signature: str,
        read: Callable[[Signature], Arrays],
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        missing: StatusCode = StatusCode.FAILED_PRECONDITION,
    ) -> Prediction:
        """Runs a model.

        Args:
            spec: Which one.
            signature: Name of its signature; empty for the default.
            read: Turns the request into inputs; runs in a thread.
            outputs: Names of outputs to return; empty for all.
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
                        spec, signature, read, list(outputs), missing
                    ),
                    limit,
                )
            except asyncio.TimeoutError as error:
                raise ServingError(
                    StatusCode.DEADLINE_EXCEEDED,
                    f"There is no answer after {limit:g} seconds.",
                ) from error
            except Exception as error:
                raise as_serving_error(error) from error

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        """Reads or writes messages beside the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._parsers, function, *args)

    def hold(self, size: int) -> None:
        """Counts bytes of a request as pending.

        Raises:
            ServingError: If too many are pending already.
        """
        if self._bytes + size > self._options.max_pending_bytes:
            raise ServingError(
                StatusCode.RESOURCE_EXHAUSTED,
                "The server is busy with other requests. Try again later.",
            )
        self._bytes += size

    def release(self, size: int) -> None:
        """Ends what `hold` began."""
        self._bytes -= size

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Counts bytes as pending within a block; see `hold`."""
        self.hold(size)
        try:
            yield
        finally:
            self.release(size)

    def close(self) -> None:
        """Ends all threads when they have finished."""
        for pool in (self._runners, self._parsers):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._pending >= self._options.max_queue:
            raise ServingError(
                StatusCode.RESOURCE_EXHAUSTED,
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
        spec: ModelSpec,
        signature_name: str,
        read: Callable[[Signature], Arrays],
        names: list[str],
        missing: StatusCode,
    ) -> Prediction:
        with self.models.use(spec) as version:
            if version.loaded is None:
                raise ServingError(
                    StatusCode.UNAVAILABLE, "The version has ended."
                )
            signature = version.loaded.signature(signature_name, missing)
            signature.check_outputs(names)
            parts = await self.in_thread(self._read_parts, signature, read)
            results = await asyncio.gather(
                *(
                    self._batcher.run(
                        _batch_key(signature, part.inputs),
                        signature.run,
                        part.inputs,
                        part.rows,
                        part.pixels,
                    )
                    for part in parts
                )
            )
        outputs = {
            name: results[0][name]
            if len(results) == 1
            else np.concatenate([result[name] for result in results])
            for name in names or signature.outputs
        }
        return Prediction(
            version.model, version.number, signature.name, outputs
        )

    def _read_parts(
        self, signature: Signature, read: Callable[[Signature], Arrays]
    ) -> list[_Part]:
        """Reads and checks a request; splits it if it is too large."""
        inputs = read(signature)
        rows = signature.check_values(inputs, self._options.allow_non_finite)
        pixels = [0] * rows
        max_pixels = self._options.max_image_pixels
        spec = signature.inputs.get(ENCODED_INPUT)
        if spec is not None and spec.dtype == tf.string:
            pixels = count_pixels(inputs[ENCODED_INPUT], max_pixels)
        if not signature.is_batched or len(pixels) != rows:
            return [_Part(inputs, rows, sum(pixels))]
        ends = [0]
        cost = 0
        for row, count in enumerate(pixels):
            is_full = row - ends[-1] >= self._options.max_batch_size
            if is_full or cost + count > max_pixels:
                ends.append(row)
                cost = 0
            cost += count
        return [
            _Part(
                {name: value[start:end] for name, value in inputs.items()},
                end - start,
                sum(pixels[start:end]),
            )
            for start, end in zip(ends, [*ends[1:], rows], strict=True)
        ]


def _batch_key(signature: Signature, inputs: Arrays) -> Any:
    """Returns what requests must share to run together."""
    if not signature.is_batched:
        return object()
    shapes = tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))
    return signature.function, shapes
