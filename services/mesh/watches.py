"""Watches: what there is, then every change, as a stream of answers.

Runs in the event loop of the caller and never blocks it: the store only wakes it, and commits are
read from the store's own log. A reader that is too slow for the log is refused, not queued for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from pvc.core.v1 import meta_pb2
from services.mesh import masks
from services.mesh.contract import descriptor, holding
from services.mesh.filters import Test, compiled
from services.mesh.selection import selected, selects
from services.state.store import Commit, Readable, Snapshot, Watch
from services.state.table import Row

A = TypeVar("A", bound=Message)

BOOKMARK_PERIOD_S = 10.0
"""A bookmark is sent after this long without anything else."""
ARRIVAL_WAIT_S = 5.0
"""How long a resumed watch waits for this process to hear of the revision it resumes from."""
COMMITS_AT_ONCE = 200
"""After so many commits without a word the event loop gets its turn."""


class Wake:
    """An asyncio event that the store sets from its own threads, once however often it changes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._pending = False

    def __call__(self) -> None:
        """From any thread: something changed."""
        if self._pending:
            return
        self._pending = True
        # RuntimeError: the loop has ended, with its server; nobody waits any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, timeout_s: float) -> bool:
        """Waits for a change since the last wait; False after the timeout."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                await self._event.wait()
        except TimeoutError:
            return False
        # A change that comes in between needs no wake: whoever waited reads after this.
        self._event.clear()
        self._pending = False
        return True


@contextmanager
def woken_by(store: Readable) -> Iterator[Wake]:
    """A Wake that the store sets for as long as the context lasts."""
    wake = Wake()
    forget = store.on_change(wake)
    try:
        yield wake
    finally:
        forget()


async def arrival(store: Readable, revision: int, timeout_s: float) -> Snapshot:
    """The newest snapshot, as soon as it is at `revision` or later, or after the timeout."""
    snapshot = store.snapshot()
    if snapshot.revision >= revision:
        return snapshot
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_s
    with woken_by(store) as wake:
        while (snapshot := store.snapshot()).revision < revision and loop.time() < end:
            await wake.wait(end - loop.time())
    return snapshot


@dataclass(frozen=True, slots=True)
class _Stream:
    """What one watch sends."""

    kind: type[Message]
    test: Test | None
    mask: tuple[str, ...]
    response: Callable[..., Any]
    field: str

    def bookmark(self, revision: int) -> Any:
        return self.response(kind=meta_pb2.CHANGE_KIND_BOOKMARK, revision=revision)

    def change(self, kind: meta_pb2.ChangeKind.ValueType, row: Message, revision: int) -> Any:
        shown = masks.cut(row, self.mask)
        return self.response(kind=kind, revision=revision, **{self.field: shown})

    def changes(self, commit: Commit) -> list[Any]:
        """What a commit means for this watch. Only the last change carries the commit's revision,
        so that a reader who resumes from the middle of it gets the rest."""
        found = [change for row in commit.rows if (change := self._seen(row))]
        last = len(found) - 1
        return [
            self.change(kind, row, commit.revision - (place < last))
            for place, (kind, row) in enumerate(found)
        ]

    def _seen(self, row: Row) -> tuple[meta_pb2.ChangeKind.ValueType, Message] | None:
        before = row.before if self._means(row.before) else None
        after = row.value if self._means(row.value) else None
        match before, after:
            case None, None:
                return None
            case None, Message() as made:
                return meta_pb2.CHANGE_KIND_ADDED, made
            case Message() as gone, None:
                return meta_pb2.CHANGE_KIND_DELETED, gone
            case _, changed:
                assert changed is not None
                return meta_pb2.CHANGE_KIND_MODIFIED, changed

    def _means(self, row: Message | None) -> bool:
        return isinstance(row, self.kind) and (self.test is None or self.test(row))


async def follow(
    store: Readable,
    kind: type[Message],
    request: Any,
    response: type[A],
    bookmark_period_s: float = BOOKMARK_PERIOD_S,
) -> AsyncGenerator[A, None]:
    """The stream that a Watch request asks for.

    PRESENT rows carry revision 0: the snapshot is whole, and can be resumed from, only with the
    bookmark that ends it. Raises INVALID_QUERY, NOT_FOUND, REVISION_TOO_OLD.
    """
    masks.check_mask(descriptor(kind), request.read_mask.paths, "read_mask")
    compiled(descriptor(kind), request.filter)  # refuses a bad one before waiting
    snapshot = await arrival(store, request.from_revision, ARRIVAL_WAIT_S)
    stream = _Stream(
        kind,
        selects(snapshot, kind, request),
        tuple(request.read_mask.paths),
        response,
        holding(descriptor(response), descriptor(kind)).name,
    )
    begin = request.from_revision or snapshot.revision
    watch = store.watch(begin)
    try:
        if not request.from_revision:
            for row in selected(snapshot, kind, request):
                yield stream.change(meta_pb2.CHANGE_KIND_PRESENT, row, 0)
        live = _live(store, watch, stream, begin, bookmark_period_s)
        async with aclosing(live):
            async for change in live:
                yield change
    finally:
        watch.close()


async def _live(
    store: Readable, watch: Watch, stream: _Stream, begin: int, bookmark_period_s: float
) -> AsyncGenerator[Any, None]:
    """Changes after revision `begin`; a bookmark once all there is was sent, and after every
    period of quiet."""
    loop = asyncio.get_running_loop()
    revision, said_at, silent, bookmarked = begin, loop.time(), 0, False
    with woken_by(store) as wake:
        while True:
            if (commit := watch.next(0.0)) is None:
                quiet_s = loop.time() - said_at
                if bookmarked and quiet_s < bookmark_period_s:
                    await wake.wait(bookmark_period_s - quiet_s)
                    continue
                yield stream.bookmark(revision)
                said_at, silent, bookmarked = loop.time(), 0, True
                continue
            revision, silent = commit.revision, silent + 1
            for change in stream.changes(commit):
                yield change
                said_at, silent = loop.time(), 0
            if silent >= COMMITS_AT_ONCE:
                silent = 0
                await asyncio.sleep(0)
