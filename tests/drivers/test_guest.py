"""The libvirt driver with a guest that cooperates: a small Linux booted from its disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from services.compute.drivers import console_log
from services.compute.drivers.daemon import Daemon
from services.compute.drivers.domain_xml import VolumeFile, disk_xml, nic_xml
from services.compute.drivers.hypervisor import Console, Guest, OffReason, Power
from services.compute.drivers.observed import Observed, parse_domain
from tests.drivers.subjects import RealSubject, define
from tests.drivers.vms import small_vm, volume, with_targets
from tests.guests.tiny import READY, tiny_disk

pytestmark = pytest.mark.real
BOOT_S = 120


class Tiny:
    """The guest with its console."""

    def __init__(self, subject: RealSubject, vm: vm_pb2.Vm) -> None:
        self.subject, self.vm = subject, vm
        self.id = define(subject, vm)
        self.log = Path(subject.machine.console_log)
        self.boot()

    @property
    def root(self) -> str:
        return self.subject.machine.volumes[volume("tiny-root")].path

    def boot(self) -> None:
        self.subject.hypervisor.start(self.id)
        self.console = self.subject.hypervisor.open_console(self.id, force=True)
        self.wait_for(self.console, READY, BOOT_S)

    def wait_for(self, console: Console, pattern: str, timeout_s: float = 60) -> str:
        heard, deadline = "", time.monotonic() + timeout_s
        while not (found := re.search(pattern, heard)):
            assert time.monotonic() < deadline, f"{pattern!r} never came in {heard!r}"
            told = console.read(0.5)
            assert told is not None, f"the console ended after {heard!r}"
            heard += told.decode(errors="replace")
        return found.group()

    def say(self, command: str, pattern: str, timeout_s: float = 60) -> str:
        """Types a command again and again until its output has the pattern."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.console.write(f"{command}; echo do''ne\n".encode())
            heard = self.wait_for(self.console, r"(?s).*done\r?\n")
            if found := re.search(pattern, heard):
                return found.group()
            assert time.monotonic() < deadline, f"{command}: no {pattern!r} in {heard!r}"

    def live(self) -> Observed:
        return parse_domain(self.subject.hypervisor.domains()[self.id].xml)

    def machine(self):  # type: ignore[no-untyped-def]
        return with_targets(self.subject.machine, self.live().targets)


