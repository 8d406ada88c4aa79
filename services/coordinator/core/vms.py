"""What a VM's node has to bring about: where it lives, whether it should run, and when a crashed
one is tried again."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import start_order
from services.coordinator.core.place import judge, place, why_none
from services.coordinator.core.plan import (
    ERROR,
    INFO,
    WARNING,
    DecideVm,
    FailOperation,
    ForgetVm,
    Step,
)
from services.coordinator.core.reserve import start_refused
from services.coordinator.core.residence import is_off, shut_itself_down
from services.coordinator.core.rounds import Round
from services.coordinator.core.world import FENCING, UNKNOWN, WANT_MEMORY, World, short
from services.mesh.rows import copied

OFF = vm_pb2.POWER_STATE_OFF
RUNNING = vm_pb2.POWER_STATE_RUNNING

BACKOFF_MAX_S = 300
TRIES_MAX = 3
PATIENCE_S = 30
"""A request that no node can take waits for one that went away less than this ago."""
CALM_AFTER_S = 600
"""A VM that ran this long is no longer held to have crashed in a row."""


def judge_vm(round: Round, vm: vm_pb2.Vm) -> Iterable[Step]:
    """What is to be decided about one VM now. The first matter that applies; the next round sees to
    the others."""
    decision, status = vm.decision, vm.status
    if vm.meta.HasField("delete_time"):
        return _deleted(round, vm)
    if not decision.node or vm.spec.power_request != decision.power_request:
        return _answer(round, vm)
    if decision.waits_for:
        return _waiting(round, vm)
    if decision.power not in WANT_MEMORY:
        return _elsewhere(round, vm) if _goes_elsewhere(decision) else ()
    if status.node and status.node != decision.node:
        return ()  # it speaks of the node that it came from
    if status.crashes > decision.crashes_seen:
        return [_after_crash(round, vm)]
    if shut_itself_down(vm):
        return [_switch(vm, OFF, "the guest shut itself down")]
    if (decision.restarts or decision.recoveries) and _ran_calmly(round.now, status):
        return [_calmed(vm)]
    return ()


def autostart(round: Round, vm: vm_pb2.Vm, node: cluster_pb2.Node) -> DecideVm | None:
    """What becomes of a VM when its machine has started anew; None when nothing changes."""
    wanted = vm.decision.power
    match vm.spec.autostart:
        case vm_pb2.AUTOSTART_ALWAYS:
            wanted = RUNNING
        case vm_pb2.AUTOSTART_NEVER:
            wanted = OFF
    if vm.meta.HasField("delete_time") or vm.decision.waits_for:
        return None
    if wanted in WANT_MEMORY and (waits_for := start_order.missing(round.world, vm)):
        return start_order.hold(round.now, vm, copied(vm), waits_for)
    if wanted == vm.decision.power:
        return None
    policy = vm_pb2.Autostart.Name(vm.spec.autostart).removeprefix("AUTOSTART_").lower()
    return _switch(vm, wanted, f"{node.name} started anew and its autostart is {policy}")


def _deleted(round: Round, vm: vm_pb2.Vm) -> Iterable[Step]:
    """A row that no node had goes at once, unless a deletion still reads its volumes off it."""
    if not vm.decision.node:
        working = any(operation.target == vm.name for operation in round.world.operations)
        return () if working else [ForgetVm(vm, "it was deleted before any node had it")]
    if vm.decision.power != OFF:
        return [_switch(vm, OFF, "it is being deleted")]
    return ()


def _answer(round: Round, vm: vm_pb2.Vm) -> Iterable[Step]:
    """Takes over what was asked for, with a node to do it on."""
    after = copied(vm)
    after.decision.power = vm.spec.power
    after.decision.power_request = vm.spec.power_request
    after.decision.crashes_seen = vm.status.crashes
    after.decision.restarts = after.decision.recoveries = 0
    after.decision.ClearField("not_before")
    start_order.no_longer_waits(after.decision)
    starts = vm.spec.power in WANT_MEMORY and vm.decision.power not in WANT_MEMORY
    if starts and (why := start_refused(round.world, round.load, vm)):
        return _homeless(round, vm, why, ())
    if _may_stay(round, vm):
        after.decision.why = "it was asked for"
        asked = asking(round.world, vm)
        return [DecideVm(after, _power_name(vm.spec.power), after.decision.why, asked=asked)]
    return _placed(round, vm, after)


def asking(world: World, vm: vm_pb2.Vm) -> operation_pb2.Operation | None:
    """The operation whose power request is the VM's latest one."""
    wanted = vm.spec.power_request
    for operation in world.operations if wanted else ():
        if operation.target == vm.name and operation.power_request == wanted:
            return operation
    return None


