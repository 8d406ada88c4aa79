"""A VM's whole life on the real thing, through the client: what a user does in a day."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client.errors import InUse, NotFound, WrongState
from services.network.drivers.namespace import within
from tests.system.conftest import make_vm, remove_vm, tiny_spec
from tests.system.rig import TIMEOUT_S, Rig, eventually, gib

pytestmark = pytest.mark.real
RUNNING, STOPPED = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STOPPED


@pytest.fixture(scope="module")
def web(rig: Rig) -> Iterator[str]:
    """A VM that runs."""
    make_vm(rig, "web")
    yield "web"
    remove_vm(rig, "web")


def address(rig: Rig, vm: str) -> str:
    """The address that is reserved for the VM's first interface."""
    assigned = rig.cluster.networks.get("default").status.addresses
    return next(a.address for a in assigned if a.vm == f"vms/{vm}")


def fetched(rig: Rig, vm: str) -> str:
    """What the guest says of itself over its network."""

    def get() -> str:
        connection = http.client.HTTPConnection(address(rig, vm), 80, timeout=3)
        try:
            connection.request("GET", "/cgi-bin/state")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    return within(rig.name, get)


def answers(rig: Rig, vm: str) -> None:
    eventually(lambda: fetched(rig, vm), f"the guest of {vm} answers")


def state(rig: Rig, vm: str) -> int:
    return rig.cluster.vms.get(vm).status.state


def test_it_boots_and_its_console_tells(rig: Rig, web: str) -> None:
    def booted() -> bool:
        return b"READY" in b"".join(rig.cluster.vms.console_log(web))

    eventually(booted, "READY on the console")
    assert rig.cluster.vms.get(web).status.accelerator in ("tcg", "kvm")


def test_it_answers_over_its_network(rig: Rig, web: str) -> None:
    answers(rig, web)


def test_its_console_can_be_typed_into(rig: Rig, web: str) -> None:
    console = rig.cluster.vms.console(web)
    try:
        console.write(b"\necho ab$((40+2))cd\n")
        text, end = b"", time.monotonic() + TIMEOUT_S
        while b"ab42cd" not in text:
            assert time.monotonic() < end, text
            text += console.read()
    finally:
        console.close()


def test_it_pauses_and_goes_on(rig: Rig, web: str) -> None:
    rig.cluster.vms.pause(web).result(TIMEOUT_S)
    assert state(rig, web) == vm_pb2.VM_STATE_PAUSED
    rig.cluster.vms.resume(web).result(TIMEOUT_S)
    answers(rig, web)


def test_a_disk_and_an_interface_come_and_go(rig: Rig, web: str) -> None:
    rig.cluster.volumes.create("local/extra", gib(0.25)).result(TIMEOUT_S)
    disk = vm_pb2.DiskSpec(id="extra", volume="pools/local/volumes/extra")
    after = rig.cluster.vms.attach_disk(web, disk).result(TIMEOUT_S)
    assert {d.id for d in after.status.disks} == {"root", "extra"}
    with pytest.raises(InUse):
        rig.cluster.volumes.delete("local/extra").result(TIMEOUT_S)
    rig.cluster.volumes.resize("local/extra", 1 << 29).result(TIMEOUT_S)

    def seen() -> bool:
        disks = {disk.id: disk for disk in rig.cluster.vms.get(web).status.disks}
        return disks["extra"].size_bytes == 1 << 29

    eventually(seen, "the guest's disk has grown")
    rig.cluster.vms.detach_disk(web, "extra").result(TIMEOUT_S)
    nic = vm_pb2.NicSpec(id="net1", network="networks/default")
    after = rig.cluster.vms.attach_nic(web, nic).result(TIMEOUT_S)
    assert {n.id for n in after.status.nics} == {"net0", "net1"}
    rig.cluster.vms.detach_nic(web, "net1").result(TIMEOUT_S)
    rig.cluster.volumes.delete("local/extra").result(TIMEOUT_S)
    with pytest.raises(NotFound):
        rig.cluster.volumes.get("local/extra")


