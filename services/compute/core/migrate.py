"""What the agents of the two nodes have to do next for a VM that moves between them while it runs.

Pure. What each of them is sure of is written down before the other acts on it:

* The source writes COPYING before it asks the hypervisor. From then on only where the domain is
  tells how it went. If the source cannot tell (it stands still, or ended in the middle), it asks by
  `unclear`, and waits: nothing that may run on the target goes on here.
* The target answers RUNNING or GONE, and GONE only when nothing can come in any more: the source
  has ended the migration, or its death is proven. A VM that was seen RUNNING on the target never
  goes on at the source, whatever became of it: it has written to its disks since.
"""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from services.compute.core.ladder import Stage, Terms
from services.compute.core.status import CRASHED, ON, WHILE_ON, enter
from services.compute.core.steps import (
    AbortMigration,
    Confirm,
    Destroy,
    Migrate,
    Resume,
    SetArrival,
    SetDowntime,
    SetStatus,
    StartPostCopy,
    Step,
    Throttle,
)
from services.compute.core.view import View, is_on, orphaned
from services.compute.drivers.hypervisor import Crossing, OffReason, Passage, Route

Phase = vm_pb2.MigrationStatus
Arrival = vm_pb2.VmArrival

WHILE_OFF = frozenset({vm_pb2.MIGRATION_METHOD_SHUTDOWN, vm_pb2.MIGRATION_METHOD_NONE})
"""Methods with which nothing of it runs when it changes its node."""
TELL_S = 1.0
"""Progress is written no more often than this."""
ABORT_AGAIN_S = 5.0
_COARSE = 1 << 20
"""Bytes are told in whole MiB."""


def leaves(vm: vm_pb2.Vm, node: str) -> bool:
    """It is to move away from this node while it runs."""
    return _is_live(vm) and vm.decision.node == node


def comes(vm: vm_pb2.Vm, node: str) -> bool:
    """It is to move to this node while it runs."""
    return _is_live(vm) and vm.decision.migration.target == node != vm.decision.node


def seen_of(vm: vm_pb2.Vm) -> vm_pb2.MigrationStatus:
    """What the source says of the migration that is decided; nothing of another."""
    seen = vm.status.migration
    return seen if seen.id == vm.decision.migration.id else vm_pb2.MigrationStatus()


def arrival_of(vm: vm_pb2.Vm) -> vm_pb2.VmArrival:
    """What the target says of the migration that is decided; nothing of another."""
    seen = vm.arrival
    return seen if seen.id == vm.decision.migration.id else vm_pb2.VmArrival()


def arrived(vm: vm_pb2.Vm, node: str) -> bool:
    """It has run on this node since it came here, which nobody has written down in its status."""
    here, went = vm.arrival, vm.status.migration
    if here.node != node or here.id != went.id:
        return False
    return here.state == Arrival.STATE_RUNNING or went.phase == Phase.PHASE_MOVED


def wants_look(vm: vm_pb2.Vm, node: str) -> bool:
    """It has to be found out whether this node can take it: once its volumes have places here."""
    migration = vm.decision.migration
    if migration.volumes and not migration.HasField("volumes_time"):
        return False
    return comes(vm, node) and not arrival_of(vm).id and seen_of(vm).phase != Phase.PHASE_FAILED


def terms(vm: vm_pb2.Vm) -> Terms:
    """What the VM allows to be done so that it gets ahead."""
    wanted = vm.spec.migration
    return Terms(wanted.max_downtime_ms or Terms().downtime_max_ms, wanted.allow_post_copy)


def begun_failed(vm: vm_pb2.Vm, words: str) -> SetStatus:
    """The status of a VM whose migration the hypervisor did not begin, in its words."""
    return _ended(vm, Phase.PHASE_FAILED, words)


def _is_live(vm: vm_pb2.Vm) -> bool:
    return vm.decision.HasField("migration") and vm.decision.migration.method not in WHILE_OFF


# --- The source.


