"""What an agent has to do next for one VM: what was decided, what the node sees, what comes of
both.

Pure. The steps are done in order; when one fails the rest is dropped and the VM looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from services.compute.core import live as hardware
from services.compute.core import migrate
from services.compute.core.facts import facts_off, facts_on
from services.compute.core.status import (
    CRASHED,
    FAILED,
    ON,
    PAUSED,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    UNSEEN,
    WHILE_ON,
    State,
    enter,
)
from services.compute.core.steps import (
    Confirm,
    Define,
    Destroy,
    Pause,
    Remove,
    Resume,
    SetStatus,
    Shutdown,
    Start,
    Step,
)
from services.compute.core.view import View, is_on, orphaned
from services.compute.drivers.hypervisor import Crossing, Domain, OffReason, Power

LIVELY = WHILE_ON | {STARTING}
"""States of a VM of which something may run."""
NUDGE_S = 10
"""A guest that was asked to shut down, or to go on, is asked again after this."""
TROUBLE_NUDGE_S = 60
"""One whose storage failed is let go on after this: each try stops again at once while it lasts."""

_ENDS: Mapping[OffReason, str] = {
    OffReason.SHUT_DOWN: "the guest shut itself down",
    OffReason.DESTROYED: "it was switched off by somebody else than PVC",
    OffReason.CRASHED: "the emulator ended by itself",
    OffReason.START_FAILED: "the emulator did not start",
    OffReason.NEVER_RAN: "it ended while nobody watched",
    OffReason.MIGRATED: "it was moved to another node by somebody else than PVC",
    OffReason.UNKNOWN: "it ended while nobody watched",
}


def converge(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """What to do now; nothing when all is as decided, or when there is something to wait for."""
    if view.former is not None:
        return orphaned(view.former, f"it is called {vm.name} now")
    if (steps := migrate.source(vm, view)) is not None:
        return steps
    if vm.meta.HasField("delete_time"):
        return _deleted(vm, view)
    if vm.decision.node != view.node:
        return _elsewhere(vm, view)
    if view.domain is not None and view.domain.uuid != vm.spec.uuid:
        return orphaned(view.domain, "its name belongs to another VM now")
    if is_on(view.domain):
        return _when_on(vm, view)
    return _when_off(vm, view)


def at_rest(vm: vm_pb2.Vm, node: str) -> bool:
    """It is off, as decided, and its status says all there is to say: with no domain on the node
    and no operation, `converge` has no step for it whatever else changes."""
    return (
        vm.status.state == STOPPED
        and vm.decision.node == node
        and vm.decision.power not in ON
        and not vm.meta.HasField("delete_time")
        and not _corrected(facts_off(vm, node, wanted=False), vm)
    )


def start_failed(status: vm_pb2.VmStatus, words: str, now: Timestamp) -> SetStatus:
    """The status of a VM whose start the hypervisor refused with these words."""
    return SetStatus(enter(status, FAILED, words, now), words)


def given_up(vm: vm_pb2.Vm) -> bool:
    """It crashed or could not start, and the coordinator does not try again; whether somebody asked
    for it to run, or its node's start did."""
    return (
        vm.status.state in (CRASHED, FAILED)
        and vm.decision.power_request == vm.spec.power_request
        and vm.decision.power not in ON
        and (vm.spec.power in ON or vm.decision.restarts > 0)
        and not _is_to_start_later(vm.decision)
    )


def _is_to_start_later(decision: vm_pb2.VmDecision) -> bool:
    """It is off only until it is tried on another node, or until others run that it starts
    after."""
    return bool(decision.waits_for) or (decision.recoveries > 0 and decision.HasField("not_before"))


