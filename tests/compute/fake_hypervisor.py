"""A hypervisor of dictionaries, with scripted misbehaviour, for tests of the agent."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pvc.core.v1 import reason_pb2
from services.compute.drivers.hypervisor import (
    Console,
    Domain,
    Facts,
    Guest,
    OffReason,
    Power,
)
from services.mesh.errors import PvcError

FACTS = Facts("tcg", "a test", "7.2.22", "9.0.0", ("qemu64",))


class Cut(BaseException):
    """The process ends here."""


@dataclass
class Body:
    """A domain."""

    uuid: str
    xml: str
    live: str = ""
    power: Power = Power.OFF
    off_reason: OffReason = OffReason.NEVER_RAN
    run: str = ""


@dataclass
class FakeHypervisor:
    """Guests obey at once, unless told otherwise."""

    bodies: dict[str, Body] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)
    """Guests that ignore a request to shut down, and do not let go of devices."""
    start_errors: list[str] = field(default_factory=list)
    """Words with which the next starts fail."""
    down: bool = False
    before: Callable[[str], None] = lambda call: None
    """Called before every verb; may raise."""
    guests: dict[str, Guest] = field(default_factory=dict)
    consoles: dict[str, FakeConsole] = field(default_factory=dict)
    runs: int = 0
    wake: Callable[[], None] = lambda: None
    blocked: dict[str, threading.Event] = field(default_factory=dict)
    """Domains whose start waits for the event."""

    def _call(self, call: str) -> None:
        self.before(call)
        if self.down:
            raise PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, "no connection")
        self.calls.append(call)

    def facts(self) -> Facts:
        return FACTS

    def domains(self) -> Mapping[str, Domain]:
        self._call("domains")
        self.calls.pop()
        return {
            name: Domain(
                name, b.uuid, b.power, b.off_reason, b.run if b.live else "", b.live or b.xml
            )
            for name, b in self.bodies.items()
        }

    def define(self, xml: str) -> None:
        root = ET.fromstring(xml)
        name, uuid = root.findtext("name") or "", root.findtext("uuid") or ""
        self._call(f"define {name}")
        for other, body in self.bodies.items():
            same = (other == name, body.uuid == uuid)
            if any(same) and not all(same):
                raise PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, f"{other} has uuid {body.uuid}")
        body = self.bodies.setdefault(name, Body(uuid, xml))
        body.xml = xml

    def start(self, vm: str) -> None:
        self._call(f"start {vm}")
        if (event := self.blocked.get(vm)) is not None:
            event.wait(10)
        if self.start_errors:
            self.bodies[vm].off_reason = OffReason.START_FAILED
            raise PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, self.start_errors.pop(0))
        body = self.bodies[vm]
        if not body.live:
            self.runs += 1
            body.run, body.power = str(self.runs), Power.RUNNING
            body.live = plugged(body.xml)
            self.wake()

    def shutdown(self, vm: str) -> None:
        self._call(f"shutdown {vm}")
        if vm not in self.deaf:
            self.end(vm, OffReason.SHUT_DOWN)

    def destroy(self, vm: str) -> None:
        self._call(f"destroy {vm}")
        if vm in self.bodies and self.bodies[vm].live:
            self.end(vm, OffReason.DESTROYED)

    def undefine(self, vm: str) -> None:
        self._call(f"undefine {vm}")
        assert vm not in self.bodies or not self.bodies[vm].live, f"{vm} runs"
        self.bodies.pop(vm, None)

    def reset(self, vm: str) -> None:
        self._call(f"reset {vm}")

    def pause(self, vm: str) -> None:
        self._call(f"pause {vm}")
        self.bodies[vm].power = Power.PAUSED

    def resume(self, vm: str) -> None:
        self._call(f"resume {vm}")
        self.bodies[vm].power = Power.RUNNING

    def attach(self, vm: str, device_xml: str) -> None:
        device = ET.fromstring(device_xml)
        self._call(f"attach {vm} {alias(device)}")
        self._change(vm, lambda devices: devices.append(device))

    def detach(self, vm: str, device_xml: str, timeout_s: float) -> None:
        name = alias(ET.fromstring(device_xml))
        self._call(f"detach {vm} {name}")
        if vm in self.deaf:
            raise PvcError(
                reason_pb2.REASON_GUEST_UNRESPONSIVE, f"the guest did not let go of {name}"
            )

        def remove(devices: ET.Element) -> None:
            for device in [d for d in devices if alias(d) == name]:
                devices.remove(device)

        self._change(vm, remove)

    def update_device(self, vm: str, device_xml: str) -> None:
        device = ET.fromstring(device_xml)
        self._call(f"update {vm} {alias(device)}")

        def swap(devices: ET.Element) -> None:
            for index, old in enumerate(list(devices)):
                if alias(old) == alias(device):
                    devices[index] = device

        self._change(vm, swap)

    def set_vcpus(self, vm: str, vcpus: int) -> None:
        self._call(f"vcpus {vm} {vcpus}")
        root = ET.fromstring(self.bodies[vm].live)
        found = root.find("vcpu")
        assert found is not None
        found.set("current", str(vcpus))
        self.bodies[vm].live = ET.tostring(root, encoding="unicode")

    def set_memory(self, vm: str, memory_mib: int) -> None:
        self._call(f"memory {vm} {memory_mib}")
        root = ET.fromstring(self.bodies[vm].live)
        found = root.find("currentMemory")
        assert found is not None
        found.text, unit = str(memory_mib), found.set("unit", "MiB")
        assert unit is None
        self.bodies[vm].live = ET.tostring(root, encoding="unicode")

    def guest(self, vm: str, timeout_s: float) -> Guest | None:
        self._call(f"guest {vm}")
        self.calls.pop()
        return self.guests.get(vm)

    def open_console(self, vm: str, force: bool) -> Console:
        there = self.consoles.get(vm)
        if there is not None and not there.closed and not force:
            raise PvcError(reason_pb2.REASON_BUSY, f"somebody has the console of {vm}")
        if there is not None:
            there.close()
        console = self.consoles[vm] = FakeConsole()
        return console

    def on_event(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def end(self, vm: str, reason: OffReason) -> None:
        """The emulator of a domain ends."""
        body = self.bodies[vm]
        body.live, body.run, body.power, body.off_reason = "", "", Power.OFF, reason
        self.wake()

    def _change(self, vm: str, change: Callable[[ET.Element], None]) -> None:
        root = ET.fromstring(self.bodies[vm].live)
        devices = root.find("devices")
        assert devices is not None
        change(devices)
        self.bodies[vm].live = ET.tostring(root, encoding="unicode")


class FakeConsole:
    """Echoes what is typed, in capitals."""

    def __init__(self) -> None:
        self.closed = False
        self._changed = threading.Condition()
        self._text = b"login: "

    def read(self, timeout_s: float) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._text) or self.closed, timeout_s)
            text, self._text = self._text, b""
            return text or (None if self.closed else b"")

    def write(self, data: bytes) -> None:
        with self._changed:
            self._text += data.upper()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def alias(device: ET.Element) -> str:
    found = device.find("alias")
    return "" if found is None else found.get("name", "")


def plugged(xml: str) -> str:
    """The XML of a running domain: with the things that libvirt gives a domain when it starts."""
    root = ET.fromstring(xml)
    for number, interface in enumerate(root.iterfind("devices/interface")):
        ET.SubElement(interface, "target", dev=f"vnet{number}")
    for graphics in root.iterfind("devices/graphics"):
        graphics.set("port", "5900")
    machine = root.find("os/type")
    assert machine is not None
    if machine.get("machine") == "q35":
        machine.set("machine", "pc-q35-7.2")
    return ET.tostring(root, encoding="unicode")
