"""Answers requests of both protocols."""

import asyncio
import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from keras_sspcab.export.serving.server.batching import Batcher, Part
from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.images import (
    ENCODED_INPUT,
    convert_images,
    count_pixels,
    require_decodable,
)
from keras_sspcab.export.serving.server.limits import Limits
from keras_sspcab.export.serving.server.metrics import Metrics
from keras_sspcab.export.serving.server.models import Models
from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.export.serving.server.signature import (
    Arrays,
    Signature,
    check_finite,
)
from keras_sspcab.export.serving.server.versions import (
    LoadedVersion,
    ModelSpec,
    Version,
)

Result = TypeVar("Result")

# What takes no more memory is done at once: a thread would take longer.
_QUICK_MEMORY = 1 << 19


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a model: no `outputs` mean all of the signature."""

    signature: Signature
    inputs: Arrays
    outputs: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The outputs of a request, and the model, version and signature used."""

    model: str
    version: int
    signature: str
    outputs: Arrays


class Predictor:
    """Checks requests and runs them in batches, within `limits`.

    All methods belong to one event loop.
    """

    def __init__(self, models: Models, options: ServerOptions) -> None:
        self.models = models
        self.options = options
        self.metrics = Metrics()
        self.limits = Limits(options)
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
        watch = self.metrics.watch
        watch(
            "pending_requests",
            "Requests not yet answered.",
            lambda: self.limits.pending,
        )
        watch(
            "pending_bytes",
            "Bytes of requests not yet answered.",
            lambda: self.limits.held_bytes,
        )
        watch(
            "work_bytes",
            "Memory for requests being read, and for their answers.",
            lambda: self.limits.work_bytes,
        )
        watch(
            "waiting_requests",
            "Requests that wait for a run.",
            lambda: self._batcher.waiting,
        )

    def authorize(self, header: str | bytes | None) -> None:
        """Raises an error unless a header holds the token, if there is one."""
        if not self.options.accepts(header):
            raise ServingError(
                StatusCode.UNAUTHENTICATED,
                "This server needs a token: send "
                "`authorization: Bearer TOKEN`.",
            )

    async def predict(
        self,
        spec: ModelSpec,
        read: Callable[[LoadedVersion, bool], Question],
        write: Callable[[Prediction], bytes],
        memory: int,
        growth: int = 0,
        weight: int = 1,
    ) -> bytes:
        """Runs a model, and returns the answer to a request.

        Args:
            spec: Which model.
            read: Turns the request into a question, as `work` does it.
            write: Turns the prediction into an answer.
            memory: Bytes that reading takes.
            growth: Bytes that it may take beside these, unless it is quick.
            weight: How many times as long as a copy writing takes, about.
        """
        with self.models.use(spec) as version:
            if version.loaded is None:
                raise ServingError(
                    StatusCode.UNAVAILABLE, "The version has ended."
                )
            growth = min(growth, self.options.max_work_bytes - memory)
            question, parts = await self.work(
                functools.partial(self._read_parts, read, version.loaded),
                memory,
                memory + max(growth, 0),
            )
            signature = question.signature
            size = sum(signature.memory_needed(part.inputs) for part in parts)
            async with self.limits.memory(size):
                runs = [
                    self._batcher.run(
                        _batch_key(signature, part.inputs), signature.run, part
                    )
                    for part in parts
                ]
                try:
                    # Without a task for what is one anyway.
                    results = (
                        [await runs[0]]
                        if len(runs) == 1
                        else await asyncio.gather(*runs)
                    )
                except tf.errors.InvalidArgumentError:
                    if parts[0].convert is not None:
                        files = question.inputs[ENCODED_INPUT]
                        await self.in_thread(require_decodable, files)
                    raise
                drift = version.loaded.drift
                if drift.is_due:
                    self._parsers.submit(
                        drift.observe, parts[0].inputs, results[0]
                    )
                return await self.work(
                    lambda _: self._write(version, question, results, write),
                    size * weight,
                )

    async def work(
        self,
        function: Callable[[bool], Result],
        cost: int = 0,
        memory: int = 0,
    ) -> Result:
        """Reads or writes messages: at once if it is quick, else in a thread.

        Args:
            function: Told whether it is to be quick. If so, it may raise a
                `ServingError`, and is called again.
            cost: Bytes of memory for what there is to do.
            memory: Those to take in a thread.
        """
        if cost <= _QUICK_MEMORY:
            with contextlib.suppress(ServingError):
                return function(True)
        result: Result = await self.in_thread(function, False, memory=memory)
        return result

    async def in_thread(
        self, function: Callable[..., Any], *args: Any, memory: int = 0
    ) -> Any:
        """Reads or writes messages beside the event loop.

        The memory is returned when the thread has finished, also if nobody
        waits for it any more.
        """
        await self.limits.take_memory(memory)
        loop = asyncio.get_running_loop()

        def finish(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.limits.return_memory, memory)

        future = self._parsers.submit(function, *args)
        future.add_done_callback(finish)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Ends all threads when they have finished."""
        for pool in (self._runners, self._parsers):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read_parts(
        self,
        read: Callable[[LoadedVersion, bool], Question],
        loaded: LoadedVersion,
        is_quick: bool,
    ) -> tuple[Question, list[Part]]:
        """Reads and checks a request; splits it if it is too large.

        What a part costs is the pixels to decode.
        """
        question = read(loaded, is_quick)
        signature, inputs = question.signature, question.inputs
        signature.check_outputs(question.outputs)
        rows = signature.check_values(inputs, self.options.allow_non_finite)
        pixels = [0] * rows
        max_pixels = self.options.max_image_pixels
        spec = signature.inputs.get(ENCODED_INPUT)
        is_encoded = spec is not None and spec.dtype == tf.string
        if is_encoded:
            pixels = count_pixels(inputs[ENCODED_INPUT], max_pixels, is_quick)
            # The model may make more of a file.
            size = loaded.report.get("image_size") or [0]
            resized = min(math.prod(size), max_pixels)
            pixels = [max(count, resized) for count in pixels]
        starts = [0]
        cost = 0
        if signature.is_batched and len(pixels) == rows:
            for row, count in enumerate(pixels):
                is_full = row - starts[-1] >= self.options.max_batch_size
                if is_full or cost + count > max_pixels:
                    starts.append(row)
                    cost = 0
                cost += count
        ends = [*starts[1:], rows]
        return question, [
            Part(
                {name: value[start:end] for name, value in inputs.items()}
                if len(starts) > 1
                else inputs,
                end - start,
                sum(pixels[start:end]),
                functools.partial(convert_images, first=start)
                if is_encoded
                else None,
            )
            for start, end in zip(starts, ends, strict=True)
        ]

    def _write(
        self,
        version: Version,
        question: Question,
        results: Sequence[Arrays],
        write: Callable[[Prediction], bytes],
    ) -> bytes:
        outputs = {
            name: results[0][name]
            if len(results) == 1
            else np.concatenate([result[name] for result in results])
            for name in question.outputs or question.signature.outputs
        }
        if not self.options.allow_non_finite:
            check_finite(outputs)
        return write(
            Prediction(
                version.model,
                version.number,
                question.signature.name,
                outputs,
            )
        )


def _batch_key(signature: Signature, inputs: Arrays) -> Any:
    """Returns what requests must share to run together."""
    if not signature.is_batched:
        return object()
    shapes = tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))
    return signature.function, shapes
