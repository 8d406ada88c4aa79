"""What the agent tells of pools and volumes, and how volumes that a VM has open are changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import event_pb2, operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh.errors import PvcError
from services.state.store import Delete
from services.storage.core import pools, snapshots, volumes
from services.storage.drivers.fake import FakeDisk
from tests.storage.worlds import FAILED, MIB, POOL, READY, Died, World, name

KINDS = (storage_pb2.Pool, storage_pb2.Volume, storage_pb2.Snapshot)
SUCCEEDED = operation_pb2.Operation.STATE_SUCCEEDED
PoolStatus = storage_pb2.PoolStatus


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.create("a")
    return made


def look(world: World) -> int:
    """A look at the folders; how many commits it took."""
    world.agent._looked.clear()
    before = world.store.snapshot().revision
    world.agent.step()
    return world.store.snapshot().revision - before


def events(world: World) -> list[str]:
    return [f"{e.message} ({e.why})" for e in world.store.snapshot().rows(event_pb2.Event)]


def test_a_new_pool_becomes_ready(world: World) -> None:
    look(world)
    status = world.pool().status
    assert (status.state, status.why) == (PoolStatus.STATE_READY, "")
    assert status.capacity_bytes == status.available_bytes == 1 << 40
    assert status.promised_bytes == 8 * MIB
    assert "pool local NEW → READY ()" in events(world)


def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    look(world)
    assert look(world) == 0
    world.fake.used_bytes = 1 << 33  # less than a hundredth
    assert look(world) == 0
    world.fake.used_bytes = 1 << 36
    assert look(world) == 1
    assert world.pool().status.available_bytes == (1 << 40) - (1 << 36)


def test_looking_costs_nothing_until_it_is_due(world: World) -> None:
    world.agent.step()
    calls = len(world.fake.calls)
    for _ in range(5):
        world.agent.step()
    assert len(world.fake.calls) == calls


def test_a_pool_that_vanishes_fails_and_comes_back(world: World) -> None:
    world.fake.folders["/pool"].mounted = False
    look(world)
    status = world.pool().status
    assert status.state == PoolStatus.STATE_FAILED and "does not hold this pool" in status.why
    assert any("READY → FAILED" in text for text in events(world))
    volume = world.volume("a")
    assert volume is not None and volume.status.state == READY, "the pool says it for all"
    world.fake.folders["/pool"].mounted = True
    look(world)
    assert world.pool().status.state == PoolStatus.STATE_READY


def test_a_volume_whose_file_vanishes_fails_and_comes_back(world: World) -> None:
    disks = world.fake.folders["/pool"].disks
    gone = disks.pop("/pool/volumes/a.qcow2")
    look(world)
    volume = world.volume("a")
    assert volume is not None and volume.status.state == FAILED
    assert "/pool/volumes/a.qcow2 is gone" in volume.status.why
    assert any("READY → FAILED" in text for text in events(world))
    disks["/pool/volumes/a.qcow2"] = gone
    look(world)
    volume = world.volume("a")
    assert volume is not None and (volume.status.state, volume.status.why) == (READY, "")


def test_strange_files_are_told_of_and_left_alone(world: World) -> None:
    disks = world.fake.folders["/pool"].disks
    disks["/pool/volumes/holiday\x1b.jpg"] = None
    disks["/pool/volumes/b.qcow2"] = FakeDisk("qcow2", MIB)
    look(world)
    why = world.pool().status.why
    assert "b.qcow2" in why and "left alone" in why and why.isprintable()
    assert world.pool().status.state == PoolStatus.STATE_READY
    assert len(disks) == 3


def test_growing_files_are_told_of(world: World) -> None:
    disk = world.fake.disk_at("/pool/volumes/a.qcow2")
    assert disk is not None
    disk.content = "x" * 2_000
    assert look(world) >= 1
    volume = world.volume("a")
    assert volume is not None and volume.status.allocated_bytes > 2 * MIB


def test_an_operation_is_left_to_its_worker(world: World) -> None:
    world.plan(volumes.delete_volume, api.DeleteVolumeRequest(name=name("a")))
    world.fake.folders["/pool"].disks.clear()
    look(world)
    volume = world.volume("a")
    assert volume is not None
    assert volume.status.state == storage_pb2.VolumeStatus.STATE_DELETING


def test_an_open_volume_is_grown_by_its_emulator(world: World) -> None:
    world.vm("web", "a", vm_pb2.VM_STATE_RUNNING)
    request = api.ResizeVolumeRequest(name=name("a"), size_bytes=16 * MIB)
    assert world.do(volumes.resize_volume, request).state == SUCCEEDED
    assert world.open_volumes.calls == [f"resize nodes/n1 {name('a')}"]
    volume = world.volume("a")
    assert volume is not None and volume.status.size_bytes == 16 * MIB


def test_snapshots_of_an_open_volume_are_its_emulators(world: World) -> None:
    world.vm("web", "a", vm_pb2.VM_STATE_PAUSED)
    assert world.snapshot("a", "s", quiesce=True).state == SUCCEEDED
    found = world.store.snapshot().find(storage_pb2.Snapshot, f"{name('a')}/snapshots/s")
    assert found is not None and found.quiesced and found.size_bytes == 8 * MIB
    request = api.DeleteSnapshotRequest(name=found.name)
    assert world.do(snapshots.delete_snapshot, request).state == SUCCEEDED
    assert [call.split()[0] for call in world.open_volumes.calls] == ["snapshot", "delete"]


def test_a_snapshot_that_an_emulator_already_has_from_a_dead_worker_is_replaced(
    world: World,
) -> None:
    world.vm("web", "a", vm_pb2.VM_STATE_RUNNING)
    request = api.CreateSnapshotRequest(parent=name("a"), snapshot_id="s")
    operation = world.plan(snapshots.create_snapshot, request)
    take = world.open_volumes.snapshot

    def taken_and_dead(*words: str) -> bool:
        from services.storage.drivers.fake import Died

        take(*words)  # type: ignore[arg-type]
        raise Died

    world.open_volumes.snapshot = taken_and_dead  # type: ignore[method-assign,assignment]
    with pytest.raises(BaseException):  # noqa: B017
        world.jobs.step()
    world.open_volumes.snapshot = take  # type: ignore[method-assign]
    world.die()
    world.jobs.step()
    assert world.operation(operation).state == SUCCEEDED


def test_a_vm_that_starts_at_the_last_moment_is_asked(world: World) -> None:
    """The job finds the volume closed; before it acts a VM has it."""
    request = api.ResizeVolumeRequest(name=name("a"), size_bytes=16 * MIB)
    operation = world.plan(volumes.resize_volume, request)

    def start_vm(verb: str) -> None:
        if verb == "resize":
            world.fake.before_call = lambda verb: None
            world.vm("web", "a", vm_pb2.VM_STATE_RUNNING)

    world.fake.before_call = start_vm
    world.jobs.step()
    assert world.operation(operation).state == SUCCEEDED
    assert world.open_volumes.calls == [f"resize nodes/n1 {name('a')}"]


def test_a_foreign_process_that_has_it_open_is_told(world: World) -> None:
    world.fake.open_paths.add("/pool/volumes/a.qcow2")
    ended = world.do(
        volumes.resize_volume, api.ResizeVolumeRequest(name=name("a"), size_bytes=16 * MIB)
    )
    assert ended.state == operation_pb2.Operation.STATE_FAILED
    assert b"IN_USE" in ended.error.SerializeToString()
    volume = world.volume("a")
    assert volume is not None and volume.spec.size_bytes == volume.status.size_bytes == 8 * MIB


def forget(world: World, **fields: bool) -> operation_pb2.Operation:
    request = api.DeletePoolRequest(name=POOL, **fields)
    return world.do(pools.delete_pool, request)


def test_a_pool_whose_disk_is_gone_for_good_can_be_forgotten(world: World) -> None:
    world.snapshot("a", "s1")
    world.create("b")
    with pytest.raises(PvcError, match="can be used") as error:
        forget(world, force=True)
    assert (error.value.reason_name, error.value.field) == ("WRONG_STATE", "force")
    world.fake.folders["/pool"].mounted = False
    look(world)
    with pytest.raises(PvcError, match="first; if its disk is gone for good, say force"):
        forget(world)
    world.vm("web", "a", vm_pb2.VM_STATE_STOPPED)
    with pytest.raises(PvcError, match="is disk root of vms/web"):
        forget(world, force=True)
    world.store.commit([Delete("vms/web", "*")])
    ended = forget(world, force=True)
    assert ended.state == SUCCEEDED, ended.error.message
    left = {row.name for kind in KINDS for row in world.store.snapshot().rows(kind)}
    assert left == set()


def test_forgetting_that_is_cut_goes_on_where_it_was(world: World) -> None:
    world.create("b")
    world.fake.folders["/pool"].mounted = False
    look(world)
    operation = world.plan(pools.delete_pool, api.DeletePoolRequest(name=POOL, force=True))
    world.countdown = 4
    with pytest.raises(Died):
        world.jobs.step()
    world.die()
    there = len(list(world.store.snapshot().rows(storage_pb2.Volume)))
    assert 0 < there < 2
    world.jobs.step()
    assert world.operation(operation).state == SUCCEEDED
    assert not any(any(world.store.snapshot().rows(kind)) for kind in KINDS)
