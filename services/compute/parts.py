"""What pools and networks say of this node, where each node says its own part. Pure."""

from __future__ import annotations

from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.members import id_of
from services.state.store import Snapshot

Part = network_pb2.NetworkAtNode


def network_at(network: network_pb2.Network, node: str) -> Part:
    """The network on this node; what is said of it as a whole where no node says its part."""
    status = network.status
    if status.nodes:
        return status.nodes.get(id_of(node)) or Part(why=f"{id_of(node)} has not set it up yet")
    ready = status.state == network_pb2.NetworkStatus.STATE_READY
    return Part(
        ready=ready, why=status.why, bridge=status.bridge, namespace=status.namespace,
        generation=status.generation,
    )  # fmt: skip


def mtu_of(network: network_pb2.Network) -> int:
    """The largest packet of its guests: the same on all nodes, so that they can move."""
    return network.status.mtu or network.spec.mtu


def volume_at(snapshot: Snapshot, volume: storage_pb2.Volume, node: str) -> str:
    """Why this node cannot open the volume, though it is there; "" when it can."""
    pool = snapshot.find(storage_pb2.Pool, volume.name.partition("/volumes/")[0])
    if pool is None:
        return ""
    if not is_held_by(snapshot, volume, node):
        return f"it is on {pool.spec.node}"
    if not pool.spec.shared:
        return ""
    part = pool.status.nodes.get(id_of(node))
    if part is None or part.ready:
        return ""
    return f"{pool.name} cannot be used on this node: {part.why}"


def is_held_by(snapshot: Snapshot, volume: storage_pb2.Volume, node: str) -> bool:
    """Whether the volume is in a pool of this node, or in one of all nodes."""
    pool = snapshot.find(storage_pb2.Pool, volume.name.partition("/volumes/")[0])
    return pool is None or pool.spec.shared or pool.spec.node in ("", node)
