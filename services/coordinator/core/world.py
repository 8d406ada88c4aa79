"""Everything that a decision is made from: an immutable picture of the cluster at one revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2

NEW = cluster_pb2.NODE_STATE_UNSPECIFIED
JOINING = cluster_pb2.NODE_STATE_JOINING
ONLINE = cluster_pb2.NODE_STATE_ONLINE
UNKNOWN = cluster_pb2.NODE_STATE_UNKNOWN
FENCING = cluster_pb2.NODE_STATE_FENCING
FENCED = cluster_pb2.NODE_STATE_FENCED
DRAINING = cluster_pb2.NODE_STATE_DRAINING
DRAINED = cluster_pb2.NODE_STATE_DRAINED
MAINTENANCE = cluster_pb2.NODE_STATE_MAINTENANCE
LEAVING = cluster_pb2.NODE_STATE_LEAVING

WORKING = frozenset({ONLINE, DRAINING, DRAINED})
"""States of nodes whose agents do what is decided."""

WANT_MEMORY = frozenset({vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED})
"""Powers with which a VM takes memory on its node."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Most nodes were gone, and may be still."""

    began_s: float
    """How long ago that began."""
    ended_s: float
    """How long ago it was last so."""


@dataclass(frozen=True, slots=True)
class World:
    """Nodes and VMs by name, and what placement asks about besides. Never changed after it was
    made."""

    nodes: Mapping[str, cluster_pb2.Node] = field(default_factory=lambda: MappingProxyType({}))
    vms: Mapping[str, vm_pb2.Vm] = field(default_factory=lambda: MappingProxyType({}))
    present: frozenset[str] = frozenset()
    """Nodes that hold their session."""
    volume_nodes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Volume → the only node that can open it; volumes of shared pools are not here."""
    operations: tuple[operation_pb2.Operation, ...] = ()
    """Those that have not ended."""
    spec: cluster_pb2.ClusterSpec = field(default_factory=cluster_pb2.ClusterSpec)
    """How the cluster is to behave, as it was asked for; `limits.limits_of` fills the defaults
    in."""
    gone_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Node that holds no session → at least how long, counted by clocks that do not jump; see
    services.coordinator.evidence."""
    outage: Outage | None = None
    """The last time that most nodes were gone; None where nobody saw that."""
    not_ready: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    """Shared pool or network → node → why it cannot be used there. Nodes that can are not here."""
    cluster: cluster_pb2.ClusterIdentity | None = None
    """The cluster's own row, where it has one."""
    shared_pools: frozenset[str] = frozenset()
    """Pools whose volumes any node can work on."""
    pools: Mapping[str, storage_pb2.Pool] = field(default_factory=lambda: MappingProxyType({}))
    volumes: Mapping[str, storage_pb2.Volume] = field(default_factory=lambda: MappingProxyType({}))
    snapshots: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Volume → the ids of its snapshots, where it has any."""
    copy_works: Mapping[str, operation_pb2.Operation] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Volume → the storage service's work that made it, or makes it, or failed to."""


def is_online(node: cluster_pb2.Node) -> bool:
    """VMs can be started on it."""
    return node.decision.state == ONLINE


def is_working(world: World, name: str) -> bool:
    """The node's agents do what is decided, as far as anybody knows."""
    node = world.nodes.get(name)
    return node is not None and node.decision.state in WORKING and name in world.present


def memory_of(vm: vm_pb2.Vm) -> int:
    """What a VM takes on its node, in MiB: all that it may grow to, for a guest gives memory back
    only once its balloon driver runs."""
    return max(vm.spec.memory.memory_mib, vm.spec.memory.max_memory_mib)


def takes_memory(vm: vm_pb2.Vm) -> bool:
    """Its node has to have room for it: it is to run, or will once others do that it waits for."""
    return vm.decision.power in WANT_MEMORY or bool(vm.decision.waits_for)


def short(name: str) -> str:
    """vms/web → web."""
    return name.rpartition("/")[2]
