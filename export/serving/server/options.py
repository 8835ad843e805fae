"""Options of the embedded server."""

import dataclasses
import ipaddress
import math
import os
import pathlib
from collections.abc import Mapping

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How the embedded server listens, batches and defends itself.

    Args:
        host: Address to listen at. Defaults to the loopback, which other
            machines cannot reach.
        grpc_port: Port of gRPC; 0 takes a free one. Defaults to 8500.
        rest_port: Port of REST and the web page; 0 takes a free one. Defaults
            to 8501.
        versions: Versions to serve. None serves those that `models.config`
            chooses or, without one, the newest of each model.
        labels: Versions by label, for all models; beside those of
            `models.config`.
        poll_seconds: Time between two looks for new versions. Defaults to 1.
        max_batch_size: Rows that are joined into one run of the model; larger
            requests are split. 1 switches batching off. Defaults to 32.
        batch_timeout: Seconds that a request waits for others, at most, while
            the model is busy. Defaults to 0.005.
        threads: Runs of models at the same time. None takes the number of
            processors, but at most 4.
        max_queue: Requests that are accepted and not yet answered. Defaults
            to 128.
        timeout: Seconds a request may take, from its last byte. Clients may
            ask for less. Defaults to 30.
        read_timeout: Seconds a client has to send a request, and to take
            delivery of an answer that waits. Defaults to 15.
        max_connections: Connections of REST at a time, and requests of gRPC.
            Defaults to 128.
        max_request_bytes: Size of a request. Defaults to 32 MiB.
        max_pending_bytes: Bytes of all requests that are not yet answered.
            Defaults to 256 MiB.
        max_image_pixels: Height times width of an encoded image, read off its
            header before it is decoded. Defaults to 2**25, about 33 million.
        allow_non_finite: Whether NaN and infinity may go into a model. Its
            scores would be NaN and its flags say "normal", so they are
            refused by default; TensorFlow Serving lets them pass.
        own_process: Whether this process serves and does nothing else, as that
            of `keras-sspcab serve`. What has been loaded is then left out of
            Python's garbage collection, which holds up requests otherwise.
        drain_seconds: Time for requests to finish when the server stops.
            Defaults to 10.
        token: Secret that clients must send as `authorization: Bearer TOKEN`.
            None lets everyone in. The health pages need none.
        tls_certificate: PEM file of the certificate chain; with `tls_key`.
        tls_key: PEM file of the private key.

    Raises:
        ValueError: If an option is out of its range.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    versions: tuple[int, ...] | None = None
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    poll_seconds: float = 1.0
    max_batch_size: int = 32
    batch_timeout: float = 0.005
    threads: int | None = None
    max_queue: int = 128
    timeout: float = 30.0
    read_timeout: float = 15.0
    max_connections: int = 128
    max_request_bytes: int = 32 * _MIB
    max_pending_bytes: int = 256 * _MIB
    max_image_pixels: int = 2**25
    allow_non_finite: bool = False
    own_process: bool = False
    drain_seconds: float = 10.0
    token: str | None = dataclasses.field(default=None, repr=False)
    tls_certificate: str | os.PathLike[str] | None = None
    tls_key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for name in (
            "max_batch_size",
            "max_queue",
            "max_connections",
            "max_request_bytes",
            "max_pending_bytes",
            "max_image_pixels",
        ):
            self._check(name, self._is_int(name, 1), "a positive integer")
        for name in ("grpc_port", "rest_port"):
            valid = self._is_int(name, 0) and getattr(self, name) < 65536
            self._check(name, valid, "a port, 0 to 65535")
        for name in ("poll_seconds", "timeout", "read_timeout"):
            self._check(name, self._is_seconds(name) > 0, "positive seconds")
        for name in ("batch_timeout", "drain_seconds"):
            self._check(name, self._is_seconds(name) >= 0, "seconds from 0")
        if self.threads is not None:
            self._check("threads", self._is_int("threads", 1), "positive")
        if self.versions is not None:
            object.__setattr__(self, "versions", tuple(self.versions))
            valid = bool(self.versions) and all(
                isinstance(version, int) and version >= 0
                for version in self.versions
            )
            self._check("versions", valid, "version numbers, or None")
        if self.token is not None:
            valid = self.token.isascii() and self.token.isprintable()
            if not valid or len(self.token) < 8 or " " in self.token:
                raise ValueError(
                    "The `token` option must have at least 8 printable ASCII "
                    "characters and no space. Received: one that has not"
                )
        self._check_tls()

    @property
    def num_threads(self) -> int:
        """Runs of models at the same time."""
        return self.threads or min(4, os.cpu_count() or 1)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def read_tls(self) -> tuple[bytes, bytes] | None:
        """Returns private key and certificate, or None without TLS."""
        if self.tls_key is None or self.tls_certificate is None:
            return None
        return (
            pathlib.Path(self.tls_key).read_bytes(),
            pathlib.Path(self.tls_certificate).read_bytes(),
        )

    def _check_tls(self) -> None:
        if (self.tls_key is None) != (self.tls_certificate is None):
            raise ValueError(
                "TLS needs both `tls_certificate` and `tls_key`. Received: "
                f"tls_certificate={self.tls_certificate}, "
                f"tls_key={self.tls_key}"
            )
        for path in (self.tls_key, self.tls_certificate):
            if path is not None and not os.path.isfile(path):
                raise ValueError(f"There is no file at {os.fspath(path)!r}")

    def _is_int(self, name: str, minimum: int) -> bool:
        value = getattr(self, name)
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return is_int and value >= minimum

    def _is_seconds(self, name: str) -> float:
        value = getattr(self, name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
        return -1.0

    def _check(self, name: str, valid: bool, expected: str) -> None:
        if not valid:
            raise ValueError(
                f"The `{name}` option must be {expected}. "
                f"Received: {name}={getattr(self, name)!r}"
            )
