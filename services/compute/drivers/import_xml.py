"""Reads a domain's XML that somebody else wrote, as a VM's spec. Pure, and trusting nothing.

What has no place in a spec is named in a warning; what the guest could not do without is refused.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers.observed import memory_bytes
from services.mesh.errors import PvcError, refuse, shown

_MACHINE = re.compile(r"q35|pc|pc-(q35|i440fx)-[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?")
_VM_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_TARGET = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_ABSURD = 1_000_000
"""Larger numbers are cut to this, which the contract's own rules refuse with their reasons."""
_WORDLESS = frozenset(
    {
        "name", "uuid", "title", "description", "metadata", "memory", "currentMemory", "vcpu",
        "cpu", "os", "features", "clock", "on_poweroff", "on_reboot", "on_crash", "pm", "devices",
        "genid", "resource", "seclabel",
    }
)  # fmt: skip
"""Parts of a domain that are taken over, or that PVC always makes its own way."""
_OWN_DEVICES = frozenset(
    {
        "emulator", "disk", "controller", "interface", "serial", "console", "channel", "input",
        "graphics", "video", "memballoon", "rng", "audio",
    }
)  # fmt: skip
"""The same for devices."""
_BUSES = {
    "virtio": vm_pb2.DISK_BUS_VIRTIO_BLK,
    "scsi": vm_pb2.DISK_BUS_VIRTIO_SCSI,
    "sata": vm_pb2.DISK_BUS_SATA,
}
_CACHES = {
    "": vm_pb2.DISK_CACHE_NONE,
    "default": vm_pb2.DISK_CACHE_NONE,
    "none": vm_pb2.DISK_CACHE_NONE,
    "writeback": vm_pb2.DISK_CACHE_WRITEBACK,
    "writethrough": vm_pb2.DISK_CACHE_WRITETHROUGH,
    "unsafe": vm_pb2.DISK_CACHE_UNSAFE,
}
_NICS = {"virtio": vm_pb2.NIC_MODEL_VIRTIO, "e1000e": vm_pb2.NIC_MODEL_E1000E}


@dataclass(slots=True)
class Imported:
    """What a domain's XML says."""

    vm_id: str
    """The domain's name, if it can be a VM's id; "" otherwise."""
    spec: vm_pb2.VmSpec = field(default_factory=vm_pb2.VmSpec)
    warnings: list[str] = field(default_factory=list)
    """What was left out or changed, one sentence each."""


def import_xml(text: str, volumes: Mapping[str, str], networks: Mapping[str, str]) -> Imported:
    """volumes: a drive's target ("vda") → volume. networks: a bridge's or network's name → network.

    Raises INVALID_CONTENT for what is no domain, NOT_SUPPORTED for what a VM cannot be,
    INVALID_FIELD for drives and interfaces that nothing was given for.
    """
    root = _parsed(text)
    name = (root.findtext("name") or "").strip()
    found = Imported(name if _VM_ID.fullmatch(name) else "")
    _machine(root, found)
    _sizes(root, found)
    _disks(root, found, volumes)
    _nics(root, found, networks)
    _switches(root, found)
    _boot_order(root, found)
    _left_out(root, found)
    return found


def _parsed(text: str) -> ET.Element:
    """The domain. A document that defines entities is refused before any is expanded."""

    def doctype(*_: object) -> NoReturn:
        refuse(reason_pb2.REASON_INVALID_CONTENT, "a domain's XML has no DOCTYPE", "xml")

    scan = expat.ParserCreate()
    scan.StartDoctypeDeclHandler = doctype
    try:
        scan.Parse(text, True)
        root = ET.fromstring(text)
    except (expat.ExpatError, ET.ParseError, ValueError) as error:
        raise PvcError(
            reason_pb2.REASON_INVALID_CONTENT, f"this is not XML: {error}", field="xml"
        ) from error
    if root.tag != "domain" or root.get("type") not in ("kvm", "qemu"):
        refuse(
            reason_pb2.REASON_INVALID_CONTENT,
            "this is not the XML of a KVM or QEMU domain; give what `virsh dumpxml` writes",
            "xml",
        )
    return root


