"""Volumes that moves left: what they are, and the storage service asked to remove them as soon as
nothing has them. What cannot be removed is named at last, and stays. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.coordinator.core.copying import CREATE, pool_of, storage_work, work_of
from services.coordinator.core.methods import storage_method
from services.coordinator.core.plan import WARNING, DecideVm, Step, Unjudged
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.world import World, is_working, short
from services.mesh import rows

Operation = operation_pb2.Operation
Left = vm_pb2.LeftVolume

DELETE = storage_method("DeleteVolume")
TRIES_MAX = 5
AGAIN_S = 60
"""What could not be removed is tried again after this."""


def leave(after: vm_pb2.Vm, volumes: Iterable[str], caller: str) -> None:
    """Notes on a copy of the row that these are to be removed."""
    known = {left.volume for left in after.decision.left_volumes}
    for volume in sorted(set(volumes) - known):
        after.decision.left_volumes.add(volume=volume, caller=caller)


def made_for(world: World, vm: vm_pb2.Vm) -> list[str]:
    """The new places that the storage service was asked to make for the VM's migration."""
    return [x for x in vm.decision.migration.volumes.values() if work_of(world, vm, x) is not None]


def judge_leftovers(round: Round) -> Iterator[Step | Unjudged]:
    """The next step of every removal."""
    for vm in round.lively:
        if vm.decision.left_volumes and vm.name not in round.taken:
            yield from guarded(vm, partial(_judged, round, vm))


def _judged(round: Round, vm: vm_pb2.Vm) -> Iterator[Step]:
    after = rows.copied(vm)
    del after.decision.left_volumes[:]
    storage: list[storage_pb2.Volume | Operation] = []
    given_up: list[str] = []
    for left in vm.decision.left_volumes:
        if not _is_removable(round, left.volume):
            continue
        if left.tries >= TRIES_MAX and _may_try(round, vm, left):
            given_up.append(left.volume)
            continue
        kept = after.decision.left_volumes.add()
        kept.CopyFrom(left)
        if work := _removing(round, left.volume):
            if work.method == CREATE and not work.cancel_requested:
                storage.append(_cancelled(work))
        elif _may_try(round, vm, left):
            kept.tries += 1
            kept.not_before.FromNanoseconds(round.now.ToNanoseconds() + AGAIN_S * 10**9)
            storage += _removal(round.now, round.world.volumes[left.volume], left)
    if after != vm or storage:
        yield _step(round, vm, after, storage, given_up)


def _step(
    round: Round,
    vm: vm_pb2.Vm,
    after: vm_pb2.Vm,
    storage: list[storage_pb2.Volume | Operation],
    given_up: list[str],
) -> Step:
    round.taken.update(row.name for row in storage if row.name)
    if given_up:
        first = given_up[0].rpartition("/volumes/")
        remedy = f"'pvc volume delete {short(first[0])} {first[2]}' tries once more"
        why = f"they could not be removed: {', '.join(given_up)}; {remedy}"
        return round.take(
            vm, DecideVm(after, "left volumes behind", why, WARNING, storage=tuple(storage))
        )
    volumes = [row.name for row in storage if isinstance(row, storage_pb2.Volume)]
    what = f"is done with {', '.join(volumes)}" if volumes else ""
    return round.take(vm, DecideVm(after, what, "it has moved", storage=tuple(storage)))


def _is_removable(round: Round, volume: str) -> bool:
    """It is there, on a node that there is, and nobody is to have it nor stands on it."""
    world = round.world
    row = world.volumes.get(volume)
    if row is None or world.volume_nodes.get(volume, "") not in world.nodes:
        return False
    if round.load.users(world).get(volume):
        return False
    return all(other.status.parent != volume for other in world.volumes.values())


def _removing(round: Round, volume: str) -> Operation | None:
    """The storage service's work on it that goes on."""
    for operation in round.world.operations:
        if operation.target == volume and operation.service == "storage":
            return operation
    return None


def _may_try(round: Round, vm: vm_pb2.Vm, left: Left) -> bool:
    """Nothing has it open by now, its node works, and the last try is some time ago."""
    if left.not_before.ToNanoseconds() > round.now.ToNanoseconds():
        return False
    if any(disk.volume == left.volume for disk in vm.status.disks):
        return False
    return is_working(round.world, round.world.volume_nodes[left.volume])


def _cancelled(work: Operation) -> Operation:
    after = rows.copied(work)
    after.cancel_requested = True
    return after


def _removal(
    now: Timestamp, volume: storage_pb2.Volume, left: Left
) -> tuple[storage_pb2.Volume, Operation]:
    """What the storage service writes when it is asked to remove a volume."""
    after = rows.copied(volume)
    after.status.state = storage_pb2.VolumeStatus.STATE_DELETING
    after.meta.delete_time.CopyFrom(now)
    node = volume.status.node
    request = storage_service_pb2.DeleteVolumeRequest(name=volume.name)
    line = f"remove {volume.name} of {short(pool_of(volume.name))}, which a move left"
    return after, storage_work(now, DELETE, volume.name, node, request, left.caller, line)