@pytest.fixture(scope="module")
def tiny(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp("tiny")
    subject = RealSubject(folder, daemon)
    root = folder / "root.qcow2"
    command = ["qemu-img", "convert", "-O", "qcow2", str(tiny_disk()), str(root)]
    subprocess.run(command, check=True, timeout=60)
    vm = small_vm("tiny", "root")
    vm.spec.vnc = False  # Drawing a boot menu on a screen takes seconds without acceleration.
    vm.spec.memory.memory_mib, vm.spec.memory.max_memory_mib = 160, 192
    vm.spec.cpu.max_vcpus = 2
    vm.spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01")
    volumes = {volume("tiny-root"): VolumeFile(str(root), "qcow2")}
    subject.machine = replace(subject.machine, volumes=volumes)
    yield Tiny(subject, vm)
    subject.clean()
    subject.hypervisor.close()


def test_the_disk_has_its_serial_number(tiny: Tiny) -> None:
    tiny.say("disks", r"sda 67108864 0 root")


def test_a_disk_is_seen_grown_and_lets_go(tiny: Tiny) -> None:
    path = tiny.subject.make_volume("more")
    vm, hypervisor = tiny.vm, tiny.subject.hypervisor
    vm.spec.disks.add(id="more", volume=volume("more"), bus=vm_pb2.DISK_BUS_VIRTIO_BLK)
    xml = disk_xml(vm, tiny.machine(), "more")
    hypervisor.attach(tiny.id, xml)
    tiny.say("disks", r"vda 16777216 0 more")
    tiny.subject.disks.resize(tiny.id, path, 32 << 20)
    tiny.say("disks", r"vda 33554432 0 more")
    hypervisor.detach(tiny.id, xml, 60)
    tiny.say("disks", r"(?s)^(?!.*more \r).*done")
    assert set(tiny.live().disks) == {"root"}
    del vm.spec.disks[1]


def test_an_interface_comes_and_goes(tiny: Tiny) -> None:
    vm, hypervisor = tiny.vm, tiny.subject.hypervisor
    vm.spec.nics.add(id="net1", network="networks/default", mac="52:54:00:00:00:09")
    xml = nic_xml(vm, tiny.machine(), "net1")
    hypervisor.attach(tiny.id, xml)
    tiny.say("nics", r"eth1 52:54:00:00:00:09")
    hypervisor.detach(tiny.id, xml, 60)
    assert set(tiny.live().nics) == {"net0"}
    del vm.spec.nics[1]


def test_a_cable_is_pulled(tiny: Tiny) -> None:
    vm, hypervisor = tiny.vm, tiny.subject.hypervisor
    tiny.say("nics", r"eth0 \S+ up")
    vm.spec.nics[0].link_down = True
    hypervisor.update_device(tiny.id, nic_xml(vm, tiny.machine(), "net0"))
    tiny.say("nics", r"eth0 \S+ down")
    vm.spec.nics[0].link_down = False
    hypervisor.update_device(tiny.id, nic_xml(vm, tiny.machine(), "net0"))
    tiny.say("nics", r"eth0 \S+ up")


def test_memory_goes_up_and_down(tiny: Tiny) -> None:
    def total(low: int, high: int) -> None:
        deadline = time.monotonic() + 60
        while True:
            line = tiny.say("grep MemTotal /proc/meminfo", r"MemTotal: +\d+")
            if low < int(line.split()[1]) >> 10 < high:
                return
            assert time.monotonic() < deadline, line

    hypervisor = tiny.subject.hypervisor
    total(100, 160)
    hypervisor.set_memory(tiny.id, 192)
    total(140, 192)
    hypervisor.set_memory(tiny.id, 128)
    total(70, 128)
    assert tiny.subject.until(tiny.id, lambda d: parse_domain(d.xml).memory_mib == 128)


def test_a_processor_is_added(tiny: Tiny) -> None:
    tiny.subject.hypervisor.set_vcpus(tiny.id, 2)
    tiny.say("cpus up", r"online=0-1")


def test_a_snapshot_of_the_running_guest(tiny: Tiny) -> None:
    path = tiny.root
    tiny.subject.disks.snapshot(tiny.id, [path], "one", quiesce=True)
    tiny.say("dd if=/dev/urandom of=/dev/sda seek=100000 count=100 2>&1", r"100\+0")
    assert list(tiny.subject.snapshots(path)) == ["one"]
    tiny.subject.disks.delete_snapshot(tiny.id, path, "one")
    assert list(tiny.subject.snapshots(path)) == []


def test_the_console_log_is_rotated_while_the_guest_writes(tiny: Tiny) -> None:
    """Who rotates: PVC, by copying and emptying; the emulator goes on appending."""
    assert READY in tiny.log.read_text(errors="replace")
    tiny.say("seq 1 3000", r"3000\r?\ndone")
    size = tiny.log.stat().st_size
    assert console_log.rotate(tiny.log, max_bytes=4096)
    assert tiny.log.stat().st_size < 4096
    aside = tiny.log.with_name(f"{tiny.log.name}.1")
    assert aside.stat().st_size == 4096 < size
    assert not console_log.rotate(tiny.log, max_bytes=4096)
    tiny.say("echo after rotat''ion", "after rotation")
    text = tiny.log.read_bytes()
    assert b"after rotation" in text
    assert b"\0" not in text, "appended behind a hole"


def test_a_full_disk_stops_the_guest_until_there_is_room(tiny: Tiny, small_disk: Path) -> None:
    hypervisor, path = tiny.subject.hypervisor, str(small_disk / "thin.qcow2")
    command = ["qemu-img", "create", "-q", "-f", "qcow2", path, str(64 << 20)]
    subprocess.run(command, check=True, timeout=30)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (20 << 20))
    vm = small_vm("tiny", "root")
    vm.spec.disks.add(id="thin", volume="thin", cache=vm_pb2.DISK_CACHE_WRITEBACK)
    machine = tiny.machine()
    machine = replace(machine, volumes={**machine.volumes, "thin": VolumeFile(path, "qcow2")})
    xml = disk_xml(vm, machine, "thin")
    hypervisor.attach(tiny.id, xml)
    tiny.say("disks", "sdb")
    tiny.console.write(b"dd if=/dev/urandom of=/dev/sdb bs=1M count=12; sync; echo wri''tten\n")
    domain = tiny.subject.until(tiny.id, lambda domain: bool(domain.trouble))
    assert (domain.power, domain.trouble) == (Power.PAUSED, "sdb has no space")
    filler.unlink()
    hypervisor.resume(tiny.id)
    tiny.wait_for(tiny.console, "written")
    assert tiny.subject.hypervisor.domains()[tiny.id].trouble == ""
    hypervisor.detach(tiny.id, xml, 60)


