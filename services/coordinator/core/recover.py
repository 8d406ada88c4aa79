"""What becomes of the VMs of a node that is proven dead: started elsewhere, left off, or left to
their node; the most important first, as many as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.place import place, why_none
from services.coordinator.core.plan import ERROR, INFO, WARNING, DecideVm
from services.coordinator.core.residence import IDLE, is_dead, is_off, shut_itself_down
from services.coordinator.core.rounds import Round
from services.coordinator.core.start_order import hold, missing
from services.coordinator.core.world import FENCING, WANT_MEMORY, World, short
from services.mesh.rows import copied

PRIORITY = 500
WAITS = "waits for room: "
OFF = vm_pb2.POWER_STATE_OFF
STOP = vm_pb2.NODE_FAILURE_POLICY_STOP
IGNORE = vm_pb2.NODE_FAILURE_POLICY_IGNORE


def recover(round: Round) -> Iterator[DecideVm]:
    """A step for each VM of dead nodes that was not seen to yet, in the order of priority. A VM
    that migrates is none of them before its migration has ended."""
    unplaced: set[bytes] = set()
    for vm in _owed(round):
        if (step := _recovered(round, vm, unplaced)) is not None:
            yield round.take(vm, step)


def priority_of(vm: vm_pb2.Vm) -> int:
    """Higher goes first."""
    return vm.spec.ha.priority or PRIORITY


def held_back(world: World) -> str:
    """Why nothing is started elsewhere by itself; "" when it is."""
    if world.spec.maintenance:
        return "the cluster is in maintenance"
    return "high availability is disarmed" if world.spec.ha_disarmed else ""


def _owed(round: Round) -> Sequence[vm_pb2.Vm]:
    owed = [
        vm
        for name, vms in round.residents.items()
        if name and _may_owe(round.world, name)
        for vm in vms
        if _is_owed(round.world, vm)
    ]
    return sorted(owed, key=lambda vm: (-priority_of(vm), vm.name))


def _may_owe(world: World, name: str) -> bool:
    """The node is dead, or is being proven to be."""
    node = world.nodes.get(name)
    return is_dead(world, name) or (
        node is not None and node.decision.state == FENCING and name not in world.present
    )


def _is_owed(world: World, vm: vm_pb2.Vm) -> bool:
    """It has to be seen to: its node is dead, or is away and the VM never got to run there."""
    decision = vm.decision
    if decision.HasField("migration"):
        return False
    if is_dead(world, decision.node):
        node = world.nodes.get(decision.node)
        seen = node is not None and decision.fence_seen == node.decision.fences
        return not seen and not _is_at_rest(vm)
    wanted = is_wanted(vm) and vm.spec.ha.policy not in (STOP, IGNORE)
    return wanted and not vm.meta.HasField("delete_time") and is_off(world, vm)


def is_wanted(vm: vm_pb2.Vm) -> bool:
    """It should run."""
    return vm.decision.power in WANT_MEMORY and not shut_itself_down(vm)


def _is_at_rest(vm: vm_pb2.Vm) -> bool:
    """It was off before, and everybody knows."""
    off = vm.decision.power in (OFF, vm_pb2.POWER_STATE_UNSPECIFIED)
    return off and vm.status.state in IDLE and not vm.meta.HasField("delete_time")


def _recovered(round: Round, vm: vm_pb2.Vm, unplaced: set[bytes]) -> DecideVm | None:
    name = vm.decision.node
    dead = is_dead(round.world, name)
    why = f"{short(name)} is {'dead' if dead else 'away, and it does not run there'}"
    if vm.meta.HasField("delete_time") or not is_wanted(vm):
        return _left_off(round, vm, why)
    match vm.spec.ha.policy:
        case vm_pb2.NODE_FAILURE_POLICY_STOP:
            return _left_off(round, vm, f"{why}, and its policy is to stop")
        case vm_pb2.NODE_FAILURE_POLICY_IGNORE if name in round.world.nodes:
            node = round.world.nodes[name]
            return _left_there(vm, node, f"{why}, and its policy is to ignore that")
        case _:
            return _restarted(round, vm, why, unplaced)


def _restarted(round: Round, vm: vm_pb2.Vm, why: str, unplaced: set[bytes]) -> DecideVm | None:
    round.unrecovered.add(vm.name)
    if held := held_back(round.world):
        return _waiting(vm, f"not started elsewhere: {held}", ())
    if (shape := shape_of(vm)) in unplaced:
        return None  # as many nodes refuse it as refused the one before
    best, verdicts = place(round.world, vm, round.load)
    if not best:
        unplaced.add(shape)
        return _waiting(vm, f"{WAITS}{why}, and {why_none(verdicts)}", verdicts)
    round.unrecovered.remove(vm.name)
    after = moved(vm, best, f"{why}; {', '.join(verdicts[0].reasons)}")
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    after.decision.recoveries += 1
    if waits_for := missing(round.world, vm):
        return hold(round.now, vm, after, waits_for)
    what = f"{short(vm.decision.node)} → {short(best)}"
    return DecideVm(after, what, after.decision.why, WARNING)


def moved(vm: vm_pb2.Vm, node: str, why: str) -> vm_pb2.Vm:
    """The row with another node, and where it came from, so that it can be brought back."""
    after = copied(vm)
    if not after.decision.home:
        after.decision.home = vm.decision.node
    after.decision.node = node
    after.decision.crashes_seen = vm.status.crashes
    after.decision.why = why
    return after


def shape_of(vm: vm_pb2.Vm) -> bytes:
    """All that placement asks of a VM: where one does not fit, others of its shape do not."""
    spec = vm_pb2.VmSpec(tags=vm.spec.tags, disks=vm.spec.disks, power=vm.spec.power)
    spec.cpu.CopyFrom(vm.spec.cpu)
    spec.memory.CopyFrom(vm.spec.memory)
    spec.placement.CopyFrom(vm.spec.placement)
    spec.nics.extend(vm_pb2.NicSpec(network=nic.network) for nic in vm.spec.nics)
    for disk in spec.disks:
        disk.volume = disk.volume.partition("/volumes/")[0]
    return spec.SerializeToString(deterministic=True)


def _waiting(vm: vm_pb2.Vm, why: str, verdicts: Sequence[vm_pb2.NodeVerdict]) -> DecideVm | None:
    """It is tried again in every round. The figures in its why are those of the first try: writing
    them anew for all that wait, whenever one VM starts or stops, would be most of what is
    written."""
    there = vm.decision.why
    if there == why or (there.startswith(WAITS) and why.startswith(WAITS)):
        return None
    after = copied(vm)
    after.decision.why = why
    del after.decision.verdicts[:]
    after.decision.verdicts.extend(verdicts)
    return DecideVm(after, "is not recovered yet", why, ERROR)


def _left_off(round: Round, vm: vm_pb2.Vm, why: str) -> DecideVm:
    """Off, by the death of its node. Another node says so, if one can open its volumes: the word of
    its own is out of date for good."""
    off = copied(vm)
    off.spec.power = OFF
    best, _ = place(round.world, off, round.load)
    if best:
        after = moved(vm, best, why)
    else:
        after = copied(vm)
        after.decision.why = why
        node = round.world.nodes.get(vm.decision.node)
        after.decision.node = node.name if node is not None else ""
        after.decision.fence_seen = node.decision.fences if node is not None else 0
    after.decision.power = OFF
    after.decision.ClearField("not_before")
    severity = ERROR if is_wanted(vm) else INFO
    return DecideVm(after, "is off", why, severity)


def _left_there(vm: vm_pb2.Vm, node: cluster_pb2.Node, why: str) -> DecideVm:
    after = copied(vm)
    after.decision.fence_seen = node.decision.fences
    after.decision.why = why
    return DecideVm(after, "waits for its node", why, WARNING)