def source(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...] | None:
    """What the node does that it moves away from; None: what it would do without a migration."""
    if not leaves(vm, view.node):
        return None
    match seen_of(vm).phase:
        case Phase.PHASE_FAILED:
            return None
        case Phase.PHASE_MOVED:
            return ()  # it is another node's as soon as that is decided
        case Phase.PHASE_COPYING:
            return _copying(vm, view)
        case _:
            return _preparing(vm, view)


def _preparing(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...] | None:
    """Nothing was begun yet."""
    target, arrival = _short(vm.decision.migration.target), arrival_of(vm)
    if why := _unwanted(vm):
        return (_ended(vm, Phase.PHASE_FAILED, why),)
    if view.domain is None or not is_on(view.domain):
        return (_ended(vm, Phase.PHASE_FAILED, "it does not run"),)
    if view.domain.crossing is not Crossing.NONE:
        return None  # left over from another one
    match arrival.state:
        case Arrival.STATE_READY:
            return _begin(vm, view)
        case Arrival.STATE_REFUSED:
            why = f"{target} cannot take it: {'; '.join(arrival.reasons)}"
            return (_ended(vm, Phase.PHASE_FAILED, why),)
        case Arrival.STATE_GONE:
            return (_ended(vm, Phase.PHASE_FAILED, f"{target} does not wait for it any more"),)
        case _ if seen_of(vm).phase == Phase.PHASE_PREPARING:
            return ()
        case _:
            why = f"{target} is asked whether it can take it"
            return (_told(vm, vm_pb2.MigrationStatus(phase=Phase.PHASE_PREPARING, why=why)),)


