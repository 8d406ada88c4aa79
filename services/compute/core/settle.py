"""When an operation on a VM has ended, and how: judged from the VM's row alone, so that any restart
judges the same.

Pure. For operations that end by the agent's converging; jobs end their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.compute.core.checks import wish_of
from services.compute.core.life import given_up
from services.compute.core.methods import method
from services.compute.core.status import FAILED, ON, RUNNING, STOPPING, UNSEEN, state_name
from services.mesh.errors import PvcError

Operation = operation_pb2.Operation

_OFF = frozenset({vm_pb2.POWER_STATE_OFF, vm_pb2.POWER_STATE_SHUT_DOWN})
_RUN = frozenset({vm_pb2.POWER_STATE_RUNNING})

WISHES: Mapping[str, frozenset[vm_pb2.PowerState.ValueType]] = {
    method("CreateVm"): _RUN,
    method("StartVm"): _RUN,
    method("ResumeVm"): _RUN,
    method("RebootVm"): _RUN,
    method("ShutdownVm"): _OFF,
    method("StopVm"): _OFF,
    method("PauseVm"): frozenset({vm_pb2.POWER_STATE_PAUSED}),
}
"""Method → powers with which what it asked for goes on being wanted."""

CHANGES = frozenset(
    method(name) for name in ("UpdateVm", "AttachDisk", "DetachDisk", "AttachNic", "DetachNic")
)
"""Methods that wait for a generation of the spec to be in effect."""

DEADLINES_S: Mapping[str, int] = {
    method("CreateVm"): 1800,
    method("StartVm"): 1800,
    method("ResumeVm"): 120,
    method("PauseVm"): 120,
    method("StopVm"): 120,
    method("ShutdownVm"): 120,
    method("RebootVm"): 900,
} | dict.fromkeys(CHANGES, 300)
"""Method → how long it may take at most; beyond the guest's own time to shut down, where it is one
of those."""

_SHUT_DOWNS = frozenset({method("ShutdownVm"), method("RebootVm")})


@dataclass(frozen=True, slots=True)
class Ended:
    """How an operation ended. error None: it succeeded, and the VM as it is now is its result."""

    error: PvcError | None = None


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the hypervisor or the guest said to live changes, by pending_restart's names."""

    errors: Mapping[str, PvcError] = field(default_factory=lambda: MappingProxyType({}))


def settles(operation: Operation) -> bool:
    """The operation ends by converging, and has not ended."""
    return operation.method in DEADLINES_S and not operation.HasField("end_time")


def settle(
    operation: Operation,
    vm: vm_pb2.Vm | None,
    now: Timestamp,
    refusals: Refusals | None = None,
) -> Ended | None:
    """How the operation ended; None while it goes on. vm: None when it exists no longer."""
    if vm is None or vm.meta.HasField("delete_time"):
        return _failed(reason_pb2.REASON_SUPERSEDED, f"{operation.target} is being deleted")
    if operation.method in CHANGES:
        ended = _change(operation, vm, refusals or Refusals())
    elif operation.method == method("RebootVm"):
        ended = _reboot(operation, vm)
    else:
        ended = _power(operation, vm)
    return ended or _cut_short(operation, vm, now)


def _power(operation: Operation, vm: vm_pb2.Vm) -> Ended | None:
    asked = operation.power_request
    if given_up(vm):
        wants_on = bool(WISHES[operation.method] & ON)
        return _hopeless(vm) if wants_on and vm.decision.power_request >= asked else None
    if vm.status.power_request == asked:
        return Ended()
    if vm.spec.power not in WISHES[operation.method]:
        return _superseded(vm)
    return Ended() if vm.status.power_request > asked else None


def _reboot(operation: Operation, vm: vm_pb2.Vm) -> Ended | None:
    """It runs, and began to after the operation was taken up."""
    if given_up(vm):
        return _hopeless(vm)
    if vm.status.guest_shutdown and vm.decision.power not in ON:
        return _failed(
            reason_pb2.REASON_SUPERSEDED, f"{vm.name} is off: the guest shut itself down meanwhile"
        )
    if wish_of(vm) not in WISHES[operation.method]:
        return _superseded(vm)
    begun = operation.HasField("start_time") and (
        vm.status.start_time.ToNanoseconds() >= operation.start_time.ToNanoseconds()
    )
    return Ended() if begun and vm.status.state == RUNNING else None


def _change(operation: Operation, vm: vm_pb2.Vm, refusals: Refusals) -> Ended | None:
    """In effect as far as it can be. What the guest or the hypervisor refused fails a plug or
    unplug, which was asked for by itself; an update succeeds, and the rest waits for a restart."""
    homeless = not vm.decision.node and vm.status.state == UNSEEN
    if vm.status.generation < operation.generation and not homeless:
        return None
    device = _device(operation)
    error = refusals.errors.get(device) if device in vm.status.pending_restart else None
    if error is None:
        return Ended()
    how = (
        f"{vm.name} runs without it until its next start"
        if "Attach" in operation.method
        else f"{vm.name} keeps it until its next start"
    )
    return _failed(error.reason, f"{error.message}. The spec is changed; {how}")


def _device(operation: Operation) -> str:
    """The device that a plug or unplug is about: "disks.data1"; "" for other changes."""
    attach_disk, detach_disk = api.AttachDiskRequest(), api.DetachDiskRequest()
    attach_nic, detach_nic = api.AttachNicRequest(), api.DetachNicRequest()
    if operation.request.Unpack(attach_disk):
        return f"disks.{attach_disk.disk.id}"
    if operation.request.Unpack(detach_disk):
        return f"disks.{detach_disk.disk_id}"
    if operation.request.Unpack(attach_nic):
        return f"nics.{attach_nic.nic.id}"
    return f"nics.{detach_nic.nic_id}" if operation.request.Unpack(detach_nic) else ""


def _hopeless(vm: vm_pb2.Vm) -> Ended:
    reason = reason_pb2.REASON_VM_CRASHED
    if vm.status.state == FAILED:
        reason = reason_pb2.REASON_HYPERVISOR_FAILED
    return _failed(reason, f"{vm.name} is {state_name(vm.status.state)}: {vm.decision.why}")


def _superseded(vm: vm_pb2.Vm) -> Ended:
    wanted = vm_pb2.PowerState.Name(wish_of(vm)).removeprefix("POWER_STATE_")
    return _failed(reason_pb2.REASON_SUPERSEDED, f"{vm.name} is to be {wanted} by now")


def _cut_short(operation: Operation, vm: vm_pb2.Vm, now: Timestamp) -> Ended | None:
    """Cancelled, or out of time. What was asked for stays wanted: only the waiting ends."""
    if operation.cancel_requested:
        return _failed(
            reason_pb2.REASON_CANCELLED,
            f"nobody waits for it any more; what was asked of {vm.name} stays asked, until another "
            "request says otherwise",
        )
    limit_s = DEADLINES_S[operation.method]
    if operation.method in _SHUT_DOWNS:
        limit_s += vm.spec.shutdown_timeout_s
    if now.seconds - operation.meta.create_time.seconds < limit_s:
        return None
    state = state_name(vm.status.state)
    why = vm.status.why or vm.decision.why or "nothing says why"
    asked = "the guest was asked to shut down" if vm.status.state == STOPPING else why
    return _failed(
        reason_pb2.REASON_DEADLINE,
        f"not done within {limit_s} s: {vm.name} is {state} ({asked}). What was asked for stays "
        "wanted",
    )


def _failed(reason: reason_pb2.Reason.ValueType, message: str) -> Ended:
    return Ended(PvcError(reason, message))
