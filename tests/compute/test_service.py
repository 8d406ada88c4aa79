"""The whole compute service of a node over a real socket: real server, loops and coordinator; the
hypervisor is a fake."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2, operation_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.main import assemble
from services.compute.settings import ComputeSettings
from services.coordinator.loop import Coordinator
from services.mesh import rows
from services.mesh.calls import error_of
from services.mesh.clock import SystemClock
from services.mesh.loop import Loop
from services.mesh.parts import Parts
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from tests.compute.fake_hypervisor import TellingHypervisor
from tests.compute.world import NET, NODE, POOL
from tests.mesh.serving import Host

Operation = operation_pb2.Operation


class Rows:
    """A storage service that only keeps rows."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def copy(self, source: str, volume: str, request_id: str) -> None:
        self.store.commit([Put(ready(volume))])

    def delete(self, volume: str, request_id: str) -> None:
        row = self.store.snapshot().find(storage_pb2.Volume, volume)
        if row is not None:
            self.store.commit([Delete(row.name, row.meta.etag)])

    def snapshot(self, volume: str, snapshot_id: str, request_id: str) -> bool:
        self.store.commit([Put(storage_pb2.Snapshot(name=f"{volume}/snapshots/{snapshot_id}"))])
        return True

    def delete_snapshot(self, snapshot: str, request_id: str) -> None:
        row = self.store.snapshot().find(storage_pb2.Snapshot, snapshot)
        if row is not None:
            self.store.commit([Delete(row.name, row.meta.etag)])

    def rollback(self, snapshot: str, request_id: str) -> None:
        assert self.store.snapshot().find(storage_pb2.Snapshot, snapshot) is not None


