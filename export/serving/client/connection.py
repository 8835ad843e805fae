"""Where a server is, and how it is reached."""

import dataclasses
import ipaddress
import os
import ssl
import warnings
from typing import Any
from urllib.parse import urlsplit

from keras_sspcab.export._optional import require
from keras_sspcab.export.serving.client.wire import Target, Wire

PROTOCOLS = ("grpc", "rest")

_PACKAGES = {
    "grpc": ("grpc", "tensorflow", "tensorflow_serving"),
    "rest": ("httpx", "orjson"),
}


@dataclasses.dataclass(frozen=True)
class Connection:
    """Address and secrets of a server.

    Attributes:
        address: `host:port` for gRPC, a URL for REST.
        protocol: `"grpc"` or `"rest"`.
        token: Secret to send, or None.
        is_secure: Whether by TLS.
        credentials: `grpc.ChannelCredentials` or `ssl.SSLContext`; None takes
            the roots below.
        tls_ca: PEM file of the certificates to trust; None for those of the
            system.
    """

    address: str
    protocol: str
    token: str | None = dataclasses.field(default=None, repr=False)
    is_secure: bool = False
    credentials: Any = dataclasses.field(default=None, repr=False)
    tls_ca: str | None = None

    @classmethod
    def make(
        cls,
        target: str,
        protocol: str | None,
        token: str | None,
        tls: bool | None,
        tls_ca: str | os.PathLike[str] | None,
        credentials: Any,
    ) -> "Connection":
        """Reads the arguments of a client; None stands for the default.

        Raises:
            ImportError: If packages of the protocol are missing.
            ValueError: If they contradict each other.
        """
        is_url = target.startswith(("http://", "https://"))
        if protocol is None:
            protocol = "rest" if is_url else "grpc"
        if protocol not in PROTOCOLS:
            raise ValueError(
                f"`protocol` must be one of {', '.join(PROTOCOLS)}. "
                f"Received: protocol={protocol!r}"
            )
        if protocol == "grpc" and "://" in target and is_url:
            raise ValueError(
                "For gRPC the target is host:port, without http://. "
                f"Received: target={target!r}"
            )
        if tls is None:
            tls = target.startswith("https://") or (
                tls_ca is not None or credentials is not None
            )
        if protocol == "rest" and not is_url:
            target = f"{'https' if tls else 'http'}://{target}"
        if protocol == "rest" and target.startswith("https://") != tls:
            raise ValueError(
                "TLS needs a target that begins with https://. "
                f"Received: target={target!r}, tls={tls}"
            )
        if not tls and (tls_ca is not None or credentials is not None):
            raise ValueError(
                "`tls_ca` and `credentials` are for TLS. Received: tls=False"
            )
        if tls_ca is not None and not os.path.isfile(tls_ca):
            raise ValueError(f"There is no file at {os.fspath(tls_ca)!r}")
        connection = cls(
            target.rstrip("/") if protocol == "rest" else target,
            protocol,
            token,
            tls,
            credentials,
            None if tls_ca is None else os.fspath(tls_ca),
        )
        connection._check_host()
        connection._check_token()
        require(*_PACKAGES[protocol], extra=_EXTRAS[protocol])
        return connection

    @property
    def host(self) -> str:
        """Name or number of the machine."""
        url = self.address if "://" in self.address else f"//{self.address}"
        return urlsplit(url).hostname or ""

    def wire(self, target: Target) -> Wire:
        """Returns the messages of the protocol."""
        if self.protocol == "grpc":
            from keras_sspcab.export.serving.client.grpc_wire import GrpcWire

            return GrpcWire(target)
        from keras_sspcab.export.serving.client.rest_wire import RestWire

        return RestWire(target)

    def ssl_context(self) -> ssl.SSLContext:
        """Returns what checks the server's certificate, for HTTP."""
        return self.credentials or ssl.create_default_context(
            cafile=self.tls_ca
        )

    def _check_host(self) -> None:
        try:
            parts = urlsplit(self.address)
            is_fine = bool(self.host) and not (parts.query or parts.fragment)
        except ValueError:
            is_fine = False
        if not is_fine and not self.address.startswith("unix:"):
            raise ValueError(
                "`target` must be host:port for gRPC, or the URL of a server "
                f"for REST. Received: target={self.address!r}"
            )

    def _check_token(self) -> None:
        if self.token is None:
            return
        if not self.token or not self.token.isascii() or " " in self.token:
            raise ValueError(
                "`token` must be ASCII characters without a space. Received: "
                "one that is not"
            )
        if not self.is_secure and not _is_local(self.host):
            warnings.warn(
                f"The token travels to {self.host} without TLS: whoever is on "
                "the way can read it.",
                stacklevel=4,
            )


_EXTRAS = {"grpc": "serve", "rest": "transport"}


def _is_local(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
