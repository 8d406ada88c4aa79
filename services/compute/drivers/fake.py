"""A hypervisor in memory, for tests and the simulator: no threads, no clock of its own, the same
answers to the same calls. It keeps the promises of `hypervisor`, and breaks what a script says.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pvc.core.v1 import reason_pb2
from services.compute.drivers import observed
from services.compute.drivers.fake_machine import FakeConsole, Machine, Script, failed
from services.compute.drivers.fake_migration import FakeMigrations
from services.compute.drivers.hypervisor import (
    Console,
    Crossing,
    Domain,
    Facts,
    Guest,
    OffReason,
    Power,
)
from services.mesh.errors import PvcError, not_found

__all__ = ["FakeConsole", "FakeHypervisor", "Script"]


class FakeHypervisor(FakeMigrations):
    """Implements Hypervisor and OpenDisks. For one thread."""

    def __init__(self, now: Callable[[], float], accelerator: str = "tcg") -> None:
        """now: seconds that never go back; from the test's or the simulator's clock."""
        super().__init__(now)
        self._accelerator = accelerator
        self._wakes: list[Callable[[], None]] = []
        self.calls: Counter[str] = Counter()
        """How often each verb was called."""
        self.sizes: dict[str, int] = {}
        """Image path → bytes, as resized."""
        self.snapshots: dict[str, list[str]] = {}
        """Image path → snapshots inside it."""

    # What only tests do.

    def crash(self, vm: str) -> None:
        """The emulator ends by itself."""
        self._off(self._machine(vm), OffReason.CRASHED)

    def guest_shuts_down(self, vm: str) -> None:
        """The guest switches itself off, unasked."""
        self._off(self._machine(vm), OffReason.SHUT_DOWN)

    def storage_fails(self, vm: str, trouble: str) -> None:
        """The emulator stops the guest, as its storage failed."""
        machine = self._machine(vm)
        machine.power, machine.trouble = Power.PAUSED, trouble
        self._wake(vm)

    def lose_power(self) -> None:
        """The machine is off, and with it all that ran; what was defined still is."""
        for machine in tuple(self._machines.values()):
            if machine.power is not Power.OFF:
                self._off(machine, OffReason.UNKNOWN)

    def vanish(self, vm: str) -> None:
        """The domain is gone, as if somebody had undefined it behind PVC's back."""
        del self._machines[vm]
        self._wake(vm)

    def resets(self, vm: str) -> int:
        """How often it was reset."""
        return self._machine(vm).resets

    # The verbs.

    def facts(self) -> Facts:
        """See Hypervisor."""
        return Facts(self._accelerator, "it is a fake", "7.2.22", "9.0.0", ("Nehalem", "qemu64"))

    def domains(self) -> Mapping[str, Domain]:
        """See Hypervisor."""
        self.calls["domains"] += 1
        self.wire.advance()
        for machine in self._machines.values():
            if machine.off_at is not None and self._now() >= machine.off_at:
                self._off(machine, OffReason.SHUT_DOWN)
        return {
            machine.vm: Domain(
                machine.vm,
                machine.uuid,
                machine.power,
                machine.off_reason,
                machine.run,
                machine.live or machine.defined,
                machine.trouble,
                machine.crossing,
            )
            for machine in self._machines.values()
        }

    def define(self, xml: str) -> None:
        """See Hypervisor."""
        wanted = observed.parse_domain(xml)
        assert wanted.vm, "a domain without PVC's mark would be lost at once"
        with_uuid = [m.vm for m in self._machines.values() if m.uuid == wanted.uuid]
        known = self._machines.get(wanted.vm)
        if with_uuid not in ([], [wanted.vm]) or (known and known.uuid != wanted.uuid):
            raise failed(f"define {wanted.vm}", "a domain with this name or uuid exists already")

        def act() -> None:
            if known is None:
                self._machines[wanted.vm] = Machine(wanted.vm, wanted.uuid, xml)
            else:
                known.defined = xml

        self._do("define", wanted.vm, act)

    def start(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._machine(vm)

        def act() -> None:
            script = self.script(vm)
            if machine.power is not Power.OFF:
                return
            script.starts += 1
            if script.start_fails and script.starts <= script.start_fails_times:
                self._off(machine, OffReason.START_FAILED)
                raise failed(f"start {vm}", script.start_fails)
            self._begin_run(machine)
            machine.power, machine.off_at = Power.RUNNING, None

        self._do("start", vm, act)

    def shutdown(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._machine(vm)

        def act() -> None:
            script = self.script(vm)
            if machine.power is Power.RUNNING and not script.ignores_acpi:
                machine.off_at = self._now() + script.shutdown_takes_s
                if not script.shutdown_takes_s:
                    self._off(machine, OffReason.SHUT_DOWN)

        self._do("shutdown", vm, act)

    def destroy(self, vm: str) -> None:
        """See Hypervisor."""

        def act() -> None:
            machine = self._machines.get(vm)
            if machine is not None and machine.power is not Power.OFF:
                self._off(machine, OffReason.DESTROYED)

        self._do("destroy", vm, act)

    def undefine(self, vm: str) -> None:
        """See Hypervisor."""

        def act() -> None:
            machine = self._machines.get(vm)
            if machine is not None and machine.power is not Power.OFF:
                raise PvcError(reason_pb2.REASON_WRONG_STATE, f"{vm} runs; switch it off first")
            self._machines.pop(vm, None)

        self._do("undefine", vm, act)

    def reset(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "reset")

        def act() -> None:
            machine.resets += 1

        self._do("reset", vm, act)

    def pause(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "pause")

        def act() -> None:
            machine.power = Power.PAUSED

        self._do("pause", vm, act)

    def resume(self, vm: str) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "resume")

        def act() -> None:
            machine.power, machine.trouble = Power.RUNNING, ""
            machine.crossing = Crossing.NONE

        self._do("resume", vm, act)

    def attach(self, vm: str, device_xml: str) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "plug a device into")

        def act() -> None:
            if observed.device_alias(device_xml) not in observed.device_aliases(machine.live):
                machine.live = _with_device(machine.live, device_xml)

        self._do("attach", vm, act)

    def detach(self, vm: str, device_xml: str, timeout_s: float) -> None:
        """See Hypervisor."""
        machine = self._machine(vm)
        alias = observed.device_alias(device_xml)

        def act() -> None:
            if alias not in observed.device_aliases(machine.live or machine.defined):
                return
            if self.script(vm).refuses_detach:
                raise PvcError(
                    reason_pb2.REASON_GUEST_UNRESPONSIVE,
                    f"{vm} was asked to let go of {alias} and did not in {timeout_s:g} s",
                )
            if machine.live:
                machine.live = _without_device(machine.live, alias)

        self._do("detach", vm, act)

    def update_device(self, vm: str, device_xml: str) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "change a device of")
        alias = observed.device_alias(device_xml)

        def act() -> None:
            if alias not in observed.device_aliases(machine.live):
                raise failed(f"change {alias} of {vm}", "no such device")
            machine.live = _with_device(_without_device(machine.live, alias), device_xml)

        self._do("update_device", vm, act)

    def set_vcpus(self, vm: str, vcpus: int) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "change the processors of")

        def act() -> None:
            now = observed.parse_domain(machine.live)
            if vcpus < now.vcpus and self._accelerator != "kvm":
                raise PvcError(
                    reason_pb2.REASON_NOT_SUPPORTED,
                    f"an emulated machine cannot lose processors while it runs; restart {vm}",
                    field="spec.cpu.vcpus",
                )
            if vcpus > now.max_vcpus:
                raise failed(f"change the processors of {vm}", f"more than {now.max_vcpus}")
            root = ET.fromstring(machine.live)
            _child(root, "vcpu").set("current", str(vcpus))
            machine.live = ET.tostring(root, encoding="unicode")

        self._do("set_vcpus", vm, act)

    def set_memory(self, vm: str, memory_mib: int) -> None:
        """See Hypervisor."""
        machine = self._running(vm, "change the memory of")

        def act() -> None:
            if memory_mib > observed.parse_domain(machine.live).max_memory_mib:
                raise failed(f"change the memory of {vm}", "more than its maximum")
            root = ET.fromstring(machine.live)
            _child(root, "currentMemory").text = str(memory_mib)
            machine.live = ET.tostring(root, encoding="unicode")

        self._do("set_memory", vm, act)

    def guest(self, vm: str, timeout_s: float) -> Guest | None:
        """See Hypervisor."""
        self.calls["guest"] += 1
        running = self._machine(vm).power is Power.RUNNING
        return self.script(vm).agent if running else None

    def open_console(self, vm: str, force: bool) -> Console:
        """See Hypervisor."""
        machine = self._running(vm, "open the console of")
        if machine.console is not None and not machine.console.ended:
            if not force:
                raise PvcError(
                    reason_pb2.REASON_BUSY,
                    f"somebody else has the console of {vm}; take it over by force",
                )
            machine.console.ended = True
        machine.console = FakeConsole()
        return machine.console

    def on_event(self, wake: Callable[[], None]) -> None:
        """See Hypervisor. Called from within the verbs."""
        self._wakes.append(wake)

    def resize(self, vm: str, path: str, size_bytes: int) -> None:
        """See OpenDisks."""
        self._open(vm, path)
        if words := self.script(vm).resize_fails:
            raise failed(f"grow a disk of {vm}", words)
        if size_bytes < self.sizes.get(path, 0):
            raise PvcError(
                reason_pb2.REASON_INVALID_FIELD,
                f"the disk has {self.sizes[path]} bytes; it can only grow",
                field="size_bytes",
            )
        self.sizes[path] = size_bytes

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        """See OpenDisks."""
        for path in paths:
            if self._open(vm, path).format != "qcow2":
                raise PvcError(
                    reason_pb2.REASON_NOT_SUPPORTED,
                    f"{path} is a raw image; only qcow2 images hold snapshots",
                )
        having = [snapshot_id in self.snapshots.get(path, ()) for path in paths]
        if all(having):
            return False
        if any(having):
            raise PvcError(
                reason_pb2.REASON_ALREADY_EXISTS,
                f"some disks of {vm} have a snapshot {snapshot_id} already; delete it first",
            )

        def act() -> None:
            if words := self.script(vm).snapshot_fails:
                raise failed(f"take a snapshot of {vm}", words)
            for path in paths:
                self.snapshots.setdefault(path, []).append(snapshot_id)

        self._do("snapshot", vm, act)
        return quiesce and self.script(vm).agent is not None

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        """See OpenDisks."""
        self._open(vm, path)
        kept = [name for name in self.snapshots.get(path, ()) if name != snapshot_id]
        self.snapshots[path] = kept

    def _do(self, verb: str, vm: str, act: Callable[[], None]) -> None:
        """Counts, misbehaves as scripted, acts, wakes."""
        self.calls[verb] += 1
        script = self.script(vm)
        late = verb in script.works_late
        if verb not in script.hangs:
            act()
            self._wake(vm)
        if late or verb in script.hangs:
            raise PvcError(reason_pb2.REASON_DEADLINE, f"{verb} {vm}: libvirt did not answer")

    def _machine(self, vm: str) -> Machine:
        if vm not in self._machines:
            raise not_found(f"vms/{vm}")
        return self._machines[vm]

    def _running(self, vm: str, what: str) -> Machine:
        machine = self._machine(vm)
        if machine.power is Power.OFF:
            raise failed(f"{what} {vm}", "domain is not running")
        return machine

    def _open(self, vm: str, path: str) -> observed.ObservedDisk:
        machine = self._running(vm, "change the disks of")
        for disk in observed.parse_domain(machine.live).disks.values():
            if disk.path == path:
                return disk
        raise PvcError(reason_pb2.REASON_NOT_FOUND, f"the domain does not have {path} open")

    def _off(self, machine: Machine, reason: OffReason) -> None:
        self.wire.advance()  # what was over by now is over
        if not machine.kept:
            self._machines.pop(machine.vm, None)
        machine.power, machine.off_reason, machine.crossing = Power.OFF, reason, Crossing.NONE
        machine.live, machine.run, machine.off_at, machine.trouble = "", "", None, ""
        if machine.console is not None:
            machine.console.ended = True
        self._wake(machine.vm)

    def _wake(self, vm: str) -> None:
        if not self.script(vm).loses_events:
            for wake in self._wakes:
                wake()


def _with_device(xml: str, device_xml: str) -> str:
    root = ET.fromstring(xml)
    _child(root, "devices").append(ET.fromstring(device_xml))
    return ET.tostring(root, encoding="unicode")


def _without_device(xml: str, alias: str) -> str:
    root = ET.fromstring(xml)
    devices = _child(root, "devices")
    for device in tuple(devices):
        if (name := device.find("alias")) is not None and name.get("name") == alias:
            devices.remove(device)
    return ET.tostring(root, encoding="unicode")


def _child(parent: ET.Element, tag: str) -> ET.Element:
    child = parent.find(tag)
    assert child is not None, f"a domain has a <{tag}>"
    return child
