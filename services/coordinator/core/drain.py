"""Empties nodes that are to be drained, and brings their VMs back when they are ready again:
several at a time, the most important first, telling of each that cannot move why.

The states of the nodes are decided elsewhere; here their VMs move, and the operations end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import migration
from services.coordinator.core.capacity import slot_short
from services.coordinator.core.methods import DRAIN, READY
from services.coordinator.core.migration import NONE, ONLY_WHEN_OFF, SHUTDOWN, WORKING, short
from services.coordinator.core.moves import belong
from services.coordinator.core.place import judge, why_none
from services.coordinator.core.plan import DecideVm, FailOperation, Step
from services.coordinator.core.rounds import Round
from services.coordinator.core.routes import (
    Method,
    Route,
    cannot_receive,
    may_just_change,
    usual_method,
    verdicts_elsewhere,
    why_bound,
    why_wait,
)
from services.mesh import rows
from services.mesh.errors import PvcError

Node = cluster_pb2.Node
Operation = operation_pb2.Operation

TOLD_MAX = 8
"""VMs whose reasons a stage tells; a failure tells all."""
AWAY = frozenset({cluster_pb2.NODE_STATE_UNKNOWN, cluster_pb2.NODE_STATE_FENCING})
"""States of nodes that may be back soon."""


@dataclass(frozen=True, slots=True)
class Wait:
    """It cannot move now, and may later."""

    why: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """It cannot move, for a reason that does not pass by itself."""

    why: str


Chance = Route | Wait | Stuck
Chooser = Callable[[Round, vm_pb2.Vm], Chance]


def judge_drains(round: Round) -> Iterator[Step]:
    """The next moves of every drain and return, and the ends of those that are over."""
    for operation in round.operations.values():
        if operation.name in round.taken or operation.method not in (DRAIN, READY):
            continue
        node = round.world.nodes.get(operation.target)
        if node is None:
            why = f"{operation.target} has left the cluster"
            yield FailOperation(operation, reason_pb2.REASON_SUPERSEDED, why)
        elif operation.cancel_requested:
            yield from _cancelled(round, operation)
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
    vms = [vm for vm in round.world.vms.values() if vm.decision.node == node.name]
    if not vms and node.decision.state == cluster_pb2.NODE_STATE_DRAINED:
        yield _succeeded(round, operation, node, f"{short(node.name)} is empty")
        return
    request = api.DrainNodeRequest()
    operation.request.Unpack(request)
    choose = _away_by_shutdown if request.shutdown else _away
    wait = _why_not_yet(node, WORKING - {cluster_pb2.NODE_STATE_ONLINE})
    yield from Convoy(round, operation, node, vms, choose, wait).steps()


def _away(round: Round, vm: vm_pb2.Vm) -> Chance:
    return leave(round, vm, by_shutdown=False)


def _away_by_shutdown(round: Round, vm: vm_pb2.Vm) -> Chance:
    return leave(round, vm, by_shutdown=True)


def leave(round: Round, vm: vm_pb2.Vm, by_shutdown: bool) -> Chance:
    """Where the VM can go so that it leaves its node. by_shutdown: if not while it runs, then by
    switching it off and on again."""
    if isinstance(chance := _ways(round, vm), Wait | Stuck):
        return chance
    refusals = ""
    for how in dict.fromkeys((chance, SHUTDOWN) if by_shutdown else (chance,)):
        verdicts = verdicts_elsewhere(round.world, round.load, vm, how)
        fitting = [verdict.node for verdict in verdicts if verdict.fits]
        fitting.sort(key=lambda target: target == _refused_by(vm))
        for target in fitting:
            if may_just_change(vm):
                return Route(target, NONE)
            if not slot_short(round.world, round.load, vm.decision.node, target):
                return Route(target, how)
        if fitting:
            why = slot_short(round.world, round.load, vm.decision.node, fitting[0])
            return Wait(f"waits for a free slot: {why}")
        refusals = refusals or why_none(verdicts)
        if _may_pass(round, verdicts):
            return Wait(refusals)
    return Stuck(refusals)


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
    wait = _why_not_yet(node, frozenset({cluster_pb2.NODE_STATE_ONLINE}))
    if not vms and not wait:
        yield _succeeded(round, operation, node, f"{short(node.name)} is ready")
        return

    def home(round: Round, vm: vm_pb2.Vm) -> Chance:
        return _home(round, vm, node)

    yield from Convoy(round, operation, node, vms, home, wait).steps()


def _home(round: Round, vm: vm_pb2.Vm, node: Node) -> Chance:
    if isinstance(how := _ways(round, vm), Wait | Stuck):
        return how
    verdict = judge(round.world, vm, node, round.load)
    reasons = [] if verdict.fits else list(verdict.reasons)
    if reasons := reasons + cannot_receive(round.world, vm, node, how):
        return Stuck(f"{short(node.name)} {' and '.join(reasons)}")
    if may_just_change(vm):
        return Route(node.name, NONE)
    if why := slot_short(round.world, round.load, vm.decision.node, node.name):
        return Wait(f"waits for a free slot: {why}")
    return Route(node.name, how)


# --- Many VMs for one operation.


class Convoy:
    """The VMs that one operation has still to move, looked at in one round."""

    def __init__(
        self,
        round: Round,
        operation: Operation,
        node: Node,
        vms: Sequence[vm_pb2.Vm],
        choose: Chooser,
        wait: str,
    ) -> None:
        """wait: why none can move yet; "" when they can."""
        self._round = round
        self._operation = operation
        self._node = node
        self._vms = sorted(vms, key=lambda vm: (-vm.spec.ha.priority, vm.name))
        self._choose = choose
        self._wait = wait
        self._moving: list[str] = []
        self._waiting: dict[str, str] = {}
        self._stuck: dict[str, str] = {}

    def steps(self) -> Iterator[Step]:
        """Begins what can begin, and says how it stands; fails when nothing can any more."""
        if self._operation.state == Operation.STATE_PENDING:
            yield self._taken_up()
            return
        if not self._wait:
            for vm in self._vms:
                yield from self._moved(vm)
        if self._stuck and len(self._stuck) == len(self._vms):
            drained = self._node.decision.state == cluster_pb2.NODE_STATE_DRAINED
            yield self._left_behind() if drained else self._failed()
        else:
            yield from self._told()

    def _taken_up(self) -> Step:
        after = rows.enter_operation(self._operation, Operation.STATE_RUNNING, self._round.now)
        after.parts = len(self._vms)
        after.stage = self._wait or f"{len(self._vms)} VMs to move"
        rows.log_line(after, f"{len(self._vms)} VMs to move", self._round.now)
        return self._round.write(after, "it begins")

    def _moved(self, vm: vm_pb2.Vm) -> Iterator[Step]:
        if vm.decision.migration.operation == self._operation.name:
            self._moving.append(vm.name)
            return
        if vm.name in self._round.taken:
            self._waiting[vm.name] = "was just decided on"
            return
        match self._choose(self._round, vm):
            case Wait(why):
                self._waiting[vm.name] = why
            case Stuck(why):
                self._stuck[vm.name] = why
            case Route(target, method):
                self._moving.append(vm.name)
                yield self._begun(vm, target, method)

    def _begun(self, vm: vm_pb2.Vm, target: str, method: Method) -> Step:
        drains = self._operation.method == DRAIN
        why = f"{short(self._node.name)} {'is drained' if drains else 'is ready again'}"
        route = f"{short(vm.decision.node)} → {short(target)}"
        if method == NONE:
            after = migration.relocated(vm, target, why)
            belong(after, vm, self._operation)
            return self._round.take(vm, DecideVm(after, route, why))
        name = self._operation.name
        after = migration.begun(self._round.now, vm, target, method, name, why)
        return self._round.take(vm, DecideVm(after, f"begins to move {route}", why))

    def _told(self) -> Iterator[Step]:
        after = rows.copied(self._operation)
        done = max(after.parts - len(self._vms), 0)
        parts = [f"{done} of {after.parts} moved"] if not self._wait else [self._wait]
        if self._moving:
            parts.append(f"{', '.join(map(short, self._moving))} on the way")
        hindered = self._stuck | self._waiting
        parts += [f"vm {short(vm)}: {why}" for vm, why in [*hindered.items()][:TOLD_MAX]]
        if len(hindered) > TOLD_MAX:
            parts.append(f"and {len(hindered) - TOLD_MAX} more wait")
        after.stage = "; ".join(parts)
        after.percent = max(after.percent, 100 * done // max(after.parts, 1) if done else 0)
        self._note_stuck(after)
        if after != self._operation:
            yield self._round.write(after, "progress")

    def _note_stuck(self, after: Operation) -> None:
        """What cannot move is said in the log too, once."""
        there = {line.text for line in after.log}
        for vm, why in self._stuck.items():
            if (line := f"vm {short(vm)} cannot move: {why}") not in there:
                rows.log_line(after, line, self._round.now)

    def _left_behind(self) -> Step:
        """Nothing runs on the node, which is all that a drain is for; what is off stays."""
        after = rows.copied(self._operation)
        self._note_stuck(after)
        names = ", ".join(map(short, self._stuck))
        line = f"nothing runs on {short(self._node.name)}; off, and bound to it: {names}"
        return _succeeded(self._round, after, self._node, line)

    def _failed(self) -> Step:
        left = "; ".join(f"vm {short(vm)}: {why}" for vm, why in self._stuck.items())
        moved = max(self._operation.parts - len(self._vms), 0)
        node = short(self._node.name)
        if self._operation.method == DRAIN:
            why = (
                f"{moved} VMs left {node}, but it is not empty, and takes no new VMs until it is "
                f"ready again ('pvc node ready {node}'). Cannot move: {left}"
            )
        else:
            why = f"{node} is ready and {moved} VMs are back on it. Cannot come back: {left}"
        return FailOperation(self._operation, reason_pb2.REASON_NO_NODE_FITS, why)


def _why_not_yet(node: Node, states: frozenset[cluster_pb2.NodeState.ValueType]) -> str:
    if node.decision.state in states:
        return ""
    state = cluster_pb2.NodeState.Name(node.decision.state).removeprefix("NODE_STATE_")
    return f"waits: {short(node.name)} is {state}"


def _succeeded(round: Round, operation: Operation, node: Node, line: str) -> Step:
    after = rows.copied(operation)
    if after.state == Operation.STATE_PENDING:
        after = rows.enter_operation(after, Operation.STATE_RUNNING, round.now)
    after.stage = line
    rows.log_line(after, line, round.now)
    done = rows.enter_operation(after, Operation.STATE_SUCCEEDED, round.now, result=node)
    return round.write(done, line)


def _cancelled(round: Round, operation: Operation) -> Iterator[Step]:
    """Ends once what it had begun has ended."""
    moving = [
        vm.name
        for vm in round.world.vms.values()
        if vm.decision.migration.operation == operation.name
    ]
    after = rows.copied(operation)
    if moving:
        after.stage = f"stops; {', '.join(map(short, moving))} on the way"
    else:
        error = PvcError(reason_pb2.REASON_CANCELLED, "what has moved stays where it is")
        after = rows.enter_operation(after, Operation.STATE_CANCELLED, round.now, error=error)
    if after != operation:
        yield round.write(after, "it was asked to stop")
