"""How a service answers: reads from the mirror, mutations through one narrow gate.

A mutation is a pure function of the snapshot, the request and a Call; the desk gives it a fresh
snapshot again when its commit collides, remembers request ids, holds validate_only back, and tells
the caller the revision to read at.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import meta_pb2, operation_pb2, reason_pb2
from services.mesh import query
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, not_found, shown
from services.mesh.watches import arrival
from services.state.store import Change, Conflict, Put, Snapshot, Store

R = TypeVar("R", bound=Message)
A = TypeVar("A", bound=Message)

MIN_REVISION = "pvc-min-revision"
"""Request metadata: answer only from a state at least this new."""
WISHED_REVISION = "pvc-wished-revision"
"""Request metadata inside the mesh, set by the gateway: what it has passed on already. Waited for a
little; an older answer is better than none, since a cut may keep a process from hearing of it."""
REVISION = "pvc-revision"
"""Trailing metadata: the revision that the answer shows or made."""
CALLER = "pvc-caller"
"""Request metadata inside the mesh, set by the gateway: who asked."""

FRESHNESS_WAIT_S = 5.0
WISH_WAIT_S = 1.0
THREADS = 16
COMMIT_TRIES = 20


@dataclass(frozen=True, slots=True)
class Call:
    """What a mutation may know beside the state and the request."""

    now: Timestamp
    caller: str
    node: str
    """The node that takes the request: "nodes/n1"."""
    new_id: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Mutation:
    """What a mutation wants written, and its answer once it is."""

    changes: Sequence[Change]
    response: Message


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Plan = Callable[[Snapshot, Any, Call], Mutation]


class Desk:
    """Answers for one service on one node."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        self.store = store
        self.clock = clock
        self.node = node
        # Its own: a plan may ask another service, which in one process has to find a thread too.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="desk")

    async def get(self, kind: type[R], request: Any, context: Context) -> R:
        """The resource `request.name`, cut down to `request.read_mask`. Raises NOT_FOUND."""
        snapshot = await self.fresh(context)
        row = snapshot.find(kind, request.name)
        if row is None:
            raise not_found(request.name)
        return query.masked(row, request.read_mask)

    async def list(
        self, kind: type[Message], request: Any, response: type[A], context: Context
    ) -> A:
        """The page of `kind` that the request asks for. Raises INVALID_QUERY."""
        snapshot = await self.fresh(context)
        return query.page(snapshot, kind, request, response)

    async def watch(
        self, kind: type[Message], request: Any, response: type[A], context: Context
    ) -> AsyncIterator[A]:
        """The opening snapshot, then every change, until the caller goes.

        Raises INVALID_QUERY, REVISION_TOO_OLD.
        """
        await self.fresh(context)
        async with aclosing(query.follow(self.store, kind, request, response)) as changes:
            async for change in changes:
                yield change

    async def mutate(self, request: Any, response: type[A], plan: Plan, context: Context) -> A:
        """Commits what `plan` makes of the newest state, and answers. Raises what plan raises."""
        await self.fresh(context)
        caller = caller_of(context)
        work = partial(copy_context().run, self._mutate, request, plan, caller)
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        _tell_revision(context, self.store.snapshot().revision)
        assert isinstance(answer, response)
        return answer

    async def fresh(self, context: Context) -> Snapshot:
        """The newest snapshot, at least as new as the caller has seen; and if that comes soon, as
        anybody has who came through the same gateway."""
        said = _metadata(context)
        wanted = _revision(said.get(MIN_REVISION, "0"))
        snapshot = await arrival(self.store, wanted, FRESHNESS_WAIT_S)
        if snapshot.revision < wanted:
            raise PvcError(
                reason_pb2.REASON_STORE_UNAVAILABLE,
                f"this process has not heard of revision {wanted} within {FRESHNESS_WAIT_S:g} s "
                f"(it is at {snapshot.revision}); try again",
            )
        wished = _revision(said.get(WISHED_REVISION, "0"))
        if snapshot.revision < wished:
            snapshot = await arrival(self.store, wished, WISH_WAIT_S)
        _tell_revision(context, snapshot.revision)
        return snapshot

    def _mutate(self, request: Any, plan: Plan, caller: str) -> Message:
        for _ in range(COMMIT_TRIES):
            snapshot = self.store.snapshot()
            key = answered_key(request, caller)
            if key and (answered := snapshot.find(operation_pb2.AnsweredRequest, key)):
                return repeated_answer(answered, request)
            call = Call(self.clock.now(), caller, self.node, self.clock.new_id)
            mutation = plan(snapshot, request, call)
            if getattr(request, "validate_only", False):
                return mutation.response
            try:
                self.store.commit([*mutation.changes, *_remember(key, request, mutation, call)])
            except Conflict:
                continue
            return self._stamped(mutation.response)
        raise PvcError(reason_pb2.REASON_BUSY, "others keep changing the same resources; try again")

    def _stamped(self, response: Message) -> Message:
        """The answer as the store has it now, with the etag of what was just written."""
        name = getattr(response, "name", "")
        if name and hasattr(response, "meta"):
            return self.store.snapshot().named(name) or response
        return response


def caller_of(context: Context) -> str:
    """Who asked: what the gateway says, else the node of the certificate, else a local program."""
    if said := _metadata(context).get(CALLER):
        return said
    for name in context.auth_context().get("x509_common_name", ()):
        return f"certificate {name.decode()}"
    return "local root" if context.peer().startswith("unix:") else "unknown"


def answered_key(request: Any, caller: str) -> str:
    """Under which the answer to this request is remembered; "" when it carries no request_id."""
    request_id = getattr(request, "request_id", "")
    if not request_id or getattr(request, "validate_only", False):
        return ""
    method = request.DESCRIPTOR.full_name
    digest = hashlib.sha256("\0".join((caller, method, request_id)).encode()).hexdigest()
    return f"requests/{digest[:40]}"


def fingerprint(request: Message) -> bytes:
    """What makes two requests the same."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def repeated_answer(answered: operation_pb2.AnsweredRequest, request: Message) -> Message:
    """The first answer again. Raises REQUEST_ID_REUSED when the request is another one."""
    from google.protobuf import symbol_database

    if answered.fingerprint != fingerprint(request):
        raise PvcError(
            reason_pb2.REASON_REQUEST_ID_REUSED,
            "this request_id came with another request before; use a new one",
            field="request_id",
        )
    name = answered.response.TypeName()
    answer: Message = symbol_database.Default().GetSymbol(name)()
    answered.response.Unpack(answer)
    return answer


def _remember(key: str, request: Message, mutation: Mutation, call: Call) -> Sequence[Change]:
    if not key:
        return ()
    row = operation_pb2.AnsweredRequest(
        name=key,
        meta=meta_pb2.Meta(create_time=call.now),
        fingerprint=fingerprint(request),
    )
    row.response.Pack(mutation.response)
    return (Put(row),)


def _revision(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise PvcError(
            reason_pb2.REASON_INVALID_FIELD, f"{MIN_REVISION} is a revision, not {shown(text)}"
        )
    return int(text)


def _metadata(context: Context) -> dict[str, str]:
    return {str(k): str(v) for k, v in context.invocation_metadata() or ()}


def _tell_revision(context: Context, revision: int) -> None:
    context.set_trailing_metadata(((REVISION, str(revision)),))
