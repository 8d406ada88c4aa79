"""The states of a VM: which moves there are, and the one function that makes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2

State: TypeAlias = vm_pb2.VmState.ValueType

UNSEEN = vm_pb2.VM_STATE_UNSPECIFIED
STOPPED = vm_pb2.VM_STATE_STOPPED
STARTING = vm_pb2.VM_STATE_STARTING
RUNNING = vm_pb2.VM_STATE_RUNNING
PAUSED = vm_pb2.VM_STATE_PAUSED
STOPPING = vm_pb2.VM_STATE_STOPPING
CRASHED = vm_pb2.VM_STATE_CRASHED
FAILED = vm_pb2.VM_STATE_FAILED

TRANSITIONS: Mapping[State, frozenset[State]] = {
    UNSEEN: frozenset({STOPPED, STARTING, RUNNING}),
    STOPPED: frozenset({STARTING, RUNNING}),
    STARTING: frozenset({RUNNING, FAILED, STOPPED}),
    RUNNING: frozenset({PAUSED, STOPPING, STOPPED, CRASHED}),
    PAUSED: frozenset({RUNNING, STOPPED, CRASHED}),
    STOPPING: frozenset({STOPPED, RUNNING}),
    CRASHED: frozenset({STARTING, STOPPED, RUNNING}),
    FAILED: frozenset({STARTING, STOPPED, RUNNING}),
}
"""State → where it can go. RUNNING from one in which nothing ran: a domain that was found
running."""

ON = frozenset({vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED})
"""Powers with which the emulator runs."""

WHILE_ON = frozenset({RUNNING, PAUSED, STOPPING})
"""States that say that the emulator runs."""


def enter(status: vm_pb2.VmStatus, state: State, why: str, now: Timestamp) -> vm_pb2.VmStatus:
    """A copy of the status in another state. The only way a VM changes state."""
    assert state in TRANSITIONS[status.state], move(status.state, state)
    after = vm_pb2.VmStatus()
    after.CopyFrom(status)
    after.state, after.why = state, why
    after.state_time.CopyFrom(now)
    match state:
        case vm_pb2.VM_STATE_CRASHED | vm_pb2.VM_STATE_FAILED:
            after.crashes += 1
            clear_running(after)
        case vm_pb2.VM_STATE_STOPPED:
            clear_running(after)
        case vm_pb2.VM_STATE_STARTING | vm_pb2.VM_STATE_RUNNING:
            after.guest_shutdown = False
    return after


def clear_running(status: vm_pb2.VmStatus) -> None:
    """Forgets, in place, what is true of a running VM only."""
    for field in ("pending_restart", "disks", "nics", "guest", "vnc", "accelerator"):
        status.ClearField(field)
    status.vcpus, status.memory_mib = 0, 0


def move(before: State, after: State) -> str:
    """A change of state as it is told: "RUNNING → CRASHED"."""
    return f"{state_name(before)} → {state_name(after)}"


def state_name(state: State) -> str:
    """ "RUNNING"; "NEW" for one that no agent has seen."""
    name = vm_pb2.VmState.Name(state).removeprefix("VM_STATE_")
    return "NEW" if state == UNSEEN else name