def _machine(root: ET.Element, found: Imported) -> None:
    spec, kind = found.spec, root.find("os/type")
    architecture = _get(kind, "arch") or "x86_64"
    if architecture != "x86_64":
        _unsupported(f"guests for {shown(architecture)} are not supported, only for x86_64")
    if root.find("os/kernel") is not None:
        _unsupported("the domain boots a kernel from the host; install a boot loader in the guest")
    machine = _get(kind, "machine")
    if _MACHINE.fullmatch(machine):
        spec.machine = machine
    elif machine:
        found.warnings.append(f"The machine type {shown(machine)} became q35.")
    loader = root.find("os/loader")
    efi = _get(root.find("os"), "firmware") == "efi" or _get(loader, "type") == "pflash"
    spec.firmware = vm_pb2.FIRMWARE_UEFI if efi else vm_pb2.FIRMWARE_BIOS
    if efi:
        found.warnings.append("UEFI's variables begin anew; boot entries are found again by path.")
    spec.uuid = (root.findtext("uuid") or "").strip().lower()
    spec.description = (root.findtext("description") or "").strip()


def _sizes(root: ET.Element, found: Imported) -> None:
    cpu, memory, vcpu = found.spec.cpu, found.spec.memory, root.find("vcpu")
    cpu.max_vcpus = _number(vcpu.text if vcpu is not None else "", "vcpu") or 1
    cpu.vcpus = _number(_get(vcpu, "current"), "vcpu") or cpu.max_vcpus
    topology = root.find("cpu/topology")
    if topology is not None:
        sockets, dies = (_number(topology.get(x), x) or 1 for x in ("sockets", "dies"))
        cpu.sockets = min(sockets * dies, _ABSURD)
        cpu.cores = _number(topology.get("cores"), "cores") or 1
        cpu.threads = _number(topology.get("threads"), "threads") or 1
    match _get(root.find("cpu"), "mode"):
        case "host-passthrough" | "maximum":
            cpu.model = "host"
        case _:
            cpu.model = (root.findtext("cpu/model") or "").strip()
    try:
        most = memory_bytes(root.find("memory")) >> 20
        now = memory_bytes(root.find("currentMemory")) >> 20
    except ValueError as error:
        refuse(reason_pb2.REASON_INVALID_CONTENT, f"the domain's memory: {error}", "xml")
    memory.max_memory_mib = min(most, _ABSURD << 20)
    memory.memory_mib = min(now or most, _ABSURD << 20)


def _disks(root: ET.Element, found: Imported, volumes: Mapping[str, str]) -> None:
    elements = root.findall("devices/disk")
    known = [_get(element.find("target"), "dev") for element in elements]
    for target in volumes:
        if target not in known:
            there = ", ".join(map(shown, known)) or "none"
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"the domain has no drive {shown(target)}; it has: {there}",
                "volumes",
            )
    for element in elements:
        _disk(element, found, volumes)


def _disk(element: ET.Element, found: Imported, volumes: Mapping[str, str]) -> None:
    target, device = _get(element.find("target"), "dev"), element.get("device", "disk")
    if device not in ("disk", "cdrom"):
        found.warnings.append(f"The {shown(device)} drive {shown(target)} was left out.")
        return
    if not _TARGET.fullmatch(target):
        refuse(reason_pb2.REASON_INVALID_CONTENT, f"a drive has the target {shown(target)}", "xml")
    cdrom, source = device == "cdrom", element.find("source")
    if target not in volumes and not cdrom:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"the disk {target}{_from(source)} needs a volume: import the image as one, and give "
            f'volumes["{target}"]',
            "volumes",
        )
    if target not in volumes and source is not None:
        found.warnings.append(f"The CD-ROM drive {target} is empty now; it had{_from(source)}.")
    disk = found.spec.disks.add(id=target, volume=volumes.get(target, ""))
    disk.device = vm_pb2.DISK_DEVICE_CDROM if cdrom else vm_pb2.DISK_DEVICE_DISK
    disk.bus = _bus(_get(element.find("target"), "bus"), target, cdrom, found)
    _disk_options(element, disk, found)


def _bus(name: str, target: str, cdrom: bool, found: Imported) -> vm_pb2.DiskBus.ValueType:
    if name in _BUSES and not (cdrom and name == "virtio"):
        return _BUSES[name]
    if name != "ide":
        found.warnings.append(f"The drive {target} is connected by SATA, not {shown(name)}.")
    return vm_pb2.DISK_BUS_SATA


def _disk_options(element: ET.Element, disk: vm_pb2.DiskSpec, found: Imported) -> None:
    driver = element.find("driver")
    cache, discard = _get(driver, "cache"), _get(driver, "discard")
    if cache not in _CACHES:
        found.warnings.append(f"The cache mode {shown(cache)} of {disk.id} became none.")
    disk.cache = _CACHES.get(cache, vm_pb2.DISK_CACHE_NONE)
    if discard:
        disk.discard = discard == "unmap"
    disk.read_only = element.find("readonly") is not None
    for tag in ("transient", "iotune", "encryption", "mirror"):
        if element.find(tag) is not None:
            found.warnings.append(f"<{tag}> of the drive {disk.id} was left out.")


