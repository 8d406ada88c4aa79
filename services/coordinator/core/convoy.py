"""Many VMs that move for one operation: begun by priority within the limits, told of together, and
failed together once none of them can move any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import migration
from services.coordinator.core.methods import DRAIN
from services.coordinator.core.migration import NONE
from services.coordinator.core.moves import belong
from services.coordinator.core.plan import DecideVm, FailOperation, Step
from services.coordinator.core.rounds import Round
from services.coordinator.core.routes import Route
from services.coordinator.core.world import short
from services.mesh import rows
from services.mesh.errors import PvcError

Node = cluster_pb2.Node
Operation = operation_pb2.Operation

TOLD_MAX = 8
"""VMs whose reasons a stage tells; a failure tells all."""


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
            case Route() as found:
                self._moving.append(vm.name)
                yield self._begun(vm, found)

    def _begun(self, vm: vm_pb2.Vm, found: Route) -> Step:
        target = found.target
        drains = self._operation.method == DRAIN
        why = f"{short(self._node.name)} {'is drained' if drains else 'is ready again'}"
        route = f"{short(vm.decision.node)} → {short(target)}"
        if found.method == NONE and not found.volumes:
            after = migration.relocated(vm, target, why)
            belong(after, vm, self._operation)
            return self._round.take(vm, DecideVm(after, route, why))
        after = migration.begun(
            self._round.now, vm, target, found.method, self._operation.name, why, found.volumes
        )
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
        return succeeded(self._round, after, self._node, line)

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


def why_not_yet(node: Node, states: frozenset[cluster_pb2.NodeState.ValueType]) -> str:
    if node.decision.state in states:
        return ""
    state = cluster_pb2.NodeState.Name(node.decision.state).removeprefix("NODE_STATE_")
    return f"waits: {short(node.name)} is {state}"


def succeeded(round: Round, operation: Operation, node: Node, line: str) -> Step:
    after = rows.copied(operation)
    if after.state == Operation.STATE_PENDING:
        after = rows.enter_operation(after, Operation.STATE_RUNNING, round.now)
    after.stage = line
    rows.log_line(after, line, round.now)
    done = rows.enter_operation(after, Operation.STATE_SUCCEEDED, round.now, result=node)
    return round.write(done, line)


def cancelled(round: Round, operation: Operation) -> Iterator[Step]:
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
