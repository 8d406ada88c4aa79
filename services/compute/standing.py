"""What a node has to say of itself before it may do something: about its watchdog, about ending on
purpose, about fences that it has taken in. Writes these fields of the node's row, and decides
nothing.

The watchdog's part is a promise that others act on (services/coordinator/core/proofs.py): it is
made only once it is true, and taken back before it is not.
"""

from __future__ import annotations

from collections.abc import Callable

from pvc.coordinator.v1 import cluster_pb2
from services.mesh import rows
from services.state.store import Conflict, Lease, Put, Store

Status = cluster_pb2.NodeStatus
_ROUNDS = 8


class Standing:
    """One node's. Used by the agent's thread and by the guard's."""

    def __init__(self, store: Store, node: str) -> None:
        """node: "nodes/n1"."""
        self._store = store
        self._node = node
        self._watchdog: cluster_pb2.WatchdogStatus | None = None
        self._leaving = False
        self.lease: Lease | None = None
        """The node's own, as whoever holds it acquired it last."""
        self.faults: tuple[str, ...] = ()
        """What is wrong with the watchdog."""

    def onto(self, status: Status, before: Status) -> None:
        """Puts it into a status that is being made anew. before: the one in the row."""
        status.restarting = self._leaving
        status.fences_seen = before.fences_seen
        if self._watchdog is not None:
            status.watchdog.CopyFrom(self._watchdog)

    def claim(self, lease: Lease, watchdog: cluster_pb2.WatchdogStatus) -> bool:
        """Promises that the watchdog is armed, and fed only by the rules of the lease's session.
        True once that is in the row; False, or a PvcError: it may be or come to be."""
        self._watchdog = watchdog

        def change(status: Status) -> None:
            status.session = lease.session
            status.watchdog.CopyFrom(watchdog)

        return self._amend(change, lease)

    def withdraw(self) -> bool:
        """Takes the promise back, whichever process of this node made it. True once no proof can be
        made of it any more; False, or a PvcError: it stands.

        Needs no lease: the row is written at the version that it was read at, so a proof that was
        made meanwhile is seen; and it is no harm to anybody to promise less."""
        self._watchdog = None
        return self._amend(lambda status: status.ClearField("watchdog"), None)

    def leave(self) -> bool:
        """Says that the agent ends on purpose and means to come back, and takes the promise back.
        As `withdraw`."""
        self._watchdog, self._leaving = None, True

        def change(status: Status) -> None:
            status.ClearField("watchdog")
            status.restarting = True

        if self.lease is None:
            return self.withdraw()
        return self._amend(change, self.lease)

    def take_in(self, lease: Lease, fences: int) -> bool:
        """Says that so many fences are taken in."""

        def change(status: Status) -> None:
            status.fences_seen = fences

        return self._amend(change, lease)

    def _amend(self, change: Callable[[Status], None], lease: Lease | None) -> bool:
        """A row that is so already is committed too: that it is so may be out of date."""
        for _ in range(_ROUNDS):
            there = self._store.snapshot().find(cluster_pb2.Node, self._node)
            if there is None:
                return False
            row = rows.copied(there)
            change(row.status)
            try:
                self._store.commit([Put(row)], held_by=lease)
                return True
            except Conflict:
                continue
        return False
