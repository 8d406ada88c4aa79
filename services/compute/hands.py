"""Does the steps that are about the hypervisor. Decides nothing, retries nothing, writes no row."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress

from pvc.compute.v1 import vm_pb2
from services.compute.core.live import signature
from services.compute.core.steps import (
    AbortMigration,
    Attach,
    Confirm,
    Define,
    Destroy,
    Detach,
    Kind,
    LiveChange,
    Migrate,
    Pause,
    Remove,
    Resume,
    SetArrival,
    SetDowntime,
    SetMemory,
    SetStatus,
    SetVcpus,
    Shutdown,
    Start,
    StartPostCopy,
    Step,
    Throttle,
    Undefine,
    UpdateDevice,
    key,
)
from services.compute.core.view import View
from services.compute.drivers.domain_xml import (
    Machine,
    disk_alias,
    disk_xml,
    domain_xml,
    nic_alias,
    nic_xml,
)
from services.compute.drivers.hypervisor import Hypervisor
from services.compute.machine import machine_for
from services.compute.memory import Memory
from services.compute.settings import ComputeSettings
from services.mesh.clock import Clock
from services.state.store import Snapshot

DETACH_TIMEOUT_S = 30.0


class Hands:
    """One node's."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        settings: ComputeSettings,
        accelerator: str,
        memory: Memory,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._hypervisor = hypervisor
        self._settings = settings
        self._accelerator = accelerator
        self._memory = memory

    def do(self, vm: vm_pb2.Vm, view: View | None, step: Step, snapshot: Snapshot) -> None:
        """One step; the view is that which it was judged by. Raises PvcError with the hypervisor's
        words."""
        name, hypervisor = vm.name.removeprefix("vms/"), self._hypervisor
        match step:
            case SetStatus() | SetArrival() | Confirm() | Remove():
                return
            case Define():
                hypervisor.define(domain_xml(vm, self._machine(vm, view, snapshot)))
            case Start():
                hypervisor.start(name)
            case Shutdown():
                self._memory.nudge(vm)
                hypervisor.shutdown(name)
            case Destroy(domain):
                hypervisor.destroy(domain)
            case Undefine(domain):
                self._undefine(domain, name)
            case Pause():
                hypervisor.pause(name)
            case Resume():
                self._memory.nudge(vm)
                hypervisor.resume(name)
            case Migrate() | SetDowntime() | Throttle() | StartPostCopy() | AbortMigration():
                self._move(vm, step)
            case _:
                self._change(vm, view, step, self._machine(vm, view, snapshot))

    def _move(self, vm: vm_pb2.Vm, step: Step) -> None:
        name, hypervisor = vm.name.removeprefix("vms/"), self._hypervisor
        match step:
            case Migrate(route):
                hypervisor.migrate(name, route)
            case SetDowntime(downtime_ms):
                hypervisor.set_downtime(name, downtime_ms)
            case Throttle():
                hypervisor.throttle(name)
            case StartPostCopy():
                hypervisor.start_post_copy(name)
            case AbortMigration():
                self._memory.trip(vm).aborted_at = self._clock.monotonic()
                hypervisor.abort_migration(name)

    def _machine(self, vm: vm_pb2.Vm, view: View | None, snapshot: Snapshot) -> Machine:
        targets = view.live.targets if view is not None and view.live is not None else {}
        return machine_for(snapshot, vm, self._settings, self._accelerator, targets)

    def _undefine(self, domain: str, vm: str) -> None:
        """A renamed VM takes its firmware variables and its console's past along."""
        if domain != vm:
            kept, log = self._settings.nvram(domain), self._settings.console_log(domain)
            if kept.exists():
                kept.replace(self._settings.nvram(vm))
            for part in log.parent.glob(f"{log.name}*"):
                past = part.name.removeprefix(log.name)
                with suppress(FileNotFoundError):  # it was put aside just now
                    part.replace(part.with_name(f"{self._settings.console_log(vm).name}{past}"))
        self._hypervisor.undefine(domain)

    def _change(self, vm: vm_pb2.Vm, view: View | None, step: LiveChange, machine: Machine) -> None:
        """A live change is asked for once in each run of the guest, however it ends."""
        assert view is not None and view.domain is not None and view.wish is not None
        name, hypervisor = vm.name.removeprefix("vms/"), self._hypervisor
        run = self._memory.run(name, view.domain.run)
        run.tried[key(step)] = signature(step, view.wish)
        run.refused.pop(key(step), None)
        match step:
            case Attach(kind, id):
                hypervisor.attach(name, _device_xml(vm, machine, kind, id))
            case UpdateDevice(kind, id):
                hypervisor.update_device(name, _device_xml(vm, machine, kind, id))
            case Detach(kind, id):
                hypervisor.detach(name, _named_device(kind, id), DETACH_TIMEOUT_S)
            case SetVcpus(vcpus):
                hypervisor.set_vcpus(name, vcpus)
            case SetMemory(memory_mib):
                hypervisor.set_memory(name, memory_mib)


def _device_xml(vm: vm_pb2.Vm, machine: Machine, kind: Kind, id: str) -> str:
    return disk_xml(vm, machine, id) if kind is Kind.DISK else nic_xml(vm, machine, id)


def _named_device(kind: Kind, id: str) -> str:
    """Enough of a device to find it by: the spec, which would say more, has it no longer."""
    tag, alias = ("disk", disk_alias(id)) if kind is Kind.DISK else ("interface", nic_alias(id))
    device = ET.Element(tag)
    ET.SubElement(device, "alias", name=alias)
    return ET.tostring(device, encoding="unicode")
