"""The hypervisors that the one suite runs on: the fake and a real private libvirtd."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.daemon import Daemon
from services.compute.drivers.domain_xml import Machine, VolumeFile, domain_xml
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.hypervisor import Domain, Hypervisor, OpenDisks, Power
from services.compute.drivers.libvirt import Libvirt
from services.compute.drivers.libvirt_disks import LibvirtDisks
from tests.drivers.vms import node

IMAGE_BYTES = 16 << 20


class Subject(Protocol):
    """A hypervisor under test, with what a test must do to it from outside."""

    hypervisor: Hypervisor
    disks: OpenDisks
    machine: Machine
    real: bool

    def make_volume(self, name: str, image_format: str = "qcow2") -> str: ...

    def crash(self, vm: str) -> None: ...

    def break_start(self, vm: str, path: str) -> None: ...

    def ignore_detach(self, vm: str) -> None: ...

    def until(self, vm: str, condition: Callable[[Domain], bool]) -> Domain: ...

    def snapshots(self, path: str) -> Sequence[str]: ...


def define(subject: Subject, vm: vm_pb2.Vm) -> str:
    """Makes the VM's volumes and defines it; its id."""
    vm_id = vm.name.removeprefix("vms/")
    for disk in vm.spec.disks:
        if disk.volume and disk.volume not in subject.machine.volumes:
            subject.make_volume(disk.volume.rpartition("/")[2])
    log = Path(subject.machine.console_log).with_name(f"{vm_id}.log")
    subject.machine = replace(subject.machine, console_log=str(log))
    subject.hypervisor.define(domain_xml(vm, subject.machine))
    return vm_id


def started(subject: Subject, vm: vm_pb2.Vm) -> str:
    """The same, running."""
    vm_id = define(subject, vm)
    subject.hypervisor.start(vm_id)
    return vm_id


def power(subject: Subject, vm: str) -> Power:
    return subject.hypervisor.domains()[vm].power


@dataclass
class FakeSubject:
    """The fake, with time that stands still."""

    folder: Path
    hypervisor: FakeHypervisor = field(default_factory=lambda: FakeHypervisor(lambda: 0.0))
    real: bool = False

    def __post_init__(self) -> None:
        self.machine = node(self.folder)
        self.disks = self.hypervisor

    def make_volume(self, name: str, image_format: str = "qcow2") -> str:
        path = str(self.folder / f"{name}.{image_format}")
        file = VolumeFile(path, image_format)
        volumes = {**self.machine.volumes, f"pools/local/volumes/{name}": file}
        self.machine = replace(self.machine, volumes=volumes)
        self.hypervisor.sizes[path] = IMAGE_BYTES
        return path

    def crash(self, vm: str) -> None:
        self.hypervisor.crash(vm)

    def break_start(self, vm: str, path: str) -> None:
        self.hypervisor.script(vm).start_fails = f"Cannot access storage file '{path}'"

    def ignore_detach(self, vm: str) -> None:
        self.hypervisor.script(vm).refuses_detach = True

    def until(self, vm: str, condition: Callable[[Domain], bool]) -> Domain:
        domain = self.hypervisor.domains()[vm]
        assert condition(domain), domain
        return domain

    def snapshots(self, path: str) -> Sequence[str]:
        return self.hypervisor.snapshots.get(path, [])


@dataclass
class RealSubject:
    """A private libvirtd with QEMU without acceleration."""

    folder: Path
    daemon: Daemon
    real: bool = True

    def __post_init__(self) -> None:
        self.machine = node(self.folder)
        self.hypervisor = Libvirt(
            self.daemon.uri, ("tcg", "a test"), pid_directory=self.daemon.pid_directory
        )
        self.disks = LibvirtDisks(self.hypervisor)
        self._woken = threading.Event()
        self.hypervisor.on_event(self._woken.set)

    def make_volume(self, name: str, image_format: str = "qcow2") -> str:
        path = str(self.folder / f"{name}.{image_format}")
        command = ["qemu-img", "create", "-q", "-f", image_format, path, str(IMAGE_BYTES)]
        subprocess.run(command, check=True, timeout=30)
        file = VolumeFile(path, image_format)
        volumes = {**self.machine.volumes, f"pools/local/volumes/{name}": file}
        self.machine = replace(self.machine, volumes=volumes)
        return path

    def pid(self, vm: str) -> int:
        return int((self.daemon.pid_directory / f"{vm}.pid").read_text())

    def crash(self, vm: str) -> None:
        os.kill(self.pid(vm), signal.SIGKILL)
        self.until(vm, lambda domain: domain.power is Power.OFF)

    def break_start(self, vm: str, path: str) -> None:
        Path(path).unlink()

    def ignore_detach(self, vm: str) -> None:
        """A guest without an operating system lets nothing go."""

    def until(self, vm: str, condition: Callable[[Domain], bool]) -> Domain:
        """Looks again at every event."""
        deadline = time.monotonic() + 60
        while True:
            self._woken.clear()
            domain = self.hypervisor.domains()[vm]
            if condition(domain):
                return domain
            assert time.monotonic() < deadline, domain
            self._woken.wait(2)

    def snapshots(self, path: str) -> Sequence[str]:
        command = ["qemu-img", "snapshot", "-l", "-U", path]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.split()[1] for line in lines.splitlines()[2:]]

    def clean(self) -> None:
        for vm in self.hypervisor.domains():
            self.hypervisor.destroy(vm)
            self.hypervisor.undefine(vm)
