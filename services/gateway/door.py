"""What every call from outside goes through, whichever way it came in: authenticate, authorize,
forward to the service that answers, write it down.

Messages pass as bytes: the door looks into a request only to find its node and to name its target.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from pvc.core.v1 import reason_pb2
from pvc.gateway.v1 import token_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from services.gateway import access, audit
from services.gateway.access import Caller
from services.gateway.lasting import Streams
from services.gateway.limits import Limits
from services.gateway.methods import Method
from services.gateway.passed_on import PassedOn
from services.gateway.recorder import Recorder
from services.gateway.routing import node_for
from services.gateway.uses import Uses
from services.gateway.visit import Pair, Visit
from services.mesh.clock import Clock
from services.mesh.desk import CALLER, MIN_REVISION
from services.mesh.edge import DEADLINE_S, DEADLINES_S, STATUS_DETAILS
from services.mesh.errors import PvcError
from services.state.store import Store

log = logging.getLogger("pvc.gateway")

ROLE = "pvc-role"
"""Request metadata inside the mesh, set by the gateway: the caller's role, as a number."""
UNEXPLAINED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
"""What a call ends with when no service had a word for it; see status_error."""
PASSED_ON = (MIN_REVISION,)
"""Metadata of the caller that goes on to the service. Nothing else does."""
SLACK_S = 5.0
"""A call whose caller gave no deadline gets the service's own and this: the service answers
first."""
TIMEOUT_MAX_S = 3660.0
FIRST_S = 60.0
"""How long a request, or the first of a stream of them, may take to come in."""
PEEK_S = 1.0
"""How long a request may take to come in of which only the target is to be told."""


class Peers(Protocol):
    """Where the services are."""

    def channel(self, service: str, node: str = "") -> grpc.aio.Channel:
        """A channel to a service, on a certain node ("nodes/n1") or on any. Raises UNREACHABLE."""
        ...


