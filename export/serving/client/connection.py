"""The server and model that a client asks, and how it reaches them."""

import dataclasses
import ipaddress
import os
import ssl
import warnings
from typing import Any
from urllib.parse import urlsplit


@dataclasses.dataclass
class Connection:
    """Address, secrets and model, checked against each other.

    Args:
        address: `host:port` for gRPC, a URL for REST.
        model: Name of the model.
        protocol: `"grpc"` or `"rest"`; None takes REST for URLs, else gRPC.
        version: Version to ask; None leaves it to the server.
        label: Label of the version to ask, instead.
        token: Secret to send, or None.
        tls: Whether to use TLS; None derives it from the other arguments.
        tls_ca: PEM file of the certificates to trust; None for the system's.
        credentials: `grpc.ChannelCredentials` or `ssl.SSLContext` instead.

    Raises:
        ValueError: If the arguments contradict each other.
    """

    address: str
    model: str
    protocol: str | None = None
    version: int | None = None
    label: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    tls: bool | None = None
    tls_ca: str | os.PathLike[str] | None = None
    credentials: Any = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(
                "`model` must be the name of a model on the server. "
                f"Received: model={self.model!r}"
            )
        if self.version is not None and self.label is not None:
            raise ValueError(
                "Give a version or a label, not both. Received: "
                f"version={self.version!r}, label={self.label!r}"
            )
        is_url = self.address.startswith(("http://", "https://"))
        if self.protocol is None:
            self.protocol = "rest" if is_url else "grpc"
        if self.protocol not in ("grpc", "rest"):
            raise ValueError(
                "`protocol` must be 'grpc' or 'rest'. "
                f"Received: protocol={self.protocol!r}"
            )
        if self.protocol == "grpc" and is_url:
            raise ValueError(
                "For gRPC the target is host:port, without http://. "
                f"Received: target={self.address!r}"
            )
        has_tls_options = (
            self.tls_ca is not None or self.credentials is not None
        )
        if self.tls is None:
            self.tls = self.address.startswith("https://") or has_tls_options
        if has_tls_options and not self.tls:
            raise ValueError(
                "`tls_ca` and `credentials` are for TLS. Received: tls=False"
            )
        if self.tls_ca is not None and not os.path.isfile(self.tls_ca):
            raise ValueError(f"There is no file at {os.fspath(self.tls_ca)!r}")
        if self.protocol == "rest":
            if not is_url:
                self.address = f"http{'s' if self.tls else ''}://{self.address}"
            self.address = self.address.rstrip("/")
            if self.address.startswith("https://") != self.tls:
                raise ValueError(
                    "TLS needs a target that begins with https://. "
                    f"Received: target={self.address!r}, tls={self.tls}"
                )
        self._check_token(self._find_host())

    def ssl_context(self) -> ssl.SSLContext:
        """Returns what verifies the server's certificate over HTTP."""
        if not self.tls:
            # Never used; this one is the cheapest to create.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self.credentials or ssl.create_default_context(
            cafile=self.tls_ca
        )

    def _find_host(self) -> str:
        if self.address.startswith("unix:"):
            return "localhost"
        has_scheme = "://" in self.address
        try:
            parts = urlsplit(
                self.address if has_scheme else f"//{self.address}"
            )
            host = parts.hostname
        except ValueError:
            host = None
        if not host or parts.query or parts.fragment:
            raise ValueError(
                "`target` must be host:port for gRPC, or the URL of a server "
                f"for REST. Received: target={self.address!r}"
            )
        return host

    def _check_token(self, host: str) -> None:
        if self.token is None:
            return
        if not self.token or not self.token.isascii() or " " in self.token:
            raise ValueError(
                "`token` must consist of ASCII characters without spaces. "
                "Received: a token with other characters, or an empty one"
            )
        if not self.tls and not _is_local(host):
            warnings.warn(
                f"The token is sent to {host} without TLS: anyone on the way "
                "can read it.",
                # Past __post_init__, __init__ and the client's constructor.
                stacklevel=5,
            )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
