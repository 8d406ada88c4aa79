"""Jobs on VMs: clones, snapshots of whole VMs, deletion with volumes, reset; cut and refused in the
middle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.core import copies, edits, requests
from services.compute.jobs import VmJobs
from services.compute.open_disks import OpenVolumes
from services.mesh import rows
from services.mesh.errors import PvcError
from services.mesh.jobs import Jobs
from services.state.store import Delete, Put
from services.storage.core.usage import check_unattached
from tests.compute.world import NODE, POOL, Operation, World


class Volumes:
    """A storage service of rows only, which asks for snapshots of open volumes as the real one
    does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.open: OpenVolumes | None = None
        self.calls: list[str] = []
        self.fails: dict[str, PvcError] = {}
        self.answered: set[str] = set()

    def _call(self, call: str, request_id: str) -> bool:
        """False when the request was answered before."""
        self.calls.append(call)
        if call in self.fails:
            raise self.fails[call]
        fresh = request_id not in self.answered
        self.answered.add(request_id)
        return fresh

    def copy(self, source: str, volume: str, request_id: str) -> None:
        if self._call(f"copy {source} {volume}", request_id):
            self.world.add_volume(volume.rpartition("/")[2])

    def delete(self, volume: str, request_id: str) -> None:
        self._call(f"delete {volume}", request_id)
        check_unattached(self.world.state, volume)
        row = self.world.state.find(storage_pb2.Volume, volume)
        if row is not None:
            self.world.store.commit([Delete(row.name, row.meta.etag)])

    def snapshot(self, volume: str, snapshot_id: str, request_id: str) -> bool:
        self._call(f"snapshot {volume}", request_id)
        quiesced = False
        if self.world.vm().status.state == vm_pb2.VM_STATE_RUNNING:
            assert self.open is not None
            quiesced = self.open.snapshot([volume], snapshot_id, True)
        row = storage_pb2.Snapshot(name=f"{volume}/snapshots/{snapshot_id}")
        self.world.store.commit([Put(row)])
        return quiesced

    def delete_snapshot(self, snapshot: str, request_id: str) -> None:
        self._call(f"delete {snapshot}", request_id)
        row = self.world.state.find(storage_pb2.Snapshot, snapshot)
        if row is not None:
            self.world.store.commit([Delete(row.name, row.meta.etag)])

    def rollback(self, snapshot: str, request_id: str) -> None:
        self._call(f"rollback {snapshot}", request_id)


class Disks:
    """Images that are open."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def resize(self, vm: str, path: str, size_bytes: int) -> None:
        self.calls.append(f"resize {vm} {path} {size_bytes}")

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        self.calls.append(f"snapshot {vm} {' '.join(paths)} {snapshot_id}")
        return quiesce

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        self.calls.append(f"delete {vm} {path} {snapshot_id}")


class Site:
    """A world with jobs."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.volumes = Volumes(self.world)
        self.disks = Disks()
        self.open = OpenVolumes(self.world.store, self.disks, NODE)
        self.volumes.open = self.open
        self.jobs = self.worker()

    def worker(self) -> Jobs:
        world = self.world
        work = VmJobs(world.store, world.clock, NODE, world.hypervisor, self.volumes, self.open)
        return Jobs(world.store, world.clock, "compute", NODE, work.methods())

    def run(self, operation: Operation) -> Operation:
        """Until the operation has ended."""
        deadline = time.monotonic() + 60
        while (found := self.world.operation(operation.name)).state not in rows.FINAL:
            assert time.monotonic() < deadline, found
            self.world.coordinator.step()
            self.world.agent.look_again()
            self.world.agent.step()
            self.jobs.step()
            time.sleep(0.005)
        while not self.jobs.idle():
            time.sleep(0.005)
        return found

    def stopped(self) -> None:
        self.world.create(start=False)
        self.world.settle()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.jobs.stop()


def reason(operation: Operation) -> str:
    return PvcError.from_status(operation.error).reason_name


def two_disks(site: Site) -> None:
    vm = site.world.vm()
    vm.spec.disks.add(id="data", volume=f"{POOL}/volumes/data")
    vm.meta.generation += 1
    site.world.store.commit([Put(vm)])
    site.world.settle()


def clone(site: Site, start: bool = False) -> Operation:
    request = api.CloneVmRequest(name="vms/web", vm_id="copy", start=start)
    return site.world.ask(copies.clone, request)  # type: ignore[no-any-return]


def test_a_clone_has_volumes_addresses_and_a_uuid_of_its_own(site: Site) -> None:
    site.stopped()
    ended = site.run(clone(site, start=True))
    assert ended.state == Operation.STATE_SUCCEEDED, ended.error
    old, new = site.world.vm(), site.world.vm("copy")
    assert new.spec.disks[0].volume == f"{POOL}/volumes/copy-root"
    assert new.spec.uuid != old.spec.uuid and new.spec.nics[0].mac != old.spec.nics[0].mac
    assert new.status.state == vm_pb2.VM_STATE_RUNNING


def test_a_clone_that_fails_leaves_nothing(site: Site) -> None:
    site.stopped()
    two_disks(site)
    failing = f"copy {POOL}/volumes/data {POOL}/volumes/copy-data"
    site.volumes.fails[failing] = PvcError(reason_pb2.REASON_OUT_OF_SPACE, "no room")
    ended = site.run(clone(site))
    assert reason(ended) == "OUT_OF_SPACE"
    assert site.world.state.find(vm_pb2.Vm, "vms/copy") is None
    names = [row.name for row in site.world.state.rows(storage_pb2.Volume)]
    assert f"{POOL}/volumes/copy-root" not in names