def _waiting(round: Round, vm: vm_pb2.Vm) -> Iterable[Step]:
    """It starts after others; see start_order."""
    left = start_order.go_on(round.now, round.world, vm)
    if not isinstance(left, str):
        step = start_order.still_waiting(vm, left)
        return [step] if step is not None else ()
    after = copied(vm)
    start_order.no_longer_waits(after.decision)
    after.decision.power = start_order.power_after(vm)
    if _may_stay(round, vm):
        after.decision.why = left
        return [DecideVm(after, _power_name(after.decision.power), left)]
    return _placed(round, vm, after)


def _goes_elsewhere(decision: vm_pb2.VmDecision) -> bool:
    return decision.recoveries > 0 and decision.HasField("not_before")


def _elsewhere(round: Round, vm: vm_pb2.Vm) -> Iterable[Step]:
    """It was switched off so that another node can try it; see `_after_crash`. It goes there once
    its own has said that nothing runs."""
    if not is_off(round.world, vm):
        return ()
    best, verdicts = best_but(round, vm, vm.decision.node)
    after = copied(vm)
    after.decision.power = start_order.power_after(vm)
    if not best:
        after.decision.why = "no other node fits; it is tried again where it is"
        return [DecideVm(after, _power_name(after.decision.power), after.decision.why, WARNING)]
    after.decision.node = best
    after.decision.recoveries += 1
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.why = f"it could not start on {short(vm.decision.node)}"
    what = f"{short(vm.decision.node)} → {short(best)}"
    return [DecideVm(after, what, after.decision.why, WARNING)]


def best_but(round: Round, vm: vm_pb2.Vm, but: str) -> tuple[str, tuple[vm_pb2.NodeVerdict, ...]]:
    """The best node but one; "" if none fits."""
    _, verdicts = place(round.world, vm, round.load)
    return next((v.node for v in verdicts if v.fits and v.node != but), ""), verdicts


def _placed(round: Round, vm: vm_pb2.Vm, after: vm_pb2.Vm) -> Iterable[Step]:
    """Gives the VM a node. While none fits, the request stays unanswered and what waits for it
    fails."""
    node, verdicts = place(round.world, vm, round.load)
    if not node:
        return _homeless(round, vm, why_none(verdicts), verdicts)
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.node = node
    after.decision.why = f"placed on {short(node)}: {', '.join(verdicts[0].reasons)}"
    what = f"{short(vm.decision.node) or 'nowhere'} → {short(node)}"
    return [DecideVm(after, what, after.decision.why, asked=asking(round.world, vm))]


def _homeless(
    round: Round, vm: vm_pb2.Vm, why: str, verdicts: tuple[vm_pb2.NodeVerdict, ...]
) -> Iterable[Step]:
    after = copied(vm)
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.why = f"no node fits: {why}"
    if after.decision.why != vm.decision.why and vm.name not in round.unrecovered:
        yield DecideVm(after, "no node fits", why, WARNING)
    if _may_soon_fit(round.world):
        return
    for operation in round.world.operations:
        if operation.target == vm.name and operation.power_request == vm.spec.power_request > 0:
            yield FailOperation(
                operation,
                reason_pb2.REASON_NO_NODE_FITS,
                f"no node fits {short(vm.name)}: {why}. It starts as soon as one does; "
                f"'pvc vm stop {short(vm.name)}' gives up",
            )


