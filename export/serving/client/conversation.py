"""The questions that a client can ask."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.export.serving.client.dialogue import (
    Send,
    Steps,
    Wait,
    ask,
)
from keras_sspcab.export.serving.client.errors import (
    ServingClientError,
    unreadable,
)
from keras_sspcab.export.serving.client.inputs import read_images
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    Prediction,
    SignatureInfo,
    VersionStatus,
)
from keras_sspcab.export.serving.client.retries import Deadline, RetryPolicy
from keras_sspcab.export.serving.client.rows import Row, bind, split, stack
from keras_sspcab.export.serving.client.wire import Answer, Wire

SCORE, FLAG, MAP = "anomaly_score", "is_anomalous", "anomaly_map"

# What may pass while one waits for a server to come up.
_NOT_YET = ("NOT_FOUND", "DEADLINE_EXCEEDED")
_PROBE_SECONDS = 5.0


class Conversation:
    """Knows what to ask, in which order, and what the answers mean.

    Args:
        wire: The messages of a protocol.
        policy: How often to try.
        signature: Signature to use; None chooses one by the input.
        max_batch_size: Rows of a request, at most.
        max_request_bytes: Bytes of a request, at most.
    """

    def __init__(
        self,
        wire: Wire,
        policy: RetryPolicy,
        signature: str | None,
        max_batch_size: int,
        max_request_bytes: int,
    ) -> None:
        self._wire = wire
        self._policy = policy
        self._signature = signature
        self._max_batch_size = max_batch_size
        self._max_request_bytes = max_request_bytes
        # Kept until something fails or another version answers.
        self._metadata: ModelMetadata | None = None

    def status(self, timeout: float | None) -> Steps[tuple[VersionStatus, ...]]:
        """Asks for the states of versions."""
        call = self._wire.status()
        reply = yield from ask(call, self._policy, Deadline(timeout))
        return self._wire.read_status(reply)

    def metadata(self, timeout: float | None) -> Steps[ModelMetadata]:
        """Asks for the signatures."""
        return (yield from self._fetch(Deadline(timeout)))

    def wait_until_ready(
        self, timeout: float
    ) -> Steps[tuple[VersionStatus, ...]]:
        """Asks until a version is available."""
        deadline = Deadline(timeout)
        pauses = RetryPolicy(max_backoff=1.0)
        last: ServingClientError | None = None
        attempt = 0
        while (remaining := deadline.remaining()) != 0:
            probe = min(remaining or _PROBE_SECONDS, _PROBE_SECONDS)
            try:
                reply = yield Send(self._wire.status(), probe)
                versions = self._wire.read_status(reply)
                if ready := tuple(v for v in versions if v.is_available):
                    return ready
                states = "; ".join(
                    f"version {v.version} is {v.state} {v.error}".rstrip()
                    for v in versions
                )
                last = ServingClientError("NOT_FOUND", states or "no version")
            except ServingClientError as error:
                if not error.retriable and error.code not in _NOT_YET:
                    raise
                # That time is up says less than what was wrong before.
                if last is None or error.code != "DEADLINE_EXCEEDED":
                    last = error
            pause = pauses.pause(attempt)
            if not deadline.allows(pause):
                break
            yield Wait(pause)
            attempt += 1
        raise deadline.exceeded(last)

    def predict(
        self, images: Any, timeout: float | None
    ) -> Steps[list[Prediction]]:
        """Asks about images, in as many requests as they need."""
        deadline = Deadline(timeout)
        items = read_images(images)
        if not items:
            return []
        metadata, rows = yield from self._bind(items, deadline)
        results: list[Prediction | None] = [None] * len(rows)
        try:
            for indices in split(
                rows,
                self._max_batch_size,
                self._max_request_bytes,
                self._wire.size,
            ):
                part = [rows[index] for index in indices]
                info = metadata.signatures[part[0].signature]
                answer = yield from self._ask(part, info, deadline)
                for index, prediction in zip(
                    indices, _predictions(answer, len(part)), strict=True
                ):
                    results[index] = prediction
                if answer.version not in (None, metadata.version):
                    self._metadata = None
        except ServingClientError:
            self._metadata = None
            raise
        return [result for result in results if result is not None]

    def _ask(
        self, rows: Sequence[Row], info: SignatureInfo, deadline: Deadline
    ) -> Steps[Answer]:
        call = self._wire.predict(rows[0].signature, stack(rows))
        reply = yield from ask(call, self._policy, deadline)
        return self._wire.read_answer(reply, info)

    def _fetch(self, deadline: Deadline) -> Steps[ModelMetadata]:
        call = self._wire.metadata()
        reply = yield from ask(call, self._policy, deadline)
        self._metadata = self._wire.read_metadata(reply)
        return self._metadata

    def _bind(
        self, items: Sequence[Any], deadline: Deadline
    ) -> Steps[tuple[ModelMetadata, list[Row]]]:
        known = self._metadata
        if known is not None:
            try:
                return known, self._rows(items, known)
            except ServingClientError:
                pass  # a newer version may take it
        metadata = yield from self._fetch(deadline)
        return metadata, self._rows(items, metadata)

    def _rows(self, items: Sequence[Any], metadata: ModelMetadata) -> list[Row]:
        rows = bind(items, metadata, self._signature)
        for name in sorted({row.signature for row in rows}):
            _check_detector(metadata, name)
        return rows


def _check_detector(metadata: ModelMetadata, name: str) -> None:
    outputs = metadata.signatures[name].outputs
    if missing := sorted({SCORE, FLAG} - set(outputs)):
        raise ServingClientError(
            "FAILED_PRECONDITION",
            f"The signature {name!r} of {metadata.name} does not give "
            f"{', '.join(missing)}; this client is for anomaly detectors. "
            f"Outputs: {', '.join(sorted(outputs))}",
        )


def _predictions(answer: Answer, count: int) -> list[Prediction]:
    outputs: Mapping[str, np.ndarray] = answer.outputs
    for name in (SCORE, FLAG):
        if name not in outputs:
            raise unreadable(f"there is no {name} in it")
        if outputs[name].shape != (count,):
            raise unreadable(
                f"{name} has the shape {outputs[name].shape} for {count} images"
            )
    for name, value in outputs.items():
        if not value.ndim or len(value) != count:
            raise unreadable(
                f"{name} has the shape {value.shape} for {count} images"
            )
    further = [name for name in outputs if name not in (SCORE, FLAG, MAP)]
    return [
        Prediction(
            float(outputs[SCORE][row]),
            bool(outputs[FLAG][row]),
            outputs[MAP][row] if MAP in outputs else None,
            {name: outputs[name][row] for name in further},
            answer.version,
        )
        for row in range(count)
    ]
