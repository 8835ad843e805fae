"""Alarms sent to one URL, by a thread of its own."""

import contextlib
import json
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from keras_sspcab.export.serving.client.connection import basic_authorization
from keras_sspcab.export.watch.source import hide_secrets

_log = logging.getLogger(__name__)

# Seconds between tries; after the last one the message is given up.
_WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
_TIMEOUT = 10.0
_MAX_WAITING = 100
_RETRIED = (408, 425, 429)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What is sent, is sent to the URL that the user gave, or not at all."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Webhook:
    """Posts JSON to a URL; never waits, and never raises an error.

    Messages that cannot be sent are tried again with growing waits, and given
    up after half a minute; both is logged. Then others are tried once each,
    until one arrives. User and password of the URL are sent as such, by basic
    authentication.
    """

    def __init__(self, url: str) -> None:
        hide_secrets(url)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                "The `webhook` argument must be a URL, http:// or https://. "
                f"Received: {parts.scheme}://{parts.hostname or ''}"
            )
        if not url.isascii() or not url.isprintable() or " " in url:
            # Not the URL itself: its path and query are often what must not be
            # known.
            raise ValueError(
                "The `webhook` argument must be a URL without blanks and with "
                "ASCII characters alone; write others as %20 and the like. "
                f"Received: one of {parts.scheme}://{parts.hostname}"
            )
        self._host = parts.hostname
        user, at, host = parts.netloc.rpartition("@")
        self._url = urlunsplit(parts._replace(netloc=host))
        self._headers = {"content-type": "application/json"}
        if at:
            self._headers["authorization"] = basic_authorization(user)
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(
            _MAX_WAITING
        )
        self._is_down = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="keras-sspcab-webhook", daemon=True
        )
        self._thread.start()

    def send(self, message: dict[str, Any]) -> None:
        """Queues a message."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            _log.warning(
                "%d messages wait for %s; the oldest is given up.",
                *(_MAX_WAITING, self._host),
            )
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(message)

    def close(self, timeout: float = 5.0) -> None:
        """Sends what waits, for some seconds at most, without new tries."""
        deadline = time.monotonic() + timeout
        self._stopping.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout)
        self._thread.join(max(0.1, deadline - time.monotonic()))
        if self._thread.is_alive():
            _log.warning("Messages for %s have not been sent.", self._host)

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            self._send(json.dumps(message, allow_nan=False).encode())

    def _send(self, body: bytes) -> None:
        request = urllib.request.Request(self._url, body, self._headers)
        for wait in (None,) if self._is_down else (*_WAITS, None):
            try:
                with self._opener.open(request, timeout=_TIMEOUT):
                    self._is_down = False
                    return
            except urllib.error.HTTPError as error:
                error.close()
                problem = f"HTTP {error.code}"
                if error.code < 500 and error.code not in _RETRIED:
                    wait = None
            except OSError as error:  # of sockets and TLS
                problem = str(error) or type(error).__name__
            except Exception as error:  # of HTTP, and it may quote the URL
                problem = type(error).__name__
            if wait is None or self._stopping.is_set():
                break
            _log.info(
                "%s takes no alarm (%s); trying again in %g s.",
                *(self._host, problem, wait),
            )
            self._stopping.wait(wait)
        # One that is refused says nothing about the next.
        self._is_down = not problem.startswith("HTTP 4")
        _log.warning("An alarm was not sent to %s: %s", self._host, problem)