class Door:
    """Lets calls in."""

    def __init__(
        self, store: Store, clock: Clock, peers: Peers, limits: Limits, recorder: Recorder,
        uses: Uses, node: str,
    ) -> None:  # fmt: skip
        """node: whose door it is, "nodes/n1"."""
        self._store = store
        self.clock = clock
        self._peers = peers
        self._limits = limits
        self._recorder = recorder
        self._uses = uses
        self._node = node
        self._streams = Streams(store, clock, self._ask_again)
        self._passed_on = PassedOn(store)
        self._closing = False

    def open(self) -> None:
        """Begins to look after those who stream. Within the event loop."""
        self._streams.open()

    def drain(self) -> None:
        """Ends all streams, which may never end by themselves; their callers resume elsewhere."""
        self._closing = True
        self._streams.end()

    def admit(self, visit: Visit) -> None:
        """Finds out who calls and whether they may. Raises UNAUTHENTICATED, PERMISSION_DENIED,
        RATE_LIMITED, and UNREACHABLE while the door closes."""
        if self._closing:
            raise _leaving()
        now_s = self.clock.monotonic()
        try:
            visit.caller = self._caller(visit)
        except PvcError:
            self._limits.count_try(visit.peer, now_s)
            raise
        if visit.caller is access.BEARER:
            self._limits.count_try(visit.peer, now_s)
        elif not visit.local:
            self._limits.count_entry(visit.peer, visit.caller, now_s)
            self._limits.count_request(visit.caller, now_s)
            self._uses.note(visit.caller, visit.peer)
        access.authorize(visit.caller, visit.method)

    def _caller(self, visit: Visit) -> Caller:
        """Raises UNAUTHENTICATED."""
        if visit.local:
            return access.LOCAL_ROOT
        if visit.method.by_secret:
            return access.BEARER
        now = self.clock.now()
        return access.authenticate(visit.said("authorization"), self._find_token, now)

    async def answers(self, visit: Visit, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The answers to the requests of an admitted visit; exactly one when the method does not
        stream them. Raises PvcError or grpc.aio.AioRpcError. It is written down before it goes on.
        """
        method = visit.method
        with ExitStack() as until:
            lasts = method.server_streaming or method.client_streaming
            if lasts and not visit.local:
                until.enter_context(self._limits.stream(visit.caller))
            first = await _first(requests)
            channel = self._channel(visit, first)
            if method.mutates or method.audited:
                visit.entry = self._entry(visit)
                await self._recorder.let_in(visit.entry, changes=method.mutates)
            call = self._call(channel, visit, first, requests)
            until.callback(self._passed_on.ended, visit)
            until.callback(call.cancel)
            if lasts:
                until.enter_context(self._streams.lasting(visit, call))
            try:
                async for answer in _all_of(call, method):
                    if visit.entry is not None:
                        visit.operation = audit.operation_in(method, answer)
                    visit.newest = answer if method.server_streaming else b""
                    yield answer
                visit.trailing = _pairs(await call.trailing_metadata())
                if lasts:
                    self._check_place(visit)
            except grpc.aio.AioRpcError as error:
                visit.trailing = _pairs(error.trailing_metadata())
                raise
            except asyncio.CancelledError:
                if visit.turned_out is not None:
                    raise visit.turned_out from None
                if self._closing:
                    raise _leaving() from None
                raise

    def _ask_again(self, visit: Visit) -> None:
        visit.caller = self._caller(visit)
        self._uses.note(visit.caller, visit.peer)
        access.authorize(visit.caller, visit.method)
        self._check_place(visit)

    def _check_place(self, visit: Visit) -> None:
        """Raises UNREACHABLE when what a stream is about went to another node meanwhile."""
        if not visit.node:
            return
        now = node_for(self._store.snapshot(), visit.method, visit.request)
        if now not in ("", visit.node):
            raise PvcError(
                reason_pb2.REASON_UNREACHABLE,
                f"this went from {visit.node} to {now} meanwhile; try again: it is answered there",
            )

    async def visited(self, visit: Visit, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """admit and answers, written down. Raises PvcError or grpc.aio.AioRpcError."""
        began = self.clock.monotonic()
        error: PvcError | None = None
        left = False
        try:
            self.admit(visit)
            async for answer in self.answers(visit, requests):
                yield answer
        except PvcError as refusal:
            error = refusal
            if error.reason == reason_pb2.REASON_PERMISSION_DENIED and visit.request is None:
                visit.request = await self._peeked(visit, requests)
            raise
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure)
            raise
        except BaseException:
            left = True
            raise
        finally:
            self._write_down(visit, self.clock.monotonic() - began, error, left=left)

    async def _peeked(self, visit: Visit, requests: AsyncIterator[bytes]) -> Any:
        """The request of a known caller who may not make it, as far as it comes; it is looked at
        for what it was about alone."""
        if visit.method.client_streaming or visit.method.server_streaming:
            return None  # to ask for it would be to let it in
        try:
            async with asyncio.timeout(PEEK_S):
                return visit.method.request.FromString(await anext(requests, b""))
        except Exception as problem:  # noqa: BLE001 - whatever it is, the refusal stands
            log.debug("%s: a refused request cannot be read: %r", visit.method.short, problem)
            return None

    def _entry(self, visit: Visit) -> AuditEntry:
        origin = audit.Origin(visit.door, visit.peer, self._node)
        now = self.clock.now()
        return audit.entry_of(
            self.clock.new_id(), now, visit.caller, origin, visit.method, visit.request
        )

    def _write_down(
        self, visit: Visit, duration_s: float, error: PvcError | None, *, left: bool
    ) -> None:
        refused = error is not None and error.reason_name in audit.REFUSALS
        if not (visit.method.mutates or visit.method.audited or refused):
            return
        entry = audit.ended(visit.entry or self._entry(visit), duration_s, error, left=left)
        entry.operation = visit.operation
        self._recorder.end(entry)

    def _find_token(self, name: str) -> token_pb2.Token | None:
        return self._store.snapshot().find(token_pb2.Token, name)

    def _channel(self, visit: Visit, first: bytes) -> grpc.aio.Channel:
        try:
            request: Any = visit.method.request.FromString(first)
        except DecodeError:
            raise PvcError(
                reason_pb2.REASON_INVALID_FIELD,
                f"the request is not a {visit.method.request.DESCRIPTOR.full_name}",
            ) from None
        visit.request = request
        visit.node = node_for(self._store.snapshot(), visit.method, request)
        return self._peers.channel(visit.method.service, visit.node)

    def _call(
        self, channel: grpc.aio.Channel, visit: Visit, first: bytes, rest: AsyncIterator[bytes]
    ) -> Any:
        method = visit.method
        kinds: dict[tuple[bool, bool], Callable[[str], Any]] = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        kind = kinds[method.client_streaming, method.server_streaming]
        request: Any = _chained(first, rest) if method.client_streaming else first
        metadata = (*_inward(visit), self._passed_on.wish())
        call = kind(method.path)(
            request, timeout=self._timeout_s(visit), metadata=metadata, wait_for_ready=False
        )
        return _hearing_out(call) if method.client_streaming else call

    @staticmethod
    def _timeout_s(visit: Visit) -> float | None:
        """The caller's own deadline; a call that does not stream never goes without one."""
        streaming = visit.method.client_streaming or visit.method.server_streaming
        if visit.timeout_s is None:
            name = visit.method.short.partition("/")[2]
            return None if streaming else DEADLINES_S.get(name, DEADLINE_S) + SLACK_S
        return min(visit.timeout_s, TIMEOUT_MAX_S) if not streaming else visit.timeout_s


def status_error(error: grpc.aio.AioRpcError) -> PvcError:
    """What the door itself says about a service that cannot be reached, or does not answer in
    time."""
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return PvcError(
            reason_pb2.REASON_DEADLINE,
            "no answer came in the time that the call was given; whether it was done, a new call "
            "tells",
        )
    problem = (error.details() or "").rpartition(": ")[2]
    return PvcError(
        reason_pb2.REASON_UNREACHABLE,
        f"the service that answers this cannot be reached ({problem}); try again",
    )


def error_of(error: grpc.aio.AioRpcError) -> PvcError:
    """What the caller of a failed call is told."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return PvcError.from_status(status_pb2.Status.FromString(value))
    if error.code() in UNEXPLAINED:
        return status_error(error)
    return PvcError(audit.reason_of(error.code().name), error.details() or "")


def _leaving() -> PvcError:
    return PvcError(
        reason_pb2.REASON_UNREACHABLE,
        "this gateway is shutting down; try again, a watch from its last revision",
    )


def _inward(visit: Visit) -> tuple[Pair, ...]:
    """What goes to the service with the request: who asks, never the token."""
    passed = tuple((key, value) for key, value in visit.metadata if key in PASSED_ON)
    return (*passed, (CALLER, visit.caller.name), (ROLE, str(int(visit.caller.role))))


def _hearing_out(call: Any) -> Any:
    """A call that sends a stream, and hears what the service says when it ends that before its end.

    The library would report the message that could not be sent any more, "Internal error from
    Core", in the place of the service's own words; the service's are on their way by then.
    """

    async def write(message: bytes) -> None:
        await call._metadata_sent.wait()
        try:
            if not call.done():
                await call._cython_call.send_serialized_message(message)
                return
        except grpc.aio.InternalError:
            log.debug("a service ended a stream before its end")
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, nothing, nothing, "nobody listens")

    call._write = write  # taken by the task that sends, which begins after this one
    return call


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    """Raises DEADLINE for a caller who says nothing, or too slowly."""
    try:
        async with asyncio.timeout(FIRST_S):
            return await anext(requests, b"")
    except TimeoutError:
        raise PvcError(
            reason_pb2.REASON_DEADLINE, f"the request did not come in within {FIRST_S:g} s"
        ) from None


async def _all_of(call: Any, method: Method) -> AsyncIterator[bytes]:
    if not method.server_streaming:
        yield await call
        return
    async for answer in call:
        yield answer


def _pairs(metadata: Any) -> tuple[Pair, ...]:
    return tuple((str(key), value) for key, value in metadata or ())


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for request in rest:
        yield request
