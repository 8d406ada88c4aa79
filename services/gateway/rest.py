"""REST from outside: an ASGI app that turns HTTP calls into gRPC ones, passes them through the
door, and gives back JSON. Streams come as one JSON object a line, or as server-sent events.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute
from starlette.routing import request_response
from starlette.types import Receive, Scope, Send

from pvc.core.v1 import reason_pb2
from pvc.core.v1.operation_pb2 import Operation
from services.gateway import headers
from services.gateway.door import Door
from services.gateway.failures import JSON, Refused, failure, reason_of, refusal, status_of
from services.gateway.incoming import HttpRequests, no_path, raw_path, visit_of
from services.gateway.json_answers import dumped, to_json
from services.gateway.packing import WORTH_BYTES, packed, takes_gzip
from services.gateway.page import page
from services.gateway.sockets import Sockets
from services.gateway.streams import Answers, Raw, Streamed, begun, form_of, while_there
from services.gateway.transcode import ROUTES, Match, find
from services.gateway.visit import Visit
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.gateway")

OPENAPI = Path(__file__).with_name("openapi.json")
TOLD = ("etag", "pvc-revision", "grpc-metadata-pvc-revision", "retry-after", "x-request-id")
"""Headers of answers that scripts of other origins may read."""
PREFLIGHT_S = 600


class Rest:
    """The REST door. origins: of which web pages may call it."""

    def __init__(self, door: Door, origins: Sequence[str] = ()) -> None:
        self._door = door
        self._openapi = OPENAPI.read_bytes()
        self._page = page(json.loads(self._openapi))
        self._sockets = Sockets(door, origins)
        self.app = Starlette(
            routes=[
                HttpRoute("/", self._show_page, methods=["GET"]),
                HttpRoute("/openapi.json", self._show_openapi, methods=["GET"]),
            ],
            middleware=_cross_origin(origins),
            exception_handlers={HTTPException: _not_so},
        )
        self._http = request_response(self._call)
        # Not a route: those do not fit every path, and what fits none is told in plain text.
        self.app.router.default = self._default

    async def _default(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._sockets if scope["type"] == "websocket" else self._http
        await serve(scope, receive, send)

    async def _show_page(self, request: Request) -> Response:
        told = {"content-security-policy": self._page.policy, "referrer-policy": "no-referrer"}
        return _document(self._page.html.encode(), "text/html; charset=utf-8", request, told)

    async def _show_openapi(self, request: Request) -> Response:
        return _document(self._openapi, JSON, request, {})

    async def _call(self, request: Request) -> Response:
        try:
            match = chosen(request.method, raw_path(request))
            if isinstance(match, Response):
                return match
            visit = visit_of(match, request)
        except PvcError as error:
            return refusal(error)
        response = await self._answer(match, request, visit)
        if request_id := request.headers.get("x-request-id"):
            response.headers["x-request-id"] = request_id
        return response

    async def _answer(self, match: Match, request: Request, visit: Visit) -> Response:
        requests = HttpRequests(match, request, visit)
        answers = self._door.visited(visit, requests)
        try:
            if visit.method.server_streaming:
                return await _stream(match, request, requests, Answers(answers))
            answer = await while_there(_only(answers), requests.gone)
            return _single(match, request, visit, answer)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except asyncio.CancelledError:
            if not requests.left:
                raise
            return Response(status_code=499)
        except Refused as error:
            return refusal(error)
        except (PvcError, grpc.aio.AioRpcError) as error:
            return _refused(error, request, visit)
        except Exception:
            log.exception("%s failed in the gateway", visit.method.short)
            problem = f"{visit.method.short} failed in the gateway; its log says more"
            return refusal(PvcError(reason_pb2.REASON_INTERNAL, problem))


async def _not_so(request: Request, error: Exception) -> Response:
    """What the page and the OpenAPI file say to another verb than GET."""
    assert isinstance(error, HTTPException)
    problem = f"{request.url.path} takes GET, HEAD, not {request.method}"
    refused = Refused(error.status_code, reason_pb2.REASON_NOT_SUPPORTED, problem)
    return refusal(refused, error.headers)


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=list(TOLD),
            max_age=PREFLIGHT_S,
        )
    ]


def chosen(verb: str, path: str) -> Match | Response:
    """The route of a call, or the answer when there is none. Raises INVALID_FIELD."""
    matches = find(ROUTES, path)
    wanted = "GET" if verb == "HEAD" else verb
    for match in matches:
        endless = verb == "HEAD" and match.route.method.server_streaming
        if match.route.verb == wanted and not endless:
            return match
    if not matches:
        return refusal(no_path(path))
    allowed = ", ".join(sorted(_verbs(matches)))
    if verb == "OPTIONS":
        return Response(status_code=204, headers={"allow": allowed})
    problem = f"{path} takes {allowed}, not {verb}"
    error = Refused(405, reason_pb2.REASON_NOT_SUPPORTED, problem)
    return refusal(error, {"allow": allowed})


def _verbs(matches: Sequence[Match]) -> set[str]:
    routes = [match.route for match in matches]
    heads = any(r.verb == "GET" and not r.method.server_streaming for r in routes)
    return {route.verb for route in routes} | {"OPTIONS"} | ({"HEAD"} if heads else set())


def _document(content: bytes, kind: str, request: Request, told: dict[str, str]) -> Response:
    """What every caller gets, without a token."""
    told["etag"] = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    if headers.is_known(told["etag"], request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=told)
    return _whole(content, request, told, kind)


async def _only(answers: AsyncIterator[bytes]) -> bytes:
    """The answer of a call that does not stream."""
    (answer,) = [one async for one in answers]
    return answer


def _single(match: Match, request: Request, visit: Visit, answer: bytes) -> Response:
    """The one answer, or that the caller has it already."""
    message = visit.method.response.FromString(answer)
    told = headers.told(visit.trailing)
    # The version of an operation is none of the resource that it changes.
    etag = headers.etag_of(message)
    if etag and (match.route.verb == "GET" or not isinstance(message, Operation)):
        told["etag"] = etag
    known = headers.is_known(etag, request.headers.get("if-none-match", ""))
    if known and match.route.verb == "GET":
        return Response(status_code=304, headers=told)
    return _whole(dumped(to_json(message)), request, told)


def _whole(content: bytes, request: Request, told: dict[str, str], kind: str = JSON) -> Response:
    told["vary"] = "accept-encoding"
    told["cache-control"] = "private, no-cache" if "etag" in told else "no-store"
    if len(content) >= WORTH_BYTES and takes_gzip(request.headers.get("accept-encoding", "")):
        told["content-encoding"] = "gzip"
        content = packed(content)
    return Response(content, headers=told, media_type=kind)


async def _stream(
    match: Match, request: Request, requests: HttpRequests, answers: Answers
) -> Response:
    """The stream, once it has begun: a refusal is a status, not a line."""
    form = form_of(match.route, request.headers.get("accept", ""))
    try:
        if not await begun(answers, requests.gone):
            raise ClientDisconnect
    except BaseException:
        await answers.close()
        raise
    accepted = takes_gzip(request.headers.get("accept-encoding", ""))
    pack = accepted and not isinstance(form, Raw)
    return Streamed(answers, match.route, form, requests.gone, pack=pack)


def _refused(error: PvcError | grpc.aio.AioRpcError, request: Request, visit: Visit) -> Response:
    """The service's refusal. A version that was asked for in a header has a status of its own."""
    status = status_of(error)
    missed = "if-match" in request.headers and reason_of(status) == "ETAG_MISMATCH"
    return failure(status, headers.told(visit.trailing), 412 if missed else None)
