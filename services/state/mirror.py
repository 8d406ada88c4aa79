"""The state in memory: applies commits in order, hands out snapshots, wakes listeners and feeds watches.

Shared by all stores. It does no I/O and decides nothing; whoever owns it says what was committed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import Message
from immutables import Map
from pvc.core.v1 import reason_pb2

from services.mesh.errors import PvcError
from services.state.schema import collection_of
from services.state.store import EMPTY, Commit, Row, Snapshot

COMMITS_KEPT = 10_000
"""How far back a watch can be resumed."""


class Mirror:
    """The newest snapshot and the commits that led to it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._snapshot = EMPTY
        self._commits: deque[Commit] = deque(maxlen=COMMITS_KEPT)
        self._listeners: dict[object, Callable[[], None]] = {}
        self._closed = False

    @property
    def snapshot(self) -> Snapshot:
        """The newest state; reading it takes no lock."""
        return self._snapshot

    def load(self, revision: int, rows: Iterable[Message]) -> None:
        """Begins with these rows at this revision. Commits before it cannot be watched."""
        tables: dict[str, dict[str, Message]] = {}
        for row in rows:
            name: str = row.name  # type: ignore[attr-defined]
            tables.setdefault(collection_of(name), {})[name] = row
        with self._changed:
            frozen = Map({path: Map(table) for path, table in tables.items()})
            self._snapshot = Snapshot(revision, frozen, self._snapshot.leases)
            self._commits.clear()
        self._wake()

    def apply(self, revision: int, values: Mapping[str, Message | None]) -> None:
        """Takes in one commit: name → row as it now is, None when deleted. Must be the next revision."""
        with self._changed:
            before = self._snapshot
            assert revision == before.revision + 1, f"{revision} after {before.revision}"
            tables, rows = before.tables, []
            for name, value in values.items():
                path = collection_of(name)
                table = tables.get(path, Map())
                rows.append(Row(name, value, table.get(name)))
                if value is not None:
                    table = table.set(name, value)
                elif name in table:
                    table = table.delete(name)
                tables = tables.set(path, table)
            self._commits.append(Commit(revision, tuple(rows)))
            self._snapshot = Snapshot(revision, tables, before.leases)
        self._wake()

    def set_leases(self, leases: Mapping[str, str]) -> None:
        """Takes in who holds which lease."""
        with self._changed:
            if dict(self._snapshot.leases) == dict(leases):
                return
            before = self._snapshot
            self._snapshot = Snapshot(before.revision, before.tables, Map(leases))
        self._wake()

    def wait(self, revision: int, timeout_s: float) -> None:
        """Returns once the snapshot is at `revision`. Raises PvcError STORE_UNAVAILABLE on timeout."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: self._snapshot.revision >= revision or self._closed, timeout_s
            )
        if not arrived or self._snapshot.revision < revision:
            raise PvcError(
                reason_pb2.REASON_STORE_UNAVAILABLE,
                f"this process has not heard of revision {revision} within {timeout_s:g} s; "
                "try again",
            )

    def watch(self, after: int) -> MirrorWatch:
        """The commits after a revision, from memory."""
        with self._changed:
            self._check_kept(after)
        return MirrorWatch(self, after)

    def commit_after(self, revision: int, timeout_s: float) -> Commit | None:
        """The commit that follows `revision`, as soon as there is one; None after the timeout."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._snapshot.revision > revision or self._closed, timeout_s
            )
            if self._closed:
                raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "the store was closed")
            if self._snapshot.revision <= revision:
                return None
            self._check_kept(revision)
            return self._commits[revision + 1 - self._commits[0].revision]

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store.on_change."""
        key = object()
        with self._changed:
            self._listeners[key] = wake

        def forget() -> None:
            with self._changed:
                self._listeners.pop(key, None)

        return forget

    def close(self) -> None:
        """Ends all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _check_kept(self, after: int) -> None:
        oldest = self._commits[0].revision - 1 if self._commits else self._snapshot.revision
        if after < oldest:
            raise PvcError(
                reason_pb2.REASON_REVISION_TOO_OLD,
                f"changes after revision {after} are no longer kept (the oldest: {oldest}); "
                "begin again without a revision",
            )
        if after > self._snapshot.revision:
            raise PvcError(
                reason_pb2.REASON_REVISION_TOO_OLD,
                f"revision {after} is not of this state (the newest: {self._snapshot.revision}); "
                "begin again without a revision",
            )

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = list(self._listeners.values())
        for wake in listeners:
            wake()


class MirrorWatch:
    """One reader's place in the commits."""

    def __init__(self, mirror: Mirror, after: int) -> None:
        self._mirror = mirror
        self._revision = after

    def next(self, timeout_s: float) -> Commit | None:
        """See Watch.next."""
        commit = self._mirror.commit_after(self._revision, timeout_s)
        if commit is not None:
            self._revision = commit.revision
        return commit

    def close(self) -> None:
        """Nothing is held."""
