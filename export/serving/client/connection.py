"""The server and model that a client asks, and how it reaches them."""

import ipaddress
import os
import ssl
import warnings
from typing import Any
from urllib.parse import urlsplit


class Connection:
    """Address, secrets and model, checked against each other; see `Client`."""

    def __init__(
        self,
        target: str,
        model: str,
        protocol: str | None,
        version: int | None,
        label: str | None,
        token: str | None,
        tls: bool | None,
        tls_ca: str | os.PathLike[str] | None,
        credentials: Any,
    ) -> None:
        if not model or not isinstance(model, str):
            raise ValueError(
                "`model` must be the name of a model on the server. "
                f"Received: model={model!r}"
            )
        if version is not None and label is not None:
            raise ValueError(
                "Give a version or a label, not both. Received: "
                f"version={version!r}, label={label!r}"
            )
        is_url = target.startswith(("http://", "https://"))
        if protocol is None:
            protocol = "rest" if is_url else "grpc"
        if protocol not in ("grpc", "rest"):
            raise ValueError(
                "`protocol` must be 'grpc' or 'rest'. "
                f"Received: protocol={protocol!r}"
            )
        if protocol == "grpc" and is_url:
            raise ValueError(
                "For gRPC the target is host:port, without http://. "
                f"Received: target={target!r}"
            )
        has_tls_options = tls_ca is not None or credentials is not None
        if tls is None:
            tls = target.startswith("https://") or has_tls_options
        if has_tls_options and not tls:
            raise ValueError(
                "`tls_ca` and `credentials` are for TLS. Received: tls=False"
            )
        if tls_ca is not None and not os.path.isfile(tls_ca):
            raise ValueError(f"There is no file at {os.fspath(tls_ca)!r}")
        if protocol == "rest":
            if not is_url:
                target = f"http{'s' if tls else ''}://{target}"
            target = target.rstrip("/")
            if target.startswith("https://") != tls:
                raise ValueError(
                    "TLS needs a target that begins with https://. "
                    f"Received: target={target!r}, tls={tls}"
                )
        host = _find_host(target)
        if token is not None:
            _check_token(token, host, tls)
        self.address = target
        self.model = model
        self.protocol = protocol
        self.version = version
        self.label = label
        self.token = token
        self.tls = tls
        self.tls_ca = tls_ca
        self.credentials = credentials

    def __repr__(self) -> str:
        return f"{self.address!r}, model={self.model!r}"

    def ssl_context(self) -> ssl.SSLContext:
        """Returns what verifies the server's certificate over HTTP."""
        if not self.tls:
            # Never used; this one is the cheapest to create.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return self.credentials or ssl.create_default_context(
            cafile=self.tls_ca
        )


def _find_host(target: str) -> str:
    if target.startswith("unix:"):
        return "localhost"
    try:
        parts = urlsplit(target if "://" in target else f"//{target}")
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.query or parts.fragment:
        raise ValueError(
            "`target` must be host:port for gRPC, or the URL of a server "
            f"for REST. Received: target={target!r}"
        )
    return host


def _check_token(token: str, host: str, tls: bool) -> None:
    if not token or not token.isascii() or " " in token:
        raise ValueError(
            "`token` must consist of ASCII characters without spaces. "
            "Received: a token with other characters, or an empty one"
        )
    if not tls and not is_loopback(host):
        warnings.warn(
            f"The token is sent to {host} without TLS: anyone on the way "
            "can read it.",
            # Past the constructors of the connection and the client.
            stacklevel=4,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
