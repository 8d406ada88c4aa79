"""Streams of answers over HTTP: one JSON object a line, server-sent events, or the bytes
themselves; each piece on its way as soon as it is there, and the call ended when its caller leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.descriptor import FieldDescriptor
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from services.gateway.failures import JSON, status_of
from services.gateway.json_answers import dumped, to_json
from services.gateway.packing import Packer
from services.gateway.transcode import Route
from services.mesh.errors import PvcError

R = TypeVar("R")
log = logging.getLogger("pvc.gateway")

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
TEXT = "text/plain"
SOON_S = 0.25
"""Callers who leave sooner are not noticed before the answer is there."""
START_S = 2.0
"""A stream that has said nothing for so long has begun: what goes wrong later is told in it."""
KEEP_ALIVE_S = 15.0
"""Events are never silent for longer, so that proxies and browsers see that the stream lives."""
RETRY_MS = 1000
"""How soon a browser comes again after its events broke off."""


class Form(Protocol):
    """How a stream is written."""

    media_type: str
    beginning: bytes
    quiet_s: float | None
    """After how much silence `quiet` is sent; None for never."""
    quiet: bytes

    def result(self, message: Any) -> bytes:
        """An answer."""
        ...

    def error(self, error: grpc.aio.AioRpcError | PvcError) -> bytes | None:
        """What ends a stream that breaks off; None when it can only be cut."""
        ...


class Lines:
    """One JSON object a line."""

    beginning = quiet = b""
    quiet_s: float | None = None

    def __init__(self, media_type: str = JSON) -> None:
        self.media_type = media_type

    def result(self, message: Any) -> bytes:
        """See Form."""
        return dumped({"result": to_json(message)}) + b"\n"

    def error(self, error: grpc.aio.AioRpcError | PvcError) -> bytes:
        """See Form."""
        return dumped({"error": to_json(status_of(error))}) + b"\n"


class Events:
    """Server-sent events: the same objects, with the revision to resume from as their id."""

    media_type = EVENTS
    beginning = b"retry: %d\n\n" % RETRY_MS
    quiet_s: float | None = KEEP_ALIVE_S
    quiet = b": quiet\n\n"

    def __init__(self, route: Route) -> None:
        self._resumes = "revision" in _fields(route.method.response) and resumes(route)

    def result(self, message: Any) -> bytes:
        """See Form."""
        revision = message.revision if self._resumes else 0
        name = b"id: %d\n" % revision if revision else b""
        return name + b"data: " + dumped({"result": to_json(message)}) + b"\n\n"

    def error(self, error: grpc.aio.AioRpcError | PvcError) -> bytes:
        """See Form."""
        return b"data: " + dumped({"error": to_json(status_of(error))}) + b"\n\n"


class Raw:
    """The bytes themselves."""

    beginning = quiet = b""
    quiet_s: float | None = None

    def __init__(self, field: str, media_type: str = BYTES) -> None:
        self.media_type = media_type
        self._field = field

    def result(self, message: Any) -> bytes:
        """See Form."""
        piece: bytes = getattr(message, self._field)
        return piece

    def error(self, error: grpc.aio.AioRpcError | PvcError) -> None:
        """See Form."""
        log.warning("a file broke off on its way out: %s", error)


def form_of(route: Route, accept: str) -> Form:
    """The form that a caller wants."""
    if route.raw_answer:
        return Raw(route.raw_answer)
    if EVENTS in accept:
        return Events(route)
    only = bytes_field(route.method.response)
    for kind in (BYTES, TEXT):
        if only and kind in accept:
            return Raw(only, kind)
    return Lines(LINES if LINES in accept else JSON)


def resumes(route: Route) -> bool:
    """Whether the route is a watch, which goes on after a revision."""
    return "from_revision" in _fields(route.method.request)


def bytes_field(message: Any) -> str:
    """The field of messages that are nothing but bytes; "" for any other."""
    fields = message.DESCRIPTOR.fields
    plain = len(fields) == 1 and fields[0].type == FieldDescriptor.TYPE_BYTES
    return fields[0].name if plain else ""


def _fields(message: Any) -> Mapping[str, Any]:
    named: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    return named


class Answers:
    """The answers of a call, the next of which can be waited for for a while and then again."""

    def __init__(self, answers: AsyncIterator[bytes]) -> None:
        self._answers: Any = answers
        self.coming: asyncio.Future[bytes | None] | None = None
        """The next answer, None at the end; what it raises, the call did."""

    def begin(self) -> asyncio.Future[bytes | None]:
        """Begins to wait for the next answer."""
        if self.coming is None:
            self.coming = asyncio.ensure_future(anext(self._answers, None))
        return self.coming

    async def next(self, wait_s: float | None) -> bytes | None:
        """The next answer, None at the end. Raises TimeoutError when there is none yet."""
        if self.coming is None and wait_s is None:
            return await anext(self._answers, None)
        coming = self.begin()
        if not coming.done():
            await asyncio.wait((coming,), timeout=wait_s)
        if not coming.done():
            raise TimeoutError
        self.coming = None
        return coming.result()

    async def close(self) -> None:
        """Ends the call."""
        if self.coming is not None:
            await ended(self.coming)
        await self._answers.aclose()


async def sent_unless(gone: Awaitable[None], sending: Awaitable[None]) -> None:
    """Sends, until that is done or the caller has gone. Raises what the sending does."""
    sends, leaves = asyncio.ensure_future(sending), asyncio.ensure_future(gone)
    try:
        await asyncio.wait((sends, leaves), return_when=asyncio.FIRST_COMPLETED)
        if sends.done() and not sends.cancelled():  # by a caller who left in the middle
            sends.result()
    finally:
        await ended(sends, leaves)


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Cancels what still goes on, and lets it tidy up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Streamed(Response):
    """A stream of answers as the answer to an HTTP call."""

    def __init__(
        self,
        answers: Answers,
        route: Route,
        form: Form,
        gone: Callable[[], Awaitable[None]],
        *,
        pack: bool,
    ) -> None:
        """gone: returns when the caller has left."""
        # A list of headers that is not for the length: it is not known.
        super().__init__(None, media_type=form.media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"
        self._answers, self._form, self._gone = answers, form, gone
        self._kind = route.method.response
        self._packer = Packer() if pack else None
        if pack:
            self.headers["content-encoding"] = "gzip"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sent_unless(self._gone(), self._send(send))
        finally:
            await self._answers.close()

    async def _send(self, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        piece = self._packer.piece if self._packer is not None else bytes
        whole = True
        if self._form.beginning:
            await _body(send, piece(self._form.beginning))
        try:
            await self._send_answers(send, piece)
        except (PvcError, grpc.aio.AioRpcError) as error:
            last = self._form.error(error)
            whole = last is not None
            await _body(send, piece(last or b""))
        if whole:  # else the connection is cut, which is how the caller can tell
            await _body(send, self._packer.end() if self._packer else b"", more=False)

    async def _send_answers(self, send: Send, piece: Callable[[bytes], bytes]) -> None:
        form, kind = self._form, self._kind
        while True:
            try:
                answer = await self._answers.next(form.quiet_s)
            except TimeoutError:
                await _body(send, piece(form.quiet))
                continue
            if answer is None:
                return
            await _body(send, piece(form.result(kind.FromString(answer))))


async def _body(send: Send, body: bytes, *, more: bool = True) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def while_there(work: Awaitable[R], gone: Callable[[], Awaitable[None]]) -> R:
    """What the work gives; ended when the caller leaves in the middle. Raises ClientDisconnect."""
    task, left = asyncio.current_task(), False
    watching: list[asyncio.Future[None]] = []
    assert task is not None

    async def watch() -> None:
        nonlocal left
        await gone()
        left = True
        task.cancel()

    # Nearly all work is done before; no task is made for its sake.
    soon = asyncio.get_running_loop().call_later(
        SOON_S, lambda: watching.append(asyncio.ensure_future(watch()))
    )
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        soon.cancel()
        for one in watching:
            one.cancel()


async def begun(answers: Answers, gone: Callable[[], Awaitable[None]]) -> bool:
    """Waits until there is a first answer, or a stream that has not been refused; False when the
    caller has left before. Raises the refusal."""
    coming = answers.begin()
    await asyncio.wait((coming,), timeout=SOON_S)
    leaving: asyncio.Future[None] | None = None
    if not coming.done():
        leaving = asyncio.ensure_future(gone())
        both, when = (coming, leaving), asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait(both, timeout=START_S, return_when=when)
        finally:
            leaving.cancel()
    if coming.done():
        coming.result()  # raises what the call did
        return True
    return leaving is not None and not leaving.done()
