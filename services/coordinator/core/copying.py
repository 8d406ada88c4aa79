"""Volumes that go along in a move because the target cannot open them: whether they can, where to,
and how far their new places are made. The storage service of the target makes them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.coordinator.core.capacity import Load
from services.coordinator.core.methods import storage_method
from services.coordinator.core.world import World, short
from services.mesh import rows
from services.mesh.errors import PvcError

Operation = operation_pb2.Operation
Volume = storage_pb2.Volume
Pool = storage_pb2.Pool
State = storage_pb2.VolumeStatus

LIVE = vm_pb2.MIGRATION_METHOD_LIVE
CREATE = storage_method("CreateVolume")
RESERVE_BYTES = 1 << 30
"""What stays free in a pool that says nothing of it; as the storage service has it."""
EMPTY_BYTES = 1 << 20
ID_LENGTH_MAX = 63
HINT = "with copy_volumes (--copy-volumes) its volumes would be copied along"

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Copies:
    """What has to be copied to one node."""

    volumes: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    """Volume → its new place."""
    refusals: tuple[str, ...] = ()
    """Why that cannot be."""


@dataclass(frozen=True, slots=True)
class Making:
    """How far the new places are."""

    begun: bool
    """The storage service was asked for all of them."""
    failed: str = ""
    """Why one will never be there."""
    ready: bool = False
    stage: str = ""
    percent: int = 0


def opened(world: World) -> World:
    """The same, as if every node could open every volume."""
    return replace(world, volume_nodes=MappingProxyType({}))


def needed(world: World, vm: vm_pb2.Vm, target: str) -> tuple[str, ...]:
    """The VM's volumes that the target cannot open."""
    named = dict.fromkeys(disk.volume for disk in vm.spec.disks if disk.volume)
    return tuple(v for v in named if world.volume_nodes.get(v, target) != target)


def hint(world: World, vm: vm_pb2.Vm, target: str = "") -> str:
    """What would help a VM that cannot move for its volumes; "" where they are not what keeps
    it."""
    return HINT if needed(world, vm, target) else ""


def choose(world: World, load: Load, vm: vm_pb2.Vm, target: str) -> Copies:
    """The new places on the target, in pools of its own that have the room."""
    wanted = needed(world, vm, target)
    refusals = [why for volume in wanted for why in _bound(world, load, vm, volume)]
    rooms = _rooms(world, load, target)
    if wanted and not rooms:
        refusals.append(f"has no ready pool of its own to copy {', '.join(wanted)} to")
    if not wanted or refusals:
        return Copies(NOTHING, tuple(refusals))
    found: dict[str, str] = {}
    for volume in wanted:
        pool, room = max(rooms.items(), key=lambda item: (item[1], item[0]))
        if (needs := contents_bytes(world, volume)) > room:
            why = f"has {_mib(max(room, 0))} MiB free for {volume}, which needs {_mib(needs)} MiB"
            return Copies(NOTHING, (f"{why} ({pool})",))
        rooms[pool] -= needs
        found[volume] = _free_name(world, load, pool, volume, found)
    return Copies(found)


def _bound(world: World, load: Load, vm: vm_pb2.Vm, volume: str) -> Iterator[str]:
    """Why a volume cannot leave its node, wherever it should go."""
    row = world.volumes.get(volume)
    if row is None or row.status.state != State.STATE_READY:
        yield f"cannot get a copy of {volume}, which is not ready"
    if taken := world.snapshots.get(volume):
        more = ", …" if taken[3:] else ""
        yield (
            f"cannot get the snapshots of {volume} ({', '.join(taken[:3])}{more}): delete them "
            "first, or leave it where it is"
        )
    others = sorted(load.users(world).get(volume, set()) - {vm.name})
    if others and is_written(vm, volume):
        yield f"cannot get {volume} while {others[0]} has it too"


def is_written(vm: vm_pb2.Vm, volume: str) -> bool:
    """The guest can write it."""
    return any(disk.volume == volume and not _is_disc(disk) for disk in vm.spec.disks)


def goes_along(vm: vm_pb2.Vm, volume: str) -> bool:
    """Nothing of it is to stay where it was: the VM alone writes it, or it is a disc that bears the
    VM's name, as its cloud-init data do. Other discs are somebody's."""
    name = vm.name.removeprefix("vms/")
    return any(
        disk.volume == volume and (not _is_disc(disk) or volume.endswith(f"/{name}-{disk.id}"))
        for disk in vm.spec.disks
    )


def _is_disc(disk: vm_pb2.DiskSpec) -> bool:
    return disk.read_only or disk.device == vm_pb2.DISK_DEVICE_CDROM


def contents_bytes(world: World, volume: str) -> int:
    """What a full copy takes at most: its own blocks and those of its bases."""
    total, at, seen = 0, world.volumes.get(volume), set[str]()
    size = at.status.size_bytes if at is not None else 0
    while at is not None and at.name not in seen:
        seen.add(at.name)
        total += at.status.allocated_bytes
        at = world.volumes.get(at.status.parent)
    return min(total, size) + EMPTY_BYTES


def _rooms(world: World, load: Load, target: str) -> dict[str, int]:
    """Pool of the target's own → bytes that may be used of it. What is on its way there counts as
    if nothing of it had come yet."""
    rooms = {
        pool.name: pool.status.available_bytes - (pool.spec.reserve_bytes or RESERVE_BYTES)
        for pool in world.pools.values()
        if pool.spec.node == target
        and pool.spec.HasField("directory")
        and pool.status.state == storage_pb2.PoolStatus.STATE_READY
        and not pool.meta.HasField("delete_time")
    }
    for new, old in load.coming.items() if rooms else ():
        if (pool := pool_of(new)) in rooms:
            rooms[pool] -= contents_bytes(world, old)
    return rooms


