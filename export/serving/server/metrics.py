"""What the server counts and measures, for Prometheus."""

from collections.abc import Callable

from keras_sspcab.export.serving.server.errors import Code

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Metrics of one server, apart from those of others in the process."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._generate = prometheus.generate_latest
        self.content_type: str = prometheus.CONTENT_TYPE_LATEST
        self._registry = registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter(
            "keras_sspcab_requests",
            "Requests by outcome.",
            ("protocol", "method", "model", "code"),
            registry=registry,
        )
        self._request_seconds = prometheus.Histogram(
            "keras_sspcab_request_seconds",
            "Time from the first byte of a request to its answer.",
            ("protocol", "method"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch_rows = prometheus.Histogram(
            "keras_sspcab_batch_rows",
            "Rows in a run of a model.",
            buckets=_ROWS,
            registry=registry,
        )
        self._batch_requests = prometheus.Histogram(
            "keras_sspcab_batch_requests",
            "Requests in a run of a model.",
            buckets=_ROWS,
            registry=registry,
        )
        self._wait_seconds = prometheus.Histogram(
            "keras_sspcab_batch_wait_seconds",
            "Time that the first request of a run has waited for it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._gauges = {
            name: prometheus.Gauge(
                f"keras_sspcab_{name}", text, registry=registry
            )
            for name, text in (
                ("pending_requests", "Requests not yet answered."),
                ("pending_bytes", "Bytes of requests not yet answered."),
                ("waiting_requests", "Requests that wait for a run."),
            )
        }
        self._versions = prometheus.Gauge(
            "keras_sspcab_model_version_state",
            "State of a version: 30 is available, 50 has ended.",
            ("model", "version"),
            registry=registry,
        )
        self._failures = prometheus.Gauge(
            "keras_sspcab_model_version_broken",
            "1 for a version that cannot be loaded.",
            ("model", "version"),
            registry=registry,
        )

    def count_request(
        self,
        protocol: str,
        method: str,
        model: str,
        code: Code | None,
        seconds: float,
    ) -> None:
        """Counts an answered request; no code means success."""
        name = "OK" if code is None else code.name
        self._requests.labels(protocol, method, model, name).inc()
        self._request_seconds.labels(protocol, method).observe(seconds)

    def count_batch(self, rows: int, requests: int, waited: float) -> None:
        """Counts a run of a model."""
        self._batch_rows.observe(rows)
        self._batch_requests.observe(requests)
        self._wait_seconds.observe(waited)

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Reads a gauge where it stands, whenever it is asked for."""
        self._gauges[name].set_function(value)

    def set_version(
        self, model: str, version: int, state: int, is_broken: bool
    ) -> None:
        """Takes down the state of a version."""
        self._versions.labels(model, str(version)).set(state)
        self._failures.labels(model, str(version)).set(is_broken)

    def text(self) -> bytes:
        """Returns all metrics in the text format."""
        return self._generate(self._registry)
