"""What all requests about a VM have in common, and those about power. Pure plans: snapshot and
request in, changes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import event_pb2, operation_pb2, reason_pb2
from services.compute.core.checks import is_off, wish_of
from services.compute.core.methods import method
from services.compute.core.status import state_name
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import not_found, refuse
from services.state.store import Change, Put, Snapshot

Operation = operation_pb2.Operation
SERVICE = "compute"

OFF = vm_pb2.POWER_STATE_OFF
SHUT_DOWN = vm_pb2.POWER_STATE_SHUT_DOWN
RUNNING = vm_pb2.POWER_STATE_RUNNING
PAUSED = vm_pb2.POWER_STATE_PAUSED

BLOCKS: Mapping[str, frozenset[str]] = {
    method("CloneVm"): frozenset({"start", "edit", "rename", "delete", "rollback"}),
    method("RollbackVmSnapshot"): frozenset(
        {"start", "edit", "rename", "delete", "rollback", "snapshot", "clone"}
    ),
    method("CreateVmSnapshot"): frozenset(
        {"start", "edit", "rename", "delete", "rollback", "snapshot", "clone"}
    ),
    method("DeleteVmSnapshot"): frozenset({"rename", "delete", "rollback", "snapshot", "clone"}),
    method("RebootVm"): frozenset({"rename", "rollback", "clone"}),
}
"""Method of an operation that has not ended → what cannot be asked of the same VM meanwhile."""


def the_vm(snapshot: Snapshot, name: str, etag: str = "", field: str = "name") -> vm_pb2.Vm:
    """The VM, to be changed. Raises NOT_FOUND, ETAG_MISMATCH, or WRONG_STATE when it is being
    deleted."""
    vm = any_vm(snapshot, name, etag, field)
    if vm.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is being deleted", field)
    return vm


def any_vm(snapshot: Snapshot, name: str, etag: str = "", field: str = "name") -> vm_pb2.Vm:
    """The VM, even one that is being deleted. Raises NOT_FOUND, ETAG_MISMATCH."""
    vm = snapshot.find(vm_pb2.Vm, name)
    if vm is None:
        raise not_found(name, field)
    rows.check_etag(vm, etag)
    return vm


BLOCKED_BY_COPIES = frozenset({"edit", "rename", "rollback", "snapshot", "clone"})
"""What cannot be asked of a VM whose volumes are being copied along in a move."""


def check_free(snapshot: Snapshot, vm: str, deed: str) -> None:
    """Raises BUSY when an operation that goes on does not allow the deed (see BLOCKS), or a move
    that takes volumes along."""
    row = snapshot.find(vm_pb2.Vm, vm)
    if row is not None and row.decision.migration.volumes and deed in BLOCKED_BY_COPIES:
        refuse(
            reason_pb2.REASON_BUSY,
            f"{vm} moves to {row.decision.migration.target} with its volumes; wait for that, or "
            f"cancel {row.decision.migration.operation or 'the move'}",
            "name",
        )
    for operation in rows.unfinished(snapshot, vm):
        if deed in BLOCKS.get(operation.method, ()):
            what = operation.method.rpartition("/")[2]
            refuse(
                reason_pb2.REASON_BUSY,
                f"{vm} is busy with {what} ({operation.name}); wait for it, or cancel it",
                "name",
            )


def check_off(vm: vm_pb2.Vm, deed: str) -> None:
    """Raises WRONG_STATE unless the VM is off and is to stay so."""
    if not is_off(vm):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is {state_name(vm.status.state)} and must be off to be {deed}; "
            "shut it down first",
            "name",
        )


def home(vm: vm_pb2.Vm, call: Call) -> str:
    """The node for work that any node could do, where the VM has none yet."""
    return vm.decision.node or call.node


def accepted(
    call: Call, request: Message, vm: vm_pb2.Vm, name: str, what: str, **fields: Any
) -> Operation:
    """The operation of method `name` on a VM. what: what is going to be done, for people."""
    node = fields.pop("node", vm.decision.node)
    operation = rows.new_operation(
        call, request, method=method(name), target=vm.name, service=SERVICE, node=node, **fields
    )
    if getattr(request, "validate_only", False):
        operation.name, operation.stage = "", f"would be accepted: {what}"
    rows.log_line(operation, what, call.now)
    return operation


def finished(operation: Operation, call: Call, result: vm_pb2.Vm | None) -> Operation:
    """An operation with which nothing is left to be done."""
    return rows.enter_operation(operation, Operation.STATE_SUCCEEDED, call.now, result=result)


def answer(
    call: Call, operation: Operation, changes: Sequence[Change], what: str, why: str = ""
) -> Mutation:
    """The mutation that writes the changes, the operation, and an event that tells of it."""
    told = rows.event(
        call.new_id(),
        call.now,
        operation.target,
        what,
        why,
        cause=call.caller,
        operation=operation.name,
        severity=event_pb2.Event.SEVERITY_INFO,
    )
    return Mutation((*changes, Put(operation), told), operation)


def short(name: str) -> str:
    """vms/web → vm web."""
    return f"vm {name.removeprefix('vms/')}"


# --- Power.


@dataclass(frozen=True, slots=True)
class PowerVerb:
    """A request about power."""

    method: str
    power: vm_pb2.PowerState.ValueType
    check: Callable[[vm_pb2.Vm], None]
    deed: str
    what: str
    """What is told of it: "is to start"."""


def _startable(vm: vm_pb2.Vm) -> None:
    if vm.spec.power == PAUSED and not is_off(vm):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{vm.name} is paused, not off; resume it", "name")


def _stoppable(vm: vm_pb2.Vm) -> None:
    """A plug can always be pulled."""


def _can_hear(vm: vm_pb2.Vm) -> None:
    if vm.status.state == vm_pb2.VM_STATE_PAUSED:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is paused, so that its guest hears nothing; resume it first, or stop it",
            "name",
        )


def _on(vm: vm_pb2.Vm) -> None:
    if is_off(vm):
        state = state_name(vm.status.state)
        refuse(reason_pb2.REASON_WRONG_STATE, f"{vm.name} is {state}; start it", "name")


def _pausable(vm: vm_pb2.Vm) -> None:
    _on(vm)
    if wish_of(vm) in (OFF, SHUT_DOWN):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is on its way off; wait for that, then start it",
            "name",
        )


START = PowerVerb("StartVm", RUNNING, _startable, "start", "is to start")
SHUTDOWN = PowerVerb("ShutdownVm", SHUT_DOWN, _can_hear, "stop", "is to shut down")
STOP = PowerVerb("StopVm", OFF, _stoppable, "stop", "is to be switched off")
PAUSE = PowerVerb("PauseVm", PAUSED, _pausable, "pause", "is to stand still")
RESUME = PowerVerb("ResumeVm", RUNNING, _pausable, "pause", "is to go on")


def power(verb: PowerVerb) -> Callable[[Snapshot, Any, Call], Mutation]:
    """The plan of a request about power: a new wish, counted, and an operation that waits for
    it."""

    def plan(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
        vm = the_vm(snapshot, request.name, request.etag)
        verb.check(vm)
        check_free(snapshot, vm.name, verb.deed)
        after = wishing(vm, verb.power)
        what = f"{short(vm.name)} {verb.what}"
        operation = accepted(
            call, request, vm, verb.method, what, power_request=after.spec.power_request
        )
        return answer(call, operation, [Put(after)], what)

    return plan


def wishing(vm: vm_pb2.Vm, wish: vm_pb2.PowerState.ValueType) -> vm_pb2.Vm:
    """A copy of the VM with another wish about its power."""
    after = rows.copied(vm)
    after.spec.power = wish
    after.spec.power_request += 1
    return after


def reboot(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """The VM goes on being wanted; whatever started before the operation begins is to end and start
    anew."""
    vm = the_vm(snapshot, request.name, request.etag)
    _pausable(vm)
    _can_hear(vm)
    check_free(snapshot, vm.name, "start")
    what = f"{short(vm.name)} is to reboot"
    asked = vm.spec.power_request
    operation = accepted(call, request, vm, "RebootVm", what, power_request=asked)
    return answer(call, operation, (), what)


def reset(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """A job on the VM's node."""
    vm = the_vm(snapshot, request.name, request.etag)
    _pausable(vm)
    what = f"{short(vm.name)} is to be reset"
    return answer(call, accepted(call, request, vm, "ResetVm", what), (), what)
