"""What every call to another service has: a deadline, who asks, the revision to read at, errors as
PvcError, and another try where that is safe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import grpc
from google.rpc import status_pb2

from pvc.core.v1 import reason_pb2
from services.mesh.contract import reads
from services.mesh.desk import CALLER, MIN_REVISION, REVISION
from services.mesh.edge import STATUS_DETAILS
from services.mesh.errors import PvcError
from services.mesh.loop import pause

DEADLINE_S = 10.0
"""For calls whose maker sets none. Streams have none."""
RETRY_PAUSES_S = (0.1, 0.3, 0.9)
"""Between one try and the next."""

_caller: ContextVar[str] = ContextVar("caller", default="")


@contextmanager
def acting_for(caller: str) -> Iterator[None]:
    """Calls made inside are made for this caller: "token ann"."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


class Revision:
    """The newest revision that answers have shown, so that what comes after is not older."""

    def __init__(self, floor: Callable[[], int] = lambda: 0) -> None:
        """floor: a revision that has been seen by other ways."""
        self._lock = threading.Lock()
        self._newest = 0
        self._floor = floor

    @property
    def newest(self) -> int:
        """What a call must not answer from before."""
        return max(self._newest, self._floor())

    def saw(self, metadata: Any) -> None:
        """Takes in the trailing metadata of an answer."""
        for key, value in metadata or ():
            if key == REVISION and str(value).isdigit():
                with self._lock:
                    self._newest = max(self._newest, int(value))


def error_of(error: Any) -> PvcError:
    """The PvcError that a failed call stands for."""
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS and isinstance(value, bytes):
            return PvcError.from_status(status_pb2.Status.FromString(value))
    code = int(error.code().value[0])
    text = error.details() or "the service gave no answer"
    return PvcError.from_status(status_pb2.Status(code=code, message=text))


class _Details(NamedTuple):
    method: str | bytes
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Rules:
    """What both kinds of calls have in common."""

    def __init__(self, revision: Revision, caller: str, deadline_s: float = DEADLINE_S) -> None:
        self._revision = revision
        self._default_caller = caller
        self._deadline_s = deadline_s

    def _pairs(self, details: Any) -> list[tuple[str, Any]]:
        pairs = [(key, value) for key, value in details.metadata or ()]
        given = {key for key, _ in pairs}
        if CALLER not in given:
            pairs.append((CALLER, _caller.get() or self._default_caller))
        if MIN_REVISION not in given:
            pairs.append((MIN_REVISION, str(self._revision.newest)))
        return pairs

    def _detailed(self, details: Any, metadata: Any, streams: bool) -> _Details:
        timeout = details.timeout
        if timeout is None and not streams:
            timeout = self._deadline_s
        return _Details(
            details.method,
            timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            getattr(details, "compression", None),
        )


def may_repeat(method: str | bytes, request: Any, error: PvcError) -> bool:
    """Another try can do no harm: nothing is changed, or the id of the request says it is one."""
    away = (reason_pb2.REASON_UNREACHABLE, reason_pb2.REASON_STORE_UNAVAILABLE)
    if error.reason not in away:
        return False
    path = method.decode() if isinstance(method, bytes) else method
    return reads(path) or bool(getattr(request, "request_id", ""))


class BlockingCalls(
    _Rules,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """For threads."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc."""
        for pause_s in (*RETRY_PAUSES_S, None):
            call = continuation(self._detailed(details, self._pairs(details), False), request)
            failed = call.exception()
            self._revision.saw(call.trailing_metadata())
            if failed is None:
                return call
            error = error_of(failed)
            if pause_s is None or not may_repeat(details.method, request, error):
                raise error from failed
            pause(pause_s)
        return None

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        """See grpc."""
        call = continuation(self._detailed(details, self._pairs(details), True), requests)
        if (failed := call.exception()) is not None:
            raise error_of(failed) from failed
        self._revision.saw(call.trailing_metadata())
        return call

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc."""
        return _Answers(continuation(self._detailed(details, self._pairs(details), True), request))

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        """See grpc."""
        return _Answers(continuation(self._detailed(details, self._pairs(details), True), requests))


class _Answers:
    """A stream of answers whose errors are PvcErrors."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as failed:
            raise error_of(failed) from failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class AioCalls(_Rules, grpc.aio.UnaryUnaryClientInterceptor):
    """For handlers of an event loop: calls with one answer."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc.aio."""
        for pause_s in (*RETRY_PAUSES_S, None):
            metadata = grpc.aio.Metadata(*self._pairs(details))
            call = await continuation(self._detailed(details, metadata, False), request)
            try:
                await call
            except grpc.aio.AioRpcError as failed:
                error = error_of(failed)
                self._revision.saw(failed.trailing_metadata())
                if pause_s is None or not may_repeat(details.method, request, error):
                    raise error from failed
            else:
                self._revision.saw(await call.trailing_metadata())
                return call
            await asyncio.sleep(pause_s)
        return None
