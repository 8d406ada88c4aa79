"""Where a VM may be: what proves that it runs nowhere, and the one way to give it another node.

Two nodes must never run the same VM, so `decision.node` changes only where `is_off` says so, or
where a migration has ended. Pure.
"""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.world import FENCED, WANT_MEMORY, World

UNSEEN = vm_pb2.VM_STATE_UNSPECIFIED
IDLE = frozenset({UNSEEN, vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_CRASHED})
"""States in which nothing runs, and nothing can begin to before the agent has written another.
FAILED is none: an emulator whose start was not answered may run all the same."""

ON = frozenset(
    {
        vm_pb2.VM_STATE_STARTING,
        vm_pb2.VM_STATE_RUNNING,
        vm_pb2.VM_STATE_PAUSED,
        vm_pb2.VM_STATE_STOPPING,
    }
)
"""States in which something runs, or begins to."""

WHILE_OFF = frozenset({vm_pb2.MIGRATION_METHOD_SHUTDOWN, vm_pb2.MIGRATION_METHOD_NONE})
"""Methods of migrations in which the VM changes its node while nothing of it runs."""

LANDED = vm_pb2.VmArrival.STATE_RUNNING


def is_off(world: World, vm: vm_pb2.Vm) -> bool:
    """It runs nowhere, and cannot begin to without a new version of its row.

    A status counts only where the node in the decision wrote it: the one that a VM came from may
    write "STOPPED" of what runs elsewhere by now. While it migrates two nodes have a say, which is
    not asked for here.
    """
    if vm.decision.HasField("migration"):
        return False
    if not vm.decision.node or is_dead(world, vm.decision.node):
        return True
    return is_idle(vm)


def is_idle(vm: vm_pb2.Vm) -> bool:
    """Its own node says, on this very decision, that nothing of it runs."""
    status = vm.status
    if status.state == UNSEEN:
        return True
    return status.state in IDLE and status.node == vm.decision.node


def shut_itself_down(vm: vm_pb2.Vm) -> bool:
    """Its guest did, and nobody asked for it to run since."""
    status = vm.status
    return status.guest_shutdown and status.power_request == vm.decision.power_request


def may_leave(world: World, vm: vm_pb2.Vm, target: str) -> bool:
    """Its node may be changed to `target`: it runs nowhere, or it runs there by now."""
    migration = vm.decision.migration
    if not vm.decision.HasField("migration"):
        return is_off(world, vm)
    if target != migration.target:
        return False
    if migration.method in WHILE_OFF and is_idle(vm):
        return True
    seen, arrival = vm.status.migration, vm.arrival
    if seen.id == migration.id and seen.phase == vm_pb2.MigrationStatus.PHASE_MOVED:
        return True
    landed = arrival.id == migration.id and arrival.state == LANDED
    return landed and is_dead(world, vm.decision.node)


def is_dead(world: World, name: str) -> bool:
    """Nothing that was started on the node runs any more: its death is proven and it has not come
    back, or it has left the cluster. One that is back may have VMs that it never lost; they are its
    own again once it has taken in that it was fenced."""
    node = world.nodes.get(name)
    return node is None or (node.decision.state == FENCED and name not in world.present)


def assign_to(world: World, vm: vm_pb2.Vm, name: str) -> None:
    """Gives a copy of a VM's row another node. What that node's fences mean for it begins anew: one
    that is fenced at the moment has still to be dealt with."""
    node = world.nodes.get(name)
    vm.decision.node = name
    vm.decision.fence_seen = 0
    if node is not None:
        vm.decision.fence_seen = node.decision.fences - (node.decision.state == FENCED)
    if vm.decision.home == name:
        vm.decision.home = ""


def may_run_on(vm: vm_pb2.Vm, node: str) -> bool:
    """The node is not free of it: it runs there, may come to run there, or is about to arrive. What
    a target once said of an arrival counts only while there is a migration: none ends before it is
    certain that nothing comes in any more."""
    decision = vm.decision
    if node == decision.node and decision.power in WANT_MEMORY:
        return True
    if decision.HasField("migration") and node == decision.migration.target:
        return True
    return vm.status.state in ON and node == (vm.status.node or decision.node)
