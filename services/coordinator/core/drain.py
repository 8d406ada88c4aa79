"""Empties nodes that are to be drained, and brings their VMs back when they are ready again:
several at a time, the most important first, telling of each that cannot move why.

The states of the nodes are decided elsewhere; here their VMs move, and the operations end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import copying, migration
from services.coordinator.core.capacity import slot_short
from services.coordinator.core.convoy import (
    Chance,
    Convoy,
    Stuck,
    Wait,
    cancelled,
    succeeded,
    why_not_yet,
)
from services.coordinator.core.methods import DRAIN, READY
from services.coordinator.core.migration import NONE, ONLY_WHEN_OFF, SHUTDOWN
from services.coordinator.core.place import why_none
from services.coordinator.core.plan import FailOperation, Step, Unjudged
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.routes import (
    Method,
    Route,
    may_just_change,
    refusals_of,
    route_to,
    usual_method,
    verdicts_elsewhere,
    why_bound,
    why_wait,
)
from services.coordinator.core.world import WORKING, short

Node = cluster_pb2.Node
Operation = operation_pb2.Operation

AWAY = frozenset({cluster_pb2.NODE_STATE_UNKNOWN, cluster_pb2.NODE_STATE_FENCING})
"""States of nodes that may be back soon."""


def judge_drains(round: Round) -> Iterator[Step | Unjudged]:
    """The next moves of every drain and return, and the ends of those that are over."""
    for operation in round.operations.values():
        if operation.name not in round.taken and operation.method in (DRAIN, READY):
            yield from guarded(operation, partial(_judged, round, operation))


def _judged(round: Round, operation: Operation) -> Iterator[Step]:
    node = round.world.nodes.get(operation.target)
    if node is None:
        why = f"{operation.target} has left the cluster"
        yield FailOperation(operation, reason_pb2.REASON_SUPERSEDED, why)
    elif operation.cancel_requested:
        yield from cancelled(round, operation)
    elif operation.method == DRAIN:
        yield from _drain(round, operation, node)
    else:
        yield from _return(round, operation, node)


# --- Away from a node.


def _drain(round: Round, operation: Operation, node: Node) -> Iterator[Step]:
    if not node.spec.drained:
        why = f"{node.name} is to be ready by now"
        yield FailOperation(operation, reason_pb2.REASON_SUPERSEDED, why)
        return
    if node.decision.state == cluster_pb2.NODE_STATE_FENCED:
        why = f"{node.name} failed meanwhile: {node.decision.why}"
        yield FailOperation(operation, reason_pb2.REASON_INTERRUPTED, why)
        return
    vms = round.residents.get(node.name, ())
    if not vms and node.decision.state == cluster_pb2.NODE_STATE_DRAINED:
        yield succeeded(round, operation, node, f"{short(node.name)} is empty")
        return
    request = api.DrainNodeRequest()
    operation.request.Unpack(request)
    choose = partial(_away, by_shutdown=request.shutdown, copy=request.copy_volumes)
    wait = why_not_yet(node, WORKING - {cluster_pb2.NODE_STATE_ONLINE})
    yield from Convoy(round, operation, node, vms, choose, wait).steps()


def _away(round: Round, vm: vm_pb2.Vm, by_shutdown: bool, copy: bool) -> Chance:
    return _no_slot(round, vm) or leave(round, vm, by_shutdown, copy)


def _no_slot(round: Round, vm: vm_pb2.Vm) -> Wait | None:
    """While the node itself moves as much as it may, where its other VMs can go is not asked."""
    node = vm.decision.node
    why = slot_short(round.world, round.load, node, node)
    return Wait(f"waits for a free slot: {why}") if why and not may_just_change(vm) else None


def bound(round: Round, node: str, by_shutdown: bool, copy: bool = False) -> dict[str, str]:
    """VMs that could not leave the node, as the cluster is now, and why."""
    vms = round.residents.get(node, ())
    chances = ((vm.name, leave(round, vm, by_shutdown, copy)) for vm in vms)
    return {name: chance.why for name, chance in chances if isinstance(chance, Stuck)}


def leave(round: Round, vm: vm_pb2.Vm, by_shutdown: bool, copy: bool = False) -> Chance:
    """Where the VM can go so that it leaves its node. by_shutdown: if not while it runs, then by
    switching it off and on again. copy: its volumes go along where they have to."""
    if isinstance(chance := _ways(round, vm), Wait | Stuck):
        return chance
    refusals = ""
    for how in dict.fromkeys((chance, SHUTDOWN) if by_shutdown else (chance,)):
        verdicts = verdicts_elsewhere(round.world, round.load, vm, how, copy)
        fitting = [verdict.node for verdict in verdicts if verdict.fits]
        fitting.sort(key=lambda target: target == _refused_by(vm))
        for target in fitting:
            route = route_to(round.world, round.load, vm, target, how, copy)
            if _needs_no_slot(route) or not slot_short(
                round.world, round.load, vm.decision.node, target
            ):
                return route
        if fitting:
            why = slot_short(round.world, round.load, vm.decision.node, fitting[0])
            return Wait(f"waits for a free slot: {why}")
        refusals = refusals or why_none(verdicts)
        if _may_pass(round, verdicts):
            return Wait(refusals)
    hint = "" if copy else copying.hint(round.world, vm)
    return Stuck("; ".join(filter(None, (refusals, hint))))


def _needs_no_slot(route: Route) -> bool:
    return route.method == NONE and not route.volumes


def _refused_by(vm: vm_pb2.Vm) -> str:
    """The node that would not take it the last time: the last one to be asked again."""
    refused = vm.arrival.state in (migration.Arrival.STATE_REFUSED, migration.Arrival.STATE_GONE)
    return vm.arrival.node if refused else ""


def _ways(round: Round, vm: vm_pb2.Vm) -> Method | Wait | Stuck:
    """How it moves, if nothing keeps it wherever it should go."""
    how = usual_method(vm)
    if how == NONE:
        return Stuck(ONLY_WHEN_OFF[NONE])
    if vm.meta.HasField("delete_time"):
        return Wait("is being deleted")
    if wait := why_wait(vm, round.busy.get(vm.name)):
        return Wait(wait)
    if vm.decision.move_not_before.ToNanoseconds() > round.now.ToNanoseconds():
        return Wait(f"{vm.decision.last_move}; it is tried again")
    if bound := why_bound(round.world, vm, how):
        return Wait("; ".join(bound))
    return how


def _may_pass(round: Round, verdicts: Sequence[vm_pb2.NodeVerdict]) -> bool:
    """A node that may be back soon is all that is missing."""
    return any(
        round.world.nodes[verdict.node].decision.state in AWAY and len(verdict.reasons) == 1
        for verdict in verdicts
    )


# --- Back to a node.


def _return(round: Round, operation: Operation, node: Node) -> Iterator[Step]:
    if node.spec.drained:
        why = f"{node.name} is to be drained by now"
        yield FailOperation(operation, reason_pb2.REASON_SUPERSEDED, why)
        return
    request = api.ReadyNodeRequest()
    operation.request.Unpack(request)
    vms = [
        vm
        for vm in round.world.vms.values()
        if vm.decision.home == node.name != vm.decision.node and not request.leave_vms
    ]
    wait = why_not_yet(node, frozenset({cluster_pb2.NODE_STATE_ONLINE}))
    if not vms and not wait:
        yield succeeded(round, operation, node, f"{short(node.name)} is ready")
        return

    home = partial(_home, node=node, copy=request.copy_volumes)
    yield from Convoy(round, operation, node, vms, home, wait).steps()


def _home(round: Round, vm: vm_pb2.Vm, node: Node, copy: bool) -> Chance:
    if isinstance(how := _ways(round, vm), Wait | Stuck):
        return how
    if reasons := refusals_of(round.world, round.load, vm, node, how, copy):
        hint = "" if copy else copying.hint(round.world, vm, node.name)
        told = f"{short(node.name)} {' and '.join(reasons)}"
        return Stuck("; ".join(filter(None, (told, hint))))
    route = route_to(round.world, round.load, vm, node.name, how, copy)
    if _needs_no_slot(route):
        return route
    if why := slot_short(round.world, round.load, vm.decision.node, node.name):
        return Wait(f"waits for a free slot: {why}")
    return route
