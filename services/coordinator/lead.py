"""Which coordinator leads: runs for the lead, keeps it, and hands it over when asked to.

The lease is the only right to write; that this process believes to lead is worth nothing. Whoever
writes names the lease in the commit.
"""

from __future__ import annotations

import logging

from pvc.coordinator.v1 import cluster_pb2
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Conflict, Lease, Put, Snapshot, Store

LEADER = "leader"
STAND_BACK_S = 3.0
"""A leader that gave the lead away does not run for it for so long."""
YIELD_S = 2.0
"""Others leave the lead to the one that was asked for, for so long."""

Identity = cluster_pb2.ClusterIdentity
log = logging.getLogger("pvc.coordinator")


class Lead:
    """One process's part in it. Not for several threads, but for `lease`."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        """node: "nodes/n1"."""
        self._store = store
        self._clock = clock
        self._node = node
        self._lease: Lease | None = None
        self._back_until = 0.0
        """Not to run before."""
        self._yields: tuple[str, float] = ("", 0.0)
        """The request that is being yielded to, and until when."""

    @property
    def lease(self) -> Lease | None:
        """The lease while this process has it, as far as it knows."""
        return self._lease

    def take(self) -> Lease | None:
        """The lease, taken if nobody holds it and this node may; None while another leads. Hands it
        over first if that was asked for. Raises PvcError STORE_UNAVAILABLE."""
        snapshot = self._store.snapshot()
        wish = wish_of(snapshot)
        if not may_lead(snapshot, self._node):
            self._give_up("it is no coordinator any more")
            return None
        if self._lease is not None and wish is not None and not _suits(wish, self._node):
            self._stand_back(wish)
            self._give_up(f"{wish.node or 'another node'} was asked to lead")
            return None
        if self._lease is None and not self._runs(snapshot, wish):
            return None
        held, self._lease = self._lease, self._store.acquire(LEADER, self._node)
        if self._lease is not None and held is None:
            log.info("%s leads", self._node)
        if self._lease is not None and wish is not None:
            self._fulfilled(self._lease)
        return self._lease

    def lost(self) -> None:
        """A commit said that the lease is no longer held."""
        log.info("%s leads no longer", self._node)
        self._lease = None

    def close(self) -> None:
        """Gives the lead away at once, for the process ends."""
        self._give_up("its process ends")

    def _runs(self, snapshot: Snapshot, wish: cluster_pb2.LeadRequest | None) -> bool:
        """Nobody leads, and it is not somebody else's turn."""
        now = self._clock.monotonic()
        if snapshot.leases.get(LEADER, self._node) != self._node:
            self._yields = ("", 0.0)
            return False
        if wish is None or _suits(wish, self._node):
            return now >= self._back_until or wish is not None
        if self._yields[0] != _named(wish):
            self._yields = (_named(wish), now + YIELD_S)
        return now >= max(self._yields[1], self._back_until)

    def _stand_back(self, wish: cluster_pb2.LeadRequest) -> None:
        now = self._clock.monotonic()
        self._back_until, self._yields = now + STAND_BACK_S, (_named(wish), now + YIELD_S)

    def _give_up(self, why: str) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        log.info("%s gives the lead away: %s", self._node, why)
        try:
            lease.release()
        except PvcError as error:
            log.warning("%s", error.message)

    def _fulfilled(self, lease: Lease) -> None:
        """Forgets the wish: it came true, or nobody else took the lead."""
        row = self._store.snapshot().find(Identity, rows.THIS_CLUSTER)
        if row is None or not row.HasField("lead_request"):
            return
        after = rows.copied(row)
        after.ClearField("lead_request")
        try:
            self._store.commit([Put(after)], held_by=lease)
        except Conflict:
            log.debug("the cluster's row changed; its wish about the lead is looked at again")


def wish_of(snapshot: Snapshot) -> cluster_pb2.LeadRequest | None:
    """Where the lead is asked to go."""
    row = snapshot.find(Identity, rows.THIS_CLUSTER)
    return row.lead_request if row is not None and row.HasField("lead_request") else None


def may_lead(snapshot: Snapshot, node: str) -> bool:
    """The node is a coordinator. Where none is, as on a single machine, each may."""
    coordinators = [x.name for x in snapshot.rows(cluster_pb2.Node) if x.spec.coordinator]
    return not coordinators or node in coordinators


def _named(wish: cluster_pb2.LeadRequest) -> str:
    return f"{wish.node} {wish.away} {wish.time.ToNanoseconds()}"


def _suits(wish: cluster_pb2.LeadRequest, node: str) -> bool:
    return node == wish.node if wish.node else node != wish.away