def _begin(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    migration, allowed = vm.decision.migration, terms(vm)
    if not view.way.host:
        why = f"{_short(migration.target)} takes no VMs in: it has no address for that"
        return (_ended(vm, Phase.PHASE_FAILED, why),)
    if len(view.way.files) < len(migration.volumes):
        why = "a volume that is to go along has no place there any more"
        return (_ended(vm, Phase.PHASE_FAILED, why),)
    first, why = allowed.downtimes[0], migration.why or "it is to move"
    route = Route(view.way.host, first, allowed.post_copy, view.way.files)
    intent = vm_pb2.MigrationStatus(phase=Phase.PHASE_COPYING, downtime_ms=first)
    return (_told(vm, intent), Migrate(route, why))


def _copying(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """It was begun, or was about to be; what became of it the domain tells."""
    domain, passage = view.domain, view.way.passage
    goes_on = passage is not None and not passage.ended
    if domain is None or not is_on(domain):
        if goes_on:
            return ()  # it is just ending
        migrated = domain is not None and domain.off_reason is OffReason.MIGRATED
        if migrated and arrival_of(vm).state != Arrival.STATE_GONE:
            return (_ended(vm, Phase.PHASE_MOVED, "", passage),)
        return _unclear(vm, view, "it ended here while it was moving")
    if goes_on:
        assert passage is not None
        return _going(vm, view, passage)
    match domain.crossing:
        case Crossing.OUTGOING:
            return _unclear(vm, view, "it stands still here: its migration was interrupted")
        case Crossing.INCOMING:
            return ()
        case Crossing.NONE:
            said = passage.why if passage is not None else ""
            why = _unwanted(vm) or view.way.given_up or said or "it was interrupted"
            return (_ended(vm, Phase.PHASE_FAILED, why),)


def _going(vm: vm_pb2.Vm, view: View, passage: Passage) -> tuple[Step, ...]:
    way = view.way
    why = _unwanted(vm) or (way.given_up if way.advice is None else "")
    if why and not passage.post_copy:
        again = view.way.aborted_s is None or view.way.aborted_s >= ABORT_AGAIN_S
        return (AbortMigration(why),) if again else ()
    advice = view.way.advice
    if advice is None:
        due = view.way.told_s is None or view.way.told_s >= TELL_S
        after = _progress(vm, passage)
        return (after,) if due and after.status != vm.status else ()
    told = _progress(vm, passage, advice.why)
    match advice.stage:
        case Stage.PAUSE:
            told.status.migration.downtime_ms = advice.downtime_ms
            return (SetDowntime(advice.downtime_ms, advice.why), told)
        case Stage.THROTTLE:
            return (Throttle(advice.why), told)
        case Stage.POST_COPY:
            # Written first: from then on what stays here is worth nothing.
            told.status.migration.post_copy = True
            return (told, StartPostCopy(advice.why))
        case Stage.ABORT:
            return (told, AbortMigration(advice.why))


def _unclear(vm: vm_pb2.Vm, view: View, why: str) -> tuple[Step, ...]:
    """Only the target knows. It is asked; until it has answered nothing goes on here."""
    seen = seen_of(vm)
    match arrival_of(vm).state:
        case Arrival.STATE_RUNNING:
            target = _short(vm.decision.migration.target)
            rest = (Destroy(vm_id(vm), f"it runs on {target}"),) if is_on(view.domain) else ()
            return (*rest, _ended(vm, Phase.PHASE_MOVED, ""))
        case state if state == Arrival.STATE_GONE or view.way.dead:
            return _kept(vm, view)
        case _ if seen.unclear:
            return ()
        case _:
            asking = vm_pb2.MigrationStatus()
            asking.CopyFrom(seen)
            asking.unclear, asking.why = True, f"{why}; the target is asked whether it has it"
            return (_told(vm, asking),)


def _kept(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """The target does not have it, and cannot get it any more."""
    target = _short(vm.decision.migration.target)
    if not is_on(view.domain):
        return (_ended(vm, Phase.PHASE_FAILED, "it ended while it was moving"),)
    if seen_of(vm).post_copy:
        # It has run there, and written to its disks: what stands here is of the past.
        why = f"it was lost: {target} failed before all of its memory was there"
        lost = _ended(vm, Phase.PHASE_FAILED, why)
        if vm.status.state in WHILE_ON and vm.status.state != vm_pb2.VM_STATE_STOPPING:
            lost.status.CopyFrom(enter(lost.status, CRASHED, why, view.now))
        return (Destroy(vm_id(vm), why), lost)
    why = f"it goes on here: {target} does not have it"
    return (Confirm(why), Resume(why), _ended(vm, Phase.PHASE_FAILED, f"interrupted; {why}"))


def _unwanted(vm: vm_pb2.Vm) -> str:
    """Why it is not to move after all; "" when it is."""
    if vm.meta.HasField("delete_time"):
        return "it is being deleted"
    if vm.decision.migration.cancel:
        return "it was cancelled"
    return "" if vm.decision.power in ON else "it is not to run any more"


# --- The target.


def target(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...] | None:
    """What the node does that it moves to; None: what it would do with a VM that is none of its."""
    if not comes(vm, view.node):
        return None
    if view.domain is None:
        return _empty(vm, view)
    if view.domain.uuid != vm.spec.uuid:
        return orphaned(view.domain, "its name belongs to another VM now")
    if not is_on(view.domain):
        return _left(vm, view)
    seen, said = seen_of(vm), arrival_of(vm).state
    if view.domain.crossing is Crossing.NONE:
        if seen.phase == Phase.PHASE_FAILED or said == Arrival.STATE_GONE:
            return _turned_out(vm, view)
        return () if said == Arrival.STATE_RUNNING else (_said(vm, view, Arrival.STATE_RUNNING),)
    if _is_over(vm, view) or said in (Arrival.STATE_GONE, Arrival.STATE_REFUSED):
        return _turned_out(vm, view)
    return ()


def _empty(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """There is nothing of it here."""
    seen, said = seen_of(vm), arrival_of(vm).state
    match said:
        case Arrival.STATE_READY | Arrival.STATE_UNSPECIFIED if _is_over(vm, view):
            return (_said(vm, view, Arrival.STATE_GONE),)
        case Arrival.STATE_RUNNING if seen.phase == Phase.PHASE_FAILED:
            return (_said(vm, view, Arrival.STATE_GONE),)
        case Arrival.STATE_UNSPECIFIED if view.way.refusals is not None:
            state = Arrival.STATE_REFUSED if view.way.refusals else Arrival.STATE_READY
            return (_said(vm, view, state),)
        case _:
            return ()


def _left(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    """A domain that is off. What comes in is kept only once it runs: after READY, when nothing was
    kept, it has run here and ended."""
    assert view.domain is not None
    failed = seen_of(vm).phase == Phase.PHASE_FAILED
    match arrival_of(vm).state:
        case Arrival.STATE_READY if not failed:
            return (_said(vm, view, Arrival.STATE_RUNNING),)
        case Arrival.STATE_RUNNING if not failed:
            return ()  # its end is told once the VM is this node's
        case _:
            return orphaned(view.domain, "it is left over from before")


def _is_over(vm: vm_pb2.Vm, view: View) -> bool:
    """Nothing can come in any more: the source has ended it, or waits for an answer, or is dead."""
    seen = seen_of(vm)
    if seen.phase == Phase.PHASE_FAILED or seen.unclear:
        return True
    return vm.decision.migration.cancel and view.way.dead


def _turned_out(vm: vm_pb2.Vm, view: View) -> tuple[Step, ...]:
    assert view.domain is not None
    why = "its migration to this node ended without success"
    gone = arrival_of(vm).state == Arrival.STATE_GONE
    told = () if gone else (_said(vm, view, Arrival.STATE_GONE),)
    return (Confirm(why), *orphaned(view.domain, why), *told)


def _said(vm: vm_pb2.Vm, view: View, state: vm_pb2.VmArrival.State.ValueType) -> SetArrival:
    reasons = view.way.refusals if state == Arrival.STATE_REFUSED else ()
    said = vm_pb2.VmArrival(
        id=vm.decision.migration.id, node=view.node, state=state, reasons=reasons or ()
    )
    what = Arrival.State.Name(state).removeprefix("STATE_")
    return SetArrival(said, f"arrival {what}" + "".join(f"; {reason}" for reason in said.reasons))


# --- What is told.


def _told(vm: vm_pb2.Vm, seen: vm_pb2.MigrationStatus) -> SetStatus:
    after = vm_pb2.VmStatus()
    after.CopyFrom(vm.status)
    after.migration.CopyFrom(seen)
    after.migration.id = vm.decision.migration.id
    return SetStatus(after, seen.why)


def _ended(
    vm: vm_pb2.Vm, phase: Phase.Phase.ValueType, why: str, passage: Passage | None = None
) -> SetStatus:
    after = vm_pb2.MigrationStatus()
    after.CopyFrom(seen_of(vm))
    after.phase, after.why = phase, why
    after.unclear, after.remaining_bytes, after.remaining_s = False, 0, 0
    if phase == Phase.PHASE_MOVED:
        after.downtime_ms = passage.downtime_ms if passage is not None else 0
    return _told(vm, after)


def _progress(vm: vm_pb2.Vm, passage: Passage, why: str = "") -> SetStatus:
    after = vm_pb2.MigrationStatus()
    after.CopyFrom(seen_of(vm))
    after.why = why or after.why
    after.remaining_bytes = _rounded(passage.remaining_bytes)
    after.total_bytes = _rounded(passage.total_bytes)
    after.dirty_bytes_per_s = _rounded(passage.dirty_bytes_per_s)
    after.copied_bytes_per_s = _rounded(passage.copied_bytes_per_s)
    after.throttle_percent, after.iterations = passage.throttle_percent, passage.iterations
    after.post_copy = after.post_copy or passage.post_copy
    gain = passage.copied_bytes_per_s - passage.dirty_bytes_per_s
    after.remaining_s = -(-passage.remaining_bytes // gain) if gain > 0 else 0
    return _told(vm, after)


def _rounded(size: int) -> int:
    return -(-size // _COARSE) * _COARSE


def vm_id(vm: vm_pb2.Vm) -> str:
    """vms/web → web."""
    return vm.name.removeprefix("vms/")


def _short(node: str) -> str:
    return node.removeprefix("nodes/")
