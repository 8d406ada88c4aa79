"""Plans of requests: what they refuse, with which reason and at which field, and what they
write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.storage.v1 import storage_pb2
from services.compute.core import copies, edits, requests
from services.compute.drivers.hypervisor import OffReason
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Put
from tests.compute.world import NET, POOL, Operation, World, vm_spec

VOLUME = f"{POOL}/volumes"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def refused(plan: Callable[[], Any]) -> tuple[str, str]:
    """(reason, field) of the refusal."""
    with pytest.raises(PvcError) as caught:
        plan()
    return caught.value.reason_name, caught.value.field


def d(id: str, volume: str = "", **given: Any) -> vm_pb2.DiskSpec:
    return vm_pb2.DiskSpec(id=id, volume=f"{VOLUME}/{volume}" if volume else "", **given)


def n(id: str, network: str = NET, **given: Any) -> vm_pb2.NicSpec:
    return vm_pb2.NicSpec(id=id, network=network, **given)


CDROM, BLK, SATA = (
    vm_pb2.DISK_DEVICE_CDROM,
    vm_pb2.DISK_BUS_VIRTIO_BLK,
    vm_pb2.DISK_BUS_SATA,
)


@pytest.mark.parametrize(
    ("given", "reason", "field"),
    [
        (
            {"cpu": vm_pb2.CpuSpec(sockets=2, cores=2, max_vcpus=3)},
            "INVALID_FIELD",
            "cpu.max_vcpus",
        ),
        ({"cpu": vm_pb2.CpuSpec(vcpus=4, max_vcpus=2)}, "INVALID_FIELD", "cpu.vcpus"),
        (
            {"memory": vm_pb2.MemorySpec(memory_mib=4096, max_memory_mib=2048)},
            "INVALID_FIELD",
            "memory.memory_mib",
        ),
        ({"disks": [d("x")]}, "INVALID_FIELD", "disks[1].volume"),
        ({"disks": [d("cd", device=CDROM, bus=BLK)]}, "INVALID_FIELD", "disks[1].bus"),
        (
            {"disks": [d("x", "data", bus=SATA, read_only=True)]},
            "INVALID_FIELD",
            "disks[1].read_only",
        ),
        ({"disks": [d("x", "nowhere")]}, "DANGLING_REFERENCE", "disks[1].volume"),
        ({"disks": [d("x", "busy")]}, "WRONG_STATE", "disks[1].volume"),
        ({"disks": [d("x", "sealed")]}, "WRONG_STATE", "disks[1].volume"),
        ({"disks": [d("x", "root")]}, "IN_USE", "disks[0].volume"),
        ({"disks": [d("x", "theirs")]}, "IN_USE", "disks[1].volume"),
        ({"disks": [d("x", "theirs", read_only=True)]}, "IN_USE", "disks[1].volume"),
        (
            {"disks": [vm_pb2.DiskSpec(id="x", volume="pools/far/volumes/v")]},
            "NOT_SUPPORTED",
            "disks[1].volume",
        ),
        (
            {"disks": [d("a", "data", boot_order=1), d("b", "more", boot_order=1)]},
            "INVALID_FIELD",
            "disks[2].boot_order",
        ),
        ({"nics": [n("x", "networks/none")]}, "DANGLING_REFERENCE", "nics[1].network"),
        ({"nics": [n("x", mac="52:54:00:aa:aa:aa")]}, "IN_USE", "nics[1].mac"),
        ({"uuid": "11111111-1111-1111-1111-111111111111"}, "IN_USE", "uuid"),
    ],
)
def test_what_a_new_vm_cannot_be(
    world: World, given: dict[str, Any], reason: str, field: str
) -> None:
    neighbourhood(world)
    revision = world.state.revision
    assert refused(lambda: world.create(**given)) == (reason, f"vm.spec.{field}")
    assert world.state.revision == revision


def neighbourhood(world: World) -> None:
    """Another VM, and volumes that are not to be had."""
    for name in ("theirs", "sealed", "busy"):
        world.add_volume(name, sealed=name == "sealed")
    other = vm_pb2.Vm(name="vms/other")
    other.spec.uuid = "11111111-1111-1111-1111-111111111111"
    other.spec.disks.add(id="root", volume=f"{VOLUME}/theirs")
    other.spec.nics.add(id="net0", network=NET, mac="52:54:00:aa:aa:aa")
    busy = world.state.find(storage_pb2.Volume, f"{VOLUME}/busy")
    assert busy is not None
    busy = rows.copied(busy)
    busy.status.state = storage_pb2.VolumeStatus.STATE_CREATING
    far = storage_pb2.Pool(name="pools/far")
    far.spec.node = "nodes/n2"
    volume = storage_pb2.Volume(name="pools/far/volumes/v")
    volume.status.state = storage_pb2.VolumeStatus.STATE_READY
    world.store.commit([Put(other), Put(busy), Put(far), Put(volume)])


def test_a_volume_can_be_read_by_many(world: World) -> None:
    world.create("a", disks=[d("cd", "data", device=CDROM)])
    spec = vm_spec()
    del spec.disks[:]
    spec.disks.append(d("cd", "data", device=CDROM))
    request = api.CreateVmRequest(vm_id="b")
    request.vm.spec.CopyFrom(spec)
    world.ask(edits.create, request)
    assert world.vm("b").spec.disks[0].read_only


def test_an_existing_name_is_refused(world: World) -> None:
    world.create()
    assert refused(world.create) == ("ALREADY_EXISTS", "vm_id")


def test_a_vm_that_is_off_is_made_at_once(world: World) -> None:
    operation = world.create(start=False)
    assert operation.state == Operation.STATE_SUCCEEDED and operation.result.Is(
        vm_pb2.Vm.DESCRIPTOR
    )


def update(world: World, paths: tuple[str, ...] = (), **spec: Any) -> Operation:
    request = api.UpdateVmRequest(vm=vm_pb2.Vm(name="vms/web", spec=vm_pb2.VmSpec(**spec)))
    request.update_mask.paths.extend(paths)
    return world.ask(edits.update, request)  # type: ignore[no-any-return]


def test_an_update_takes_what_is_set_and_keeps_the_rest(world: World) -> None:
    world.create(start=False, description="old", tags=["a"])
    update(world, tags=["b"])
    spec = world.vm().spec
    assert (spec.description, list(spec.tags)) == ("old", ["b"])
    update(world, ("spec.description",))
    assert world.vm().spec.description == ""
    assert world.vm().meta.generation == 3


def test_an_update_keeps_addresses_of_interfaces(world: World) -> None:
    world.create(start=False)
    mac = world.vm().spec.nics[0].mac
    update(world, nics=[n("net0", link_down=True)])
    nic = world.vm().spec.nics[0]
    assert nic.mac == mac and nic.link_down


def test_an_update_that_changes_nothing_is_done(world: World) -> None:
    world.create(start=False, description="x")
    operation = update(world, description="x")
    assert operation.state == Operation.STATE_SUCCEEDED and world.vm().meta.generation == 1


def test_an_update_is_refused_whole(world: World) -> None:
    world.create(start=False)
    assert refused(lambda: update(world, description="new", cpu=vm_pb2.CpuSpec(sockets=3))) == (
        "INVALID_FIELD",
        "vm.spec.cpu.max_vcpus",
    )
    assert world.vm().spec.description == ""


def test_the_uuid_never_changes(world: World) -> None:
    world.create(start=False)
    new = "22222222-2222-2222-2222-222222222222"
    assert refused(lambda: update(world, uuid=new)) == ("IMMUTABLE_FIELD", "vm.spec.uuid")


def test_power_is_not_updated(world: World) -> None:
    world.create(start=False)
    assert refused(lambda: update(world, ("spec.power",))) == ("INVALID_FIELD", "update_mask")
    update(world, ("spec",), power=vm_pb2.POWER_STATE_RUNNING, description="x")
    assert world.vm().spec.power == vm_pb2.POWER_STATE_OFF


def test_an_old_etag_is_refused(world: World) -> None:
    world.create(start=False)
    old = world.vm().meta.etag
    update(world, description="x")
    request = api.StartVmRequest(name="vms/web", etag=old)
    ask = lambda: world.ask(requests.power(requests.START), request)  # noqa: E731
    assert refused(ask) == ("ETAG_MISMATCH", "etag")


@pytest.mark.parametrize(
    "verb", [requests.START, requests.SHUTDOWN, requests.STOP, requests.PAUSE, requests.RESUME]
)
def test_what_does_not_exist_is_not_found(world: World, verb: requests.PowerVerb) -> None:
    assert refused(lambda: world.verb(verb, "none")) == ("NOT_FOUND", "name")


def test_what_is_off_cannot_be_paused_resumed_rebooted_or_reset(world: World) -> None:
    world.create(start=False)
    world.settle()
    wrong = ("WRONG_STATE", "name")
    assert refused(lambda: world.verb(requests.PAUSE)) == wrong
    assert refused(lambda: world.verb(requests.RESUME)) == wrong
    reboot, reset = api.RebootVmRequest(name="vms/web"), api.ResetVmRequest(name="vms/web")
    assert refused(lambda: world.ask(requests.reboot, reboot)) == wrong
    assert refused(lambda: world.ask(requests.reset, reset)) == wrong


def test_what_is_paused_neither_starts_nor_hears(world: World) -> None:
    world.running()
    world.verb(requests.PAUSE)
    world.settle()
    assert refused(lambda: world.verb(requests.START)) == ("WRONG_STATE", "name")
    assert refused(lambda: world.verb(requests.SHUTDOWN)) == ("WRONG_STATE", "name")


def test_what_runs_is_not_renamed_cloned_rolled_back_or_deleted(world: World) -> None:
    world.running()
    wrong = ("WRONG_STATE", "name")
    rename = api.RenameVmRequest(name="vms/web", new_vm_id="x")
    clone = api.CloneVmRequest(name="vms/web", vm_id="x")
    delete = api.DeleteVmRequest(name="vms/web")
    assert refused(lambda: world.ask(edits.rename, rename)) == wrong
    assert refused(lambda: world.ask(copies.clone, clone)) == wrong
    assert refused(lambda: world.ask(edits.delete, delete)) == wrong
    world.store.commit([Put(vm_pb2.VmSnapshot(name="vms/web/snapshots/s"))])
    back = api.RollbackVmSnapshotRequest(name="vms/web/snapshots/s")
    assert refused(lambda: world.ask(copies.rollback, back)) == wrong


def test_names_that_are_taken(world: World) -> None:
    world.create(start=False)
    world.settle()
    rename = api.RenameVmRequest(name="vms/web", new_vm_id="web")
    assert refused(lambda: world.ask(edits.rename, rename)) == ("ALREADY_EXISTS", "new_vm_id")
    clone = api.CloneVmRequest(name="vms/web", vm_id="web")
    assert refused(lambda: world.ask(copies.clone, clone)) == ("ALREADY_EXISTS", "vm_id")
    world.add_volume("copy-root")
    clone = api.CloneVmRequest(name="vms/web", vm_id="copy")
    assert refused(lambda: world.ask(copies.clone, clone)) == ("ALREADY_EXISTS", "vm_id")


def test_a_snapshot_blocks_what_would_pull_the_ground_from_under_it(world: World) -> None:
    world.create(start=False)
    world.settle()
    request = api.CreateVmSnapshotRequest(parent="vms/web", snapshot_id="s")
    world.ask(copies.create_snapshot, request)
    busy = ("BUSY", "name")
    assert refused(lambda: world.verb(requests.START)) == busy
    assert refused(lambda: update(world, description="x")) == busy
    rename = api.RenameVmRequest(name="vms/web", new_vm_id="x")
    assert refused(lambda: world.ask(edits.rename, rename)) == busy
    world.verb(requests.STOP)


def test_a_snapshot_whose_parts_are_gone_is_not_gone_back_to(world: World) -> None:
    world.create(start=False)
    world.settle()
    row = vm_pb2.VmSnapshot(name="vms/web/snapshots/s", spec=world.vm().spec)
    row.volume_snapshots.append(f"{VOLUME}/root/snapshots/s")
    world.store.commit([Put(row)])
    back = api.RollbackVmSnapshotRequest(name=row.name)
    assert refused(lambda: world.ask(copies.rollback, back)) == ("DANGLING_REFERENCE", "name")


def test_devices_are_named_in_their_own_fields(world: World) -> None:
    world.running()
    disk, nic = api.AttachDiskRequest(name="vms/web"), api.AttachNicRequest(name="vms/web")
    disk.disk.CopyFrom(d("data", "nowhere"))
    nic.nic.CopyFrom(n("net1", "networks/none"))
    plug = lambda: world.ask(edits.attach_disk, disk)  # noqa: E731
    assert refused(plug) == ("DANGLING_REFERENCE", "disk.volume")
    assert refused(lambda: world.ask(edits.attach_nic, nic)) == (
        "DANGLING_REFERENCE",
        "nic.network",
    )
    disk.disk.CopyFrom(d("root", "data"))
    assert refused(plug) == ("ALREADY_EXISTS", "disk.id")
    disk.disk.CopyFrom(d("data", "data", bus=SATA))
    assert refused(plug) == ("NOT_SUPPORTED", "disk.bus")
    gone = api.DetachDiskRequest(name="vms/web", disk_id="x")
    assert refused(lambda: world.ask(edits.detach_disk, gone)) == ("NOT_FOUND", "disk_id")


def test_a_deletion_with_volumes_that_others_use_removes_nothing(world: World) -> None:
    world.create(start=False)
    other = vm_pb2.Vm(name="vms/other")
    other.spec.disks.add(id="x", volume=f"{VOLUME}/root", read_only=True)
    world.store.commit([Put(other)])
    request = api.DeleteVmRequest(name="vms/web", delete_volumes=True)
    assert refused(lambda: world.ask(edits.delete, request)) == ("IN_USE", "delete_volumes")
    assert not world.vm().meta.HasField("delete_time")


def test_what_is_being_deleted_takes_no_more_requests(world: World) -> None:
    world.running()
    world.ask(edits.delete, api.DeleteVmRequest(name="vms/web", force=True))
    assert refused(lambda: world.verb(requests.START)) == ("WRONG_STATE", "name")


def test_a_crashed_vm_counts_as_off(world: World) -> None:
    world.running(crash_policy=vm_pb2.CrashPolicy(action=vm_pb2.CRASH_ACTION_LEAVE))
    world.hypervisor.end("web", OffReason.CRASHED)
    world.settle()
    world.ask(edits.rename, api.RenameVmRequest(name="vms/web", new_vm_id="shop"))
    assert world.vm("shop").spec.disks
