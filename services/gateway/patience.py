"""HTTP/1.1 that does not wait without end: a caller that is slow with the head of a request, or
sends a head without end, is answered and closed, so that a few such callers cannot take all
connections.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from pvc.core.v1 import reason_pb2
from services.gateway.json_answers import dumped, to_json
from services.mesh.errors import PvcError

HEAD_S = 10.0
"""How long a request's head may take, from its first byte or from the connection's beginning."""
_WORDS = {
    408: f"no whole request came within {HEAD_S:g} s",
    431: "the request's headers are too large",
}


class Patient(H11Protocol):
    """As uvicorn's, with an end to its patience."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A caller is there."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Something came."""
        super().data_received(data)
        if self._is_asked() or self.transport.is_closing():
            self._calm()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        self._calm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """The answer is out; the next request may have begun to come with this one."""
        super().on_response_complete()
        if not self._is_asked() and not self.transport.is_closing() and self.conn.trailing_data[0]:
            self._wait()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From now on it is a WebSocket."""
        self._calm()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP; h11 knows which status fits."""
        hint = getattr(sys.exception(), "error_status_hint", 400)
        self._refuse(hint, _WORDS.get(hint, "this is not HTTP/1.1 as it should be"))

    def _is_asked(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        if self._due is None:
            self._due = self.loop.call_later(HEAD_S, self._too_slow)

    def _calm(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _too_slow(self) -> None:
        self._due = None
        if not self.transport.is_closing():
            self._refuse(408, _WORDS[408])

    def _refuse(self, status: int, words: str) -> None:
        error = PvcError(reason_pb2.REASON_INVALID_FIELD, words).to_status()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        reason = STATUS_PHRASES.get(status, b"")
        head = h11.Response(status_code=status, headers=headers, reason=reason)
        for event in (head, h11.Data(data=dumped(to_json(error))), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
