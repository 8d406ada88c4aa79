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

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.fence import are_most, missing_of, waited_s
from services.coordinator.core.world import Outage
from services.state.store import Snapshot

ONE_OUTAGE_S = 60.0
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
        self._outage: tuple[float, float] | None = None
        """When most nodes were gone: first and last, the last time that it was so."""

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
                self._outage = _prolonged(self._outage, monotonic)
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

    def outage(self, monotonic: float) -> Outage | None:
        """The last time that most nodes were gone; None if this process never saw that."""
        with self._lock:
            if self._outage is None:
                return None
            began, ended = self._outage
            return Outage(monotonic - began, monotonic - ended)

    def gone_for(self, node: cluster_pb2.Node, monotonic: float) -> float:
        """For how long at least the session that the node is known to have lost is gone; 0 where
        that is not the one that is missing."""
        with self._lock:
            seen, stale = self._absent.get(node.name), monotonic - self._looked[0] > GAP_S
        if seen is None or stale or seen.session != node.decision.lost_session:
            return 0.0
        return monotonic - seen.since


def _prolonged(outage: tuple[float, float] | None, monotonic: float) -> tuple[float, float]:
    """Those that follow each other soon are one."""
    if outage is None or monotonic - outage[1] > ONE_OUTAGE_S:
        return monotonic, monotonic
    return outage[0], monotonic


def _absence(node: cluster_pb2.Node, before: Absence | None, monotonic: float) -> Absence:
    session, since = node.status.session, monotonic
    if node.decision.lost_session == session:
        since -= waited_s(node)
    if before is not None and before.session == session:
        since = min(since, before.since)
    return Absence(session, since)
