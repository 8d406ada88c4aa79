"""A VM's move on its own row: begun, followed, ended. Says nothing of who asked for it, or where
it should go.

What the two agents do is in the contract, at Migration. Where the source dies in the middle, the
target says whether the VM got there; a VM that did not is left to the recovery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from services.coordinator.core import copying
from services.coordinator.core.copying import NOTHING
from services.coordinator.core.residence import WHILE_OFF, is_dead, is_idle, shut_itself_down
from services.coordinator.core.world import WANT_MEMORY, WORKING, World, short
from services.mesh.rows import copied

LIVE = vm_pb2.MIGRATION_METHOD_LIVE
SHUTDOWN = vm_pb2.MIGRATION_METHOD_SHUTDOWN
NONE = vm_pb2.MIGRATION_METHOD_NONE
RUNNING = vm_pb2.POWER_STATE_RUNNING

ONLY_WHEN_OFF = {
    SHUTDOWN: "its spec.migration.method is to be shut down for a move",
    NONE: "its spec.migration.method says that it stays where it is",
}
"""Method → why the VM does not move while it runs."""

Phase = vm_pb2.MigrationStatus
Arrival = vm_pb2.VmArrival

ANSWER_S = 120
"""The target has this long to say whether it can take the VM."""
REST_S = 60
"""A VM whose move failed is not moved by the cluster's own decision for this long."""


@dataclass(frozen=True, slots=True)
class GoesOn:
    """There is something to wait for."""

    stage: str
    percent: int
    line: str = ""
    """What is worth a line in a log, the same as long as it stays so."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The agents have to be told to undo it; `vm` is the row that does."""

    vm: vm_pb2.Vm
    why: str


@dataclass(frozen=True, slots=True)
class Moved:
    """It is on the target now; `vm` is the row that says so."""

    vm: vm_pb2.Vm
    what: str
    """How it went, one sentence."""
    starts: bool = False
    """It was shut down, and has to start there yet."""


@dataclass(frozen=True, slots=True)
class Stayed:
    """It is where it was; `vm` is the row without the migration."""

    vm: vm_pb2.Vm
    why: str


@dataclass(frozen=True, slots=True)
class Furnishing:
    """The storage service has to be asked to make the new places of its volumes."""


@dataclass(frozen=True, slots=True)
class Furnished:
    """All of those are there; `vm` is the row that says so."""

    vm: vm_pb2.Vm


Course = GoesOn | Stopping | Moved | Stayed | Furnishing | Furnished


def begun(
    now: Timestamp,
    vm: vm_pb2.Vm,
    target: str,
    method: vm_pb2.MigrationMethod.ValueType,
    operation: str,
    why: str,
    volumes: Mapping[str, str] = NOTHING,
) -> vm_pb2.Vm:
    """The row with a migration to `target`. Its id is unique: no other row is ever at this
    version. What does not run moves so only where volumes have to go along."""
    assert method != NONE or volumes, f"{vm.name} just changes its node"
    if method == NONE and vm.decision.power in WANT_MEMORY and not shut_itself_down(vm):
        method = SHUTDOWN  # it would start any moment, and is to start there
    after = copied(vm)
    after.decision.migration.CopyFrom(
        vm_pb2.Migration(
            id=".".join(
                (operation.rpartition("/")[2], vm.name.rpartition("/")[2], vm.meta.etag or "0")
            ),
            target=target,
            method=method,
            operation=operation,
            why=why,
            time=now,
            power_request=vm.decision.power_request,
            volumes=volumes,
        )
    )
    if method == SHUTDOWN:
        after.decision.power = vm_pb2.POWER_STATE_SHUT_DOWN
    elif method == NONE:
        after.decision.power = vm_pb2.POWER_STATE_OFF
    after.decision.why = why
    return after


def relocated(vm: vm_pb2.Vm, target: str, why: str) -> vm_pb2.Vm:
    """The row of a VM of which nothing runs, on another node."""
    assert is_idle(vm), f"{vm.name} may run"
    after = copied(vm)
    after.decision.node = target
    after.decision.why = why
    after.decision.crashes_seen = vm.status.crashes
    after.decision.last_move = f"moved {short(vm.decision.node)} → {short(target)} while it was off"
    after.decision.ClearField("move_not_before")
    del after.decision.verdicts[:]
    return after


def follow(now: Timestamp, world: World, vm: vm_pb2.Vm, cancelled: bool) -> Course:
    """Where the VM's migration stands, or what is to become of it. cancelled: who asked for it does
    not want it any more."""
    stop = _why_stop(world, vm, cancelled)
    if vm.decision.migration.method in WHILE_OFF:
        return _shut_down(now, world, vm, stop)
    seen = status_of(vm)
    match seen.phase:
        case Phase.PHASE_MOVED:
            return _moved(now, vm, seen)
        case Phase.PHASE_FAILED:
            return stayed(now, vm, seen.why or "its node does not say why")
        case Phase.PHASE_COPYING if stop and not vm.decision.migration.cancel:
            return Stopping(_cancelled(vm), stop)
        case Phase.PHASE_COPYING:
            return _copying(vm, seen)
        case _:
            return _preparing(now, world, vm, stop)


