"""WebSockets on the paths of streams, for browsers, which have no other way to send and hear at
once: one JSON message a text frame, or the bytes themselves as binary frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from pvc.core.v1 import reason_pb2
from services.gateway.door import Door
from services.gateway.failures import Refused, refusal, status_of
from services.gateway.incoming import Requests, no_path, raw_path, visit_of
from services.gateway.json_answers import dumped, to_json
from services.gateway.json_form import invalid
from services.gateway.streams import Answers, bytes_field, sent_unless
from services.gateway.transcode import HTTP_STATUS, ROUTES, Match, build, find, following, opening
from services.gateway.visit import Pair, Visit
from services.mesh.errors import PvcError

JSON_FRAMES = "pvc.json"
"""Subprotocol: text frames, one JSON message each."""
BYTE_FRAMES = "pvc.bytes"
"""Subprotocol: binary frames both ways, for methods whose messages carry bytes."""
BEARER = "pvc.bearer."
"""What a token begins with that comes as a subprotocol: browsers can send no other header."""
DONE = 1000
FAILED = 4000
"""And the HTTP status that the failure would have had."""
CLOSE_REASON_BYTES = 120


class Sockets:
    """Serves WebSockets. origins: of which web pages may open them, beside the door's own."""

    def __init__(self, door: Door, origins: Sequence[str]) -> None:
        self._door = door
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        socket = WebSocket(scope, receive, send)
        try:
            self._check_origin(socket)
            match = chosen(raw_path(socket))
            visit = visit_of(match, socket, bearer(socket))
        except PvcError as error:
            await _deny(socket, error)
            return
        await Talk(socket, match, visit).go_on(self._door)

    def _check_origin(self, socket: WebSocket) -> None:
        origin = socket.headers.get("origin")
        if origin is None or origin in self._origins or "*" in self._origins:
            return
        if urlsplit(origin).netloc != socket.headers.get("host"):
            raise Refused(
                403,
                reason_pb2.REASON_PERMISSION_DENIED,
                "pages of this origin may not call: gateway.allowed_origins names those that may",
            )


def chosen(path: str) -> Match:
    """The stream that a path is for. Raises NOT_FOUND, NOT_SUPPORTED."""
    matches = find(ROUTES, path)
    for match in matches:
        method = match.route.method
        if (method.server_streaming or method.client_streaming) and not match.route.raw_body:
            return match
    if not matches:
        raise no_path(path)
    problem = f"{path} is no stream: call it without a WebSocket"
    raise Refused(400, reason_pb2.REASON_NOT_SUPPORTED, problem)


def bearer(socket: WebSocket) -> Sequence[Pair]:
    """The token that comes as a subprotocol, as a header would say it."""
    offered = socket.scope["subprotocols"]
    tokens = [word.removeprefix(BEARER) for word in offered if word.startswith(BEARER)]
    return tuple(("authorization", f"Bearer {token}") for token in tokens)


class Talk(Requests):
    """One WebSocket and its call. An empty text frame ends the requests; the answers go on."""

    def __init__(self, socket: WebSocket, match: Match, visit: Visit) -> None:
        super().__init__(visit)
        self._socket = socket
        self._match = match
        self._visit = visit
        method = visit.method
        fields = method.request.DESCRIPTOR.fields
        self._bytes_in = next((field.name for field in fields if _is_bytes(field)), "")
        self._bytes_out = bytes_field(method.response)
        offered = socket.scope["subprotocols"]
        able = bool(self._bytes_out and (self._bytes_in or not method.client_streaming))
        self._in_bytes = able and BYTE_FRAMES in offered
        spoken = BYTE_FRAMES if self._in_bytes else JSON_FRAMES
        self._subprotocol = spoken if spoken in offered else None

    async def go_on(self, door: Door) -> None:
        """From the door to the end."""
        answers = Answers(door.visited(self._visit, self))
        try:
            if await self._let_in(answers):
                await self._talked(answers)
        except (ClientDisconnect, WebSocketDisconnect):
            pass  # nobody to tell
        finally:
            await answers.close()

    async def _let_in(self, answers: Answers) -> bool:
        coming, asked = answers.begin(), asyncio.ensure_future(self.asked.wait())
        await asyncio.wait((coming, asked), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            error = coming.exception()
            assert isinstance(error, PvcError), error
            await _deny(self._socket, error)
            return False
        await self._socket.accept(self._subprotocol)
        return True

    async def _talked(self, answers: Answers) -> None:
        await sent_unless(self.gone(), self._send(answers))

    async def _send(self, answers: Answers) -> None:
        try:
            while (answer := await answers.next(None)) is not None:
                await self._send_one(self._visit.method.response.FromString(answer))
            await self._socket.close(DONE)
        except (PvcError, grpc.aio.AioRpcError) as error:
            status = status_of(error)
            code = error.http_status if isinstance(error, Refused) else HTTP_STATUS[status.code]
            if not self._in_bytes:
                await self._socket.send_text(dumped({"error": to_json(status)}).decode())
            await self._socket.close(FAILED + code, _cut(status.message))

    async def _send_one(self, message: Any) -> None:
        if self._in_bytes:
            await self._socket.send_bytes(getattr(message, self._bytes_out))
        else:
            await self._socket.send_text(dumped({"result": to_json(message)}).decode())

    async def _one(self) -> Message:
        body = await self._frame() if self._match.route.body else b""
        query = self._socket.url.query
        return build(self._match, query, body if isinstance(body, bytes) else b"")

    async def _many(self) -> AsyncIterator[Message]:
        first = opening(self._match, self._socket.url.query)
        if first is not None:
            yield first
        while frame := await self._frame():
            yield self._said(frame)
        self.read.set()

    def _said(self, frame: Message | bytes) -> Message:
        return frame if isinstance(frame, Message) else following(self._match.route, frame)

    async def _frame(self) -> Message | bytes:
        """What the next frame says: JSON, or a request of the bytes in it. Raises
        ClientDisconnect."""
        frame = await self._socket.receive()
        if frame["type"] == "websocket.disconnect":
            raise ClientDisconnect
        if (text := frame.get("text")) is not None:
            return str(text).encode()
        if not self._in_bytes:
            raise invalid("", f"is to come in text frames; {BYTE_FRAMES} takes binary ones")
        request: Any = self._visit.method.request()
        setattr(request, self._bytes_in, frame["bytes"])
        return request  # type: ignore[no-any-return]

    async def gone(self) -> None:
        """See Requests."""
        await self.read.wait()
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            continue


def _is_bytes(field: Any) -> bool:
    return bool(field.type == field.TYPE_BYTES)


async def _deny(socket: WebSocket, error: PvcError) -> None:
    await socket.receive()  # the connection's own beginning
    await socket.send_denial_response(refusal(error))


def _cut(text: str) -> str:
    return text.encode()[:CLOSE_REASON_BYTES].decode("utf-8", "ignore")
