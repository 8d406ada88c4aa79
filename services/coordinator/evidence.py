"""Since when each node holds no session, by this process's own clock and by what the leaders before
it stored. Decides nothing, and writes nothing.

Every coordinator keeps it, leading or not, so that one that takes the lead does not begin to count
then. What it answers is a lower bound: it counts from when this process saw, without a gap, that
the session was gone, or from when it read how long another one had known.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.fence import are_most, missing_of, waited_s
from services.state.store import Snapshot

GAP_S = 2.0
"""A process that did not look for this long may have missed that a node came and went."""


@dataclass(frozen=True, slots=True)
class Absence:
    """One node's. session: the one that is gone; another one there is another absence."""

    session: str
    since: float
    """By the process's monotonic clock: it was gone then, if not before."""


class Evidence:
    """What one process knows. `observe` is called often; the answers may be asked for from any
    thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._absent: dict[str, Absence] = {}
        self._looked = (0.0, "")
        self._most_gone = -inf
        """When most nodes were last seen to be gone."""

    def observe(self, snapshot: Snapshot, monotonic: float, session: str) -> None:
        """Takes in who is there now. session: of this process with the store; with another one than
        before, it may have been cut off meanwhile."""
        with self._lock:
            looked, mine = self._looked
            if monotonic - looked > GAP_S or session != mine:
                self._absent.clear()
            self._looked = (monotonic, session)
            nodes = list(snapshot.rows(cluster_pb2.Node))
            if are_most(*missing_of(nodes, snapshot.leases)):
                self._most_gone = monotonic
            there = self._absent
            self._absent = {
                node.name: _absence(node, there.get(node.name), monotonic)
                for node in nodes
                if node.name not in snapshot.leases and node.status.session
            }

    def gone_s(self, monotonic: float) -> Mapping[str, float]:
        """Node without a session → for how long at least. Nodes that never had one are not here,
        and none is when nobody has looked for too long."""
        with self._lock:
            if monotonic - self._looked[0] > GAP_S:
                return {}
            return {name: monotonic - seen.since for name, seen in self._absent.items()}

    def most_here_s(self, monotonic: float) -> float:
        """For how long most nodes have been there again, after most were gone; infinite where this
        process never saw that."""
        with self._lock:
            return monotonic - self._most_gone

    def gone_for(self, node: cluster_pb2.Node, monotonic: float) -> float:
        """For how long at least the session that the node is known to have lost is gone; 0 where
        that is not the one that is missing."""
        with self._lock:
            seen, stale = self._absent.get(node.name), monotonic - self._looked[0] > GAP_S
        if seen is None or stale or seen.session != node.decision.lost_session:
            return 0.0
        return monotonic - seen.since


def _absence(node: cluster_pb2.Node, before: Absence | None, monotonic: float) -> Absence:
    session, since = node.status.session, monotonic
    if node.decision.lost_session == session:
        since -= waited_s(node)
    if before is not None and before.session == session:
        since = min(since, before.since)
    return Absence(session, since)
