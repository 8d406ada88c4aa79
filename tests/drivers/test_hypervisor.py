"""What every hypervisor driver promises: one suite on the fake and on libvirt with QEMU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers.domain_xml import disk_xml, nic_xml
from services.compute.drivers.hypervisor import OffReason, Power
from services.compute.drivers.observed import Observed, parse_domain
from services.mesh.errors import PvcError
from tests.drivers.subjects import IMAGE_BYTES, Subject, define, power, started
from tests.drivers.vms import small_vm, volume, with_targets


@contextmanager
def refused(reason: reason_pb2.Reason.ValueType, text: str | None = None) -> Iterator[None]:
    with pytest.raises(PvcError, match=text) as caught:
        yield
    assert caught.value.reason == reason, caught.value


def live(subject: Subject, vm: str) -> Observed:
    return parse_domain(subject.hypervisor.domains()[vm].xml)


def test_defined_is_off(subject: Subject) -> None:
    vm = define(subject, small_vm("web", "root"))
    domain = subject.hypervisor.domains()[vm]
    assert (domain.power, domain.run) == (Power.OFF, "")
    assert domain.uuid == small_vm("web").spec.uuid
    assert live(subject, vm).uid == "uid-web"


def test_start_runs_once(subject: Subject) -> None:
    vm = started(subject, small_vm("web", "root"))
    first = subject.hypervisor.domains()[vm]
    assert first.power is Power.RUNNING
    assert first.run
    subject.hypervisor.start(vm)
    assert subject.hypervisor.domains()[vm].run == first.run


def test_every_start_is_another_run(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    first = subject.hypervisor.domains()[vm].run
    subject.hypervisor.destroy(vm)
    subject.hypervisor.start(vm)
    assert subject.hypervisor.domains()[vm].run != first


def test_what_runs_is_what_was_built(subject: Subject) -> None:
    wanted = small_vm("web", "root", "data")
    wanted.spec.disks[1].bus = vm_pb2.DISK_BUS_VIRTIO_BLK
    wanted.spec.disks.add(id="cd", device=vm_pb2.DISK_DEVICE_CDROM)
    wanted.spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01")
    wanted.spec.nics.add(
        id="net1", network="networks/default", mac="52:54:00:00:00:02", link_down=True,
        model=vm_pb2.NIC_MODEL_E1000E,
    )  # fmt: skip
    wanted.spec.cpu.max_vcpus = 4
    vm = define(subject, wanted)
    before = live(subject, vm)
    subject.hypervisor.start(vm)
    now = live(subject, vm)
    assert (now.disks, now.nics, now.cold) == (before.disks, before.nics, before.cold)
    assert now.vnc.startswith("127.0.0.1:59")
    assert all(nic.device for nic in now.nics.values())


def test_destroyed_is_off(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    for _ in range(2):
        subject.hypervisor.destroy(vm)
        domain = subject.hypervisor.domains()[vm]
        assert (domain.power, domain.off_reason) == (Power.OFF, OffReason.DESTROYED)
    subject.hypervisor.destroy("nobody")


def test_a_crash_is_told_and_seen(subject: Subject) -> None:
    woken = threading.Event()
    subject.hypervisor.on_event(woken.set)
    vm = started(subject, small_vm("web"))
    woken.clear()
    subject.crash(vm)
    assert woken.wait(60)
    domain = subject.until(vm, lambda domain: domain.power is Power.OFF)
    assert domain.off_reason is OffReason.CRASHED


def test_a_failed_start_says_why(subject: Subject) -> None:
    vm = define(subject, small_vm("web", "root"))
    path = subject.machine.volumes[volume("web-root")].path
    subject.break_start(vm, path)
    with refused(reason_pb2.REASON_HYPERVISOR_FAILED, path):
        subject.hypervisor.start(vm)
    domain = subject.hypervisor.domains()[vm]
    assert domain.power is Power.OFF
    assert domain.off_reason in (OffReason.START_FAILED, OffReason.UNKNOWN)


def test_undefined_is_forgotten(subject: Subject) -> None:
    vm = started(subject, small_vm("web", "root"))
    with refused(reason_pb2.REASON_WRONG_STATE):
        subject.hypervisor.undefine(vm)
    subject.hypervisor.destroy(vm)
    for _ in range(2):
        subject.hypervisor.undefine(vm)
        assert vm not in subject.hypervisor.domains()
    assert not Path(subject.machine.console_log).exists()


def test_undefine_takes_uefi_variables_along(subject: Subject) -> None:
    uefi = small_vm("web")
    uefi.spec.firmware = vm_pb2.FIRMWARE_UEFI
    vm = started(subject, uefi)
    assert Path(subject.machine.nvram).exists() == subject.real
    subject.hypervisor.destroy(vm)
    subject.hypervisor.undefine(vm)
    assert not Path(subject.machine.nvram).exists()


def test_define_does_not_touch_what_runs(subject: Subject) -> None:
    wanted = small_vm("web")
    vm = started(subject, wanted)
    wanted.meta.generation = 2
    wanted.spec.memory.memory_mib = 96
    define(subject, wanted)
    assert live(subject, vm).max_memory_mib == 64
    subject.hypervisor.destroy(vm)
    subject.hypervisor.start(vm)
    assert live(subject, vm).max_memory_mib == 96


def test_another_uuid_for_the_same_name_is_refused(subject: Subject) -> None:
    wanted = small_vm("web")
    define(subject, wanted)
    wanted.spec.uuid = small_vm("other").spec.uuid
    with refused(reason_pb2.REASON_HYPERVISOR_FAILED):
        define(subject, wanted)


def test_pause_and_resume(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    for _ in range(2):
        subject.hypervisor.pause(vm)
        assert power(subject, vm) is Power.PAUSED
    for _ in range(2):
        subject.hypervisor.resume(vm)
        assert power(subject, vm) is Power.RUNNING


def test_a_reset_is_no_new_run(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    before = subject.hypervisor.domains()[vm]
    subject.hypervisor.reset(vm)
    after = subject.hypervisor.domains()[vm]
    assert (after.power, after.run) == (Power.RUNNING, before.run)


def test_what_needs_a_running_domain_says_so(subject: Subject) -> None:
    vm = define(subject, small_vm("web"))
    for verb in ("pause", "resume", "reset"):
        with refused(reason_pb2.REASON_HYPERVISOR_FAILED, "not running"):
            getattr(subject.hypervisor, verb)(vm)
    subject.hypervisor.shutdown(vm)
    assert subject.hypervisor.guest(vm, 1) is None


def test_unknown_vms_are_not_found(subject: Subject) -> None:
    for verb in ("start", "shutdown", "reset", "pause", "resume"):
        with refused(reason_pb2.REASON_NOT_FOUND, "vms/nobody"):
            getattr(subject.hypervisor, verb)("nobody")


def test_a_disk_comes_and_goes(subject: Subject) -> None:
    wanted = small_vm("web", "root")
    vm = started(subject, wanted)
    wanted.spec.disks.add(id="data", volume=volume("more"))
    subject.make_volume("more")
    machine = with_targets(subject.machine, live(subject, vm).targets)
    xml = disk_xml(wanted, machine, "data")
    for _ in range(2):
        subject.hypervisor.attach(vm, xml)
        assert live(subject, vm).disks["data"].target == "sdb"
    for _ in range(2):
        subject.hypervisor.detach(vm, xml, 5)
        assert set(live(subject, vm).disks) == {"root"}


def test_an_interface_is_plugged_in(subject: Subject) -> None:
    wanted = small_vm("web")
    vm = started(subject, wanted)
    wanted.spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01")
    subject.hypervisor.attach(vm, nic_xml(wanted, subject.machine, "net0"))
    assert live(subject, vm).nics["net0"].mac == "52:54:00:00:00:01"
    wanted.spec.nics[0].link_down = True
    subject.hypervisor.update_device(vm, nic_xml(wanted, subject.machine, "net0"))
    assert live(subject, vm).nics["net0"].link_down


def test_a_guest_that_does_not_let_go(subject: Subject) -> None:
    wanted = small_vm("web", "root")
    wanted.spec.disks[0].bus = vm_pb2.DISK_BUS_VIRTIO_BLK
    vm = started(subject, wanted)
    subject.ignore_detach(vm)
    for _ in range(2):
        with refused(reason_pb2.REASON_GUEST_UNRESPONSIVE, "ua-disk-root"):
            subject.hypervisor.detach(vm, disk_xml(wanted, subject.machine, "root"), 0.3)
    assert set(live(subject, vm).disks) == {"root"}


def test_a_disc_is_changed(subject: Subject) -> None:
    wanted = small_vm("web")
    wanted.spec.disks.add(id="cd", device=vm_pb2.DISK_DEVICE_CDROM)
    vm = started(subject, wanted)
    path = subject.make_volume("disc", "raw")
    wanted.spec.disks[0].volume = volume("disc")
    machine = with_targets(subject.machine, live(subject, vm).targets)
    subject.hypervisor.update_device(vm, disk_xml(wanted, machine, "cd"))
    assert live(subject, vm).disks["cd"].path == path
    wanted.spec.disks[0].volume = ""
    subject.hypervisor.update_device(vm, disk_xml(wanted, machine, "cd"))
    assert live(subject, vm).disks["cd"].path == ""


def test_processors_are_added_but_not_taken_from_an_emulated_machine(subject: Subject) -> None:
    wanted = small_vm("web")
    wanted.spec.cpu.max_vcpus = 3
    vm = started(subject, wanted)
    subject.hypervisor.set_vcpus(vm, 2)
    assert live(subject, vm).vcpus == 2
    with refused(reason_pb2.REASON_NOT_SUPPORTED):
        subject.hypervisor.set_vcpus(vm, 1)
    with refused(reason_pb2.REASON_HYPERVISOR_FAILED):
        subject.hypervisor.set_vcpus(vm, 4)


def test_memory_stays_below_its_maximum(subject: Subject) -> None:
    wanted = small_vm("web")
    wanted.spec.memory.max_memory_mib = 128
    vm = started(subject, wanted)
    subject.hypervisor.set_memory(vm, 96)
    with refused(reason_pb2.REASON_HYPERVISOR_FAILED):
        subject.hypervisor.set_memory(vm, 256)


def test_the_console_is_one(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    first = subject.hypervisor.open_console(vm, force=False)
    with refused(reason_pb2.REASON_BUSY):
        subject.hypervisor.open_console(vm, force=False)
    second = subject.hypervisor.open_console(vm, force=True)
    assert first.read(5) is None
    with refused(reason_pb2.REASON_WRONG_STATE):
        first.write(b"too late")
    assert second.read(0) == b""
    second.write(b"x")
    for console in (first, second, second):
        console.close()
    subject.hypervisor.open_console(vm, force=False).close()


def test_the_console_ends_with_the_domain(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    console = subject.hypervisor.open_console(vm, force=False)
    subject.hypervisor.destroy(vm)
    assert console.read(5) is None
    console.close()


def test_an_open_disk_grows(subject: Subject) -> None:
    vm = started(subject, small_vm("web", "root"))
    path = subject.machine.volumes[volume("web-root")].path
    for _ in range(2):
        subject.disks.resize(vm, path, 2 * IMAGE_BYTES)
    with refused(reason_pb2.REASON_INVALID_FIELD, "grow"):
        subject.disks.resize(vm, path, IMAGE_BYTES)


def test_all_disks_are_snapshot_at_once(subject: Subject) -> None:
    vm = started(subject, small_vm("web", "root", "data"))
    paths = [subject.machine.volumes[volume(f"web-{disk}")].path for disk in ("root", "data")]
    assert subject.disks.snapshot(vm, paths, "before", quiesce=True) is False
    assert subject.disks.snapshot(vm, paths, "before", quiesce=True) is False
    assert [list(subject.snapshots(path)) for path in paths] == [["before"], ["before"]]
    subject.disks.delete_snapshot(vm, paths[0], "before")
    subject.disks.delete_snapshot(vm, paths[0], "before")
    with refused(reason_pb2.REASON_ALREADY_EXISTS):
        subject.disks.snapshot(vm, paths, "before", quiesce=False)
    subject.disks.delete_snapshot(vm, paths[1], "before")
    assert [list(subject.snapshots(path)) for path in paths] == [[], []]


def test_a_raw_disk_takes_no_snapshot_and_none_is_half_taken(subject: Subject) -> None:
    wanted = small_vm("web", "root", "data")
    raw = subject.make_volume("web-data", "raw")
    vm = started(subject, wanted)
    root = subject.machine.volumes[volume("web-root")].path
    with refused(reason_pb2.REASON_NOT_SUPPORTED, raw):
        subject.disks.snapshot(vm, [root, raw], "before", quiesce=False)
    assert list(subject.snapshots(root)) == []


def test_a_silent_agent(subject: Subject) -> None:
    vm = started(subject, small_vm("web"))
    assert subject.hypervisor.guest(vm, 1) is None


def test_facts(subject: Subject) -> None:
    facts = subject.hypervisor.facts()
    assert facts.accelerator == "tcg"
    assert facts.accelerator_why
    assert "Nehalem" in facts.cpu_models
    assert facts.emulator_version[0].isdigit()
    assert facts.libvirt_version[0].isdigit()
