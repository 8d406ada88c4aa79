"""What a VM's node has to bring about: where it lives, whether it should run, and when a crashed
one is tried again."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.coordinator.core.place import Load, judge, place, why_none
from services.coordinator.core.plan import (
    ERROR,
    INFO,
    WARNING,
    DecideVm,
    FailOperation,
    ForgetVm,
    Step,
)
from services.coordinator.core.world import WANT_MEMORY, World

OFF = vm_pb2.POWER_STATE_OFF
RUNNING = vm_pb2.POWER_STATE_RUNNING

IDLE = frozenset({vm_pb2.VM_STATE_UNSPECIFIED, vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_CRASHED})
"""States in which nothing runs, and nothing can begin to before the agent has written another.
FAILED is none: an emulator whose start was not answered may run all the same."""

BACKOFF_MAX_S = 300
CALM_AFTER_S = 600
"""A VM that ran this long is no longer held to have crashed in a row."""


def judge_vm(now: Timestamp, world: World, vm: vm_pb2.Vm, load: Load) -> Iterable[Step]:
    """What is to be decided about one VM now. The first matter that applies; the next round sees to
    the others."""
    decision, status = vm.decision, vm.status
    if vm.meta.HasField("delete_time"):
        return _deleted(world, vm)
    if not decision.node or vm.spec.power_request != decision.power_request:
        return _answer(world, vm, load)
    if decision.power not in WANT_MEMORY:
        return ()
    if status.crashes > decision.crashes_seen:
        return [_after_crash(now, vm)]
    if status.guest_shutdown and status.power_request == decision.power_request:
        return [_switch(vm, OFF, "the guest shut itself down")]
    if decision.restarts and _ran_calmly(now, status):
        return [_calmed(vm)]
    return ()


def autostart(vm: vm_pb2.Vm, node: cluster_pb2.Node) -> DecideVm | None:
    """What becomes of a VM when its machine has started anew; None when nothing changes."""
    wanted = vm.decision.power
    match vm.spec.autostart:
        case vm_pb2.AUTOSTART_ALWAYS:
            wanted = RUNNING
        case vm_pb2.AUTOSTART_NEVER:
            wanted = OFF
    if wanted == vm.decision.power or vm.meta.HasField("delete_time"):
        return None
    policy = vm_pb2.Autostart.Name(vm.spec.autostart).removeprefix("AUTOSTART_").lower()
    return _switch(vm, wanted, f"{node.name} started anew and its autostart is {policy}")


def _deleted(world: World, vm: vm_pb2.Vm) -> Iterable[Step]:
    """A row that no node had goes at once, unless a deletion still reads its volumes off it."""
    if not vm.decision.node:
        working = any(operation.target == vm.name for operation in world.operations)
        return () if working else [ForgetVm(vm, "it was deleted before any node had it")]
    if vm.decision.power != OFF:
        return [_switch(vm, OFF, "it is being deleted")]
    return ()


def _answer(world: World, vm: vm_pb2.Vm, load: Load) -> Iterable[Step]:
    """Takes over what was asked for, with a node to do it on."""
    after = _copied(vm)
    after.decision.power = vm.spec.power
    after.decision.power_request = vm.spec.power_request
    after.decision.crashes_seen = vm.status.crashes
    after.decision.restarts = 0
    after.decision.ClearField("not_before")
    if _may_stay(world, vm, load):
        after.decision.why = "it was asked for"
        return [DecideVm(after, _power_name(vm.spec.power), after.decision.why)]
    return _placed(world, vm, after, load)


def _placed(world: World, vm: vm_pb2.Vm, after: vm_pb2.Vm, load: Load) -> Iterable[Step]:
    """Gives the VM a node. While none fits, the request stays unanswered and what waits for it
    fails."""
    node, verdicts = place(world, vm, load)
    if not node:
        return _homeless(world, vm, verdicts)
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.node = node
    after.decision.why = f"placed on {_id(node)}: {', '.join(verdicts[0].reasons)}"
    return [
        DecideVm(after, f"{_id(vm.decision.node) or 'nowhere'} → {_id(node)}", after.decision.why)
    ]


def _homeless(
    world: World, vm: vm_pb2.Vm, verdicts: tuple[vm_pb2.NodeVerdict, ...]
) -> Iterable[Step]:
    why = why_none(verdicts)
    after = _copied(vm)
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.why = f"no node fits: {why}"
    if after.decision.why != vm.decision.why:
        yield DecideVm(after, "no node fits", why, WARNING)
    for operation in world.operations:
        if operation.target == vm.name and operation.power_request == vm.spec.power_request > 0:
            yield FailOperation(
                operation,
                reason_pb2.REASON_NO_NODE_FITS,
                f"no node fits {_id(vm.name)}: {why}. It starts as soon as one does; "
                f"'pvc vm stop {_id(vm.name)}' gives up",
            )


def _after_crash(now: Timestamp, vm: vm_pb2.Vm) -> DecideVm:
    """Tries again later and later, or leaves it."""
    policy, tries = vm.spec.crash_policy, vm.decision.restarts
    crashed = "could not start" if vm.status.state == vm_pb2.VM_STATE_FAILED else "crashed"
    after = _copied(vm)
    after.decision.crashes_seen = vm.status.crashes
    if policy.action == vm_pb2.CRASH_ACTION_LEAVE or tries >= max(policy.max_restarts, 1):
        after.decision.power = OFF
        after.decision.why = (
            f"{crashed} ({vm.status.why}); given up after {tries} restarts; "
            f"'pvc vm start {_id(vm.name)}' tries again"
        )
        return DecideVm(after, "left off", after.decision.why, ERROR)
    delay_s = min(max(policy.delay_s, 1) * 2**tries, BACKOFF_MAX_S)
    after.decision.restarts = tries + 1
    after.decision.not_before.FromNanoseconds(now.ToNanoseconds() + delay_s * 10**9)
    after.decision.why = (
        f"{crashed} ({vm.status.why}); restart {tries + 1} of {policy.max_restarts} in {delay_s} s"
    )
    return DecideVm(after, "restarts", after.decision.why, WARNING)


def _ran_calmly(now: Timestamp, status: vm_pb2.VmStatus) -> bool:
    ran_s = now.seconds - status.start_time.seconds
    return status.state == vm_pb2.VM_STATE_RUNNING and ran_s >= CALM_AFTER_S


def _calmed(vm: vm_pb2.Vm) -> DecideVm:
    after = _copied(vm)
    after.decision.restarts = 0
    after.decision.why = f"it has run for {CALM_AFTER_S // 60} minutes"
    return DecideVm(after, "restarts forgotten", after.decision.why)


def _switch(vm: vm_pb2.Vm, power: vm_pb2.PowerState.ValueType, why: str) -> DecideVm:
    after = _copied(vm)
    after.decision.power = power
    after.decision.why = why
    return DecideVm(after, _power_name(power), why, INFO)


def _may_stay(world: World, vm: vm_pb2.Vm, load: Load) -> bool:
    """What runs stays where it is, whatever placement thinks of the node today; so does what is to
    be off."""
    node = world.nodes.get(vm.decision.node)
    if node is None:
        return False
    idle = vm.status.state in IDLE
    return not idle or vm.spec.power not in WANT_MEMORY or judge(world, vm, node, load).fits


def _copied(vm: vm_pb2.Vm) -> vm_pb2.Vm:
    after = vm_pb2.Vm()
    after.CopyFrom(vm)
    return after


def _power_name(power: vm_pb2.PowerState.ValueType) -> str:
    return f"should be {vm_pb2.PowerState.Name(power).removeprefix('POWER_STATE_')}"


def _id(name: str) -> str:
    return name.rpartition("/")[2]