class Disks:
    """Images that are open."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def resize(self, vm: str, path: str, size_bytes: int) -> None:
        self.calls.append(f"resize {path} {size_bytes}")

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        self.calls.append(f"snapshot {' '.join(paths)}")
        return quiesce

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        self.calls.append(f"delete {path}")


def ready(name: str) -> storage_pb2.Volume:
    row = storage_pb2.Volume(name=name)
    row.status.state = storage_pb2.VolumeStatus.STATE_READY
    row.status.path = f"/pool/{name.rpartition('/')[2]}.qcow2"
    return row


class Site:
    """A node that answers."""

    def __init__(self, directory: Path) -> None:
        self.store, self.hypervisor, self.disks = MemoryStore(), TellingHypervisor(), Disks()
        self.settings = ComputeSettings(NODE, directory, parallel=4)
        clock = SystemClock()
        self._seed()
        self.parts = assemble(
            self.settings, self.store, clock, Rows(self.store), self.hypervisor, self.disks
        )
        coordinator = Coordinator(self.store, clock, NODE)
        self.loops = (*self.parts.loops, Loop("coordinator", coordinator.step, 1.0))
        self.host = Host()
        path = directory / "compute.sock"
        self.server = self.host.do(started(self.parts, path))
        for loop in self.loops:
            self.store.on_change(loop.wake)
            loop.start()
        self.channel = grpc.insecure_channel(f"unix:{path}")
        self.vms: Any = api_grpc.VmServiceStub(self.channel)
        self.open: Any = api_grpc.DiskServiceStub(self.channel)
        self.until(lambda: self._online())

    def _seed(self) -> None:
        network = network_pb2.Network(name=NET)
        network.status.state = network_pb2.NetworkStatus.STATE_READY
        network.status.bridge = "br-default"
        pool = storage_pb2.Pool(name=POOL)
        pool.spec.node = NODE
        volumes = [ready(f"{POOL}/volumes/{name}") for name in ("root", "data")]
        self.store.commit([Put(network), Put(pool), *map(Put, volumes)])

    def _online(self) -> bool:
        node = self.store.snapshot().find(cluster_pb2.Node, NODE)
        return node is not None and node.decision.state == cluster_pb2.NODE_STATE_ONLINE

    def close(self) -> None:
        self.channel.close()
        for loop in self.loops:
            assert loop.stop(60)
        for close in self.parts.close:
            close()
        self.host.do(self.server.drain(0.2))
        self.host.close()

    def until(self, what: Any, timeout_s: float = 60.0) -> Any:
        """What is looked for, as soon as it is so."""
        end = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < end, "it never came"
            time.sleep(0.005)
        return found

    def done(self, operation: Operation) -> Operation:
        """The operation once it has ended."""

        def ended() -> Operation | None:
            row = self.store.snapshot().find(Operation, operation.name)
            return row if row is not None and row.state in rows.FINAL else None

        found: Operation = self.until(ended)
        assert found.state == Operation.STATE_SUCCEEDED, found.error
        return found

    def vm(self, name: str = "web") -> vm_pb2.Vm:
        answer: vm_pb2.Vm = self.vms.GetVm(api.GetVmRequest(name=f"vms/{name}"))
        return answer

    def create(self, name: str = "web", start: bool = True, **given: Any) -> Operation:
        request = api.CreateVmRequest(vm_id=name, start=start, **given)
        request.vm.spec.disks.add(id="root", volume=f"{POOL}/volumes/root")
        request.vm.spec.nics.add(id="net0", network=NET)
        answer: Operation = self.vms.CreateVm(request)
        return answer


async def started(parts: Parts, path: Path) -> Server:
    server = Server(parts.servicers, SystemClock())
    server.listen_unix(path)
    await server.start()
    return server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = error_of(caught.value)
    return error.reason_name, error.field


def test_a_life(site: Site) -> None:
    """Every verb once, as a user would."""
    name = "vms/web"
    made = site.done(site.create())
    result = vm_pb2.Vm()
    assert made.result.Unpack(result) and result.status.state == vm_pb2.VM_STATE_RUNNING
    site.done(site.vms.PauseVm(api.PauseVmRequest(name=name)))
    site.done(site.vms.ResumeVm(api.ResumeVmRequest(name=name)))
    update = api.UpdateVmRequest(vm=vm_pb2.Vm(name=name))
    update.vm.spec.description = "the shop"
    site.done(site.vms.UpdateVm(update))
    disk = api.AttachDiskRequest(name=name)
    disk.disk.id, disk.disk.volume = "data", f"{POOL}/volumes/data"
    site.done(site.vms.AttachDisk(disk))
    nic = api.AttachNicRequest(name=name)
    nic.nic.id, nic.nic.network = "net1", NET
    site.done(site.vms.AttachNic(nic))
    site.done(site.vms.DetachNic(api.DetachNicRequest(name=name, nic_id="net1")))
    site.done(site.vms.DetachDisk(api.DetachDiskRequest(name=name, disk_id="data")))
    site.done(site.vms.ResetVm(api.ResetVmRequest(name=name)))
    site.done(site.vms.RebootVm(api.RebootVmRequest(name=name)))
    site.done(site.vms.ShutdownVm(api.ShutdownVmRequest(name=name)))
    site.done(site.vms.StartVm(api.StartVmRequest(name=name)))
    site.done(site.vms.StopVm(api.StopVmRequest(name=name)))
    shot = api.CreateVmSnapshotRequest(parent=name, snapshot_id="one")
    site.done(site.vms.CreateVmSnapshot(shot))
    listed = site.vms.ListVmSnapshots(api.ListVmSnapshotsRequest(parent=name))
    assert [row.name for row in listed.snapshots] == [f"{name}/snapshots/one"]
    one = f"{name}/snapshots/one"
    site.done(site.vms.RollbackVmSnapshot(api.RollbackVmSnapshotRequest(name=one)))
    site.done(site.vms.DeleteVmSnapshot(api.DeleteVmSnapshotRequest(name=one)))
    site.done(site.vms.CloneVm(api.CloneVmRequest(name=name, vm_id="copy")))
    site.done(site.vms.RenameVm(api.RenameVmRequest(name="vms/copy", new_vm_id="twin")))
    assert [vm.name for vm in site.vms.ListVms(api.ListVmsRequest()).vms] == ["vms/twin", name]
    for vm in ("vms/twin", name):
        site.done(site.vms.DeleteVm(api.DeleteVmRequest(name=vm, delete_volumes=True)))
    assert not site.vms.ListVms(api.ListVmsRequest()).vms
    left = [row.name for row in site.store.snapshot().rows(storage_pb2.Volume)]
    assert left == [f"{POOL}/volumes/data"] and not site.hypervisor.names()


def test_validate_only_says_what_would_be_and_changes_nothing(site: Site) -> None:
    answer = site.create(validate_only=True)
    would = vm_pb2.Vm()
    assert answer.result.Unpack(would) and would.spec.nics[0].mac and not answer.name
    state = site.store.snapshot()
    assert not list(state.rows(vm_pb2.Vm)) and not list(state.rows(Operation))


def test_a_repeated_request_is_done_once(site: Site) -> None:
    first = site.create(request_id="r1")
    assert site.create(request_id="r1").name == first.name
    site.done(first)
    assert refused(lambda: site.create("other", request_id="r1")) == (
        "REQUEST_ID_REUSED",
        "request_id",
    )


def test_refusals_come_with_reason_and_field(site: Site) -> None:
    site.done(site.create())
    assert refused(site.create) == ("ALREADY_EXISTS", "vm_id")
    none = api.StartVmRequest(name="vms/none")
    assert refused(lambda: site.vms.StartVm(none)) == ("NOT_FOUND", "name")
    old = api.StopVmRequest(name="vms/web", etag="1")
    assert refused(lambda: site.vms.StopVm(old)) == ("ETAG_MISMATCH", "etag")
    delete = api.DeleteVmRequest(name="vms/web")
    assert refused(lambda: site.vms.DeleteVm(delete)) == ("WRONG_STATE", "name")
    bad = api.CreateVmRequest(vm_id="Not a name")
    bad.vm.spec.SetInParent()
    assert refused(lambda: site.vms.CreateVm(bad)) == ("INVALID_FIELD", "vm_id")


def test_one_slow_start_does_not_delay_others(site: Site) -> None:
    site.hypervisor.blocked["slow"] = threading.Event()
    request = api.CreateVmRequest(vm_id="slow", start=True)
    request.vm.spec.description = "no disks"
    slow = site.vms.CreateVm(request)
    site.done(site.create())
    assert site.vm("slow").status.state == vm_pb2.VM_STATE_STARTING
    site.hypervisor.blocked["slow"].set()
    site.done(slow)


def test_many_vms_start_at_once(site: Site) -> None:
    operations = []
    for number in range(20):
        request = api.CreateVmRequest(vm_id=f"vm{number}", start=True)
        request.vm.spec.memory.memory_mib = 64
        operations.append(site.vms.CreateVm(request))
    for operation in operations:
        site.done(operation)


def test_a_crash_is_noticed_at_once(site: Site) -> None:
    from services.compute.drivers.hypervisor import OffReason

    site.done(site.create())
    site.hypervisor.end("web", OffReason.CRASHED)
    site.until(lambda: site.vm().status.crashes == 1)


def test_watch_shows_the_states(site: Site) -> None:
    changes = site.vms.WatchVms(api.WatchVmsRequest())
    assert next(changes).kind == meta_pb2.CHANGE_KIND_BOOKMARK
    site.done(site.create())
    seen: list[int] = []
    for change in changes:
        seen.append(change.vm.status.state)
        if seen[-1] == vm_pb2.VM_STATE_RUNNING:
            break
    changes.cancel()
    assert seen[0] == vm_pb2.VM_STATE_UNSPECIFIED and vm_pb2.VM_STATE_STARTING in seen


def test_the_domain_xml_is_shown(site: Site) -> None:
    site.create(start=False)
    xml = site.vms.GetDomainXml(api.GetDomainXmlRequest(name="vms/web")).xml
    assert "<name>web</name>" in xml and "/pool/root.qcow2" in xml


def typed(*texts: bytes, force: bool = False, stay: threading.Event | None = None) -> Any:
    yield api.AttachConsoleRequest(name="vms/web", force=force)
    for text in texts:
        yield api.AttachConsoleRequest(data=text)
    if stay is not None:
        stay.wait(60)


def test_a_console_goes_both_ways_and_is_taken_over_by_force(site: Site) -> None:
    assert refused(lambda: list(site.vms.AttachConsole(typed()))) == ("NOT_FOUND", "name")
    site.done(site.create())
    stay = threading.Event()
    first = site.vms.AttachConsole(typed(b"root\n", stay=stay))
    text = b""
    while b"root\n" not in text:
        text += next(first).data
    assert refused(lambda: list(site.vms.AttachConsole(typed())))[0] == "BUSY"
    second = site.vms.AttachConsole(typed(b"x", force=True, stay=stay))
    assert next(second).data == b"x"
    assert list(first) == []
    second.cancel()
    stay.set()
    site.until(lambda: refused_or_free(site))


def test_a_console_that_nobody_waits_for_any_more_is_let_go(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked for it went while libvirt was still opening it."""
    site.done(site.create())
    opening, go_on = threading.Event(), threading.Event()
    open_console = site.hypervisor.open_console

    def slowly(vm: str, force: bool) -> Any:
        opening.set()
        go_on.wait(60)
        return open_console(vm, force)

    monkeypatch.setattr(site.hypervisor, "open_console", slowly)
    stay = threading.Event()
    call = site.vms.AttachConsole(typed(b"x", stay=stay))
    assert opening.wait(60)
    call.cancel()
    time.sleep(0.2)
    go_on.set()
    stay.set()
    site.until(lambda: refused_or_free(site))


