"""Answers requests of both protocols."""

import asyncio
import contextlib
import dataclasses
import hmac
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from keras_sspcab.export.serving.server.batching import Batcher, Part
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

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outputs of a request, and the model, version and signature used."""

    model: str
    version: int
    signature: str
    outputs: Arrays


class Predictor:
    """Checks requests, runs them in batches, and enforces the limits.

    All methods belong to one event loop.
    """

    def __init__(self, models: Models, options: ServerOptions) -> None:
        self.models = models
        self.options = options
        self.metrics = Metrics()
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
            self.metrics.count_batch,
        )
        self._pending = 0
        self._bytes = 0
        watch = self.metrics.watch
        watch(
            "pending_requests",
            "Requests not yet answered.",
            lambda: self._pending,
        )
        watch(
            "pending_bytes",
            "Bytes of requests not yet answered.",
            lambda: self._bytes,
        )
        watch(
            "waiting_requests",
            "Requests that wait for a run.",
            lambda: self._batcher.waiting,
        )

    def authorize(self, header: str | bytes | None) -> None:
        """Raises an error unless a header holds the token, if there is one."""
        token = self.options.token
        received = header.encode() if isinstance(header, str) else header or b""
        if token is not None and not hmac.compare_digest(
            received, f"Bearer {token}".encode()
        ):
            raise ServingError(
                StatusCode.UNAUTHENTICATED,
                "This server needs a token: send "
                "`authorization: Bearer TOKEN`.",
            )

    async def receive(self, reading: Awaitable[Result]) -> Result:
        """Waits for a request to arrive, for `read_timeout` at most."""
        try:
            return await asyncio.wait_for(reading, self.options.read_timeout)
        except asyncio.TimeoutError as error:
            raise ServingError(
                StatusCode.DEADLINE_EXCEEDED,
                "The request did not come in time.",
                http=408,
            ) from error

    async def predict(
        self,
        spec: ModelSpec,
        signature: str,
        read: Callable[[Signature], Arrays],
        outputs: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Prediction:
        """Runs a model.

        Args:
            spec: Which one.
            signature: Name of its signature; empty for the default.
            read: Turns the request into inputs; runs in a thread.
            outputs: Names of outputs to return; empty for all.
            timeout: Seconds that the client waits, if it has said so.
        """
        limit = self.options.timeout
        if timeout is not None:
            limit = min(limit, timeout)
        with self._admitted():
            try:
                return await asyncio.wait_for(
                    self._predict(spec, signature, read, list(outputs)), limit
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
        """Counts bytes as pending until `release`; refuses too many."""
        if self._bytes + size > self.options.max_pending_bytes:
            raise ServingError(
                StatusCode.RESOURCE_EXHAUSTED,
                "The server is busy with other requests. Try again later.",
            )
        self._bytes += size

    def release(self, size: int) -> None:
        """Ends what `hold` began."""
        self._bytes -= size

    def close(self) -> None:
        """Ends all threads when they have finished."""
        for pool in (self._runners, self._parsers):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._pending >= self.options.max_queue:
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
    ) -> Prediction:
        with self.models.use(spec) as version:
            if version.loaded is None:
                raise ServingError(
                    StatusCode.UNAVAILABLE, "The version has ended."
                )
            signature = version.loaded.signature(signature_name)
            signature.check_outputs(names)
            parts = await self.in_thread(self._read_parts, signature, read)
            results = await asyncio.gather(
                *(
                    self._batcher.run(
                        _batch_key(signature, part.inputs),
                        signature.run,
                        part,
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
    ) -> list[Part]:
        """Reads and checks a request; splits it if it is too large.

        What a part costs is the pixels to decode.
        """
        inputs = read(signature)
        rows = signature.check_values(inputs, self.options.allow_non_finite)
        pixels = [0] * rows
        max_pixels = self.options.max_image_pixels
        spec = signature.inputs.get(ENCODED_INPUT)
        if spec is not None and spec.dtype == tf.string:
            pixels = count_pixels(inputs[ENCODED_INPUT], max_pixels)
        if not signature.is_batched or len(pixels) != rows:
            return [Part(inputs, rows, sum(pixels))]
        starts = [0]
        cost = 0
        for row, count in enumerate(pixels):
            is_full = row - starts[-1] >= self.options.max_batch_size
            if is_full or cost + count > max_pixels:
                starts.append(row)
                cost = 0
            cost += count
        return [
            Part(
                {name: value[start:end] for name, value in inputs.items()},
                end - start,
                sum(pixels[start:end]),
            )
            for start, end in zip(starts, [*starts[1:], rows], strict=True)
        ]


def _batch_key(signature: Signature, inputs: Arrays) -> Any:
    """Returns what requests must share to run together."""
    if not signature.is_batched:
        return object()
    shapes = tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))
    return signature.function, shapes