def test_the_agent_is_asked(tiny: Tiny) -> None:
    hypervisor, path = (
        tiny.subject.hypervisor,
        tiny.subject.machine.volumes[volume("tiny-root")].path,
    )
    assert hypervisor.guest(tiny.id, 1) is None
    tiny.say("agent & true", "done")
    tiny.subject.until(tiny.id, lambda domain: parse_domain(domain.xml).agent_connected)
    found, deadline = None, time.monotonic() + 60
    while found is None and time.monotonic() < deadline:
        found = hypervisor.guest(tiny.id, 5)
    addresses = ("10.1.2.3/24", "2001:db8::3/64")
    assert found == Guest("tiny.example", "Tiny 1 (busybox)", addresses)
    assert tiny.subject.disks.snapshot(tiny.id, [path], "quiet", quiesce=True)
    assert not tiny.subject.disks.snapshot(tiny.id, [path], "quiet", quiesce=True)
    tiny.subject.disks.delete_snapshot(tiny.id, path, "quiet")
    asked = tiny.say("grep -o 'fsfreeze-[a-z]*' /tmp/agent-log", r"(?s).*")
    assert re.findall(r"fsfreeze-(\w+)\r", asked) == ["freeze", "thaw", "thaw"]


def test_an_agent_that_fell_silent_holds_nobody_up(tiny: Tiny) -> None:
    tiny.say("kill -STOP %1", "done")
    hypervisor, path = (
        tiny.subject.hypervisor,
        tiny.subject.machine.volumes[volume("tiny-root")].path,
    )
    before = time.monotonic()
    assert hypervisor.guest(tiny.id, 1) is None
    assert time.monotonic() - before < 30, "as long as libvirt waits for its own answers"
    tiny.say("kill -KILL %1", "done")
    assert not tiny.subject.disks.snapshot(tiny.id, [path], "loud", quiesce=True)
    tiny.subject.disks.delete_snapshot(tiny.id, path, "loud")


def test_a_big_output_comes_whole(tiny: Tiny) -> None:
    heard = tiny.say("seq 10001 13000", r"(?s).*")
    numbers = [int(number) for number in re.findall(r"^(\d{5})\r$", heard, re.M)]
    assert numbers == list(range(10001, 13001))


def test_pause_stops_the_guest_and_resume_goes_on(tiny: Tiny) -> None:
    hypervisor = tiny.subject.hypervisor
    hypervisor.pause(tiny.id)
    tiny.console.write(b"echo he''llo\n")
    assert b"hello" not in (tiny.console.read(1) or b"")
    hypervisor.resume(tiny.id)
    tiny.wait_for(tiny.console, "hello")


def test_the_guest_and_its_log_outlive_the_daemon(tiny: Tiny) -> None:
    daemon, before = tiny.subject.daemon, tiny.subject.hypervisor.domains()[tiny.id]
    os.kill(int((daemon.directory / "run" / "libvirtd.pid").read_text()), signal.SIGKILL)
    with pytest.raises(AssertionError, match="the console ended"):
        tiny.wait_for(tiny.console, "never said")
    tiny.console.close()
    daemon.start()
    assert tiny.subject.hypervisor.domains()[tiny.id].run == before.run
    tiny.console = tiny.subject.hypervisor.open_console(tiny.id, force=True)
    tiny.say("echo still he''re", "still here")
    assert "still here" in tiny.log.read_text(errors="replace")


def test_the_power_button_shuts_the_guest_down(tiny: Tiny) -> None:
    tiny.subject.hypervisor.shutdown(tiny.id)
    domain = tiny.subject.until(tiny.id, lambda domain: domain.power is Power.OFF)
    assert domain.off_reason is OffReason.SHUT_DOWN
    tiny.subject.hypervisor.shutdown(tiny.id)
