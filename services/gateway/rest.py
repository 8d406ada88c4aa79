"""REST from outside: an ASGI app that turns HTTP calls into gRPC ones, passes them through the
door,
and gives back JSON. Streams come as one JSON object a line, or as server-sent events.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.rpc import status_pb2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route as HttpRoute
from starlette.routing import request_response

from pvc.core.v1 import reason_pb2
from services.gateway.door import UNEXPLAINED, Door, Visit, status_error
from services.gateway.json_answers import dumped, to_json
from services.gateway.methods import METHODS
from services.gateway.page import page
from services.gateway.proxy import DETAILS
from services.gateway.transcode import HTTP_STATUS, ROUTES, Match, build, find
from services.mesh.desk import MIN_REVISION, REVISION
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.gateway")

BODY_BYTES_MAX = 4 * 1024 * 1024
OPENAPI = Path(__file__).with_name("openapi.json")
JSON = "application/json"
EVENTS = "text/event-stream"
PASSED_HEADERS = ("authorization", MIN_REVISION)
TIMEOUT_MAX_S = 366 * 86400.0
"""More than gRPC can add to the time it is would be over at once."""
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Rest:
    """The REST door."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._openapi = OPENAPI.read_bytes()
        self._page = page(METHODS.values(), json.loads(self._openapi))
        self.app = Starlette(
            routes=[
                HttpRoute("/", self._show_page, methods=["GET"]),
                HttpRoute("/openapi.json", self._show_openapi, methods=["GET"]),
            ]
        )
        # Not a route: those do not fit every path, and what fits none is told in plain text.
        self.app.router.default = request_response(self._call)

    async def _show_page(self, _request: Request) -> Response:
        return HTMLResponse(self._page)

    async def _show_openapi(self, _request: Request) -> Response:
        return Response(self._openapi, media_type=JSON)

    async def _call(self, request: Request) -> Response:
        try:
            match = chosen(request.method, raw_path(request))
        except PvcError as error:
            return refusal(error)
        if isinstance(match, Response):
            return match
        read = asyncio.Event()
        visit = Visit(
            match.route.method,
            tuple((k, v) for k, v in request.headers.items() if k in PASSED_HEADERS),
            f"{request.client.host}:{request.client.port}" if request.client else "unknown",
            timeout_s=timeout_of(request.headers.get("grpc-timeout", "")),
        )
        answers = self._door.visited(visit, _requests(match, request, read))
        try:
            return await self._answered(visit, answers, request, read)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except PvcError as error:
            return refusal(error)
        except grpc.aio.AioRpcError as error:
            return failure(status_of(error), visit)

    async def _answered(
        self, visit: Visit, answers: AsyncIterator[bytes], request: Request, read: asyncio.Event
    ) -> Response:
        if visit.method.server_streaming:
            events = EVENTS in request.headers.get("accept", "")
            first = await _first(answers, request, read)  # a refusal is a status, not a line
            lines = _lines(visit, first, answers, "data: {}\n\n" if events else "{}\n")
            return StreamingResponse(lines, media_type=EVENTS if events else JSON)
        collected = [one async for one in answers]
        message = visit.method.response.FromString(collected[0])
        return Response(dumped(to_json(message)), media_type=JSON, headers=_headers(visit))


def raw_path(request: Request) -> str:
    """The path as it was sent, still encoded."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


def chosen(verb: str, path: str) -> Match | Response:
    """The route of a call, or the answer when there is none. Raises INVALID_FIELD."""
    matches = find(ROUTES, path)
    wanted = "GET" if verb == "HEAD" else verb
    for match in matches:
        endless = verb == "HEAD" and match.route.method.server_streaming
        if match.route.verb == wanted and not endless:
            return match
    if not matches:
        problem = f"{path} is no path of this API; /openapi.json lists them"
        return refusal(PvcError(reason_pb2.REASON_NOT_FOUND, problem))
    allowed = ", ".join(sorted({match.route.verb for match in matches} | {"OPTIONS"}))
    if verb == "OPTIONS":
        return Response(status_code=204, headers={"allow": allowed})
    problem = f"{path} takes {allowed}, not {verb}"
    response = refusal(PvcError(reason_pb2.REASON_NOT_SUPPORTED, problem))
    response.status_code = 405
    response.headers["allow"] = allowed
    return response


def timeout_of(header: str) -> float | None:
    """Seconds of a grpc-timeout header ("30S"), None when there is none that can be read."""
    found = _TIMEOUT.fullmatch(header)
    if found is None:
        return None
    return min(int(found.group(1)) * _UNITS_S[found.group(2)], TIMEOUT_MAX_S)


def refusal(error: PvcError) -> Response:
    """An error of ours as HTTP has it."""
    return failure(error.to_status())


def failure(status: status_pb2.Status, visit: Visit | None = None) -> Response:
    """A status as HTTP has it."""
    headers = _headers(visit) if visit is not None else {}
    http_status = HTTP_STATUS.get(status.code, 500)
    if http_status == 401:
        headers["www-authenticate"] = "Bearer"
    if http_status == 503:
        headers["retry-after"] = "1"
    content = dumped(to_json(status))
    return Response(content, http_status, headers, media_type=JSON)


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The Status that a failed call carries, or one made from what it does carry."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    if error.code() in UNEXPLAINED:
        return status_error(error).to_status()
    return status_pb2.Status(code=error.code().value[0], message=error.details() or "")


def _headers(visit: Visit) -> dict[str, str]:
    return {key: str(value) for key, value in visit.trailing if key == REVISION}


async def _requests(match: Match, request: Request, read: asyncio.Event) -> AsyncIterator[bytes]:
    """The call's one request; built only when the door asks for it, after it let the caller in.

    read: set when nothing more of the request will come.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise PvcError(
                reason_pb2.REASON_TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes"
            )
    read.set()
    yield build(match, request.url.query, bytes(body)).SerializeToString()


async def _first(
    answers: AsyncIterator[bytes], request: Request, read: asyncio.Event
) -> bytes | None:
    """The first answer, None if there is none. It may be long in coming: raises ClientDisconnect
    when the caller leaves before."""

    async def gone() -> None:
        await read.wait()
        while (await request.receive())["type"] != "http.disconnect":
            continue

    first = asyncio.ensure_future(anext(answers, None))
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((first, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            raise ClientDisconnect
        return first.result()
    finally:
        leaving.cancel()
        first.cancel()


async def _lines(
    visit: Visit, first: bytes | None, answers: AsyncIterator[bytes], form: str
) -> AsyncIterator[str]:
    """One line an answer: {"result": …}, and {"error": …} as the last one if it breaks off."""
    before, after = form.split("{}")

    def line(value: Mapping[str, Any]) -> str:
        return f"{before}{dumped(value).decode()}{after}"

    def result(answer: bytes) -> str:
        return line({"result": to_json(visit.method.response.FromString(answer))})

    try:
        if first is not None:
            yield result(first)
        async for answer in answers:
            yield result(answer)
    except PvcError as error:
        yield line({"error": to_json(error.to_status())})
    except grpc.aio.AioRpcError as error:
        yield line({"error": to_json(status_of(error))})
