"""The cluster at a glance, counted together from its rows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.gateway.v1 import gateway_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.capacity import Load
from services.coordinator.core.reserve import room_of
from services.coordinator.core.world import (
    FENCED,
    FENCING,
    JOINING,
    MAINTENANCE,
    NEW,
    UNKNOWN,
    WANT_MEMORY,
    is_online,
    memory_of,
    short,
)

Health = cluster_pb2.Cluster


def state_name(enum: type, state: int, prefix: str) -> str:
    """An enum's value as people read it: "RUNNING"."""
    name: str = enum.Name(state)  # type: ignore[attr-defined]
    return name.removeprefix(prefix).replace("UNSPECIFIED", "NEW")


def count_nodes(cluster: cluster_pb2.Cluster, nodes: Sequence[cluster_pb2.Node]) -> None:
    """Fills in what comes from the nodes."""
    states = (state_name(cluster_pb2.NodeState, n.decision.state, "NODE_STATE_") for n in nodes)
    cluster.nodes.update(Counter(states))
    online = [node for node in nodes if is_online(node)]
    cluster.memory_mib = sum(node.status.memory_for_vms_mib for node in online)
    cluster.cpus = sum(node.status.cpus for node in online)
    cluster.version = min((node.status.version for node in online), default="")


def count_vms(cluster: cluster_pb2.Cluster, vms: Sequence[vm_pb2.Vm]) -> None:
    """Fills in what comes from the VMs."""
    states = (state_name(vm_pb2.VmState, vm.status.state, "VM_STATE_") for vm in vms)
    cluster.vms.update(Counter(states))
    wanted = [vm for vm in vms if vm.decision.power in WANT_MEMORY]
    cluster.memory_promised_mib = sum(memory_of(vm) for vm in wanted)
    cluster.vcpus_promised = sum(vm.spec.cpu.vcpus for vm in wanted)


def count_room(cluster: cluster_pb2.Cluster, load: Load) -> None:
    """Fills in what is kept free for the VMs of nodes that fail, as cluster.spec promises."""
    room = room_of(load, cluster.spec.reserve_nodes)
    cluster.memory_reserved_mib, cluster.memory_free_mib = room.reserved_mib, room.free_mib


def no_room(cluster: cluster_pb2.Cluster) -> Iterable[tuple[Health.Health.ValueType, str]]:
    """What `count_room` found that wants a person's attention."""
    if cluster.spec.reserve_nodes and cluster.memory_free_mib < 0:
        yield (
            Health.HEALTH_WARNING,
            f"{-cluster.memory_free_mib} MiB of memory are missing to restart the VMs of "
            f"{cluster.spec.reserve_nodes} failed nodes (reserve_nodes)",
        )


def stance(cluster: cluster_pb2.Cluster) -> Iterable[tuple[Health.Health.ValueType, str]]:
    """What was switched off, and must not be forgotten."""
    if cluster.spec.maintenance:
        yield (
            Health.HEALTH_WARNING,
            "the cluster is in maintenance: no node is fenced, and nothing is started elsewhere",
        )
    if cluster.spec.ha_disarmed:
        yield (
            Health.HEALTH_WARNING,
            "high availability is disarmed: nodes that fail are not fenced, and their VMs not "
            "started elsewhere",
        )


WORRIES: Mapping[int, tuple[Health.Health.ValueType, str]] = {
    NEW: (Health.HEALTH_WARNING, "was not looked at yet"),
    JOINING: (Health.HEALTH_WARNING, "was added, and its machine has not come yet"),
    UNKNOWN: (Health.HEALTH_ERROR, "is not online"),
    FENCING: (Health.HEALTH_ERROR, "is not online, and being fenced"),
    FENCED: (Health.HEALTH_ERROR, "was fenced"),
}
"""State → how bad it is, and in words. Those that somebody asked for are no worry."""


def node_faults(node: cluster_pb2.Node) -> Iterable[tuple[Health.Health.ValueType, str]]:
    """What is wrong with one node."""
    if (worry := WORRIES.get(node.decision.state)) is not None:
        bad, words = worry
        why = f": {node.decision.why}" if node.decision.why else ""
        on = node.decision.power_on.why if node.decision.state == FENCED else ""
        yield bad, f"{node.name} {words}{why}" + (f"; its power: {on}" if on else "")
    if node.decision.state == MAINTENANCE and not node.spec.drained:
        yield Health.HEALTH_WARNING, f"{node.name} is away: {node.decision.why}"
    for fault in node.status.faults:
        yield Health.HEALTH_WARNING, f"{node.name}: {fault}"


def faults(
    leader: str,
    nodes: Iterable[cluster_pb2.Node],
    vms: Iterable[vm_pb2.Vm],
    pools: Iterable[storage_pb2.Pool],
    networks: Iterable[network_pb2.Network],
    gateways: Iterable[gateway_pb2.Gateway] = (),
) -> Iterable[tuple[Health.Health.ValueType, str]]:
    """What wants a person's attention, each with how much."""
    if not leader:
        yield Health.HEALTH_ERROR, "no coordinator leads"
    online = set()
    for node in nodes:
        yield from node_faults(node)
        online |= {short(node.name)} if is_online(node) else set()
    for gateway in gateways:
        name = short(gateway.name)
        if name in online:
            yield from ((Health.HEALTH_WARNING, f"nodes/{name}: {x}") for x in gateway.faults)
    for pool in pools:
        if pool.status.state == storage_pb2.PoolStatus.STATE_FAILED:
            yield Health.HEALTH_ERROR, f"{pool.name} cannot be used: {pool.status.why}"
    for network in networks:
        if network.status.state == network_pb2.NetworkStatus.STATE_FAILED:
            yield Health.HEALTH_ERROR, f"{network.name} cannot be used: {network.status.why}"
    for vm in vms:
        if vm.status.state in (vm_pb2.VM_STATE_CRASHED, vm_pb2.VM_STATE_FAILED):
            yield Health.HEALTH_WARNING, f"{vm.name}: {vm.decision.why or vm.status.why}"
        elif vm.spec.power in WANT_MEMORY and vm.spec.power_request != vm.decision.power_request:
            yield Health.HEALTH_WARNING, f"{vm.name} does not run: {vm.decision.why}"