def follow_dead(now: Timestamp, world: World, vm: vm_pb2.Vm) -> Course:
    """As `follow`, where the source is proven dead. Nothing can have come to run on the target
    unless the source said that it begins to copy; then the target has the word."""
    source, target = short(vm.decision.node), vm.decision.migration.target
    seen, arrival = status_of(vm), arrival_of(vm)
    if seen.phase == Phase.PHASE_MOVED or arrival.state == Arrival.STATE_RUNNING:
        return _moved(now, vm, seen)
    ended = arrival.state in (Arrival.STATE_GONE, Arrival.STATE_REFUSED)
    if ended or seen.phase != Phase.PHASE_COPYING or is_dead(world, target):
        course = stayed(now, vm, f"{source} failed meanwhile")
        _want_again(course.vm, vm.decision.migration)
        return course
    if not vm.decision.migration.cancel:
        return Stopping(_cancelled(vm), f"{source} failed meanwhile")
    line = f"{source} failed; {short(target)} has to say whether it got there"
    return GoesOn(line, 90, line)


def stayed(now: Timestamp, vm: vm_pb2.Vm, why: str) -> Stayed:
    """The migration is over, and the VM where it was."""
    after = copied(vm)
    migration = vm.decision.migration
    after.decision.ClearField("migration")
    after.decision.last_move = (
        f"did not move {short(vm.decision.node)} → {short(migration.target)}: {why}"
    )
    after.decision.move_not_before.FromNanoseconds(now.ToNanoseconds() + REST_S * 10**9)
    after.decision.why = f"it stays on {short(vm.decision.node)}: {why}"
    return Stayed(after, why)


def status_of(vm: vm_pb2.Vm) -> vm_pb2.MigrationStatus:
    """What the source says of this very migration; nothing of another."""
    seen = vm.status.migration
    return seen if seen.id == vm.decision.migration.id else vm_pb2.MigrationStatus()


def arrival_of(vm: vm_pb2.Vm) -> vm_pb2.VmArrival:
    """What the target says of this very migration; nothing of another."""
    seen = vm.arrival
    return seen if seen.id == vm.decision.migration.id else vm_pb2.VmArrival()


def _why_stop(world: World, vm: vm_pb2.Vm, cancelled: bool) -> str:
    migration = vm.decision.migration
    target = world.nodes.get(migration.target)
    if vm.meta.HasField("delete_time"):
        return "it is being deleted"
    if target is None or target.decision.state not in WORKING:
        return f"{short(migration.target)} is not online any more"
    if migration.method not in WHILE_OFF and vm.decision.power not in WANT_MEMORY:
        return "it is to be off"
    return "it was cancelled" if cancelled else ""


def _preparing(now: Timestamp, world: World, vm: vm_pb2.Vm, stop: str) -> Course:
    """Nothing is being copied: the source says on this row that it begins before it does, so that a
    row without the migration keeps it from beginning."""
    migration, arrival = vm.decision.migration, arrival_of(vm)
    if stop:
        return stayed(now, vm, stop)
    if migration.volumes and not migration.HasField("volumes_time"):
        return _furnish(now, world, vm) or Furnished(_furnished(now, vm))
    target = short(migration.target)
    since = migration.volumes_time if migration.volumes else migration.time
    waited_s = now.seconds - since.seconds
    match arrival.state:
        case Arrival.STATE_REFUSED:
            reasons = ". ".join(arrival.reasons) or "it does not say why"
            return stayed(now, vm, f"{target} cannot take it: {reasons}")
        case Arrival.STATE_GONE:
            return stayed(now, vm, f"{target} let go of it before it came")
        case Arrival.STATE_READY if waited_s >= 2 * ANSWER_S:
            return stayed(now, vm, f"{short(vm.decision.node)} did not begin within {waited_s} s")
        case Arrival.STATE_READY | Arrival.STATE_RUNNING:
            return GoesOn(f"{target} waits for it", 5, f"{target} can take it")
        case _ if waited_s >= ANSWER_S:
            return stayed(now, vm, f"{target} did not say within {ANSWER_S} s whether it takes it")
        case _:
            return GoesOn(f"{target} looks whether it can take it", 1)


