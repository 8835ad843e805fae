"""Metrics of the server, for Prometheus."""

import asyncio
import contextlib
import functools
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import prometheus_client as prometheus
from grpc import StatusCode

from keras_sspcab.export.serving.server.errors import as_serving_error

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Metrics of one server; other servers in the process have their own."""

    content_type: str = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        options: dict[str, Any] = {
            "namespace": "keras_sspcab",
            "registry": self._registry,
        }
        gauge: Any = functools.partial(prometheus.Gauge, **options)
        self._gauge = gauge
        histogram: Any = functools.partial(prometheus.Histogram, **options)
        self._requests = prometheus.Counter(
            "requests",
            "Requests by outcome.",
            ("protocol", "method", "model", "code"),
            **options,
        )
        self._request_seconds = histogram(
            "request_seconds",
            "Time from the first byte of a request to its answer.",
            ("protocol", "method"),
            buckets=_SECONDS,
        )
        self._batch_rows = histogram(
            "batch_rows", "Rows in a run of a model.", buckets=_ROWS
        )
        self._batch_requests = histogram(
            "batch_requests", "Requests in a run of a model.", buckets=_ROWS
        )
        self._wait_seconds = histogram(
            "batch_wait_seconds",
            "Time that the first request of a run waited for it.",
            buckets=_SECONDS,
        )
        self._states = gauge(
            "model_version_state",
            "State of a version: 30 is available, 50 has ended.",
            ("model", "version"),
        )
        self._failures = gauge(
            "model_version_broken",
            "1 for a version that cannot be loaded.",
            ("model", "version"),
        )

        labels = ("model", "version", "statistic")
        self._drift = gauge(
            "drift",
            "1 while the last images differ from normal ones of the model.",
            labels,
        )
        self._shifts = gauge(
            "drift_shift",
            "How far the last images are from normal ones, in their standard "
            "deviations.",
            labels,
        )
        self._watched = gauge(
            "drift_images", "Images that were watched.", labels[:2]
        )

    @contextlib.contextmanager
    def count_request(
        self, protocol: str, known_models: Callable[[], Sequence[str]]
    ) -> Iterator[types.SimpleNamespace]:
        """Counts a request that is answered within the block.

        The block sets `method` and `model` of what this yields as they become
        known; only names in `known_models()` become labels. Any error of the
        block becomes a `ServingError`.
        """
        start = time.perf_counter()
        labels = types.SimpleNamespace(method="", model="")
        code = "OK"
        try:
            yield labels
        except asyncio.CancelledError:
            code = StatusCode.CANCELLED.name
            raise
        except Exception as error:
            failure = as_serving_error(error)
            code = failure.code.name
            raise failure from error
        finally:
            model = labels.model if labels.model in known_models() else ""
            self._requests.labels(protocol, labels.method, model, code).inc()
            self._request_seconds.labels(protocol, labels.method).observe(
                time.perf_counter() - start
            )

    def count_batch(self, rows: int, requests: int, waited: float) -> None:
        """Counts a run of a model."""
        self._batch_rows.observe(rows)
        self._batch_requests.observe(requests)
        self._wait_seconds.observe(waited)

    def watch(
        self, name: str, description: str, value: Callable[[], float]
    ) -> None:
        """Adds a gauge that calls a function whenever metrics are read."""
        self._gauge(name, description).set_function(value)

    def set_version(
        self, model: str, version: int, state: int, is_broken: bool
    ) -> None:
        """Sets the state of a version."""
        self._states.labels(model, str(version)).set(state)
        self._failures.labels(model, str(version)).set(is_broken)

    def set_drift(self, watched: Iterable[tuple[str, int, Any]]) -> None:
        """Sets the state of the monitors of models and versions."""
        for metric in (self._drift, self._shifts, self._watched):
            metric.clear()
        for model, number, monitor in watched:
            version = str(number)
            self._watched.labels(model, version).set(monitor.num_images)
            drifting = {drift.statistic for drift in monitor.drifts}
            for name, shift in monitor.shifts.items():
                self._shifts.labels(model, version, name).set(shift)
                self._drift.labels(model, version, name).set(name in drifting)

    def text(self) -> bytes:
        """Returns all metrics in the text format."""
        return prometheus.generate_latest(self._registry)
