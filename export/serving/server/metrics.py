"""Metrics of the server, for Prometheus."""

from collections.abc import Callable

import prometheus_client as prometheus

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Metrics of one server; other servers in the process have their own."""

    content_type: str = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self._registry = prometheus.CollectorRegistry()

        def gauge(
            name: str, text: str, labels: tuple[str, ...] = ()
        ) -> prometheus.Gauge:
            name = f"keras_sspcab_{name}"
            return prometheus.Gauge(name, text, labels, registry=registry)

        def histogram(
            name: str,
            text: str,
            buckets: tuple[float, ...],
            labels: tuple[str, ...] = (),
        ) -> prometheus.Histogram:
            return prometheus.Histogram(
                f"keras_sspcab_{name}",
                text,
                labels,
                buckets=buckets,
                registry=registry,
            )

        self._requests = prometheus.Counter(
            "keras_sspcab_requests",
            "Requests by outcome.",
            ("protocol", "method", "model", "code"),
            registry=registry,
        )
        self._request_seconds = histogram(
            "request_seconds",
            "Time from the first byte of a request to its answer.",
            _SECONDS,
            ("protocol", "method"),
        )
        self._batch_rows = histogram(
            "batch_rows", "Rows in a run of a model.", _ROWS
        )
        self._batch_requests = histogram(
            "batch_requests", "Requests in a run of a model.", _ROWS
        )
        self._wait_seconds = histogram(
            "batch_wait_seconds",
            "Time that the first request of a run waited for it.",
            _SECONDS,
        )
        self._gauges = {
            "pending_requests": gauge(
                "pending_requests", "Requests not yet answered."
            ),
            "pending_bytes": gauge(
                "pending_bytes", "Bytes of requests not yet answered."
            ),
            "waiting_requests": gauge(
                "waiting_requests", "Requests that wait for a run."
            ),
        }
        version = ("model", "version")
        self._states = gauge(
            "model_version_state",
            "State of a version: 30 is available, 50 has ended.",
            version,
        )
        self._failures = gauge(
            "model_version_broken",
            "1 for a version that cannot be loaded.",
            version,
        )

    def count_request(
        self, protocol: str, method: str, model: str, code: str, seconds: float
    ) -> None:
        """Counts an answered request; the code `"OK"` means success."""
        self._requests.labels(protocol, method, model, code).inc()
        self._request_seconds.labels(protocol, method).observe(seconds)

    def count_batch(self, rows: int, requests: int, waited: float) -> None:
        """Counts a run of a model."""
        self._batch_rows.observe(rows)
        self._batch_requests.observe(requests)
        self._wait_seconds.observe(waited)

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Lets a gauge call a function whenever metrics are read."""
        self._gauges[name].set_function(value)

    def set_version(
        self, model: str, version: int, state: int, is_broken: bool
    ) -> None:
        """Sets the state of a version."""
        self._states.labels(model, str(version)).set(state)
        self._failures.labels(model, str(version)).set(is_broken)

    def text(self) -> bytes:
        """Returns all metrics in the text format."""
        return prometheus.generate_latest(self._registry)