def test_a_clone_that_was_cut_is_finished_by_the_next_worker(site: Site) -> None:
    site.stopped()
    operation = clone(site)
    taken = rows.enter_operation(operation, Operation.STATE_RUNNING, site.world.clock.now())
    taken.attempts, taken.worker = 1, "a session that ended"
    taken.meta.etag = site.world.operation(operation.name).meta.etag
    site.world.store.commit([Put(taken)])
    site.volumes.copy("x", f"{POOL}/volumes/copy-root", f"{operation.name[11:]}-0")
    ended = site.run(operation)
    assert ended.state == Operation.STATE_SUCCEEDED and ended.attempts == 2, ended.error


def snapshot(site: Site, id: str = "one") -> Operation:
    request = api.CreateVmSnapshotRequest(parent="vms/web", snapshot_id=id)
    return site.world.ask(copies.create_snapshot, request)  # type: ignore[no-any-return]


def test_a_snapshot_takes_all_open_volumes_at_one_moment(site: Site) -> None:
    site.world.running()
    two_disks(site)
    ended = site.run(snapshot(site))
    assert ended.state == Operation.STATE_SUCCEEDED, ended.error
    assert site.disks.calls == ["snapshot web /pool/root.qcow2 /pool/data.qcow2 one"]
    row = site.world.state.find(vm_pb2.VmSnapshot, "vms/web/snapshots/one")
    assert row is not None and row.quiesced and len(row.volume_snapshots) == 2


def test_a_snapshot_that_fails_in_the_middle_is_taken_back(site: Site) -> None:
    site.world.running()
    two_disks(site)
    site.volumes.fails[f"snapshot {POOL}/volumes/data"] = PvcError(
        reason_pb2.REASON_STORAGE_FAILED, "no"
    )
    ended = site.run(snapshot(site))
    assert reason(ended) == "STORAGE_FAILED"
    assert not list(site.world.state.rows(storage_pb2.Snapshot))
    assert site.disks.calls[-1] == "delete web /pool/data.qcow2 one"
    assert site.world.state.find(vm_pb2.VmSnapshot, "vms/web/snapshots/one") is None


def test_rollback_puts_spec_and_volumes_back(site: Site) -> None:
    site.stopped()
    site.run(snapshot(site))
    update = api.UpdateVmRequest(vm=vm_pb2.Vm(name="vms/web"))
    update.vm.spec.description = "later"
    site.world.ask(edits.update, update)
    request = api.RollbackVmSnapshotRequest(name="vms/web/snapshots/one")
    ended = site.run(site.world.ask(copies.rollback, request))
    assert ended.state == Operation.STATE_SUCCEEDED, ended.error
    assert site.world.vm().spec.description == ""
    assert f"rollback {POOL}/volumes/root/snapshots/one" in site.volumes.calls


def test_deleting_a_snapshot_deletes_its_parts(site: Site) -> None:
    site.stopped()
    site.run(snapshot(site))
    request = api.DeleteVmSnapshotRequest(name="vms/web/snapshots/one")
    site.run(site.world.ask(copies.delete_snapshot, request))
    assert site.world.state.find(vm_pb2.VmSnapshot, "vms/web/snapshots/one") is None
    assert not list(site.world.state.rows(storage_pb2.Snapshot))


def delete(site: Site, volumes: bool) -> Operation:
    request = api.DeleteVmRequest(name="vms/web", force=True, delete_volumes=volumes)
    return site.world.ask(edits.delete, request)  # type: ignore[no-any-return]


@pytest.mark.parametrize("volumes", [False, True])
def test_deletion_ends_the_vm_then_its_volumes_then_its_row(site: Site, volumes: bool) -> None:
    site.world.running()
    ended = site.run(delete(site, volumes))
    assert ended.state == Operation.STATE_SUCCEEDED, ended.error
    assert site.world.state.find(vm_pb2.Vm, "vms/web") is None
    assert not site.world.hypervisor.names()
    left = site.world.state.find(storage_pb2.Volume, f"{POOL}/volumes/root")
    assert (left is None) == volumes


def test_a_deletion_whose_volume_cannot_go_says_what_remains(site: Site) -> None:
    site.world.running()
    two_disks(site)
    site.volumes.fails[f"delete {POOL}/volumes/data"] = PvcError(
        reason_pb2.REASON_STORAGE_FAILED, "the disk is dead"
    )
    ended = site.run(delete(site, True))
    assert reason(ended) == "STORAGE_FAILED" and "these remain" in ended.error.message
    assert f"{POOL}/volumes/data" in ended.error.message


def test_a_vm_that_no_node_had_is_deleted_with_its_volumes(site: Site) -> None:
    site.world.create(start=False)
    ended = site.run(delete(site, True))
    assert ended.state == Operation.STATE_SUCCEEDED, ended.error
    assert site.world.state.find(vm_pb2.Vm, "vms/web") is None
    assert site.world.state.find(storage_pb2.Volume, f"{POOL}/volumes/root") is None


def test_reset_presses_the_button(site: Site) -> None:
    site.world.running()
    operation = site.world.ask(requests.reset, api.ResetVmRequest(name="vms/web"))
    assert site.run(operation).state == Operation.STATE_SUCCEEDED
    assert site.world.hypervisor.told[-1] == "reset web"


def test_open_volumes_are_found_by_who_has_them(site: Site) -> None:
    site.world.running()
    site.open.resize(f"{POOL}/volumes/root", 1 << 31)
    assert site.disks.calls == [f"resize web /pool/root.qcow2 {1 << 31}"]
    with pytest.raises(PvcError) as refused:
        site.open.resize(f"{POOL}/volumes/more", 1 << 31)
    assert refused.value.reason_name == "WRONG_STATE"