def _may_soon_fit(world: World) -> bool:
    """A node went away a moment ago, and is likely to be back: an agent that restarts must not fail
    what was asked for meanwhile."""
    missed = (n for n in world.nodes.values() if n.decision.state in (UNKNOWN, FENCING))
    return any(world.gone_s.get(node.name, 0.0) < PATIENCE_S for node in missed)


def _after_crash(round: Round, vm: vm_pb2.Vm) -> DecideVm:
    """Tries again later and later, or leaves it. What was started on this node because its own
    failed, and does not start here either, is tried on another one."""
    policy, tries = vm.spec.crash_policy, vm.decision.restarts
    failed = vm.status.state == vm_pb2.VM_STATE_FAILED
    crashed = f"{'could not start' if failed else 'crashed'} ({vm.status.why})"
    after = copied(vm)
    after.decision.crashes_seen = vm.status.crashes
    if policy.action == vm_pb2.CRASH_ACTION_LEAVE or tries >= max(policy.max_restarts, 1):
        after.decision.power = OFF
        after.decision.ClearField("not_before")
        after.decision.why = (
            f"{crashed}; given up after {tries} restarts; "
            f"'pvc vm start {short(vm.name)}' tries again"
        )
        return DecideVm(after, "left off", after.decision.why, ERROR)
    delay_s = min(max(policy.delay_s, 1) * 2**tries, BACKOFF_MAX_S)
    after.decision.restarts = tries + 1
    after.decision.not_before.FromNanoseconds(round.now.ToNanoseconds() + delay_s * 10**9)
    if failed and _may_try_elsewhere(round, vm):
        after.decision.power = OFF
        after.decision.why = f"{crashed}; it is tried on another node in {delay_s} s"
        return DecideVm(after, "is tried elsewhere", after.decision.why, WARNING)
    after.decision.why = f"{crashed}; restart {tries + 1} of {policy.max_restarts} in {delay_s} s"
    return DecideVm(after, "restarts", after.decision.why, WARNING)


def _may_try_elsewhere(round: Round, vm: vm_pb2.Vm) -> bool:
    """It is on this node only because its own failed, and there is another one to try."""
    tries, most = vm.decision.recoveries, vm.spec.ha.max_tries or TRIES_MAX
    if not 0 < tries < most or vm.decision.HasField("migration"):
        return False
    return bool(best_but(round, vm, vm.decision.node)[0])


def _ran_calmly(now: Timestamp, status: vm_pb2.VmStatus) -> bool:
    ran_s = now.seconds - status.start_time.seconds
    return status.state == vm_pb2.VM_STATE_RUNNING and ran_s >= CALM_AFTER_S


def _calmed(vm: vm_pb2.Vm) -> DecideVm:
    after = copied(vm)
    after.decision.restarts = after.decision.recoveries = 0
    after.decision.why = f"it has run for {CALM_AFTER_S // 60} minutes"
    return DecideVm(after, "restarts forgotten", after.decision.why)


def _switch(vm: vm_pb2.Vm, power: vm_pb2.PowerState.ValueType, why: str) -> DecideVm:
    after = copied(vm)
    after.decision.power = power
    after.decision.why = why
    after.decision.ClearField("not_before")
    return DecideVm(after, _power_name(power), why, INFO)


def _may_stay(round: Round, vm: vm_pb2.Vm) -> bool:
    """What may run stays where it is, whatever placement thinks of the node today; so does what is
    to be off."""
    node = round.world.nodes.get(vm.decision.node)
    if node is None or not is_off(round.world, vm):
        return bool(vm.decision.node) and not is_off(round.world, vm)
    return vm.spec.power not in WANT_MEMORY or judge(round.world, vm, node, round.load).fits


def _power_name(power: vm_pb2.PowerState.ValueType) -> str:
    return f"should be {vm_pb2.PowerState.Name(power).removeprefix('POWER_STATE_')}"
