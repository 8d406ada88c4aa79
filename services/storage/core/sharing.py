"""Pools that several nodes use: what one node says of its part, who sums it up, and where work on
their volumes is done. Pure.
"""

from __future__ import annotations

from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.members import id_of, known, present, speaker
from services.state.store import Snapshot

Pool = storage_pb2.Pool
Part = storage_pb2.PoolAtNode


def part_of(why: str) -> Part:
    """A node's part, from why the pool cannot be used there ("" when it can)."""
    return Part(ready=not why, why=why)


def take_part(pool: Pool, node: str, part: Part) -> None:
    """Puts a node's part into a copy of the row, and leaves those of others as they are."""
    if pool.status.nodes.get(id_of(node)) != part:
        pool.status.nodes[id_of(node)].CopyFrom(part)


def able(pool: Pool) -> frozenset[str]:
    """The nodes that can use a shared pool, as they last said."""
    return frozenset(f"nodes/{node}" for node, part in pool.status.nodes.items() if part.ready)


def speaks(snapshot: Snapshot, pool: Pool, node: str) -> bool:
    """Whether this node's agent writes what is true of the pool as a whole, and of its volumes."""
    if not pool.spec.shared:
        return pool.spec.node == node
    return speaker(snapshot, node, able(pool)) == node


def forget_gone(snapshot: Snapshot, pool: Pool) -> None:
    """Takes the parts of nodes that the cluster has no more out of a copy of the row."""
    there = known(snapshot)
    for node in [node for node in pool.status.nodes if there and f"nodes/{node}" not in there]:
        del pool.status.nodes[node]


def elsewhere(snapshot: Snapshot, pool: Pool) -> str:
    """On which nodes a shared pool cannot be used, for people; "" when it can on all that are
    there. What a node said that is away now says nothing."""
    there = present(snapshot)
    parts = sorted(pool.status.nodes.items())
    bad = [(node, part.why) for node, part in parts if not part.ready and f"nodes/{node}" in there]
    return "; ".join(f"{node} cannot use it: {why}" for node, why in bad)


def worker(snapshot: Snapshot, pool: Pool | None, node: str) -> str:
    """The node that does work on the pool's volumes, asked for at `node`: the pool's own, or that
    very node if it can use a shared one, else another that can."""
    if pool is None or not pool.spec.shared:
        return pool.spec.node if pool is not None else ""
    part = pool.status.nodes.get(id_of(node))
    if part is None or part.ready:
        return node
    return min(able(pool) & present(snapshot), default=node)


def lasting(snapshot: Snapshot) -> frozenset[str]:
    """The ids of the nodes that may still be making something: all but those whose death is
    proven, or that are no more."""
    dead = cluster_pb2.NODE_STATE_FENCED
    rows = snapshot.rows(cluster_pb2.Node)
    there = {row.name for row in rows if row.decision.state != dead} | present(snapshot)
    return frozenset(map(id_of, there))
