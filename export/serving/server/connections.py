"""Connections of REST that do not wait for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_BODY = b'{"error": "The server has too many connections."}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n"
    b"retry-after: 1\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


def guarded_protocol(
    max_connections: int, timeout: float
) -> type[asyncio.Protocol]:
    """Returns the protocol of uvicorn, with limits.

    Args:
        max_connections: Connections at a time; others are told to come later.
        timeout: Seconds for the head of a request to arrive, and for a client
            to take what is waiting for it. Bodies are the application's.
    """

    class GuardedProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.write(_FULL)
                transport.close()
            else:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_in_request():
                self._cancel()
            elif self._deadline is None:
                self._await_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._cancel()
            self._deadline = self.loop.call_later(timeout, self.transport.abort)

        def resume_writing(self) -> None:
            self._cancel()
            super().resume_writing()

        def _await_head(self) -> None:
            self._deadline = self.loop.call_later(timeout, self._give_up)

        def _give_up(self) -> None:
            if not self._is_in_request():
                self.transport.abort()

        def _is_in_request(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _cancel(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return GuardedProtocol