def refused_or_free(site: Site) -> bool:
    """The console was let go: somebody else gets it without force."""
    stay = threading.Event()
    try:
        return bool(next(site.vms.AttachConsole(typed(b"y", stay=stay))).data == b"y")
    except grpc.RpcError:
        return False
    finally:
        stay.set()


def test_a_console_of_what_is_off_is_refused(site: Site) -> None:
    site.create(start=False)
    site.until(lambda: site.vm().status.state == vm_pb2.VM_STATE_STOPPED)
    assert refused(lambda: list(site.vms.AttachConsole(typed()))) == ("WRONG_STATE", "name")


def test_the_log_is_read_from_its_end_and_followed(site: Site) -> None:
    site.create(start=False)
    log = site.settings.console_log("web")
    log.with_name("web.log.1").write_bytes(b"one\ntwo\n")
    log.write_bytes(b"three\nfour\n")
    request = api.ReadConsoleLogRequest(name="vms/web", lines=3)
    assert b"".join(x.data for x in site.vms.ReadConsoleLog(request)) == b"two\nthree\nfour\n"
    request.follow = True
    stream = site.vms.ReadConsoleLog(request)
    assert next(stream).data == b"two\nthree\nfour\n"
    with log.open("ab") as file:
        file.write(b"five\n")
    assert next(stream).data == b"five\n"
    log.write_bytes(b"anew\n")
    assert next(stream).data == b"anew\n"
    stream.cancel()


def test_open_volumes_are_acted_on(site: Site) -> None:
    site.done(site.create())
    volume = f"{POOL}/volumes/root"
    site.open.ResizeOpenVolume(api.ResizeOpenVolumeRequest(volume=volume, size_bytes=1 << 31))
    shot = api.SnapshotOpenVolumesRequest(volumes=[volume], snapshot_id="s", quiesce=True)
    assert site.open.SnapshotOpenVolumes(shot).quiesced
    site.open.DeleteOpenSnapshot(api.DeleteOpenSnapshotRequest(volume=volume, snapshot_id="s"))
    path = "/pool/root.qcow2"
    assert site.disks.calls == [f"resize {path} {1 << 31}", f"snapshot {path}", f"delete {path}"]
