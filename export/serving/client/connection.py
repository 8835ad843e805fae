"""The server and model that a client asks, and how it reaches them."""

import base64
import dataclasses
import ipaddress
import os
import re
import ssl
import warnings
from typing import Any
from urllib.parse import unquote, urlsplit

from keras_sspcab.checks import standardize_int


@dataclasses.dataclass
class Connection:
    """Address, secrets and model, checked against each other; see `Client`."""

    address: str
    model: str
    protocol: Any
    version: int | None
    label: str | None
    token: str | None = dataclasses.field(repr=False)
    tls: Any
    tls_ca: str | os.PathLike[str] | None
    credentials: Any
    #: What a URL has before the `@`; the address is left without.
    user: str | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(
                "`model` must be the name of a model on the server. "
                f"Received: model={self.model!r}"
            )
        if self.version is not None:
            standardize_int(self.version, "version", 0)
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
                f"Received: target={self.address.rpartition('@')[2]!r}"
            )
        has_options = self.tls_ca is not None or self.credentials is not None
        if self.tls is None:
            self.tls = self.address.startswith("https://") or has_options
        if has_options and not self.tls:
            raise ValueError(
                "`tls_ca` and `credentials` are for TLS. Received: tls=False"
            )
        if self.tls_ca is not None and not os.path.isfile(self.tls_ca):
            raise ValueError(f"There is no file at {os.fspath(self.tls_ca)!r}")
        if self.protocol == "rest":
            if not is_url:
                self.address = f"http{'s' if self.tls else ''}://{self.address}"
            self.address = self.address.rstrip("/")
            self._take_user()
            if self.address.startswith("https://") != self.tls:
                raise ValueError(
                    "TLS needs a target that begins with https://. "
                    f"Received: target={self.address!r}, tls={self.tls}"
                )
        host = _find_host(self.address)
        if self.token is not None:
            _check_token(self.token, host, self.tls)

    def _take_user(self) -> None:
        scheme, _, rest = self.address.partition("://")
        user, at, host = rest.partition("/")[0].rpartition("@")
        if not at:
            return
        if self.token is not None:
            raise ValueError(
                "Give a token, or a user and password in the URL: both are "
                f"sent in one header. Received: a token, and one of {host}"
            )
        self.user = user
        self.address = f"{scheme}://{rest[len(user) + 1 :]}"

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
    if not host or parts.query or parts.fragment or parts.username:
        # It may hold a password.
        _, _, shown = target.rpartition("@")
        raise ValueError(
            "`target` must be host:port for gRPC, or the URL of a server "
            f"for REST. Received: target={shown!r}"
            f"{', behind a user and password' if shown != target else ''}"
        )
    return host


def _check_token(token: str, host: str, tls: bool) -> None:
    if not is_plain_token(token):
        raise ValueError(
            "`token` must consist of printable ASCII characters without "
            "spaces. Received: a token with other characters, such as the end "
            "of its line in a file, or an empty one"
        )
    if not tls and not is_loopback(host):
        warnings.warn(
            f"The token is sent to {host} without TLS: anyone on the way "
            "can read it.",
            # Past the constructors of the connection and the client.
            stacklevel=5,
        )


def basic_authorization(user: str) -> str:
    """Returns the header for what a URL has before the `@`, in its encoding."""
    name, _, password = user.partition(":")
    # There is a colon also without a password.
    pair = f"{unquote(name)}:{unquote(password)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def is_plain_token(token: str) -> bool:
    """Whether it is printable ASCII without spaces, as headers need it."""
    return re.fullmatch("[!-~]+", token) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
