"""The HTTP server: uvicorn, with limits on connections and slow clients."""

import asyncio
import functools
import importlib.resources
import math
import socket
import ssl
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_sspcab.export.serving.server.options import ServerOptions
from keras_sspcab.pages import design, shared_script

#: Of all that a page is made of: it talks to its server, and to nobody else.
PAGE_HEADERS = {
    # Only this server, and files that the visitor drops.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; media-src blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_BODY = b'{"error": "The server has too many connections."}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
    b"retry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class HostFilter:
    """Refuses requests for hosts whose names this server does not have.

    A web site can have its own name resolve to this machine, so that browsers
    let its scripts read what the server answers.
    """

    def __init__(self, application: Any, options: ServerOptions) -> None:
        self._application = application
        self._allows_host = functools.lru_cache(64)(options.allows_host)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        host = Headers(scope=scope).get("host")
        answer = self._application
        if host is not None and not self._allows_host(host):
            message = (
                f"This server does not answer for the host {host[:100]!r}. It "
                "does for those that `--allowed-host` (`allowed_hosts`) names."
            )
            answer = JSONResponse({"error": message}, 403)
        await answer(scope, receive, send)


def page_routes(package: str) -> list[Route]:
    """Returns the routes of a page, whose files lie in a package."""
    files = importlib.resources.files(package)
    contents = {
        "/": ((files / "page.html").read_bytes(), "text/html"),
        "/design.css": (design().encode(), "text/css"),
        "/shared.js": (shared_script().encode(), "text/javascript"),
        "/page.css": ((files / "page.css").read_bytes(), "text/css"),
        "/page.js": ((files / "page.js").read_bytes(), "text/javascript"),
    }

    async def respond(request: Request) -> Response:
        content, media_type = contents[request.url.path]
        return Response(content, media_type=media_type, headers=PAGE_HEADERS)

    return [Route(path, respond) for path in contents]


def listen(options: ServerOptions) -> socket.socket:
    """Returns a socket that listens."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (options.host, options.rest_port), family=family
        )
    except OSError as error:
        raise OSError(
            f"REST cannot listen at {options.host}:{options.rest_port}: {error}"
        ) from error
    # Inherited by connections. Without it, small answers wait for more data.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def create_web_server(
    application: Starlette, options: ServerOptions
) -> uvicorn.Server:
    """Returns the server of an application."""
    config = uvicorn.Config(
        HostFilter(application, options),
        http=_limited_protocol(options.max_connections, options.read_timeout),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(options.read_timeout)),
        # Later than requests are answered that they cannot be finished.
        timeout_graceful_shutdown=math.ceil(options.drain_seconds + 1),
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
    )
    try:
        config.load()
    except ssl.SSLError as error:
        raise ValueError(
            "The TLS certificate and key cannot be used together. Received: "
            f"{options.tls_certificate}, {options.tls_key} ({error})"
        ) from error
    return uvicorn.Server(config)


def _limited_protocol(
    max_connections: int, timeout: float
) -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol with limits.

    Connections beyond the number are told to come later. The timeout is for
    the head of a request to arrive, and for a client to receive what is waiting
    for it; bodies are up to the application.
    """

    class LimitedProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.write(_FULL)
                transport.close()
            else:
                self._start_timer(self._abort_if_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.flow.write_paused:  # the timer is for that
                return
            if self._is_in_request():
                self._stop_timer()
            elif self._deadline is None:
                self._start_timer(self._abort_if_idle)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._start_timer(self.transport.abort)

        def resume_writing(self) -> None:
            self._stop_timer()
            super().resume_writing()

        def _abort_if_idle(self) -> None:
            if not self._is_in_request():
                self.transport.abort()

        def _is_in_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _start_timer(self, callback: Any) -> None:
            self._stop_timer()
            self._deadline = self.loop.call_later(timeout, callback)

        def _stop_timer(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return LimitedProtocol
