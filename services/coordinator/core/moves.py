"""Moves of single VMs that somebody asked for: whether and where to, when they begin, how they end.

Every move belongs to an operation. The same checks serve the request and its execution; all that is
in the way is said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import copying, migration
from services.coordinator.core.capacity import slot_short
from services.coordinator.core.leftovers import leave, made_for
from services.coordinator.core.methods import DRAIN, MIGRATE, MOVE, UNMIGRATE
from services.coordinator.core.migration import NONE
from services.coordinator.core.plan import WARNING, DecideVm, FailOperation, Step, Unjudged
from services.coordinator.core.residence import WHILE_OFF, is_dead
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.routes import Route, Wanted, route_of, why_wait
from services.coordinator.core.world import WANT_MEMORY, short
from services.mesh import rows
from services.mesh.errors import PvcError

Operation = operation_pb2.Operation

REQUESTS: Mapping[str, Callable[[], Wanted]] = {
    MIGRATE: api.MigrateVmRequest,
    MOVE: api.MoveVmRequest,
    UNMIGRATE: api.UnmigrateVmRequest,
}


def judge_moves(round: Round) -> Iterator[Step | Unjudged]:
    """What becomes of the moves that go on, then of those that were asked for. Every VM's step is
    counted in the load."""
    for vm in round.lively:
        if vm.decision.HasField("migration") and vm.name not in round.taken:
            yield from guarded(vm, partial(_followed, round, vm))
    for operation in round.operations.values():
        if operation.method in REQUESTS and operation.name not in round.taken:
            yield from guarded(operation, partial(_requested, round, operation))


# --- Moves that go on.


def _followed(round: Round, vm: vm_pb2.Vm) -> Iterator[Step]:
    operation = round.operations.get(vm.decision.migration.operation)
    if operation is not None and operation.name in round.taken:
        round.taken.add(vm.name)
        return  # in the next round; nothing else is decided on it before
    match _course(round, vm, operation):
        case migration.Furnishing():
            yield _furnishing(round, vm, operation)
        case migration.Furnished(after):
            yield round.take(vm, DecideVm(after, "", "its volumes have places on the target"))
        case migration.GoesOn(stage, percent, line):
            yield from _told(round, operation, stage, percent, line)
        case migration.Stopping(after, why):
            yield round.take(vm, DecideVm(after, "is to stop moving", why))
        case migration.Moved(after, what, starts):
            belong(after, vm, operation)
            moved = vm.decision.migration.volumes
            gone = [volume for volume in moved if copying.goes_along(vm, volume)]
            leave(after, gone, caller_of(operation))
            also = _moved_also(round, operation, after, _with_places(what, moved, gone), starts)
            step = DecideVm(after, f"{short(vm.decision.node)} → {short(after.decision.node)}",
                            what, also=also)  # fmt: skip
            yield round.take(vm, step)
        case migration.Stayed(after, why):
            made = made_for(round.world, vm)
            leave(after, made, caller_of(operation))
            also = _stayed_also(round, operation, vm, why, made)
            yield round.take(vm, DecideVm(after, "does not move", why, WARNING, also))


def _furnishing(round: Round, vm: vm_pb2.Vm, operation: Operation | None) -> Step:
    volumes = vm.decision.migration.volumes
    what = f"gets places for {len(volumes)} volumes on {short(vm.decision.migration.target)}"
    made = copying.rows_to_make(round.now, round.world, vm, caller_of(operation))
    step = DecideVm(vm, what, vm.decision.migration.why, asked=operation, storage=made)
    return round.take(vm, step)


def caller_of(operation: Operation | None) -> str:
    """In whose name the storage service works for a move."""
    return operation.caller if operation is not None and operation.caller else "the cluster itself"


def _with_places(what: str, moved: Mapping[str, str], gone: Sequence[str]) -> str:
    """How it went, with what became of each volume."""
    parts = [what]
    for volume, place in sorted(moved.items()):
        then = "is removed" if volume in gone else "stays too: it is not the VM's own"
        parts.append(f"{volume} is {place} now, and the old one {then}")
    return "; ".join(parts)


def _course(round: Round, vm: vm_pb2.Vm, operation: Operation | None) -> migration.Course:
    """What is asked for no longer, or by an operation that is no more, is to stop."""
    source = round.world.nodes.get(vm.decision.node)
    if is_dead(round.world, vm.decision.node):
        return migration.follow_dead(round.now, round.world, vm)
    if source is not None and source.decision.state == cluster_pb2.NODE_STATE_FENCED:
        return migration.GoesOn(f"waits: {short(source.name)} is back, and looks at its VMs", 1)
    asked = bool(vm.decision.migration.operation)
    cancelled = operation.cancel_requested if operation is not None else asked
    return migration.follow(round.now, round.world, vm, cancelled)


def belong(after: vm_pb2.Vm, vm: vm_pb2.Vm, operation: Operation | None) -> None:
    """Whether the VM is to come back one day, now that it has left. A move for good, or one that
    evens out the cluster, makes the new node its own."""
    for_a_while = operation is not None and operation.method in (MIGRATE, DRAIN)
    if for_a_while and not vm.decision.home:
        after.decision.home = vm.decision.node
    elif operation is not None and operation.method == MOVE:
        after.decision.home = ""
    if after.decision.home == after.decision.node:
        after.decision.home = ""


def _told(
    round: Round, operation: Operation | None, stage: str, percent: int, line: str
) -> Iterator[Step]:
    """Progress, where it is the operation's only matter. A line that is its last one already is not
    said again."""
    if operation is None or operation.method not in REQUESTS:
        return
    after = rows.copied(operation)
    after.stage, after.percent = stage, max(operation.percent, percent)
    if line and all(told.text != line for told in operation.log):
        rows.log_line(after, line, round.now)
    if after != operation:
        yield round.write(after, "progress")


def _moved_also(
    round: Round, operation: Operation | None, after: vm_pb2.Vm, what: str, starts: bool
) -> tuple[Operation, ...]:
    if operation is None:
        return ()
    told = rows.copied(operation)
    if operation.method not in REQUESTS:
        rows.log_line(told, f"{_vm(after)} {what}", round.now)
        return (told,)
    rows.log_line(told, what, round.now)
    if starts:
        told.stage, told.percent = _starting(after), 90
        return (told,)
    return (rows.enter_operation(told, Operation.STATE_SUCCEEDED, round.now, result=after),)


def _stayed_also(
    round: Round, operation: Operation | None, vm: vm_pb2.Vm, why: str, made: Sequence[str]
) -> tuple[Operation, ...]:
    if operation is None:
        return ()
    if made:
        operation = rows.copied(operation)
        rows.log_line(operation, f"made for the move, and removed: {', '.join(made)}", round.now)
    if operation.method not in REQUESTS:
        told = rows.copied(operation)
        rows.log_line(told, f"{_vm(vm)} did not move: {why}", round.now)
        return (told,)
    dead = is_dead(round.world, vm.decision.node)
    return (_ended_badly(round.now, operation, vm, why, dead),)


def _ended_badly(
    now: Timestamp, operation: Operation, vm: vm_pb2.Vm, why: str, dead: bool
) -> Operation:
    method, node = vm.decision.migration.method, short(vm.decision.node)
    where = f"it stays on {node}" if method == NONE else f"it goes on on {node}"
    if dead:
        error = PvcError(reason_pb2.REASON_INTERRUPTED, f"{vm.name} was not moved: {why}")
        return rows.enter_operation(operation, Operation.STATE_FAILED, now, error=error)
    if operation.cancel_requested:
        error = PvcError(
            reason_pb2.REASON_CANCELLED, f"{vm.name} was not moved: cancelled; {where}"
        )
        return rows.enter_operation(operation, Operation.STATE_CANCELLED, now, error=error)
    if vm.meta.HasField("delete_time") or _is_wanted_otherwise(vm):
        error = PvcError(reason_pb2.REASON_SUPERSEDED, f"{vm.name} was not moved: {why}")
    else:
        error = PvcError(
            reason_pb2.REASON_MIGRATION_FAILED, f"{vm.name} was not moved: {why}; {where}"
        )
    return rows.enter_operation(operation, Operation.STATE_FAILED, now, error=error)


def _is_wanted_otherwise(vm: vm_pb2.Vm) -> bool:
    """Somebody asked for it to be switched on or off meanwhile."""
    if vm.decision.migration.method in WHILE_OFF:
        return vm.decision.power_request != vm.decision.migration.power_request
    return vm.decision.power not in WANT_MEMORY


# --- Moves that were asked for.


def _requested(round: Round, operation: Operation) -> Iterator[Step]:
    vm = round.world.vms.get(operation.target)
    if vm is None or vm.meta.HasField("delete_time"):
        yield FailOperation(
            operation, reason_pb2.REASON_SUPERSEDED, f"{operation.target} is being deleted"
        )
    elif vm.name in round.taken or vm.decision.migration.operation == operation.name:
        return
    elif operation.state == Operation.STATE_RUNNING:
        yield from _settled(round, operation, vm)
    elif operation.cancel_requested:
        error = PvcError(reason_pb2.REASON_CANCELLED, f"{vm.name} had not begun to move")
        yield round.write(
            rows.enter_operation(operation, Operation.STATE_CANCELLED, round.now, error=error),
            "it was asked for",
        )
    elif wait := why_wait(vm, round.busy.get(vm.name)):
        yield from _waits(round, operation, wait)
    else:
        yield from _started(round, operation, vm)


def _waits(round: Round, operation: Operation, stage: str) -> Iterator[Step]:
    if operation.stage != stage:
        after = rows.copied(operation)
        after.stage = stage
        yield round.write(after, "it cannot begin yet")


def _started(round: Round, operation: Operation, vm: vm_pb2.Vm) -> Iterator[Step]:
    request = REQUESTS[operation.method]()
    operation.request.Unpack(request)
    try:
        route = route_of(round.world, round.load, vm, request)
    except PvcError as error:
        yield FailOperation(operation, error.reason, error.message)
        return
    if route.target == vm.decision.node:
        yield from _there(round, operation, vm)
    elif route.method == NONE and not route.volumes:
        yield _relocated(round, operation, vm, route.target)
    elif short_of := slot_short(round.world, round.load, vm.decision.node, route.target):
        yield from _waits(round, operation, f"waits for a free slot: {short_of}")
    else:
        yield _begun(round, operation, vm, route)


def _begun(round: Round, operation: Operation, vm: vm_pb2.Vm, route: Route) -> Step:
    why = f"{operation.caller or 'somebody'} asked for it"
    after = migration.begun(
        round.now, vm, route.target, route.method, operation.name, why, route.volumes
    )
    running = rows.enter_operation(operation, Operation.STATE_RUNNING, round.now)
    running.stage = f"moving to {short(route.target)}"
    rows.log_line(running, f"{short(vm.decision.node)} → {short(route.target)} began", round.now)
    what = f"begins to move {short(vm.decision.node)} → {short(route.target)}"
    return round.take(vm, DecideVm(after, what, why, also=(running,)))


def _relocated(round: Round, operation: Operation, vm: vm_pb2.Vm, target: str) -> Step:
    why = f"{operation.caller or 'somebody'} asked for it"
    after = migration.relocated(vm, target, why)
    belong(after, vm, operation)
    done = rows.enter_operation(operation, Operation.STATE_SUCCEEDED, round.now, result=after)
    what = f"{short(vm.decision.node)} → {short(target)}"
    return round.take(vm, DecideVm(after, what, why, also=(done,)))


def _there(round: Round, operation: Operation, vm: vm_pb2.Vm) -> Iterator[Step]:
    """It is where it was to go, by whatever way; for good, if that was asked for."""
    after = rows.copied(vm)
    belong(after, after, operation)
    done = rows.enter_operation(operation, Operation.STATE_SUCCEEDED, round.now, result=after)
    if after == vm:
        yield round.write(done, "it is there already")
    else:
        after.decision.why = f"{operation.caller or 'somebody'} asked for it to stay"
        yield round.take(vm, DecideVm(after, "stays for good", after.decision.why, also=(done,)))


def _settled(round: Round, operation: Operation, vm: vm_pb2.Vm) -> Iterator[Step]:
    """It began, and no migration is left: the VM was shut down for it and starts elsewhere; or its
    node died meanwhile."""
    node, status = short(vm.decision.node), vm.status
    if operation.stage != _starting(vm):
        why = f"its node failed meanwhile; it is on {node or 'no node'} now: {vm.decision.why}"
        yield FailOperation(operation, reason_pb2.REASON_INTERRUPTED, f"{vm.name}: {why}")
    elif vm.decision.power not in WANT_MEMORY:
        yield FailOperation(
            operation,
            reason_pb2.REASON_SUPERSEDED,
            f"{vm.name} is on {node}, but is to be off by now: {vm.decision.why}",
        )
    elif status.node == vm.decision.node and status.state == vm_pb2.VM_STATE_RUNNING:
        after = rows.copied(operation)
        rows.log_line(after, f"it runs on {node}", round.now)
        done = rows.enter_operation(after, Operation.STATE_SUCCEEDED, round.now, result=vm)
        yield round.write(done, f"{vm.name} runs on {node}")
    elif operation.cancel_requested:
        why = f"{vm.name} is to start on {node} all the same"
        yield FailOperation(operation, reason_pb2.REASON_CANCELLED, why)


def _starting(vm: vm_pb2.Vm) -> str:
    return f"starting on {short(vm.decision.node)}"


def _vm(vm: vm_pb2.Vm) -> str:
    return f"vm {vm.name.removeprefix('vms/')}"
