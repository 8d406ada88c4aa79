"""A store that forgets everything when the process ends: for tests and the simulator."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence

from services.state.changes import loaded, stored_rows
from services.state.lease import LocalLease, LocalLeases
from services.state.mirror import Mirror, MirrorWatch, unavailable
from services.state.store import Change, Lease, Snapshot


class MemoryCluster:
    """What several MemoryStores share, so that tests have several processes in one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.mirror = Mirror()
        self.leases = LocalLeases(self.mirror.set_leases)
        self._sessions = itertools.count(1)

    def new_session(self) -> str:
        """Sessions are numbered, not random: the same simulation gives the same log."""
        return f"session-{next(self._sessions)}"


class MemoryStore:
    """See Store. Those made with the same cluster see the same state, each with its own session."""

    def __init__(
        self, cluster: MemoryCluster | None = None, session_timeout_s: float = 6.0
    ) -> None:
        self.session_timeout_s, self.proof_lag_s = session_timeout_s, 0.0
        self._cluster = cluster or MemoryCluster()
        self._session = self._cluster.new_session()
        self._closed = False

    def snapshot(self) -> Snapshot:
        """See Store."""
        return self._cluster.mirror.snapshot

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """See Store."""
        with self._cluster.lock:
            self._check_open()
            self._cluster.leases.check(held_by)
            before = self._cluster.mirror.snapshot
            rows = stored_rows(before, changes, before.revision + 1)
            if rows:
                self._cluster.mirror.apply(before.revision + 1, loaded(rows))
            return self._cluster.mirror.snapshot.revision

    def wait(self, revision: int, timeout_s: float) -> None:
        """See Store."""
        self._cluster.mirror.wait(revision, timeout_s)

    def watch(self, after: int) -> MirrorWatch:
        """See Store."""
        return self._cluster.mirror.watch(after, lambda: self._closed)

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store."""
        return self._cluster.mirror.on_change(wake)

    def acquire(self, name: str, holder: str, heir_of: str = "") -> LocalLease | None:
        """See Store."""
        with self._cluster.lock:
            self._check_open()
            return self._cluster.leases.acquire(name, holder, self._session, heir_of)

    def prove(self, lease: Lease, timeout_s: float) -> None:
        """See Store."""
        with self._cluster.lock:
            self._check_open()
            self._cluster.leases.prove(lease, self._session)

    def touch(self, timeout_s: float) -> None:
        """See Store."""
        self._check_open()

    def session(self) -> str:
        """See Store."""
        return self._session

    def lose_session(self) -> None:
        """What happens to a process that the store has not heard of for too long. For tests."""
        with self._cluster.lock:
            self._cluster.leases.end_session(self._session)
            self._session = self._cluster.new_session()

    def close(self) -> None:
        """See Store. The other stores of the cluster live on."""
        self._closed = True
        self.lose_session()
        self._cluster.mirror.notify()

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("the state was closed: this process is ending; nothing was written")