def test_a_snapshot_brings_back_what_was(rig: Rig, web: str) -> None:
    taken = rig.cluster.vms.snapshots.create(f"{web}/before").result(TIMEOUT_S)
    assert taken.volume_snapshots == ["pools/local/volumes/web-root/snapshots/before"]
    with pytest.raises(WrongState):
        rig.cluster.vms.snapshots.rollback(f"{web}/before").result(TIMEOUT_S)
    rig.cluster.vms.stop(web).result(TIMEOUT_S)
    rig.cluster.vms.snapshots.rollback(f"{web}/before").result(TIMEOUT_S)
    rig.cluster.vms.start(web).result(TIMEOUT_S)
    answers(rig, web)
    rig.cluster.vms.snapshots.delete(f"{web}/before").result(TIMEOUT_S)


def test_reboot_and_reset_keep_it_running(rig: Rig, web: str) -> None:
    answers(rig, web)
    rig.cluster.vms.reboot(web).result(TIMEOUT_S)
    answers(rig, web)
    rig.cluster.vms.reset(web).result(TIMEOUT_S)
    answers(rig, web)


def test_it_shuts_down_when_asked_and_starts_again(rig: Rig, web: str) -> None:
    answers(rig, web)
    rig.cluster.vms.shutdown(web).result(TIMEOUT_S)
    assert state(rig, web) == STOPPED and web not in rig.emulators()
    rig.cluster.vms.start(web).result(TIMEOUT_S)
    answers(rig, web)


def test_a_guest_that_switches_itself_off_stays_off(rig: Rig, web: str) -> None:
    answers(rig, web)
    console = rig.cluster.vms.console(web)
    console.write(b"\npoweroff -f\n")
    eventually(lambda: state(rig, web) == STOPPED, "the guest switched itself off")
    console.close()
    eventually(
        lambda: "shut itself down" in rig.cluster.vms.get(web).decision.why,
        "it stays off",
        TIMEOUT_S,
    )
    assert state(rig, web) == STOPPED
    rig.cluster.vms.start(web).result(TIMEOUT_S)


def test_a_clone_has_a_life_of_its_own(rig: Rig, web: str) -> None:
    rig.cluster.vms.stop(web).result(TIMEOUT_S)
    clone = rig.cluster.vms.clone(web, "twin", start=True).result(TIMEOUT_S)
    rig.cluster.vms.start(web).result(TIMEOUT_S)
    original = rig.cluster.vms.get(web)
    assert clone.spec.nics[0].mac != original.spec.nics[0].mac
    assert clone.spec.uuid != original.spec.uuid
    answers(rig, "twin")
    rig.cluster.vms.stop("twin").result(TIMEOUT_S)
    rig.cluster.vms.rename("twin", "other").result(TIMEOUT_S)
    with pytest.raises(NotFound):
        rig.cluster.vms.get("twin")
    remove_vm(rig, "other")


def test_what_is_gone_leaves_nothing(rig: Rig) -> None:
    make_vm(rig, "brief")
    remove_vm(rig, "brief")
    assert "brief" not in rig.emulators()
    eventually(lambda: not list(rig.base.rglob("*brief*")), "no file of it is left")
    with pytest.raises(NotFound):
        rig.cluster.vms.get("brief")


def test_a_vm_of_another_shape(rig: Rig) -> None:
    """UEFI, virtio-blk, a paused start, two processors of four."""
    rig.cluster.volumes.create("local/odd-root", gib(0.25)).result(TIMEOUT_S)
    spec = tiny_spec("odd", firmware=vm_pb2.FIRMWARE_UEFI)
    spec.cpu.vcpus, spec.cpu.max_vcpus = 2, 4
    spec.memory.max_memory_mib = 256
    spec.disks[0].bus = vm_pb2.DISK_BUS_VIRTIO_BLK
    vm = rig.cluster.vms.create("odd", spec, start=True).result(TIMEOUT_S)
    # Without a balloon driver, as here before any system runs, a guest has all that it may grow to.
    assert (vm.status.vcpus, vm.status.memory_mib) == (2, 256)
    change = vm_pb2.CpuSpec(vcpus=3)
    after = rig.cluster.vms.change("odd", lambda vm: vm.spec.cpu.MergeFrom(change)).result(
        TIMEOUT_S
    )
    assert after.status.vcpus == 3
    remove_vm(rig, "odd")
