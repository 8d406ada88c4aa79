"""What comes in with an HTTP call, as the requests that it stands for: read only after the door let
the caller in, no faster than the service takes it, and not waited for without end.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, HTTPConnection, Request

from pvc.core.v1 import reason_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from services.gateway import headers
from services.gateway.failures import Refused
from services.gateway.transcode import Match, build, following, opening
from services.gateway.visit import Pair, Visit
from services.mesh.errors import PvcError

BODY_BYTES_MAX = 4 * 1024 * 1024
"""Most bytes of a body in one piece, and of one line of a stream."""
BODY_S = 30.0
"""How long a body in one piece may take."""
SILENCE_S = 60.0
"""How long nothing may come in the middle of a file or of a line."""


def raw_path(connection: HTTPConnection) -> str:
    """The path as it was sent, still encoded."""
    raw: bytes = connection.scope.get("raw_path") or connection.scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def no_path(path: str) -> PvcError:
    """There is nothing at a path."""
    problem = f"{path} is no path of this API; /openapi.json lists them"
    return PvcError(reason_pb2.REASON_NOT_FOUND, problem)


def visit_of(match: Match, connection: HTTPConnection, beside: Sequence[Pair] = ()) -> Visit:
    """The call as the door sees it. beside: metadata that comes otherwise than in headers. Raises
    INVALID_FIELD."""
    caller = connection.client
    return Visit(
        match.route.method,
        (*headers.metadata_of(connection.headers.items()), *beside),
        f"{caller.host}:{caller.port}" if caller else "unknown",
        AuditEntry.DOOR_REST,
        headers.timeout_of(connection.headers.get("grpc-timeout", "")),
    )


class Requests(ABC):
    """The requests of one call, whichever way they come in."""

    _coming: AsyncIterator[Message]

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.read = asyncio.Event()
        """Set when nothing more of the request will come."""
        self.asked = asyncio.Event()
        """Set when the door has let the caller in."""
        self.left = False
        """The caller went away in the middle of its requests."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The requests, as the door takes them. Raises what is wrong with them."""
        return self

    async def __anext__(self) -> bytes:
        try:
            return (await self._next()).SerializeToString()
        except PvcError as error:
            self._visit.turned_out = error  # the library would tell of a call that was cancelled
            raise
        except ClientDisconnect:
            self.left = True
            raise

    async def _next(self) -> Message:
        first = not self.asked.is_set()
        self.asked.set()
        if self._visit.method.client_streaming:
            if first:
                self._coming = self._many()
            return await anext(self._coming)
        if not first:
            raise StopAsyncIteration
        message = await self._one()
        self.read.set()
        return message

    @abstractmethod
    async def _one(self) -> Message:
        """The only request."""

    @abstractmethod
    def _many(self) -> AsyncIterator[Message]:
        """The requests one after the other. Sets `read` after the last one."""

    @abstractmethod
    async def gone(self) -> None:
        """Returns when the caller has gone after it sent its requests."""


class HttpRequests(Requests):
    """The requests in the body of an HTTP call, its path, its query and its headers."""

    def __init__(self, match: Match, request: Request, visit: Visit) -> None:
        super().__init__(visit)
        self._match = match
        self._request = request
        self._query = request.url.query
        self._headers: Mapping[str, str] = request.headers

    async def _one(self) -> Message:
        self._check_head()
        message = build(self._match, self._query, await self._whole())
        headers.fill(message, self._match.route, self._headers)
        return message

    async def _many(self) -> AsyncIterator[Message]:
        self._check_head()
        async for message in self._pieces() if self._match.route.raw_body else self._lines():
            yield message
        self.read.set()

    def _check_head(self) -> None:
        route = self._match.route
        headers.check_coding(self._headers.get("content-encoding", ""))
        if route.body:
            kind = self._headers.get("content-type", "")
            headers.check_content_type(kind, raw=bool(route.raw_body))

    async def _whole(self) -> bytes:
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > BODY_BYTES_MAX:
            raise _too_large("the body")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for piece in self._request.stream():
                    body += piece
                    if len(body) > BODY_BYTES_MAX:
                        raise _too_large("the body")
        except TimeoutError:
            raise _late(f"the whole body did not come within {BODY_S:g} s") from None
        return bytes(body)

    async def _lines(self) -> AsyncIterator[Message]:
        first = opening(self._match, self._query)
        if first is not None:
            yield first
        rest = b""
        stream = aiter(self._request.stream())
        while (piece := await _piece(stream, SILENCE_S if rest else None)) is not None:
            *lines, rest = (rest + piece).split(b"\n")
            for line in (*lines, rest):
                if len(line) > BODY_BYTES_MAX:
                    raise _too_large("a line of the body")
            for line in filter(bytes.strip, lines):
                yield following(self._match.route, line)
        if rest.strip():
            yield following(self._match.route, rest)

    async def _pieces(self) -> AsyncIterator[Message]:
        route = self._match.route
        first: Any = opening(self._match, self._query) or route.method.request()
        headers.fill_first(first, self._headers)
        yield first
        stream = aiter(self._request.stream())
        while (piece := await _piece(stream, SILENCE_S)) is not None:
            if piece:
                message = route.method.request()
                setattr(message, route.raw_body, piece)
                yield message

    async def gone(self) -> None:
        await self.read.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            continue


async def _piece(stream: AsyncIterator[bytes], wait_s: float | None) -> bytes | None:
    """The next piece of a body, None at its end."""
    try:
        async with asyncio.timeout(wait_s):
            return await anext(stream, None)
    except TimeoutError:
        raise _late(f"nothing came for {SILENCE_S:g} s in the middle of the body") from None


def _too_large(what: str) -> Refused:
    problem = f"{what} is larger than {BODY_BYTES_MAX} bytes"
    return Refused(413, reason_pb2.REASON_TOO_LARGE, problem)


def _late(problem: str) -> Refused:
    return Refused(408, reason_pb2.REASON_DEADLINE, f"{problem}; send it again")
