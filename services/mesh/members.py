"""Which nodes are there, and which one of them speaks for all where one must. Pure."""

from __future__ import annotations

from collections.abc import Collection

from pvc.coordinator.v1 import cluster_pb2
from services.state.store import Snapshot
from services.state.table import Extract


def id_of(node: str) -> str:
    """ "nodes/n1" → "n1", as maps of parts call it."""
    return node.removeprefix("nodes/")


def present(snapshot: Snapshot) -> frozenset[str]:
    """The nodes that hold their session: "nodes/n1"."""
    return frozenset(name for name in snapshot.leases if name.startswith("nodes/"))


def speaker(snapshot: Snapshot, node: str, able: Collection[str] = ()) -> str:
    """The node whose agent writes what only one may write: the first by name of those that are
    there and able, or else of all that are there. Where nobody is there yet it is `node`.

    Two processes may differ on it for a moment: what they write must be safe for any number of
    writers, and is written by one so that nobody writes for nothing."""
    there = present(snapshot)
    return min(there & set(able), default=min(there, default=node))


def _lasting(node: cluster_pb2.Node) -> cluster_pb2.Node:
    after = cluster_pb2.Node()
    after.CopyFrom(node)
    after.meta.etag = ""
    after.status.ClearField("load")
    return after


NODES = Extract(cluster_pb2.Node, _lasting)
"""The nodes without how busy they are, which changes all the time and is few loops' business."""


def known(snapshot: Snapshot) -> frozenset[str]:
    """All nodes of the cluster, there or not."""
    return frozenset(row.name for row in snapshot.rows(cluster_pb2.Node))
