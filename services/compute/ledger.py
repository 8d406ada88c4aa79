"""Writes down what became of VMs and of the operations on them: one commit for each step, under the
node's lease."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import event_pb2, operation_pb2, reason_pb2
from services.compute.core.life import start_failed
from services.compute.core.migrate import begun_failed
from services.compute.core.settle import Ended, Refusals, settle, settles
from services.compute.core.status import CRASHED, FAILED, STARTING, move
from services.compute.core.steps import (
    Attach,
    Confirm,
    Define,
    Detach,
    Migrate,
    Remove,
    SetArrival,
    SetMemory,
    SetStatus,
    SetVcpus,
    Start,
    Step,
    UpdateDevice,
    key,
)
from services.compute.core.view import View
from services.compute.memory import Memory
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Change, Delete, Lease, Put, Snapshot, Store

Operation = operation_pb2.Operation

_SEVERITIES = {CRASHED: event_pb2.Event.SEVERITY_ERROR, FAILED: event_pb2.Event.SEVERITY_ERROR}

ENDED_AT_ONCE = 16
"""Operations that one commit ends: each carries the whole VM as its result, and a commit that is
too large would be so at every try."""

log = logging.getLogger("pvc.compute")


class Ledger:
    """One node's. All methods raise Conflict when somebody else was quicker: look again."""

    def __init__(self, store: Store, clock: Clock, node: str, memory: Memory) -> None:
        self._store = store
        self._clock = clock
        self._who = f"compute {node.removeprefix('nodes/')}"
        self._memory = memory

    def take_up(
        self, lease: Lease, vm: vm_pb2.Vm, operations: Sequence[Operation]
    ) -> list[Operation]:
        """Ends what has ended and begins what has not begun; the ones that go on, as they are
        now."""
        names = [operation.name for operation in operations]
        fresh = [self._store.snapshot().find(Operation, name) for name in names]
        waiting = [op for op in fresh if op is not None and op.state not in rows.FINAL]
        changed = self._ended(vm, waiting)
        ended = {operation.name for operation in changed}
        for operation in waiting:
            pending = operation.state == Operation.STATE_PENDING
            if pending and settles(operation) and operation.name not in ended:
                changed.append(self._begun(operation))
        self._put(lease, changed)
        after = [self._store.snapshot().find(Operation, op.name) for op in waiting]
        return [op for op in after if op is not None and op.state not in rows.FINAL]

    def write(self, lease: Lease, vm: vm_pb2.Vm, step: Step) -> vm_pb2.Vm:
        """What a step that was done changes in the state; the VM as it is then."""
        match step:
            case SetStatus(status, why, arrived):
                after = rows.copied(vm)
                after.status.CopyFrom(status)
                if arrived:
                    after.ClearField("arrival")
                told = self._told(vm, after, why)
                self._store.commit([Put(after), *told], held_by=lease)
                there = self._store.snapshot().find(vm_pb2.Vm, vm.name)
                if there is not None:
                    # Only now: the result is the VM with the etag that it can be changed by.
                    self._put(lease, self._ended(there, self._operations(vm.name)))
                return there or after
            case SetArrival(arrival, why):
                after = rows.copied(vm)
                after.arrival.CopyFrom(arrival)
                there = self._wrote(lease, after)
                log.info("vm %s: %s", _id(vm), why)
                return there
            case Confirm():
                return self._wrote(lease, rows.copied(vm))
            case Remove():
                self._remove(lease, vm)
                return vm
            case _:
                log.info("vm %s: %s (%s)", _id(vm), _spoken(step), step.why)
                return vm

    def _wrote(self, lease: Lease, after: vm_pb2.Vm) -> vm_pb2.Vm:
        self._store.commit([Put(after)], held_by=lease)
        return self._store.snapshot().find(vm_pb2.Vm, after.name) or after

    def failed(self, lease: Lease, vm: vm_pb2.Vm, view: View, step: Step, error: PvcError) -> None:
        """What a step that failed changes. Raises the error again where that is for the caller to
        bear."""
        match step:
            case Define() | Start() if error.reason != reason_pb2.REASON_DEADLINE:
                assert vm.status.state == STARTING
                self.write(lease, vm, start_failed(vm.status, error.message, self._clock.now()))
            case Migrate() if error.reason != reason_pb2.REASON_DEADLINE:
                self.write(lease, vm, begun_failed(vm, error.message))
            case Attach() | Detach() | UpdateDevice() | SetVcpus() | SetMemory():
                assert view.domain is not None
                run = self._memory.run(_id(vm), view.domain.run)
                run.refused[key(step)] = error
                log.warning("vm %s: %s failed: %s", _id(vm), _spoken(step), error.message)
                self._warn(lease, vm, step, error)
            case _:
                self._warn(lease, vm, step, error)
                raise error

    def settle_all(
        self, lease: Lease, vm: vm_pb2.Vm | None, operations: Sequence[Operation]
    ) -> None:
        """Ends those of a VM that has no agent, or that is gone."""
        self._put(lease, self._ended(vm, operations))

    def _put(self, lease: Lease, operations: Sequence[Operation]) -> None:
        for start in range(0, len(operations), ENDED_AT_ONCE):
            part = operations[start : start + ENDED_AT_ONCE]
            self._store.commit([Put(operation) for operation in part], held_by=lease)

    def _operations(self, vm: str) -> list[Operation]:
        return unfinished_of(self._store.snapshot(), vm)

    def _begun(self, operation: Operation) -> Operation:
        begun = rows.enter_operation(operation, Operation.STATE_RUNNING, self._clock.now())
        begun.attempts += 1
        begun.stage = "waiting for the VM"
        return begun

    def _ended(self, vm: vm_pb2.Vm | None, operations: Sequence[Operation]) -> list[Operation]:
        refusals = Refusals(self._memory.refused(_id(vm)) if vm is not None else {})
        found: list[Operation] = []
        for operation in operations:
            now = self._clock.now()
            ended = settle(operation, vm, now, refusals) if settles(operation) else None
            if ended is not None:
                found.append(self._final(operation, vm, ended))
        return found

    def _final(self, operation: Operation, vm: vm_pb2.Vm | None, ended: Ended) -> Operation:
        now, error = self._clock.now(), ended.error
        if operation.state == Operation.STATE_PENDING:
            operation = rows.enter_operation(operation, Operation.STATE_RUNNING, now)
        match error:
            case None:
                state = Operation.STATE_SUCCEEDED
            case PvcError(reason=reason_pb2.REASON_CANCELLED):
                state = Operation.STATE_CANCELLED
            case _:
                state = Operation.STATE_FAILED
        result = vm if error is None else None
        return rows.enter_operation(operation, state, now, error=error, result=result)

    def _remove(self, lease: Lease, vm: vm_pb2.Vm) -> None:
        """The row with all that hangs on it."""
        snapshot = self._store.snapshot()
        changes: list[Change] = [Delete(vm.name, vm.meta.etag)]
        for kept in snapshot.rows(vm_pb2.VmSnapshot, vm.name):
            changes.append(Delete(kept.name, kept.meta.etag))
        changes += map(Put, self._ended(None, self._operations(vm.name))[:ENDED_AT_ONCE])
        told = self._event(vm, f"vm {_id(vm)} is gone", "it was deleted")
        self._store.commit([*changes, told], held_by=lease)
        log.info("vm %s is gone", _id(vm))

    def _told(self, before: vm_pb2.Vm, after: vm_pb2.Vm, why: str) -> list[Change]:
        """An event, where the state changed."""
        self._note(before, after)
        if before.status.state == after.status.state:
            return []
        self._memory.is_news(_id(after), "")
        text = f"vm {_id(after)} {move(before.status.state, after.status.state)}"
        log.info("%s (%s)", text, why)
        severity = _SEVERITIES.get(after.status.state, event_pb2.Event.SEVERITY_INFO)
        return [self._event(after, text, why, severity)]

    def _note(self, before: vm_pb2.Vm, after: vm_pb2.Vm) -> None:
        """How far its migration is. What comes of it is an event of those who decide."""
        was, now = before.status.migration, after.status.migration
        if was == now:
            return
        self._memory.trip(after).told_at = self._clock.monotonic()
        if (was.id, was.phase, was.why, was.unclear) != (now.id, now.phase, now.why, now.unclear):
            phase = vm_pb2.MigrationStatus.Phase.Name(now.phase).removeprefix("PHASE_")
            log.info("vm %s: migration %s (%s)", _id(after), phase, now.why or "as decided")

    def _warn(self, lease: Lease, vm: vm_pb2.Vm, step: Step, error: PvcError) -> None:
        text = f"vm {_id(vm)}: {_spoken(step)} failed"
        if not self._memory.is_news(_id(vm), f"{text}: {error.message}"):
            return
        warning = event_pb2.Event.SEVERITY_WARNING
        self._store.commit([self._event(vm, text, error.message, warning)], held_by=lease)

    def _event(
        self,
        vm: vm_pb2.Vm,
        text: str,
        why: str,
        severity: event_pb2.Event.Severity.ValueType = event_pb2.Event.SEVERITY_INFO,
    ) -> Put:
        cause = "guest" if vm.status.guest_shutdown else self._who
        event_id, now = self._clock.new_id(), self._clock.now()
        return rows.event(event_id, now, vm.name, text, why, cause=cause, severity=severity)


def unfinished_of(snapshot: Snapshot, vm: str) -> list[Operation]:
    """The operations on a VM that end by converging and have not ended."""
    return [op for op in rows.unfinished(snapshot, vm) if settles(op)]


def _id(vm: vm_pb2.Vm) -> str:
    return vm.name.removeprefix("vms/")


def _spoken(step: Step) -> str:
    """A step in the log: "attach disks.data1"."""
    match step:
        case Attach() | Detach() | UpdateDevice() | SetVcpus() | SetMemory():
            return f"{type(step).__name__.lower()} {key(step)}"
        case _:
            return type(step).__name__.lower()
