"""A store that forgets everything when the process ends: for tests and the simulator."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from pvc.core.v1 import reason_pb2

from services.mesh.errors import PvcError
from services.state.mirror import Mirror, MirrorWatch
from services.state.schema import from_stored, to_stored
from services.state.store import Change, Delete, Lease, Snapshot, row_changes


@dataclass(frozen=True, slots=True)
class MemoryLease:
    """A lease of a MemoryStore."""

    store: MemoryStore
    name: str
    holder: str
    session: str

    def release(self) -> None:
        """See Lease.release."""
        self.store.drop(self)


class MemoryCluster:
    """What several MemoryStores share, so that tests have several processes in one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.mirror = Mirror()
        self.leases: dict[str, MemoryLease] = {}

    def publish_leases(self) -> None:
        """Tells everybody who holds what."""
        self.mirror.set_leases({name: lease.holder for name, lease in self.leases.items()})


class MemoryStore:
    """See Store. Stores made with the same cluster see the same state, each with a session of its own."""

    def __init__(self, cluster: MemoryCluster | None = None) -> None:
        self._cluster = cluster or MemoryCluster()
        self._session = uuid.uuid4().hex

    def snapshot(self) -> Snapshot:
        """See Store."""
        return self._cluster.mirror.snapshot

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """See Store."""
        with self._cluster.lock:
            before = self._cluster.mirror.snapshot
            if held_by is not None and self._cluster.leases.get(held_by.name) is not held_by:
                raise PvcError(
                    reason_pb2.REASON_NOT_LEADER, f"the lease {held_by.name} is no longer held"
                )
            row_changes(before.tables, changes)
            if not changes:
                return before.revision
            revision = before.revision + 1
            self._cluster.mirror.apply(revision, dict(self._stored(changes, revision)))
            return revision

    @staticmethod
    def _stored(changes: Sequence[Change], revision: int) -> list[tuple[str, Message | None]]:
        """Through bytes and back, so that a caller's message and the stored one are never the same."""
        rows: list[tuple[str, Message | None]] = []
        for change in changes:
            if isinstance(change, Delete):
                rows.append((change.name, None))
            else:
                name: str = change.value.name  # type: ignore[attr-defined]
                rows.append((name, from_stored(name, to_stored(change.value, revision))))
        return rows

    def wait(self, revision: int, timeout_s: float) -> None:
        """See Store."""
        self._cluster.mirror.wait(revision, timeout_s)

    def watch(self, after: int) -> MirrorWatch:
        """See Store."""
        return self._cluster.mirror.watch(after)

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store."""
        return self._cluster.mirror.on_change(wake)

    def acquire(self, name: str, holder: str) -> Lease | None:
        """See Store."""
        with self._cluster.lock:
            there = self._cluster.leases.get(name)
            if there is not None:
                mine = there.session == self._session and there.holder == holder
                return there if mine else None
            lease = MemoryLease(self, name, holder, self._session)
            self._cluster.leases[name] = lease
            self._cluster.publish_leases()
            return lease

    def drop(self, lease: MemoryLease) -> None:
        """Ends a lease if it is still the current one."""
        with self._cluster.lock:
            if self._cluster.leases.get(lease.name) is lease:
                del self._cluster.leases[lease.name]
                self._cluster.publish_leases()

    def session(self) -> str:
        """See Store."""
        return self._session

    def lose_session(self) -> None:
        """What happens to a process that the store has not heard of for too long. For tests."""
        with self._cluster.lock:
            for lease in [x for x in self._cluster.leases.values() if x.session == self._session]:
                del self._cluster.leases[lease.name]
            self._session = uuid.uuid4().hex
            self._cluster.publish_leases()

    def close(self) -> None:
        """See Store."""
        self.lose_session()
