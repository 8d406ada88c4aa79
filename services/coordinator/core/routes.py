"""Whether a VM can move now, where to and how: all that is in the way is said at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import copying
from services.coordinator.core.capacity import Load
from services.coordinator.core.migration import LIVE, NONE, ONLY_WHEN_OFF, SHUTDOWN
from services.coordinator.core.place import judge, judge_all, why_none
from services.coordinator.core.residence import is_idle
from services.coordinator.core.world import WANT_MEMORY, WORKING, World, short
from services.mesh.errors import PvcError, not_found

Method: TypeAlias = vm_pb2.MigrationMethod.ValueType
Wanted = api.MigrateVmRequest | api.MoveVmRequest | api.UnmigrateVmRequest


@dataclass(frozen=True, slots=True)
class Route:
    """A move that is possible now."""

    target: str
    method: Method
    """SHUTDOWN or LIVE; NONE where nothing runs, so that only the node changes."""
    volumes: Mapping[str, str] = field(default_factory=lambda: copying.NOTHING)
    """Those that are copied along → their new places."""


def route_of(world: World, load: Load, vm: vm_pb2.Vm, request: Wanted) -> Route:
    """The move that was asked for. The VM's own node as the target: nothing has to move. Raises
    PvcError with all that is in the way."""
    target = _asked_target(world, vm, request)
    if target == vm.decision.node:
        return Route(target, NONE)
    how = _asked_method(vm, request)
    obstacles = why_bound(world, vm, how)
    copy = request.copy_volumes
    best, refusals = _suited(world, load, vm, target, how, copy)
    if refusals and not copy and (hint := copying.hint(world, vm, target)):
        refusals = [*refusals, hint]
    if obstacles or refusals:
        reason = reason_pb2.REASON_WRONG_STATE if obstacles else reason_pb2.REASON_NO_NODE_FITS
        raise PvcError(reason, f"{vm.name} cannot move: {'; '.join([*obstacles, *refusals])}")
    return route_to(world, load, vm, best, how, copy)


def route_to(
    world: World, load: Load, vm: vm_pb2.Vm, target: str, how: Method, copy: bool
) -> Route:
    """The move to a node that fits."""
    volumes = copying.choose(world, load, vm, target).volumes if copy else copying.NOTHING
    return Route(target, NONE if may_just_change(vm) else how, volumes)


def _asked_target(world: World, vm: vm_pb2.Vm, request: Wanted) -> str:
    if not vm.decision.node:
        raise PvcError(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is on no node: {vm.decision.why or 'none was chosen yet'}", field="name",
        )  # fmt: skip
    if isinstance(request, api.UnmigrateVmRequest):
        if not vm.decision.home:
            raise PvcError(
                reason_pb2.REASON_WRONG_STATE,
                f"{vm.name} is where it belongs, on {short(vm.decision.node)}", field="name",
            )  # fmt: skip
        return vm.decision.home
    if request.node and request.node not in world.nodes:
        raise not_found(request.node, "node")
    return request.node


def _asked_method(vm: vm_pb2.Vm, request: Wanted) -> Method:
    if request.method == NONE:
        raise PvcError(
            reason_pb2.REASON_INVALID_FIELD,
            "a VM moves live or by shutdown; none is no way to move", field="method",
        )  # fmt: skip
    return request.method or usual_method(vm)


def usual_method(vm: vm_pb2.Vm) -> Method:
    """How the VM moves when nobody says otherwise."""
    return vm.spec.migration.method or LIVE


def _suited(
    world: World, load: Load, vm: vm_pb2.Vm, target: str, how: Method, copy: bool
) -> tuple[str, list[str]]:
    """The target, or the best one; "" and why none."""
    if target:
        node = world.nodes.get(target)
        if node is None:
            return "", [f"{short(target)} is no node of the cluster any more"]
        reasons = refusals_of(world, load, vm, node, how, copy)
        return target, [f"{short(target)} {reason}" for reason in reasons]
    verdicts = verdicts_elsewhere(world, load, vm, how, copy)
    if verdicts and verdicts[0].fits:
        return verdicts[0].node, []
    return "", [f"no other node fits: {why_none(verdicts)}"]


def refusals_of(
    world: World, load: Load, vm: vm_pb2.Vm, node: cluster_pb2.Node, how: Method, copy: bool
) -> list[str]:
    """Why the VM cannot move to a certain node. copy: its volumes go along where they have to."""
    verdict = judge(copying.opened(world) if copy else world, vm, node, load)
    reasons = [] if verdict.fits else list(verdict.reasons)
    reasons += cannot_receive(world, vm, node, how)
    return [*reasons, *(copying.choose(world, load, vm, node.name).refusals if copy else ())]


def verdicts_elsewhere(
    world: World, load: Load, vm: vm_pb2.Vm, how: Method, copy: bool = False
) -> list[vm_pb2.NodeVerdict]:
    """What is thought of every node but the VM's own, as a place to move to; the best first. copy:
    as in `refusals_of`."""
    judged = judge_all(copying.opened(world) if copy else world, vm, load)
    verdicts = [v for v in judged if v.node != vm.decision.node]
    for verdict in verdicts:
        reasons = cannot_receive(world, vm, world.nodes[verdict.node], how)
        if copy:
            reasons += copying.choose(world, load, vm, verdict.node).refusals
        if reasons:
            if verdict.fits:
                del verdict.reasons[:]
            verdict.fits = False
            verdict.reasons.extend(reasons)
    return sorted(verdicts, key=lambda v: not v.fits)


def cannot_receive(world: World, vm: vm_pb2.Vm, node: cluster_pb2.Node, how: Method) -> list[str]:
    """Why a node that could carry the VM cannot take it while it runs."""
    if how != LIVE or may_just_change(vm):
        return []
    reasons = []
    if not node.status.migration_host:
        reasons.append("has a hypervisor that takes no VMs from others")
    source = world.nodes.get(vm.decision.node)
    if source is not None and source.status.accelerator != node.status.accelerator:
        reasons.append(
            f"runs its VMs by {node.status.accelerator or 'nothing'}, "
            f"{short(source.name)} by {source.status.accelerator or 'nothing'}"
        )
    return reasons


def why_bound(world: World, vm: vm_pb2.Vm, how: Method) -> list[str]:
    """What keeps the VM where it is, wherever it should go."""
    reasons = []
    if usual_method(vm) == NONE:
        reasons.append(ONLY_WHEN_OFF[NONE])
    if may_just_change(vm):
        return reasons
    source = world.nodes.get(vm.decision.node)
    if source is None or source.decision.state not in WORKING:
        reasons.append(
            f"its node {short(vm.decision.node)} is not online, so that it may run there"
        )
    elif vm.status.node != vm.decision.node:
        return reasons  # it has to be looked at there first; see why_wait
    elif vm.status.state not in (vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_PAUSED):
        reasons.append(f"it is {_state(vm)}; wait until it runs or is off")
    elif vm.decision.power not in WANT_MEMORY:
        reasons.append("it is to be off; wait for that")
    elif how == SHUTDOWN and vm.status.state == vm_pb2.VM_STATE_PAUSED:
        reasons.append("it is paused, so that its guest cannot shut down; resume it, or stop it")
    return reasons


def why_wait(vm: vm_pb2.Vm, work: operation_pb2.Operation | None) -> str:
    """What the VM has to wait for before it may move at all, as a stage; "" for nothing. work: what
    its node does with it just now."""
    if vm.decision.HasField("migration"):
        return f"waits for its move to {short(vm.decision.migration.target)}"
    if work is not None:
        return f"waits for {work.method.rpartition('/')[2]} ({work.name})"
    if vm.status.node != vm.decision.node and not is_idle(vm):
        return f"waits until {short(vm.decision.node)} has looked at it"
    if vm.status.state in (vm_pb2.VM_STATE_STARTING, vm_pb2.VM_STATE_STOPPING):
        return f"waits until it is no longer {_state(vm)}"
    return ""


def may_just_change(vm: vm_pb2.Vm) -> bool:
    """Nothing of it runs, and nothing can begin to without a look at the row that is written: only
    its node has to change."""
    return is_idle(vm)


def _state(vm: vm_pb2.Vm) -> str:
    return vm_pb2.VmState.Name(vm.status.state).removeprefix("VM_STATE_")