def _nics(root: ET.Element, found: Imported, networks: Mapping[str, str]) -> None:
    named: set[str] = set()
    for number, element in enumerate(root.findall("devices/interface")):
        source = element.find("source")
        name = _get(source, "bridge") or _get(source, "network")
        if not name:
            kind = shown(element.get("type", ""))
            found.warnings.append(f"Interface {number} of the type {kind} was left out.")
            continue
        named.add(name)
        if name not in networks:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"an interface is on {shown(name)}: say which network that is to be",
                "networks",
            )
        nic = found.spec.nics.add(id=f"net{number}", network=networks[name])
        nic.mac = _get(element.find("mac"), "address").lower()
        model = _get(element.find("model"), "type")
        if model not in _NICS:
            found.warnings.append(f"The interface {nic.id} is e1000e now, not {shown(model)}.")
        nic.model = _NICS.get(model, vm_pb2.NIC_MODEL_E1000E)
        nic.link_down = _get(element.find("link"), "state") == "down"
    for name in set(networks) - named:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"no interface of the domain is on {shown(name)}",
            "networks",
        )


def _switches(root: ET.Element, found: Imported) -> None:
    spec = found.spec
    spec.serial_console = any(
        root.find(f"devices/{tag}") is not None for tag in ("serial", "console")
    )
    screens = {element.get("type") for element in root.findall("devices/graphics")}
    spec.vnc = bool(screens)
    if screens - {"vnc"}:
        found.warnings.append("The screen is reached by VNC on the node's loopback address only.")
    agent = "devices/channel/target[@name='org.qemu.guest_agent.0']"
    spec.guest_agent = root.find(agent) is not None
    spec.rng = root.find("devices/rng") is not None


def _boot_order(root: ET.Element, found: Imported) -> None:
    """Orders of devices where there are any; else the kinds of devices that <os> lists."""
    disks = {_get(x.find("target"), "dev"): x for x in root.findall("devices/disk")}
    nics = {f"net{i}": x for i, x in enumerate(root.findall("devices/interface"))}
    for disk in found.spec.disks:
        disk.boot_order = _number(_get(disks[disk.id].find("boot"), "order"), "boot order")
    for nic in found.spec.nics:
        nic.boot_order = _number(_get(nics[nic.id].find("boot"), "order"), "boot order")
    ordered = [disk.boot_order for disk in found.spec.disks]
    ordered += [nic.boot_order for nic in found.spec.nics]
    if not any(ordered):
        wanted = [_get(boot, "dev") for boot in root.findall("os/boot")]
        for place, device in enumerate(_by_kind(found.spec, wanted), 1):
            device.boot_order = place


def _by_kind(spec: vm_pb2.VmSpec, wanted: list[str]) -> Iterator[vm_pb2.DiskSpec | vm_pb2.NicSpec]:
    for kind in wanted:
        match kind:
            case "hd":
                yield from (d for d in spec.disks if d.device == vm_pb2.DISK_DEVICE_DISK)
            case "cdrom":
                yield from (d for d in spec.disks if d.device == vm_pb2.DISK_DEVICE_CDROM)
            case "network":
                yield from spec.nics


def _left_out(root: ET.Element, found: Imported) -> None:
    parts = [x for x in root if x.tag not in _WORDLESS]
    parts += [x for x in root.findall("devices/*") if x.tag not in _OWN_DEVICES]
    for tag in sorted({part.tag.rpartition("}")[2] for part in parts}):
        found.warnings.append(f"<{tag}> was left out.")


def _unsupported(message: str) -> NoReturn:
    refuse(reason_pb2.REASON_NOT_SUPPORTED, message, "xml")


def _from(source: ET.Element | None) -> str:
    path = _get(source, "file") or _get(source, "dev") or _get(source, "name")
    return f" ({shown(path)})" if path else ""


def _number(text: str | None, what: str) -> int:
    """0 for nothing; raises INVALID_CONTENT for what is no number of a sensible size."""
    text = (text or "").strip()
    if text and not re.fullmatch(r"[0-9]{1,6}", text):
        refuse(reason_pb2.REASON_INVALID_CONTENT, f"{what}: {shown(text)} is no number", "xml")
    return int(text or 0)


def _get(element: ET.Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")
