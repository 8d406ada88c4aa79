"""The edge of every service: what happens to each call before and after the service's own code.

Lets members of the cluster in alone, gives calls a deadline, checks requests, turns exceptions into
statuses, and logs one line for each call. Nothing of an unexpected exception but an id to find it
in the log goes to the caller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.clock import Clock
from services.mesh.contract import reads
from services.mesh.desk import Context, caller_of
from services.mesh.errors import PvcError
from services.mesh.log import bind, safe
from services.mesh.membership import Members, Peer, peer_of
from services.mesh.validate import check_request

DEADLINE_S = 60.0
"""For answers to callers who set no deadline. Streams have none."""
DEADLINES_S: Mapping[str, float] = {"WaitOperation": 3660.0, "UploadFile": 24 * 3600.0}
"""Methods that may take longer."""
LASTING = ("Watch", "Wait", "AttachConsole", "ReadConsoleLog")
"""What the names of methods begin with whose calls may last for hours: an end of the process does
not wait for them."""
STATUS_DETAILS = "grpc-status-details-bin"
"""Trailing metadata: the google.rpc.Status of an error."""
DETAILS_MAX = 400
MESSAGE_MAX = 2000

log = logging.getLogger("pvc.calls")


class Edge:
    """Wraps the methods of the services of one server."""

    def __init__(
        self, clock: Clock, deadline_s: float = DEADLINE_S, members: Members | None = None
    ) -> None:
        """members: whose certificates count; None for a server that only this machine reaches."""
        self._clock = clock
        self._deadline_s = deadline_s
        self._members = members
        self._open: dict[asyncio.Task[Any], Peer] = {}
        """Calls of other nodes that last."""
        self._expelled: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[Any]] = set()
        self._sending: set[asyncio.Task[Any]] = set()
        """Calls that have a message half sent: these are not cancelled there."""
        self._lasting: set[asyncio.Task[Any]] = set()
        self._draining = False

    def drain(self) -> None:
        """Ends all lasting calls, which would hardly end by themselves; their callers go on with
        another process, or with this one's next."""
        self._draining = True
        for task in self._lasting:
            self._end(task)

    def look_again(self) -> None:
        """Ends what lasts of callers that are no members any more; to be called in the server's
        event loop. Short calls that have begun are left to end."""
        for task, peer in self._open.items():
            if self._members is None or self._members.refusal(peer) is None:
                continue
            self._expelled.add(task)
            self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        """Once: what is cancelled twice is cancelled again while it tells why it ended. And not in
        the middle of a message: the library could not end the call then, and its caller would wait
        for ever. What is sending looks itself as soon as it has."""
        if task not in self._ending:
            self._ending.add(task)
            if task not in self._sending:
                task.cancel()

    async def _send(self, responses: Any, context: Context) -> None:
        """Sends what a streaming method yields; one that is a coroutine sends by itself."""
        if not hasattr(responses, "__aiter__"):
            await self._unbroken(context.send_initial_metadata(()))
            await responses
            return
        async with aclosing(responses):
            async for response in responses:
                await self._unbroken(context.write(response))

    async def _unbroken(self, sending: Awaitable[None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sending.add(task)
        try:
            await sending
        finally:
            self._sending.discard(task)
        if task in self._ending:
            raise asyncio.CancelledError

    def wrapped(self, path: str, method: Any) -> Any:
        """The handler of a method, with all that happens at the edge."""
        behaviours = (method.unary_unary, method.stream_unary, method.unary_stream)
        behaviour = next((x for x in behaviours if x), method.stream_stream)
        if behaviour.__module__.endswith("_pb2_grpc"):
            behaviour = _absent(path)
        wrap = self._streaming if method.response_streaming else self._answering
        make: Any = _HANDLERS[method.request_streaming, method.response_streaming]
        return make(
            wrap(path, behaviour, method.request_streaming),
            request_deserializer=method.request_deserializer,
            response_serializer=method.response_serializer,
        )

    def _answering(
        self, path: str, behaviour: Callable[..., Any], asks_in_a_stream: bool
    ) -> Callable[..., Any]:
        limit_s = DEADLINES_S.get(path.rpartition("/")[2], self._deadline_s)
        lasts = asks_in_a_stream or _lasts(path)

        async def answer(request: Any, context: Context) -> Any:
            call = _Call(self._clock, path, context)
            timed = limit_s if context.time_remaining() is None else None
            deadline = asyncio.timeout(timed)
            try:
                with self._admitted(context, lasts), self._counted(path):
                    async with deadline:
                        response = await behaviour(call.checked(request), context)
            except TimeoutError as error:
                await call.fail(_late(limit_s) if deadline.expired() else error)
            except BaseException as error:  # noqa: BLE001 - what it is is told apart there
                await call.fail(error)
            call.done()
            return response

        return answer

    def _streaming(
        self, path: str, behaviour: Callable[..., Any], _asks_in_a_stream: bool
    ) -> Callable[..., Any]:
        async def stream(request: Any, context: Context) -> None:
            call = _Call(self._clock, path, context)
            try:
                with self._admitted(context, lasts=True), self._counted(path):
                    await self._send(behaviour(call.checked(request), context), context)
            except BaseException as error:  # noqa: BLE001 - what it is is told apart there
                await call.fail(error)
            call.done()

        return stream

    @contextmanager
    def _admitted(self, context: Context, lasts: bool) -> Iterator[None]:
        """Turns away whose node is no member, now or, where the call lasts, later on."""
        peer = peer_of(context) if self._members is not None else None
        if peer is None or self._members is None:
            yield
            return
        if (refused := self._members.refusal(peer)) is not None:
            raise refused
        task = asyncio.current_task()
        assert task is not None
        if lasts:
            self._open[task] = peer
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._expelled:
                raise
            task.uncancel()
            raise self._members.refusal(peer) or _leaving() from None
        finally:
            self._open.pop(task, None)
            self._expelled.discard(task)
            self._ending.discard(task)

    @contextmanager
    def _counted(self, path: str) -> Iterator[None]:
        """Has `drain` end what happens inside, if it is of the lasting kind."""
        if not _lasts(path):
            yield
            return
        task = asyncio.current_task()
        assert task is not None
        if self._draining:
            raise _leaving()
        self._lasting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._draining:
                raise
            task.uncancel()
            raise _leaving() from None
        finally:
            self._lasting.discard(task)
            self._ending.discard(task)


class _Call:
    """One call, for checking and reporting."""

    def __init__(self, clock: Clock, path: str, context: Context) -> None:
        self._clock = clock
        self._began = clock.monotonic()
        self._path = path
        self._context = context
        self._asked = ""
        # Every call is a task of its own, and so are the fields of its records.
        bind(service=service_of(path))

    def checked(self, request: Any) -> Any:
        """The request, or the stream of requests, refused where it breaks its contract."""
        if not isinstance(request, Message):
            return _checked(request)
        check_request(request)
        self._asked = safe(request)
        return request

    def done(self) -> None:
        """Reports that it went well."""
        self._report(logging.DEBUG if reads(self._path) else logging.INFO, "OK")

    async def fail(self, error: BaseException) -> NoReturn:
        """Reports, and ends the call with the status that the exception stands for."""
        if isinstance(error, asyncio.CancelledError | grpc.aio.AbortError):
            self._report(logging.DEBUG, "ended by the caller")
            raise error
        if not isinstance(error, Exception):
            raise error
        refusal = error if isinstance(error, PvcError) else self._unexpected(error)
        bug = refusal.reason == reason_pb2.REASON_INTERNAL
        self._report(
            logging.ERROR if bug else logging.INFO, f"{refusal.reason_name}: {refusal.message}"
        )
        trailing = [x for x in self._context.trailing_metadata() or () if x[0] != STATUS_DETAILS]
        details, status = on_the_wire(refusal)
        await self._context.abort(refusal.grpc_code, details, (*trailing, (STATUS_DETAILS, status)))

    def _unexpected(self, error: Exception) -> PvcError:
        """What the caller hears of a mistake of ours: an id to find the log's record by."""
        mark = self._clock.new_id()[-8:]
        log.error("%s: mistake %s: %r", self._path, mark, error, exc_info=error)
        return PvcError(
            reason_pb2.REASON_INTERNAL,
            f"a mistake in PVC itself; the node's log tells what it was under the id {mark}",
            metadata={"id": mark},
        )

    def _report(self, level: int, outcome: str) -> None:
        if log.isEnabledFor(level):
            took_ms = (self._clock.monotonic() - self._began) * 1e3
            method = self._path.rpartition(".")[2]
            caller = caller_of(self._context)
            log.log(
                level, "%s by %s: %s (%.1f ms) %s", method, caller, outcome, took_ms, self._asked
            )


def service_of(path: str) -> str:
    """The service that a method belongs to: "compute" for "/pvc.compute.v1.VmService/GetVm"."""
    package = path.strip("/").split(".")
    return package[1] if package[0] == "pvc" else package[0]


def _lasts(path: str) -> bool:
    return path.rpartition("/")[2].startswith(LASTING)


async def _checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        check_request(request)
        yield request


def _absent(path: str) -> Callable[..., Any]:
    """Stands in for a method that this build's service does not have."""

    async def absent(request: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{path} is not there in this version")

    return absent


def _late(limit_s: float) -> PvcError:
    return PvcError(
        reason_pb2.REASON_DEADLINE,
        f"not done within {limit_s:g} s; whether it was done later is for a new request to see",
    )


def _leaving() -> PvcError:
    return PvcError(
        reason_pb2.REASON_UNREACHABLE,
        "this process is shutting down; go on from the last revision with another one",
    )


def on_the_wire(error: PvcError) -> tuple[str, bytes]:
    """The error as details and status; together they fit into the 8 KiB that trailers may have."""
    status = error.to_status()
    status.message = _cut(status.message, MESSAGE_MAX)
    if error.field and len(error.message) > DETAILS_MAX:
        short = PvcError(error.reason, error.message[:DETAILS_MAX], field=error.field,
                         metadata=error.metadata).to_status()  # fmt: skip
        del status.details[:]
        status.details.extend(short.details)
    return _cut(error.message, DETAILS_MAX), status.SerializeToString()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


_HANDLERS: Mapping[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
