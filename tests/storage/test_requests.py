"""What is refused and what is accepted, before anything is changed: one rule each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Put
from services.storage.core import pools, snapshots, volumes
from services.storage.core.layout import QCOW2, RAW, VMDK
from services.storage.core.room import amount
from tests.storage.worlds import GIB, MIB, NODE, POOL, World, create, name

RUNNING, STOPPED = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STOPPED
SNAP = f"{name('a')}/snapshots/s"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """base: sealed; clone: on top of it; a: has the snapshot s; raw: kept as raw."""
    made = World(tmp_path)
    made.create("base", sealed=True)
    made.create("clone", 0, source_volume=name("base"))
    made.create("a")
    made.snapshot("a", "s")
    made.create("raw", format=RAW)
    return made


def refused(world: World, plan: Callable[..., Any], request: Any) -> PvcError:
    before = world.store.snapshot()
    with pytest.raises(PvcError) as error:
        plan(before, request, world.call())
    assert world.store.snapshot() is before
    return error.value


def resize(volume: str = "a", size: int = 16 * MIB, **fields: Any) -> Any:
    return api.ResizeVolumeRequest(name=name(volume), size_bytes=size, **fields)


def delete(volume: str, **fields: Any) -> Any:
    return api.DeleteVolumeRequest(name=name(volume), **fields)


def rename(volume: str, to: str) -> Any:
    return api.RenameVolumeRequest(name=name(volume), new_volume_id=to)


def export(volume: str, **fields: Any) -> Any:
    return api.ExportVolumeRequest(name=name(volume), **fields)


def snap(volume: str, snapshot_id: str = "t") -> Any:
    return api.CreateSnapshotRequest(parent=name(volume), snapshot_id=snapshot_id)


def pool(path: str = "/second", **spec: Any) -> api.CreatePoolRequest:
    request = api.CreatePoolRequest(pool_id="second")
    request.pool.spec.MergeFrom(storage_pb2.PoolSpec(**spec))
    if path:
        request.pool.spec.directory.path = path
    return request


CASES: dict[str, tuple[Callable[..., Any], Any, str, str]] = {
    "a pool that exists": (
        pools.create_pool, api.CreatePoolRequest(pool_id="local"), "ALREADY_EXISTS", "pool_id"),
    "a pool without a driver": (
        pools.create_pool, pool(""), "INVALID_FIELD", "pool.spec.directory"),
    "a pool of no node": (
        pools.create_pool, pool(node="nodes/x"), "DANGLING_REFERENCE", "pool.spec.node"),
    "a pool inside another": (
        pools.create_pool, pool("/pool/inner"), "IN_USE", "pool.spec.directory.path"),
    "no such pool to delete": (
        pools.delete_pool, api.DeletePoolRequest(name="pools/x"), "NOT_FOUND", "name"),
    "a pool with volumes": (
        pools.delete_pool, api.DeletePoolRequest(name=POOL), "IN_USE", "name"),
    "a pool that changed": (
        pools.delete_pool, api.DeletePoolRequest(name=POOL, etag="1"), "ETAG_MISMATCH", "etag"),
    "a volume in no pool": (
        volumes.create_volume, api.CreateVolumeRequest(parent="pools/x", volume_id="v"),
        "NOT_FOUND", "parent"),
    "a volume that exists": (volumes.create_volume, create("a"), "ALREADY_EXISTS", "volume_id"),
    "a volume without a size": (
        volumes.create_volume, create("v", 0), "INVALID_FIELD", "volume.spec.size_bytes"),
    "a volume that leaves its folder": (
        volumes.create_volume, create("../../etc/x"), "INVALID_FIELD", "volume_id"),
    "a volume kept as VMDK": (
        volumes.create_volume, create("v", format=VMDK), "NOT_SUPPORTED", "volume.spec.format"),
    "a volume larger than the file system": (
        volumes.create_volume, create("v", 2 << 40), "OUT_OF_SPACE", ""),
    "a copy of nothing": (
        volumes.create_volume, create("v", 0, source_volume=name("x")),
        "DANGLING_REFERENCE", "volume.spec.source_volume"),
    "a copy of no snapshot": (
        volumes.create_volume, create("v", 0, source_snapshot=f"{name('a')}/snapshots/x"),
        "DANGLING_REFERENCE", "volume.spec.source_snapshot"),
    "a copy that cuts off": (
        volumes.create_volume, create("v", MIB, source_volume=name("a")),
        "INVALID_FIELD", "volume.spec.size_bytes"),
    "a volume made smaller": (
        volumes.resize_volume, resize(size=MIB), "INVALID_FIELD", "size_bytes"),
    "a sealed volume made larger": (
        volumes.resize_volume, resize("base"), "WRONG_STATE", "name"),
    "a volume larger than all there is": (
        volumes.resize_volume, resize(size=2 << 40), "OUT_OF_SPACE", ""),
    "a volume resized that changed": (
        volumes.resize_volume, resize(etag="1"), "ETAG_MISMATCH", "etag"),
    "no volume to resize": (volumes.resize_volume, resize("x"), "NOT_FOUND", "name"),
    "a name that is taken": (
        volumes.rename_volume, rename("a", "raw"), "ALREADY_EXISTS", "new_volume_id"),
    "a base renamed": (volumes.rename_volume, rename("base", "b"), "IN_USE", "name"),
    "a base deleted": (volumes.delete_volume, delete("base", force=True), "IN_USE", "name"),
    "snapshots lost without force": (
        volumes.delete_volume, delete("a"), "IN_USE", "force"),
    "no volume to delete": (volumes.delete_volume, delete("x"), "NOT_FOUND", "name"),
    "raw compressed": (
        volumes.export_volume, export("a", format=RAW, compress=True), "NOT_SUPPORTED", "compress"),
    "no snapshot to export": (
        volumes.export_volume, export("a", snapshot_id="x"), "NOT_FOUND", "snapshot_id"),
    "a snapshot of raw": (snapshots.create_snapshot, snap("raw"), "NOT_SUPPORTED", "parent"),
    "a snapshot of a sealed volume": (
        snapshots.create_snapshot, snap("base"), "WRONG_STATE", "parent"),
    "a snapshot that exists": (
        snapshots.create_snapshot, snap("a", "s"), "ALREADY_EXISTS", "snapshot_id"),
    "a snapshot called ..": (
        snapshots.create_snapshot, snap("a", ".."), "INVALID_FIELD", "snapshot_id"),
    "no snapshot to delete": (
        snapshots.delete_snapshot, api.DeleteSnapshotRequest(name=f"{SNAP}x"), "NOT_FOUND", "name"),
    "no snapshot to go back to": (
        snapshots.rollback_snapshot, api.RollbackSnapshotRequest(name=f"{SNAP}x"),
        "NOT_FOUND", "name"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(world: World, case: str) -> None:
    plan, request, reason, field = CASES[case]
    error = refused(world, plan, request)
    assert (error.reason_name, error.field) == (reason, field), error.message


def test_a_volume_in_a_pool_that_fails_or_goes(world: World) -> None:
    row = rows.copied(world.pool())
    row.status.state, row.status.why = storage_pb2.PoolStatus.STATE_FAILED, "unplugged"
    world.store.commit([Put(row)])
    error = refused(world, volumes.create_volume, create("v"))
    assert error.reason_name == "WRONG_STATE" and "unplugged" in error.message
    row = rows.copied(world.pool())
    row.meta.delete_time.seconds = 1
    world.store.commit([Put(row)])
    assert "being deleted" in refused(world, volumes.create_volume, create("v")).message


def test_no_room_beyond_the_reserve(world: World) -> None:
    row = rows.copied(world.pool())
    row.spec.reserve_bytes = row.status.available_bytes
    world.store.commit([Put(row)])
    error = refused(world, volumes.create_volume, create("v"))
    assert error.reason_name == "OUT_OF_SPACE" and "reserve" in error.message


WHILE_RUNNING = [
    (volumes.rename_volume, rename("clone", "b"), "IN_USE"),
    (volumes.delete_volume, delete("clone", force=True), "IN_USE"),
    (volumes.export_volume, export("clone"), "IN_USE"),
    (volumes.create_volume, create("v", 0, source_volume=name("clone")), "IN_USE"),
]


@pytest.mark.parametrize(("plan", "request_", "reason"), WHILE_RUNNING)
def test_not_while_a_vm_runs_on_it(
    world: World, plan: Callable[..., Any], request_: Any, reason: str
) -> None:
    world.vm("web", "clone", RUNNING)
    error = refused(world, plan, request_)
    assert error.reason_name == reason
    assert "vms/web" in error.message


def test_rollback_waits_for_the_vm_to_end(world: World) -> None:
    world.vm("web", "a", RUNNING)
    request = api.RollbackSnapshotRequest(name=SNAP)
    assert "vms/web" in refused(world, snapshots.rollback_snapshot, request).message
    world.vm("web", "a", STOPPED)
    assert snapshots.rollback_snapshot(world.store.snapshot(), request, world.call())


def test_a_stopped_vm_keeps_its_volume_from_deletion(world: World) -> None:
    world.vm("web", "clone", STOPPED)
    error = refused(world, volumes.delete_volume, delete("clone"))
    assert error.reason_name == "IN_USE" and "disk root of vms/web" in error.message


@pytest.mark.parametrize(
    ("plan", "request_"),
    [
        (volumes.resize_volume, resize()),
        (volumes.delete_volume, delete("a", force=True)),
        (volumes.rename_volume, rename("a", "b")),
        (volumes.export_volume, export("a")),
        (volumes.create_volume, create("v", 0, source_volume=name("a"))),
        (snapshots.create_snapshot, snap("a")),
        (snapshots.delete_snapshot, api.DeleteSnapshotRequest(name=SNAP)),
    ],
)
def test_one_thing_at_a_time(world: World, plan: Callable[..., Any], request_: Any) -> None:
    operation = world.plan(volumes.resize_volume, resize())
    error = refused(world, plan, request_)
    assert error.reason_name == "BUSY" and operation in error.message
    world.jobs.step()
    assert plan(world.store.snapshot(), request_, world.call()).changes


def test_many_may_read_the_same_volume(world: World) -> None:
    world.plan(volumes.create_volume, create("v1", 0, source_volume=name("a")))
    world.plan(volumes.create_volume, create("v2", 0, source_volume=name("a")))
    world.plan(volumes.export_volume, export("a"))
    error = refused(world, volumes.delete_volume, delete("a", force=True))
    assert error.reason_name == "BUSY"


def test_a_sealed_volume_is_cloned_and_others_are_copied(world: World) -> None:
    clone = world.volume("clone")
    assert clone is not None and clone.status.parent == name("base")
    world.create("copy", 0, source_volume=name("a"))
    copy = world.volume("copy")
    assert copy is not None and not copy.status.parent
    world.create("unpacked", 0, source_volume=name("base"), format=RAW)
    raw = world.volume("unpacked")
    assert raw is not None and not raw.status.parent
    assert "clone" in world.fake.calls and "copy" in world.fake.calls


def test_a_copy_between_nodes_is_made_by_the_one_that_gets_it(world: World) -> None:
    far = pools.new_pool("pools/far", "/far", "nodes/n2", world.pool().meta)
    far.meta.etag = ""
    world.store.commit([Put(far)])
    request = create("v", 0, source_volume=name("a"))
    request.parent = "pools/far"
    assert world.operation(world.plan(volumes.create_volume, request)).node == "nodes/n2"


def test_defaults_are_filled_in(world: World) -> None:
    operation = world.create("v")
    volume = world.volume("v")
    assert volume is not None
    assert volume.spec.format == QCOW2
    assert (volume.status.node, volume.status.generation) == (NODE, 1)
    request = api.CreateVolumeRequest()
    assert operation.request.Unpack(request) and request.volume.spec.format == QCOW2
    made = pools.create_pool(world.store.snapshot(), pool(), world.call())
    assert made.changes[0].value.spec.reserve_bytes == GIB  # type: ignore[union-attr]
    assert made.changes[0].value.spec.node == NODE  # type: ignore[union-attr]


def update(world: World, *paths: str, **spec: Any) -> api.UpdatePoolRequest:
    request = api.UpdatePoolRequest(pool=storage_pb2.Pool(name=POOL))
    request.pool.spec.MergeFrom(storage_pb2.PoolSpec(**spec))
    request.update_mask.paths.extend(paths)
    return request


def test_a_pools_description_and_reserve_change(world: World) -> None:
    request = update(world, description="fast", reserve_bytes=5)
    mutation = pools.update_pool(world.store.snapshot(), request, world.call())
    after: Any = mutation.response
    assert (after.spec.description, after.spec.reserve_bytes) == ("fast", 5)
    assert after.meta.generation == world.pool().meta.generation + 1
    world.store.commit(list(mutation.changes))
    world.agent.step()
    assert world.pool().status.generation == world.pool().meta.generation


def test_a_mask_takes_what_it_names(world: World) -> None:
    request = update(world, "spec.description", description="x", reserve_bytes=5)
    after: Any = pools.update_pool(world.store.snapshot(), request, world.call()).response
    assert (after.spec.description, after.spec.reserve_bytes) == ("x", MIB)


def test_a_pool_stays_where_it_is(world: World) -> None:
    request = update(world, directory=storage_pb2.DirectoryPool(path="/else"))
    error = refused(world, pools.update_pool, request)
    assert (error.reason_name, error.field) == ("IMMUTABLE_FIELD", "pool.spec.directory")
    error = refused(world, pools.update_pool, update(world, "spec.node", node="nodes/n2"))
    assert error.reason_name == "IMMUTABLE_FIELD"
    error = refused(world, pools.update_pool, update(world, "status.state"))
    assert (error.reason_name, error.field) == ("INVALID_FIELD", "update_mask")


def test_an_update_that_changes_nothing_writes_nothing(world: World) -> None:
    request = update(world, reserve_bytes=MIB)
    assert not pools.update_pool(world.store.snapshot(), request, world.call()).changes


def test_operations_say_what_they_will_do(world: World) -> None:
    mutation = volumes.delete_volume(
        world.store.snapshot(), delete("a", force=True), world.call()
    )  # fmt: skip
    operation = mutation.response
    assert isinstance(operation, operation_pb2.Operation)
    assert operation.log[0].text == f"remove {name('a')} and 1 snapshot (s)"
    assert (operation.service, operation.node, operation.target) == ("storage", NODE, name("a"))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB"),
        ((1 << 30) + 1, "1.0 GiB"), (64 << 40, "64 TiB"), (5 << 50, "5120 TiB"),
        (-512, "-512 bytes"),
    ],
)  # fmt: skip
def test_amounts_are_for_people(count: int, text: str) -> None:
    assert amount(count) == text


def test_what_a_running_vm_only_reads_can_be_copied(world: World) -> None:
    world.vm("web", "a", vm_pb2.VM_STATE_RUNNING)
    assert refused(world, volumes.export_volume, export("a")).reason_name == "IN_USE"
    there = world.store.snapshot().find(vm_pb2.Vm, "vms/web")
    assert there is not None
    there = rows.copied(there)
    there.spec.disks[0].read_only = True
    world.store.commit([Put(there)])
    assert world.plan(volumes.export_volume, export("a"))
    there.spec.disks[0].volume, there.meta.etag = "", world.vm_etag("web")
    there.status.disks.add(id="root", volume=name("a"))
    world.store.commit([Put(there)])
    assert refused(world, volumes.export_volume, export("a")).reason_name == "IN_USE"


def test_a_place_that_a_moving_vm_gets_is_not_removed(world: World) -> None:
    world.create("v")
    vm = vm_pb2.Vm(name="vms/web")
    vm.spec.disks.add(id="root", volume="pools/other/volumes/root")
    vm.decision.migration.volumes["pools/other/volumes/root"] = name("v")
    world.store.commit([Put(vm)])
    assert refused(world, volumes.delete_volume, delete("v")).reason_name == "IN_USE"
