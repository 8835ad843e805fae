"""Options of the embedded server."""

import dataclasses
import hmac
import ipaddress
import os
import pathlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from keras_sspcab.checks import standardize_int, standardize_number
from keras_sspcab.export.serving.client.connection import (
    is_loopback,
    is_plain_token,
)

_MIB = 1 << 20
_YEAR = 366 * 24 * 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How the embedded server listens, batches and protects itself.

    Args:
        host: Address to listen at; by default the loopback, which other
            machines cannot reach.
        grpc_port: Port of gRPC; 0 takes a free one.
        rest_port: Port of REST and the web page; 0 takes a free one.
        allowed_hosts: Names under which REST and the page are asked for,
            besides `localhost` and addresses. Without any, other names are
            refused if `host` is a loopback: web sites of strangers may use them
            to reach this machine through a browser.
        versions: Versions to serve. None serves those that `models.config`
            chooses or, without one, the newest of each model.
        labels: Versions by label for all models, besides those of
            `models.config`.
        poll_seconds: Seconds between checks for new versions.
        max_batch_size: Rows that are joined into one run of the model; larger
            requests are split. 1 turns batching off.
        batch_timeout: Longest time in seconds that a request waits for others
            while the model is busy.
        threads: Concurrent runs of models. None takes the number of processors,
            but at most 4.
        max_queue: Requests that are accepted and not yet answered.
        timeout: Seconds to answer a request, from its last byte. Clients may
            ask for less.
        read_timeout: Seconds for a client to send a request, and to receive an
            answer.
        max_connections: Concurrent connections of REST, and requests of gRPC.
        max_request_bytes: Size of a request.
        max_rows: Rows of a request.
        max_pending_bytes: Bytes of all requests that are not yet answered.
        max_work_bytes: Memory for reading requests and for their answers, of
            which JSON takes many times its size. Requests wait for it; larger
            ones are refused.
        max_image_pixels: Height times width of an encoded image, read from its
            header before it is decoded.
        allow_non_finite: Whether to accept NaN and infinity, and to answer with
            them, as TensorFlow Serving does; they are no scores, and no JSON.
        feedback: Folder of `keras_sspcab.data.MarkedImages`, for the images
            whose answers visitors of the page mark as wrong. They can also
            serve an older version of a repository then. None allows neither.
        drain_seconds: Seconds for requests to finish when the server stops.
        token: Secret that clients must send as `authorization: Bearer TOKEN`.
            None lets everyone in. The health pages need none.
        tls_certificate: PEM file of the certificate chain; with `tls_key`.
        tls_key: PEM file of the private key.

    Raises:
        ValueError: If an option is out of its range.

    Example:
    >>> ServerOptions(host="0.0.0.0").is_loopback
    False
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    allowed_hosts: tuple[str, ...] = ()
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
    max_rows: int = 1024
    max_pending_bytes: int = 256 * _MIB
    max_work_bytes: int = 1024 * _MIB
    max_image_pixels: int = 2**25
    allow_non_finite: bool = False
    feedback: str | os.PathLike[str] | None = None
    drain_seconds: float = 10.0
    token: str | None = dataclasses.field(default=None, repr=False)
    tls_certificate: str | os.PathLike[str] | None = None
    tls_key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name.startswith("max_"):
                standardize_int(value, name, 1)
            elif name.endswith("_port"):
                standardize_int(value, name, 0)
                standardize_number(value, name, 0, 65535)
            elif name in ("batch_timeout", "drain_seconds"):
                standardize_number(value, name, 0, _YEAR)
            elif name in ("poll_seconds", "timeout", "read_timeout"):
                standardize_number(value, name, 1e-3, _YEAR)
        if self.threads is not None:
            standardize_int(self.threads, "threads", 1)
        if self.versions == ():
            raise ValueError(
                "The `versions` argument must be version numbers, or None. "
                "Received: versions=()"
            )
        for version in self.versions or ():
            standardize_int(version, "versions", 0)
        if isinstance(self.allowed_hosts, str) or not all(self._allowed_names):
            raise ValueError(
                "The `allowed_hosts` argument must be names such as "
                "'box.example.com', in a tuple. "
                f"Received: {self.allowed_hosts!r}"
            )
        self._check_token()
        self._check_tls()

    @property
    def num_threads(self) -> int:
        """Concurrent runs of models."""
        return self.threads or min(4, os.cpu_count() or 1)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def own_host(self) -> str:
        """Under which the server is reached from this machine, for URLs."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]" if ":" in host else host

    def url_of(self, port: int) -> str:
        """Returns the address of a port over HTTP or, with TLS, HTTPS."""
        scheme = "http" if self.tls_key is None else "https"
        return f"{scheme}://{self.own_host}:{port}"

    def allows_host(self, header: str) -> bool:
        """Whether the server answers requests with this `Host` header."""
        if not self.allowed_hosts and not self.is_loopback:
            return True
        if not (name := _host_name(header)):
            return False
        names = {self.host.lower(), *self._allowed_names}
        if name == "localhost" or name.endswith(".localhost") or name in names:
            return True
        try:
            ipaddress.ip_address(name)  # which cannot be made to mean another
        except ValueError:
            return False
        return True

    @property
    def _allowed_names(self) -> list[str]:
        names = []
        for host in self.allowed_hosts:
            # Written as in a URL, it is meant all the same.
            host = host.rpartition("://")[2]
            is_bare_ipv6 = host.count(":") > 1 and "[" not in host
            names.append(host.lower() if is_bare_ipv6 else _host_name(host))
        return names

    def accepts(self, authorization: str | bytes | None) -> bool:
        """Whether an `authorization` header is right, or no token is set."""
        if self.token is None:
            return True
        received = authorization or b""
        if isinstance(received, str):
            received = received.encode()
        return hmac.compare_digest(received, f"Bearer {self.token}".encode())

    def read_tls(self) -> tuple[bytes, bytes] | None:
        """Returns private key and certificate, or None without TLS."""
        if self.tls_key is None or self.tls_certificate is None:
            return None
        return (
            pathlib.Path(self.tls_key).read_bytes(),
            pathlib.Path(self.tls_certificate).read_bytes(),
        )

    def _check_token(self) -> None:
        if self.token is None:
            return
        if len(self.token) < 8 or not is_plain_token(self.token):
            raise ValueError(
                "The `token` argument must have at least 8 printable ASCII "
                "characters and no space. Received: one that has not"
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


def _host_name(host: str) -> str:
    """Returns the name in `name:port`; empty if there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
