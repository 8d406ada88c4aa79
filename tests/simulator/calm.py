"""What must be so once every fault is over and some time has passed: everything that should run and
fits runs, exactly once; nothing is left over or under way."""

from __future__ import annotations

from collections.abc import Iterator

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from services.compute.drivers.hypervisor import Power
from services.mesh import rows
from tests.simulator.cluster import SimCluster

RUNNING, PAUSED = vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED
GIVEN_UP = (vm_pb2.VM_STATE_CRASHED, vm_pb2.VM_STATE_FAILED)


def unlike(cluster: SimCluster) -> Iterator[str]:
    """Every respect in which things are not as they should be."""
    yield from _nodes(cluster)
    for vm in cluster.ensemble.snapshot.rows(vm_pb2.Vm):
        yield from _vm(cluster, vm)
    yield from _leftovers(cluster)
    yield from _operations(cluster)


def _nodes(cluster: SimCluster) -> Iterator[str]:
    for node in cluster.ensemble.snapshot.rows(cluster_pb2.Node):
        state = node.decision.state
        drained = cluster_pb2.NODE_STATE_DRAINED
        if node.spec.drained and state == drained and _is_empty(cluster, node.name):
            continue
        if node.spec.drained and state == cluster_pb2.NODE_STATE_DRAINING:
            continue  # what cannot move is told by its operation, which has ended
        if node.spec.drained or state != cluster_pb2.NODE_STATE_ONLINE:
            name = cluster_pb2.NodeState.Name(state).removeprefix("NODE_STATE_")
            yield f"{node.name} is {name}: {node.decision.why}"


def _is_empty(cluster: SimCluster, node: str) -> bool:
    return not cluster.nodes[node.removeprefix("nodes/")].machine.running()


def _vm(cluster: SimCluster, vm: vm_pb2.Vm) -> Iterator[str]:
    name = vm.name.removeprefix("vms/")
    state = vm_pb2.VmState.Name(vm.status.state).removeprefix("VM_STATE_")
    runners = cluster.runners(name)
    if vm.meta.HasField("delete_time"):
        yield f"{name} is still being deleted ({state}: {vm.decision.why})"
    elif vm.spec.power_request != vm.decision.power_request:
        yield f"{name} waits for an answer: {vm.decision.why}"
    elif vm.decision.power in (RUNNING, PAUSED):
        if [f"nodes/{runner}" for runner in runners] != [vm.decision.node]:
            yield (
                f"{name} should run on {vm.decision.node} and is {state} there ({vm.status.why}); "
                f"it runs on {runners or 'no node'}"
            )
        elif vm.decision.power == RUNNING and _power(cluster, runners[0], name) is Power.PAUSED:
            yield f"{name} stands still: {vm.status.why}"
        elif vm.status.power_request != vm.decision.power_request:
            yield f"{name} has not taken in request {vm.decision.power_request}: {vm.status.why}"
    elif runners:
        yield f"{name} should be off and runs on {runners}"
    elif vm.spec.power == RUNNING and not _may_be_off(cluster, vm):
        yield f"{name} was asked to run and is off: {vm.decision.why}"


def _may_be_off(cluster: SimCluster, vm: vm_pb2.Vm) -> bool:
    """It was given up after failures, its guest ended it, or its rules say so."""
    excused = cluster.excused.get(vm.name) == vm.decision.power_request
    return excused or vm.status.state in GIVEN_UP


def _power(cluster: SimCluster, node: str, vm: str) -> Power:
    return cluster.nodes[node].machine.hypervisor.power_of(vm)


def _leftovers(cluster: SimCluster) -> Iterator[str]:
    snapshot = cluster.ensemble.snapshot
    for node in cluster.nodes.values():
        for vm in node.machine.hypervisor.defined():
            row = snapshot.find(vm_pb2.Vm, f"vms/{vm}")
            if row is None and not _is_told(cluster, node.name, vm):
                yield f"{node.id} has a domain {vm}, and there is no such VM"
            elif row is None:
                continue
            elif row.decision.node != node.name:
                yield f"{node.id} has a domain {vm}, which belongs to {row.decision.node}"


def _is_told(cluster: SimCluster, node: str, vm: str) -> bool:
    """The node says that it has a definition that nobody knows, and nothing of it runs. So it is
    where a VM was started elsewhere and deleted there while its first node was away."""
    faults = cluster.node_row(node.removeprefix("nodes/")).status.faults
    told = any(f"the domain {vm} is defined" in fault for fault in faults)
    return told and vm not in cluster.nodes[node.removeprefix("nodes/")].machine.running()


def _operations(cluster: SimCluster) -> Iterator[str]:
    snapshot = cluster.ensemble.snapshot
    for operation in snapshot.rows(operation_pb2.Operation):
        if operation.state not in rows.FINAL:
            method = operation.method.rpartition("/")[2]
            yield f"{method} of {operation.target} has not ended: {operation.stage}"
    for name, what in cluster.accepted.items():
        if snapshot.find(operation_pb2.Operation, name) is None:
            yield f"{what} was accepted, and its operation is gone"