def _free_name(world: World, load: Load, pool: str, volume: str, found: Mapping[str, str]) -> str:
    """The volume's own id in that pool, or the next one that is free."""
    stem, number = short(volume), 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        name = f"{pool}/volumes/{stem[: ID_LENGTH_MAX - len(suffix)]}{suffix}"
        if not (name in world.volumes or name in load.coming or name in found.values()):
            return name
        number += 1


def work_of(world: World, vm: vm_pb2.Vm, place: str) -> Operation | None:
    """The storage service's work on a new place, if it was asked for it by this very migration."""
    work = world.copy_works.get(place)
    if work is None or request_of(work).request_id != vm.decision.migration.id:
        return None
    return work


def request_of(work: Operation) -> storage_service_pb2.CreateVolumeRequest:
    """What it was asked for."""
    request = storage_service_pb2.CreateVolumeRequest()
    work.request.Unpack(request)
    return request


def making(world: World, vm: vm_pb2.Vm) -> Making:
    """How far the new places of a migration's volumes are."""
    places = sorted(vm.decision.migration.volumes.values())
    works = {place: work_of(world, vm, place) for place in places}
    for place, work in works.items():
        if why := _failure(world, place, work):
            return Making(begun=True, failed=why)
    if not all(works.values()):
        return Making(begun=False)
    left = [place for place in places if not _is_ready(world, place)]
    parts = [work.percent if place in left else 100 for place, work in works.items() if work]
    stage = next((w.stage for p, w in works.items() if w and p in left and w.stage), "")
    text = f"{short(left[0])} on {short(vm.decision.migration.target)}" if left else ""
    said = f": {stage}" if stage else ""
    return Making(True, "", not left, f"making {text}{said}", sum(parts) // max(len(parts), 1))


def _is_ready(world: World, place: str) -> bool:
    volume = world.volumes.get(place)
    return volume is not None and volume.status.state == State.STATE_READY


def _failure(world: World, place: str, work: Operation | None) -> str:
    volume = world.volumes.get(place)
    if work is None:
        return f"{place} is another's by now" if volume is not None else ""
    if work.state in rows.FINAL and work.state != Operation.STATE_SUCCEEDED:
        return f"{place} could not be made: {PvcError.from_status(work.error).message}"
    gone = volume is None or volume.status.state in (State.STATE_FAILED, State.STATE_DELETING)
    return f"{place} is gone" if gone else ""


def rows_to_make(
    now: Timestamp, world: World, vm: vm_pb2.Vm, caller: str
) -> tuple[Volume | Operation, ...]:
    """The new places, and the storage service's work on them, as long as that was not asked for.
    What a running guest writes is copied by the hypervisor, into an empty volume; all else by the
    storage service."""
    found: list[Volume | Operation] = []
    for old, place in sorted(vm.decision.migration.volumes.items()):
        if work_of(world, vm, place) is None and (source := world.volumes.get(old)) is not None:
            empty = vm.decision.migration.method == LIVE and is_written(vm, old)
            volume = _place(now, source, place, vm.decision.migration.target, empty)
            found += [volume, _work(now, vm, volume, caller)]
    return tuple(found)


def _place(now: Timestamp, source: Volume, place: str, target: str, empty: bool) -> Volume:
    volume = Volume(name=place)
    volume.meta.generation = 1
    volume.meta.create_time.CopyFrom(now)
    volume.meta.update_time.CopyFrom(now)
    volume.meta.labels.update(source.meta.labels)
    volume.spec.description, volume.spec.format = source.spec.description, source.spec.format
    volume.spec.size_bytes = volume.status.size_bytes = source.status.size_bytes
    volume.spec.sealed = source.spec.sealed
    if not empty:
        volume.spec.source_volume = source.name
    volume.status.state, volume.status.node = State.STATE_CREATING, target
    return volume


def _work(now: Timestamp, vm: vm_pb2.Vm, volume: Volume, caller: str) -> Operation:
    request = storage_service_pb2.CreateVolumeRequest(
        parent=pool_of(volume.name),
        volume_id=short(volume.name),
        request_id=vm.decision.migration.id,
    )
    request.volume.spec.CopyFrom(volume.spec)
    line = f"make {volume.name}, for the move of {vm.name}"
    return storage_work(now, CREATE, volume.name, volume.status.node, request, caller, line)


def storage_work(
    now: Timestamp,
    method: str,
    target: str,
    node: str,
    request: storage_service_pb2.CreateVolumeRequest | storage_service_pb2.DeleteVolumeRequest,
    caller: str,
    line: str,
) -> Operation:
    """An operation of the storage service, as it would have accepted it; its name is given to it
    when it is written."""
    work = Operation(
        method=method, target=target, service="storage", node=node, caller=caller,
        state=Operation.STATE_PENDING,
    )  # fmt: skip
    work.meta.generation = 1
    work.meta.create_time.CopyFrom(now)
    work.meta.update_time.CopyFrom(now)
    work.request.Pack(request)
    rows.log_line(work, line, now)
    return work


def take_places(vm: vm_pb2.Vm, volumes: Mapping[str, str]) -> None:
    """Writes the new places into a copy of the row."""
    for disk in vm.spec.disks:
        disk.volume = volumes.get(disk.volume, disk.volume)
    vm.meta.generation += 1


def pool_of(volume: str) -> str:
    """pools/a/volumes/b → pools/a."""
    return volume.partition("/volumes/")[0]


def _mib(size: int) -> int:
    return -(-size // 2**20)
