"""Who waits for whom when VMs start by themselves: after a node's death, or when a node or the
whole cluster has started. A start that somebody asks for does not wait. Pure.

A VM that waits is OFF and names in `decision.waits_for` what it waits for, until that runs or its
patience ends. VMs that wait for each other all start when the first one's patience does.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.plan import DecideVm
from services.coordinator.core.world import WANT_MEMORY, World, is_working, short

TIMEOUT_S = 300
OFF = vm_pb2.POWER_STATE_OFF
RUNNING = vm_pb2.POWER_STATE_RUNNING


def missing(world: World, vm: vm_pb2.Vm) -> Sequence[str]:
    """Those that it starts after and that do not run."""
    return [name for name in vm.spec.ha.start_after if not _runs(world, name)]


def hold(now: Timestamp, vm: vm_pb2.Vm, after: vm_pb2.Vm, waits_for: Sequence[str]) -> DecideVm:
    """Has the VM wait, though it is to run. after: its row as it would be otherwise, to be
    changed."""
    decision = after.decision
    patience_s = vm.spec.ha.start_after_timeout_s or TIMEOUT_S
    decision.power = OFF
    del decision.waits_for[:]
    decision.waits_for.extend(waits_for)
    decision.waits_until.FromNanoseconds(now.ToNanoseconds() + patience_s * 10**9)
    decision.why = f"waits for {_listed(waits_for)}, for {patience_s} s at most"
    return DecideVm(after, "waits", decision.why)


def go_on(now: Timestamp, world: World, vm: vm_pb2.Vm) -> str | Sequence[str]:
    """Of a VM that waits: why it starts now, or what it still waits for."""
    left = missing(world, vm)
    if not left:
        return "what it waited for runs"
    if now.ToNanoseconds() >= vm.decision.waits_until.ToNanoseconds():
        return f"it waited long enough for {_listed(left)}"
    return left


def still_waiting(vm: vm_pb2.Vm, left: Sequence[str]) -> DecideVm | None:
    """Writes what it still waits for, if that changed."""
    if list(vm.decision.waits_for) == list(left):
        return None
    after = vm_pb2.Vm()
    after.CopyFrom(vm)
    del after.decision.waits_for[:]
    after.decision.waits_for.extend(left)
    after.decision.why = f"waits for {_listed(left)}"
    return DecideVm(after, "", after.decision.why)


def no_longer_waits(decision: vm_pb2.VmDecision) -> None:
    """Forgets, in place, that it waited."""
    decision.ClearField("waits_for")
    decision.ClearField("waits_until")


def power_after(vm: vm_pb2.Vm) -> vm_pb2.PowerState.ValueType:
    """What a VM that waited is to do now."""
    return vm.spec.power if vm.spec.power in WANT_MEMORY else RUNNING


def _runs(world: World, name: str) -> bool:
    """It runs, or there is nothing to wait for: it does not exist, or is being deleted."""
    vm = world.vms.get(name)
    if vm is None or vm.meta.HasField("delete_time"):
        return True
    running = vm.status.state == vm_pb2.VM_STATE_RUNNING
    return running and vm.status.node == vm.decision.node and is_working(world, vm.decision.node)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(short, names))