def _furnish(now: Timestamp, world: World, vm: vm_pb2.Vm) -> Course | None:
    """The new places of its volumes; None once they are there."""
    making = copying.making(world, vm)
    if making.failed:
        return stayed(now, vm, making.failed)
    if not making.begun:
        return Furnishing()
    if making.ready:
        return None
    return GoesOn(making.stage, 5 + making.percent * 9 // 10, "its volumes are made there")


def _furnished(now: Timestamp, vm: vm_pb2.Vm) -> vm_pb2.Vm:
    after = copied(vm)
    after.decision.migration.volumes_time.CopyFrom(now)
    return after


def _copying(vm: vm_pb2.Vm, seen: vm_pb2.MigrationStatus) -> GoesOn:
    done = 1 - seen.remaining_bytes / seen.total_bytes if seen.total_bytes else 0.0
    percent = 10 + int(85 * min(max(done, 0.0), 1.0))
    if vm.decision.migration.cancel:
        return GoesOn("stopping it", percent, "it is being stopped")
    if not seen.total_bytes:
        return GoesOn("copying memory", percent, "copying began")
    parts = [f"{_mib(seen.remaining_bytes)} of {_mib(seen.total_bytes)} MiB to go"]
    if seen.copied_bytes_per_s:
        parts.append(f"{_mib(seen.copied_bytes_per_s)} MiB/s")
    if seen.dirty_bytes_per_s:
        parts.append(f"the guest writes {_mib(seen.dirty_bytes_per_s)} MiB/s")
    if seen.remaining_s:
        parts.append(f"about {seen.remaining_s} s left")
    what = "fetching the rest of its memory" if seen.post_copy else "copying memory"
    return GoesOn(f"{what}: {', '.join(parts)}", percent, seen.why or "copying began")


def _moved(now: Timestamp, vm: vm_pb2.Vm, seen: vm_pb2.MigrationStatus) -> Moved:
    took = _seconds(now, vm.decision.migration.time)
    pause = f", pause {seen.downtime_ms} ms" if seen.downtime_ms else ""
    return _arrived(vm, f"migrated {{}} in {took:.1f} s{pause}")


def _shut_down(now: Timestamp, world: World, vm: vm_pb2.Vm, stop: str) -> Course:
    """It is shut down on its node; once nothing of it runs there, and its volumes are on the
    target, it is started there. One that was off before stays so."""
    decision, was_off = vm.decision, vm.decision.migration.method == NONE
    ours = decision.power_request == decision.migration.power_request and not was_off
    if not ours and decision.power in WANT_MEMORY:
        return stayed(now, vm, "it was asked to run meanwhile")
    if stop:
        return _goes_on_here(stayed(now, vm, stop), decision.migration)
    if not is_idle(vm) or (vm.status.guest_shutdown and not was_off):
        return GoesOn(f"waits for it to shut down on {short(decision.node)}", 10, "it shuts down")
    if decision.migration.volumes and (course := _furnish(now, world, vm)) is not None:
        return _goes_on_here(course, decision.migration) if isinstance(course, Stayed) else course
    how = "while it was off" if was_off else "shut down for it"
    moved = _arrived(vm, f"moved {{}} in {_seconds(now, decision.migration.time):.1f} s, {how}")
    if ours:
        moved.vm.decision.power = RUNNING
    return Moved(moved.vm, moved.what, starts=ours)


def _goes_on_here(course: Stayed, migration: vm_pb2.Migration) -> Stayed:
    _want_again(course.vm, migration)
    return course


def _want_again(after: vm_pb2.Vm, migration: vm_pb2.Migration) -> None:
    """A VM that was shut down only to be moved is to run, unless somebody asked for something else
    meanwhile."""
    ours = after.decision.power_request == migration.power_request
    if migration.method == SHUTDOWN and ours and not after.meta.HasField("delete_time"):
        after.decision.power = RUNNING


def _arrived(vm: vm_pb2.Vm, how: str) -> Moved:
    """how: what is told of it, with {} where from and to go."""
    migration = vm.decision.migration
    what = how.format(f"{short(vm.decision.node)} → {short(migration.target)}")
    after = copied(vm)
    if migration.volumes:
        copying.take_places(after, migration.volumes)
        what += f", with {len(migration.volumes)} volumes copied along"
    after.decision.node = migration.target
    after.decision.ClearField("migration")
    after.decision.ClearField("move_not_before")
    after.decision.crashes_seen = vm.status.crashes
    after.decision.last_move = what
    after.decision.why = migration.why
    del after.decision.verdicts[:]
    return Moved(after, what)


def _cancelled(vm: vm_pb2.Vm) -> vm_pb2.Vm:
    after = copied(vm)
    after.decision.migration.cancel = True
    return after


def _mib(size: int) -> int:
    return -(-size // 2**20)


def _seconds(now: Timestamp, since: Timestamp) -> float:
    return max((now.ToNanoseconds() - since.ToNanoseconds()) / 1e9, 0.0)
