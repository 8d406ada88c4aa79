"""Gives a node that joined a cluster a pool on its own disk, once: without one, no VM could have a
volume there before somebody made a pool by hand. The first node's comes with the cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.members import id_of
from services.state.store import Conflict, Put, Snapshot, Store

log = logging.getLogger("pvc.storage")


class FirstPool:
    """Call `step` before the agent looks at pools; it does something once in a node's life."""

    def __init__(
        self,
        store: Store,
        node: str,
        make: Callable[[str], storage_pb2.Pool],
        is_new: Callable[[], bool],
    ) -> None:
        """make: the row of the node's own pool, under a name. is_new: the folder for it was never
        there; one that somebody deleted does not come again."""
        self._store = store
        self._node = node
        self._make = make
        self._is_new = is_new
        self._done = False

    def step(self) -> None:
        """Writes the row when the node has become one of several and has no pool."""
        snapshot = self._store.snapshot()
        if self._done or not self._is_one_of_several(snapshot):
            return
        self._done = True
        name = f"pools/local-{id_of(self._node)}"
        has_one = any(row.spec.node == self._node for row in snapshot.rows(storage_pb2.Pool))
        if has_one or snapshot.named(name) is not None or not self._is_new():
            return
        try:
            self._store.commit([Put(self._make(name))])
            log.info("%s is made on %s, which has joined", name, self._node)
        except Conflict:
            log.info("%s was made by somebody else meanwhile", name)

    def _is_one_of_several(self, snapshot: Snapshot) -> bool:
        names = {row.name for row in snapshot.rows(cluster_pb2.Node)}
        return self._node in names and len(names) > 1
