"""What every call from outside goes through, whichever way it came in: authenticate, authorize,
forward to the service that answers, write it down.

Messages pass as bytes: the door looks into a request only to find its node and to name its target.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from pvc.core.v1 import options_pb2, reason_pb2
from pvc.gateway.v1 import token_pb2
from services.gateway import access, audit
from services.gateway.access import Caller
from services.gateway.methods import Method
from services.gateway.rates import Rates
from services.gateway.routing import node_for
from services.mesh.clock import Clock
from services.mesh.desk import CALLER, MIN_REVISION
from services.mesh.edge import DEADLINE_S, DEADLINES_S
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
RECHECK_S = 5.0
"""Whoever streams is asked again so often whether they still may: a token that is revoked or
expires ends its streams too."""

TRIES_PER_S = 3.0

NOBODY = Caller("nobody", options_pb2.ROLE_UNSPECIFIED)
Pair = tuple[str, str | bytes]


class Peers(Protocol):
    """Where the services are."""

    def channel(self, service: str, node: str = "") -> grpc.aio.Channel:
        """A channel to a service, on a certain node ("nodes/n1") or on any. Raises UNREACHABLE."""
        ...


@dataclass(slots=True)
class Visit:
    """One call from outside, from its first byte to its last."""

    method: Method
    metadata: Sequence[Pair]
    peer: str
    local: bool = False
    """Came through the root-only socket."""
    timeout_s: float | None = None
    """What the caller gave it; None for nothing."""
    caller: Caller = field(default_factory=lambda: NOBODY)
    target: str = ""
    request_id: str = ""
    outcome: str = "OK"
    trailing: Sequence[Pair] = ()
    """What the service said beside its answer, to be passed back."""
    turned_out: PvcError | None = None
    """Why it may not go on."""

    def said(self, key: str) -> str:
        """A metadata value of the caller, or ""."""
        return next((str(value) for name, value in self.metadata if name == key), "")


class Door:
    """Lets calls in."""

    def __init__(
        self, store: Store, clock: Clock, peers: Peers, tries_per_s: float = TRIES_PER_S
    ) -> None:
        """tries_per_s: how often one address may call what needs no credentials."""
        self._rates = Rates(tries_per_s)
        self._store = store
        self._clock = clock
        self._peers = peers
        self._streams: set[Any] = set()
        self._closing = False

    def drain(self) -> None:
        """Ends all streams, which may never end by themselves; their callers resume elsewhere."""
        self._closing = True
        for call in list(self._streams):
            call.cancel()

    def admit(self, visit: Visit) -> None:
        """Finds out who calls and whether they may. Raises UNAUTHENTICATED, PERMISSION_DENIED,
        RATE_LIMITED, and UNREACHABLE while the door closes."""
        if self._closing:
            raise _leaving()
        if visit.local:
            visit.caller = access.LOCAL_ROOT
        elif visit.method.by_secret:
            visit.caller = access.BEARER
            self._rates.admit(visit.peer, self._clock.monotonic())
        else:
            find = self._find_token
            now = self._clock.now()
            visit.caller = access.authenticate(visit.said("authorization"), find, now)
        access.authorize(visit.caller, visit.method)

    async def answers(self, visit: Visit, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The answers to the requests of an admitted visit; exactly one when the method does not
        stream them. Raises PvcError or grpc.aio.AioRpcError."""
        method = visit.method
        first = await anext(requests, b"")
        channel = self._channel(visit, first)
        call = self._call(channel, visit, first, requests)
        if method.server_streaming:
            self._streams.add(call)
        streaming = method.server_streaming or method.client_streaming
        watch = asyncio.ensure_future(self._recheck(visit, call)) if streaming else None
        try:
            if method.server_streaming:
                async for answer in call:
                    yield answer
            else:
                yield await call
            visit.trailing = _pairs(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            visit.trailing = _pairs(error.trailing_metadata())
            raise
        except asyncio.CancelledError:
            if visit.turned_out is not None:
                raise visit.turned_out from None
            if self._closing:
                raise _leaving() from None
            raise
        finally:
            if watch is not None:
                watch.cancel()
            self._streams.discard(call)
            call.cancel()

    async def _recheck(self, visit: Visit, call: Any) -> None:
        """Ends a stream when its caller may not call any more."""
        while visit.turned_out is None:
            await asyncio.sleep(RECHECK_S)
            try:
                self.admit(visit)
            except PvcError as refusal:
                visit.turned_out = refusal
                call.cancel()

    async def visited(self, visit: Visit, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """admit and answers, and the line in the log. Raises PvcError or grpc.aio.AioRpcError."""
        began = self._clock.monotonic()
        try:
            self.admit(visit)
            async for answer in self.answers(visit, requests):
                yield answer
        except PvcError as error:
            visit.outcome = error.reason_name
            raise
        except grpc.aio.AioRpcError as error:
            visit.outcome = error.code().name
            raise
        except BaseException:
            visit.outcome = "CANCELLED"
            raise
        finally:
            self._write_down(visit, self._clock.monotonic() - began)

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
        visit.target = audit.target_of(request)
        visit.request_id = getattr(request, "request_id", "")
        node = node_for(self._store.snapshot(), visit.method, request)
        return self._peers.channel(visit.method.service, node)

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
        call = kind(method.path)(
            request, timeout=self._timeout_s(visit), metadata=_inward(visit), wait_for_ready=False
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

    @staticmethod
    def _write_down(visit: Visit, duration_s: float) -> None:
        if visit.outcome == "RATE_LIMITED":
            return  # whoever tries without end shall not fill the log as well
        refused = visit.outcome in ("UNAUTHENTICATED", "PERMISSION_DENIED")
        if visit.method.mutates or refused:
            audit.write(
                audit.Entry(
                    visit.caller.name,
                    visit.peer,
                    visit.method,
                    visit.target,
                    visit.request_id,
                    visit.outcome,
                    duration_s,
                )
            )


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


def _pairs(metadata: Any) -> tuple[Pair, ...]:
    return tuple((str(key), value) for key, value in metadata or ())


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for request in rest:
        yield request
