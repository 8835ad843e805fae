"""The server of the live page."""

import asyncio
import logging
import os
import socket
import threading
import warnings

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from keras_sspcab.export.serving.server import ServerOptions
from keras_sspcab.export.serving.server.web import (
    PAGE_HEADERS,
    create_web_server,
    listen,
    page_routes,
)
from keras_sspcab.export.watch.live import LiveView
from keras_sspcab.export.watch.recording import MEDIA_NAME

_log = logging.getLogger(__name__)


class PageServer:
    """Serves the live page in a thread; a context manager.

    Args:
        live: What it shows.
        folder: Folder of the alarms.
        options: How to listen.
    """

    def __init__(
        self, live: LiveView, folder: str, options: ServerOptions
    ) -> None:
        self._live = live
        self._media = os.path.join(folder, "alarms")
        self._options = options
        # No endpoint is a coroutine: they run in threads.
        application = Starlette(
            routes=[
                *page_routes(__package__),
                Route("/live.json", self._show_live),
                Route("/alarms/{name}", self._show_media),
            ],
            exception_handlers={HTTPException: _show_error},
        )
        self._server = create_web_server(application, options)
        self._thread: threading.Thread | None = None
        self.port = options.rest_port

    @property
    def url(self) -> str:
        """Address of the page."""
        return self._options.url_of(self.port)

    def __enter__(self) -> "PageServer":
        options = self._options
        if not options.is_loopback and options.token is None:
            warnings.warn(
                f"The page listens at {options.host}, so that others can see "
                "the camera, and asks for no token.",
                # Others enter it from elsewhere, and warnings of theirs are
                # not shown.
                stacklevel=1,
            )
        listener = listen(options)
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(
            target=_run,
            args=(self._server, listener),
            name="keras-sspcab-page",
            daemon=True,
        )
        self._thread.start()
        _log.info("Live page: %s", self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()

    def _authorize(self, request: Request) -> None:
        if not self._options.accepts(request.headers.get("authorization")):
            raise HTTPException(
                401, "This page needs a token.", {"www-authenticate": "Bearer"}
            )

    def _show_live(self, request: Request) -> Response:
        self._authorize(request)
        try:
            since, shown = (
                int(request.query_params.get(name, -1))
                for name in ("since", "shown")
            )
        except ValueError:
            raise HTTPException(400, "Not the number of a frame.") from None
        return JSONResponse(
            self._live.describe(since, shown), headers=PAGE_HEADERS
        )

    def _show_media(self, request: Request) -> Response:
        self._authorize(request)
        name = request.path_params["name"]
        path = os.path.join(self._media, name)
        if not (MEDIA_NAME.fullmatch(name) and os.path.isfile(path)):
            raise HTTPException(404, "It has been removed.")
        return FileResponse(path, headers=PAGE_HEADERS)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    with listener:
        asyncio.run(server.serve(sockets=[listener]))


def _show_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": error.detail}, error.status_code, error.headers
    )