def _deleted(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """Ends it, lets go of it (status.node is empty then), and removes the row unless volumes go
    first."""
    if vm.decision.node != view.node:
        return _elsewhere(vm, view)
    if view.domain is not None:
        return orphaned(view.domain, "it is being deleted")
    if vm.status.node:
        return (_released(vm, view, "it is being deleted"),)
    return () if view.held else (Remove("it was deleted"),)


def _elsewhere(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """A VM that is not this node's leaves nothing here, unless it is coming here."""
    if (steps := migrate.target(vm, view)) is not None:
        return steps
    why = f"it belongs to {vm.decision.node or 'no node'}"
    if view.domain is not None:
        ends = orphaned(view.domain, why)
        return (Confirm(why), *ends) if is_on(view.domain) else ends
    moved = vm.status.migration.phase == vm_pb2.MigrationStatus.PHASE_MOVED
    if vm.status.node != view.node or (moved and vm.decision.node and vm.status.state in WHILE_ON):
        return ()  # in the second case it runs there, and that node says so
    return (_released(vm, view, why),)


def _released(vm: vm_pb2.Vm, view: View, why: str) -> SetStatus:
    status = _moved(vm.status, STOPPED, why, view.now)
    status.node = ""
    return SetStatus(status, why)


# --- Nothing runs.


def _when_off(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    wanted = vm.decision.power in ON
    match vm.status.state:
        case state if state in LIVELY and not _was_here(vm, view):
            why = f"it was on {vm.status.node.removeprefix('nodes/')}, which has it no longer"
            return (_set(vm, view, STOPPED, why),)
        case state if state in WHILE_ON:
            return _ended(vm, view, wanted)
        case _ if wanted and _may_start(vm, view):
            return _start(vm, view)
        case vm_pb2.VM_STATE_CRASHED | vm_pb2.VM_STATE_FAILED if wanted or given_up(vm):
            return _corrected(facts_off(vm, view.node, wanted=True), vm)
        case vm_pb2.VM_STATE_STOPPED:
            return _corrected(facts_off(vm, view.node, wanted), vm)
        case vm_pb2.VM_STATE_STARTING if wanted:
            return ()
        case vm_pb2.VM_STATE_UNSPECIFIED:
            return (_set(vm, view, STOPPED, ""),)
        case _:
            return (_set(vm, view, STOPPED, "it is not to run"),)


def _was_here(vm: vm_pb2.Vm, view: View) -> bool:
    """Its state is about this node: what is told of another one does not count here."""
    return vm.status.node in ("", view.node) or migrate.arrived(vm, view.node)


def _ended(vm: vm_pb2.Vm, view: View, wanted: bool) -> tuple[Step, ...]:
    """It ran when last looked at."""
    reason = view.domain.off_reason if view.domain is not None else OffReason.UNKNOWN
    # Its start may have been on another node, by another clock.
    here = vm.status.node in ("", view.node)
    rebooted = here and vm.status.state_time.ToNanoseconds() < view.booted.ToNanoseconds()
    match reason:
        case _ if vm.status.state == STOPPING or not wanted:
            return (_set(vm, view, STOPPED, _stopped_why(vm, reason)),)
        case _ if rebooted:
            return (_set(vm, view, STOPPED, f"{view.node} started anew"),)
        case OffReason.SHUT_DOWN:
            step = _set(vm, view, STOPPED, _ENDS[reason])
            step.status.guest_shutdown = True
            return (step,)
        case _:
            return (_set(vm, view, CRASHED, _ENDS[reason]),)


def _stopped_why(vm: vm_pb2.Vm, reason: OffReason) -> str:
    if reason is OffReason.SHUT_DOWN:
        return "the guest shut down as it was asked to"
    return "it was switched off" if reason is OffReason.DESTROYED else _ENDS[reason]


def _may_start(vm: vm_pb2.Vm, view: View) -> bool:
    """Nothing has to be waited for: no crash to be judged, no back-off, no switch that the guest
    itself turned."""
    decision, status = vm.decision, vm.status
    if status.crashes > decision.crashes_seen or not view.settled_in:
        return False
    if decision.not_before.ToNanoseconds() > view.now.ToNanoseconds():
        return False
    return not (status.guest_shutdown and decision.power_request == status.power_request)


def _start(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    why = vm.decision.why or "it is to run"
    if view.wish is None:
        return _waiting(vm, view)
    begin: Step = Confirm(why)  # that it is STARTING was written on an earlier decision, perhaps
    intent = vm.status
    if vm.status.state != STARTING:
        intent = enter(vm.status, STARTING, why, view.now)
        intent.node = view.node
        begin = SetStatus(intent, why)
    started = enter(intent, RUNNING, "", view.now)
    started.node = view.node
    started.start_time.CopyFrom(view.now)
    # The request is in effect once the next look has seen what runs: see facts_on.
    return (begin, Define(why), Start(why), SetStatus(started, why))


def _waiting(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """It cannot be started yet; its status says what is missing."""
    if vm.status.state in (UNSEEN, STARTING):
        return (_set(vm, view, STOPPED, view.missing),)
    after = facts_off(vm, view.node, wanted=True)
    after.why = view.missing
    return _corrected(after, vm)


# --- It runs.


def _when_on(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    assert view.domain is not None
    match vm.decision.power:
        case _ if view.domain.crossing is Crossing.INCOMING:
            return ()  # it has been given to this node, and its memory is still to come
        case vm_pb2.POWER_STATE_OFF | vm_pb2.POWER_STATE_UNSPECIFIED:
            why = vm.decision.why or "it is not to run"
            stopped = _moved(vm.status, STOPPED, "it was switched off", view.now)
            _stamp(stopped, vm, view)
            return (Destroy(view.domain.vm, why), SetStatus(stopped, why))
        case _ if view.domain.crossing is Crossing.OUTGOING:
            return _taken_back(view)
        case _ if vm.status.state not in WHILE_ON:
            return (_adopted(vm, view),)
        case _ if vm.status.node != view.node:
            return (_taken_over(vm, view),)
        case vm_pb2.POWER_STATE_SHUT_DOWN:
            return _shut_down(vm, view, "it was asked for")
        case _ if _wants_restart(vm, view):
            return _shut_down(vm, view, "a reboot was asked for")
        case _ if vm.status.state == STOPPING:
            return _called_back(vm, view)
        case _:
            return _power(vm, view) or _hardware(vm, view)


def _adopted(vm: vm_pb2.Vm, view: View) -> SetStatus:
    step = _set(vm, view, RUNNING, "it was found running")
    step.status.start_time.CopyFrom(view.now)
    return step


def _taken_over(vm: vm_pb2.Vm, view: View) -> SetStatus:
    """It runs on as it did; it is this node that tells of it from now on."""
    after = vm_pb2.VmStatus()
    after.CopyFrom(vm.status)
    if view.live is not None:
        after = facts_on(vm, view.node, view.live, view.volumes, view.guest, None)
    after.node = view.node
    after.state_time.CopyFrom(view.now)
    return SetStatus(after, f"it came from {vm.status.node.removeprefix('nodes/')}", arrived=True)


def _taken_back(view: View) -> tuple[Step, ...]:
    """It stands still for another node that does not have it: its migration was given up."""
    why = "it is this node's, and on its way to no other"
    return (Confirm(why), Resume(why)) if _due(view) else ()


def _wants_restart(vm: vm_pb2.Vm, view: View) -> bool:
    restart = view.restart
    return restart is not None and (vm.status.start_time.ToNanoseconds() < restart.ToNanoseconds())


def _shut_down(vm: vm_pb2.Vm, view: View, why: str) -> tuple[Step, ...]:
    """The guest's own shutdown; without it after the timeout. A guest that stands still is let go
    on first."""
    assert view.domain is not None
    halted, timeout_s = view.domain.power is Power.PAUSED, vm.spec.shutdown_timeout_s
    match vm.status.state:
        case vm_pb2.VM_STATE_STOPPING if _age_s(vm.status, view.now) >= timeout_s:
            why = f"it did not shut down within {timeout_s} s and was switched off"
            return (Destroy(view.domain.vm, why), _set(vm, view, STOPPED, why))
        case vm_pb2.VM_STATE_PAUSED:
            on = _set(vm, view, RUNNING, why)
            return (Resume(why), on) if halted else (on,)
        case vm_pb2.VM_STATE_RUNNING if not halted:
            return (_set(vm, view, STOPPING, why), Shutdown(why))
        case _ if not _due(view):
            return ()
        case _:
            return (Resume(why),) if halted else (Shutdown(why),)


def _called_back(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """It was asked to shut down and is to run again: it is let finish, and started anew then."""
    if _age_s(vm.status, view.now) < vm.spec.shutdown_timeout_s:
        return ()
    return (_set(vm, view, RUNNING, "it did not shut down, and is to run again"),)


def _power(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """Brings processors to a halt or lets them go on, and the status after them."""
    assert view.domain is not None
    halted = view.domain.power is Power.PAUSED
    match vm.decision.power, halted, vm.status.state:
        case vm_pb2.POWER_STATE_PAUSED, False, vm_pb2.VM_STATE_RUNNING:
            return (Pause("it was asked for"), _set(vm, view, PAUSED, "it was asked for"))
        case vm_pb2.POWER_STATE_PAUSED, False, _:
            return (Pause("it is to stand still"),)
        case vm_pb2.POWER_STATE_PAUSED, True, vm_pb2.VM_STATE_RUNNING:
            return (_set(vm, view, PAUSED, "it was found standing still"),)
        case vm_pb2.POWER_STATE_RUNNING, True, vm_pb2.VM_STATE_RUNNING:
            return (_set(vm, view, PAUSED, _unasked(view.domain)),)
        case vm_pb2.POWER_STATE_RUNNING, True, _:
            return (Resume("it is to run"),) if _may_resume(vm, view) else _still(vm, view)
        case vm_pb2.POWER_STATE_RUNNING, False, vm_pb2.VM_STATE_PAUSED:
            return (SetStatus(_set(vm, view, RUNNING, "").status, "its processors go on"),)
        case _:
            return ()


def _unasked(domain: Domain) -> str:
    return f"it stands still unasked: {domain.trouble or 'nothing says why'}"


def _still(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """The reason as it is by now: another disk, or none any more."""
    assert view.domain is not None
    if not view.domain.trouble or vm.status.why == _unasked(view.domain):
        return ()
    after = vm_pb2.VmStatus()
    after.CopyFrom(vm.status)
    after.why = _unasked(view.domain)
    return (SetStatus(after, after.why),)


def _hardware(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """Live changes, then the facts as they are."""
    if view.live is None:
        return ()
    if view.wish is None:
        return _corrected(facts_on(vm, view.node, view.live, view.volumes, view.guest, None), vm)
    found = hardware.difference(view.live, view.wish, view.tried, view.refused)
    if found.steps:
        return found.steps
    after = facts_on(vm, view.node, view.live, view.volumes, view.guest, found.pending)
    return _corrected(after, vm)


# --- Statuses.


def _corrected(after: vm_pb2.VmStatus, vm: vm_pb2.Vm) -> tuple[Step, ...]:
    return (SetStatus(after, ""),) if after != vm.status else ()


def _set(vm: vm_pb2.Vm, view: View, state: State, why: str) -> SetStatus:
    status = enter(vm.status, state, why, view.now)
    _stamp(status, vm, view)
    return SetStatus(status, why)


def _moved(status: vm_pb2.VmStatus, state: State, why: str, now: Timestamp) -> vm_pb2.VmStatus:
    """In that state, also where it is already or where the table has no such move from one that
    never ran."""
    if status.state == state:
        after = vm_pb2.VmStatus()
        after.CopyFrom(status)
        return after
    return enter(status, state, why, now)


def _stamp(status: vm_pb2.VmStatus, vm: vm_pb2.Vm, view: View) -> None:
    """Takes in the node, and the power request where the new state is what was asked for."""
    status.node = view.node
    reached = {
        vm_pb2.POWER_STATE_RUNNING: RUNNING,
        vm_pb2.POWER_STATE_PAUSED: PAUSED,
        vm_pb2.POWER_STATE_SHUT_DOWN: STOPPED,
        vm_pb2.POWER_STATE_OFF: STOPPED,
    }.get(vm.decision.power, STOPPED)
    halted = view.domain is not None and view.domain.power is Power.PAUSED
    if status.state == reached and not (halted and reached == RUNNING):
        status.power_request = vm.decision.power_request


def _may_resume(vm: vm_pb2.Vm, view: View) -> bool:
    """At once when somebody asked; from time to time when it stands still by itself."""
    assert view.domain is not None
    asked = vm.decision.power_request != vm.status.power_request
    patience_s = TROUBLE_NUDGE_S if view.domain.trouble else NUDGE_S
    return _due(view) and (asked or _age_s(vm.status, view.now) >= patience_s)


def _due(view: View) -> bool:
    return view.nudged_s is None or view.nudged_s >= NUDGE_S


def _age_s(status: vm_pb2.VmStatus, now: Timestamp) -> float:
    return (now.ToNanoseconds() - status.state_time.ToNanoseconds()) / 1e9
