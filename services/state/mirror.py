"""The state in memory: applies commits in order, hands out snapshots, wakes, feeds watches.

Shared by all stores. It does no I/O and decides nothing; whoever owns it says what was committed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import Message
from immutables import Map

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.state.schema import collection_of
from services.state.store import EMPTY, NO_ROWS, Commit, Snapshot
from services.state.table import Row, Table

COMMITS_KEPT = 2_000
"""How far back a watch can be resumed. Each holds its rows as they were and as they became: some
kilobytes for as long."""

log = logging.getLogger("pvc.state")


def unavailable(message: str) -> PvcError:
    """The store cannot do what is asked now; the message says whether anything was written."""
    return PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, message)


def _too_old(message: str) -> PvcError:
    return PvcError(
        reason_pb2.REASON_REVISION_TOO_OLD, f"{message}; begin again without a revision"
    )


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

    def load(self, revision: int, rows: Iterable[Message], commits: Iterable[Commit] = ()) -> None:
        """Begins anew with these rows at this revision; `commits` are those that led to it, as far
        as they are known. Commits before them cannot be watched."""
        tables: dict[str, dict[str, Message]] = {}
        for row in rows:
            name: str = row.name  # type: ignore[attr-defined]
            tables.setdefault(collection_of(name), {})[name] = row
        frozen = Map({path: Table(table) for path, table in tables.items()})
        with self._changed:
            self._commits = deque(commits, maxlen=COMMITS_KEPT)
            assert not self._commits or self._commits[-1].revision == revision
            self._snapshot = Snapshot(revision, frozen, self._snapshot.leases)
        self._wake()

    def apply(self, revision: int, values: Mapping[str, Message | None]) -> None:
        """Takes in one commit: name → row as it now is, None when it was deleted. Must be the next
        revision."""
        with self._changed:
            before = self._snapshot
            assert revision == before.revision + 1, f"{revision} after {before.revision}"
            rows = tuple(Row(name, value, before.named(name)) for name, value in values.items())
            tables = before.tables
            for path, some in _by_collection(rows).items():
                tables = tables.set(path, tables.get(path, NO_ROWS).changed(some))
            self._commits.append(Commit(revision, rows))
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
        """Returns once the snapshot is at `revision`. Raises PvcError STORE_UNAVAILABLE when it is
        not by then."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._snapshot.revision >= revision or self._closed, timeout_s
            )
        if self._snapshot.revision < revision:
            raise unavailable(
                f"this process has not heard of revision {revision} within {timeout_s:g} s; "
                "try again"
            )

    def watch(self, after: int, ended: Callable[[], bool] = lambda: False) -> MirrorWatch:
        """The commits after a revision, from memory, until `ended` (tell by `notify`)."""
        with self._changed:
            self._check_kept(after)
        return MirrorWatch(self, after, ended)

    def commit_after(
        self, revision: int, timeout_s: float, ended: Callable[[], bool]
    ) -> Commit | None:
        """The commit that follows `revision`, as soon as there is one; None after the timeout."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._snapshot.revision != revision or self._closed or ended(), timeout_s
            )
            if self._closed or ended():
                raise unavailable("the state was closed: this process is ending")
            self._check_kept(revision)
            if self._snapshot.revision == revision:
                return None
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

    def notify(self) -> None:
        """Has all that wait look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waiting."""
        self._closed = True
        self.notify()

    def _check_kept(self, after: int) -> None:
        oldest = self._commits[0].revision - 1 if self._commits else self._snapshot.revision
        if after < oldest:
            raise _too_old(f"changes after revision {after} are not kept (the oldest: {oldest})")
        if after > self._snapshot.revision:
            newest = self._snapshot.revision
            raise _too_old(f"revision {after} is not of this state (the newest: {newest})")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = list(self._listeners.values())
        for wake in listeners:
            try:
                wake()
            except Exception:
                # The commit is done: a listener's mistake must not make it look failed.
                log.exception("a listener of the state failed")


def _by_collection(rows: Iterable[Row]) -> Mapping[str, tuple[Row, ...]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(collection_of(row.name), []).append(row)
    return {path: tuple(some) for path, some in found.items()}


class MirrorWatch:
    """One reader's place in the commits."""

    def __init__(self, mirror: Mirror, after: int, ended: Callable[[], bool]) -> None:
        self._mirror = mirror
        self._revision = after
        self._ended = ended

    def next(self, timeout_s: float) -> Commit | None:
        """See Watch.next."""
        commit = self._mirror.commit_after(self._revision, timeout_s, self._ended)
        if commit is not None:
            self._revision = commit.revision
        return commit

    def close(self) -> None:
        """Nothing is held."""
