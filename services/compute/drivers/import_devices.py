"""Reads the devices of a user's libvirt XML into a VM's spec. Pure; part of import_xml."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_AGENT = "org.qemu.guest_agent.0"

# What every VM has, or what follows from the other devices.
_SILENT = {"emulator", "controller", "input", "console", "memballoon", "audio", "hub"}
_REFUSED = {
    "hostdev": "devices of the host passed through (hostdev)",
    "lease": "locks held for a disk (lease)",
    "shmem": "memory shared between guests (shmem)",
    "memory": "memory modules (memory)",
}
_LEFT_OUT = {
    "tpm": "the TPM is left out, and with it what the guest keeps in it",
    "filesystem": "a folder shared with the host is left out",
    "sound": "the sound card is left out",
    "watchdog": "the watchdog is left out",
    "panic": "the panic device is left out",
    "iommu": "the IOMMU is left out",
    "vsock": "the vsock device is left out",
    "redirdev": "redirected USB is left out",
    "redirfilter": "the filter of redirected USB is left out",
    "smartcard": "the smart card reader is left out",
    "parallel": "the parallel port is left out",
    "nvram": "the NVRAM device is left out",
    "crypto": "the crypto device is left out",
}
_DISK_REFUSED = {
    "shareable": "is shared between domains",
    "transient": "forgets what is written to it",
    "encryption": "is encrypted by the host",
}
_DISK_LEFT_OUT = ("iotune", "wwn", "vendor", "product", "geometry", "blockio", "mirror")
_NIC_LEFT_OUT = ("bandwidth", "filterref", "vlan", "virtualport", "coalesce", "port", "tune", "ip")
_BUSES = {
    "scsi": vm_pb2.DISK_BUS_VIRTIO_SCSI,
    "virtio": vm_pb2.DISK_BUS_VIRTIO_BLK,
    "sata": vm_pb2.DISK_BUS_SATA,
    "ide": vm_pb2.DISK_BUS_SATA,
}
_CACHES = {
    "none": vm_pb2.DISK_CACHE_NONE,
    "writeback": vm_pb2.DISK_CACHE_WRITEBACK,
    "writethrough": vm_pb2.DISK_CACHE_WRITETHROUGH,
    "unsafe": vm_pb2.DISK_CACHE_UNSAFE,
    "directsync": vm_pb2.DISK_CACHE_NONE,
    "default": vm_pb2.DISK_CACHE_UNSPECIFIED,
    "": vm_pb2.DISK_CACHE_UNSPECIFIED,
}


@dataclass(slots=True)
class Reading:
    """A spec in the making."""

    spec: vm_pb2.VmSpec
    volumes: Mapping[str, str]
    networks: Mapping[str, str]
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Tells the user, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def read_devices(reading: Reading, root: ET.Element) -> None:
    """All devices, then the order in which they boot."""
    devices = root.find("devices")
    found = () if devices is None else tuple(devices)
    spec = reading.spec
    spec.serial_console = spec.vnc = spec.guest_agent = spec.rng = False
    for device in found:
        _device(reading, device, root)
    unused = set(reading.volumes) - {get(d.find("target"), "dev") for d in found if d.tag == "disk"}
    if unused:
        raise _bad_map("volumes", f"the domain has no disk {sorted(unused)[0]!r}")
    _boot_order(reading, root)


def _device(reading: Reading, device: ET.Element, root: ET.Element) -> None:
    spec = reading.spec
    match device.tag:
        case "disk":
            _disk(reading, device, root)
        case "interface":
            _nic(reading, device)
        case "serial":
            _serial(reading, device)
        case "graphics":
            _graphics(reading, device)
        case "video":
            _video(reading, device)
        case "channel":
            _channel(reading, device)
        case "rng":
            spec.rng = True
        case tag if tag in _REFUSED:
            raise _unsupported(_REFUSED[tag])
        case tag if tag in _LEFT_OUT:
            reading.warn(_LEFT_OUT[tag])
        case tag if tag not in _SILENT:
            reading.warn(f"the device <{tag}> is not known and left out")


def _disk(reading: Reading, element: ET.Element, root: ET.Element) -> None:
    target = get(element.find("target"), "dev")
    kind = element.get("device", "disk")
    if kind not in ("disk", "cdrom"):
        raise _unsupported(f"the {kind} {target}; only disks and CD-ROM drives")
    for tag, what in _DISK_REFUSED.items():
        if element.find(tag) is not None or element.find(f"source/{tag}") is not None:
            raise _unsupported(f"the disk {target}, which {what}")
    disk = reading.spec.disks.add(id=_disk_id(reading, element, target))
    disk.volume = _volume(reading, element, target, kind)
    if kind == "cdrom":
        disk.device = vm_pb2.DISK_DEVICE_CDROM
    else:
        disk.device = vm_pb2.DISK_DEVICE_DISK
        disk.read_only = element.find("readonly") is not None
    disk.bus = _bus(reading, element, root, target)
    _driver(reading, disk, element, target)
    disk.boot_order = _order(element)
    for tag in _DISK_LEFT_OUT:
        if element.find(tag) is not None:
            reading.warn(f"what disk {target} says of its {tag} is left out")


def _disk_id(reading: Reading, element: ET.Element, target: str) -> str:
    """The serial number where it can be one: the guest may know the disk by it."""
    used = {disk.id for disk in reading.spec.disks}
    serial = content(element.find("serial"))
    for wish in (serial, target):
        if _ID.fullmatch(wish) and wish not in used:
            if serial and wish != serial:
                reading.warn(f"the serial number of disk {target} becomes {wish!r}")
            return wish
    raise PvcError(
        reason_pb2.REASON_INVALID_CONTENT,
        f"the disk target {target!r} cannot name a disk, or names two",
        field="xml",
    )


def _volume(reading: Reading, element: ET.Element, target: str, kind: str) -> str:
    if target in reading.volumes:
        return reading.volumes[target]
    source = element.find("source")
    if kind == "cdrom":
        if source is not None and source.attrib:
            reading.warn(f"the CD-ROM drive {target} is empty; give its disc a volume to keep it")
        return ""
    where = next(iter(source.attrib.values()), "") if source is not None else ""
    raise _bad_map(
        "volumes", f"no volume is given for disk {target!r} ({where or 'no source'}); import its "
        f"image into a volume and map {target!r} to it"
    )  # fmt: skip


def _bus(
    reading: Reading, element: ET.Element, root: ET.Element, target: str
) -> vm_pb2.DiskBus.ValueType:
    name = get(element.find("target"), "bus") or {"v": "virtio", "h": "ide"}.get(target[:1], "sata")
    if name not in _BUSES:
        raise _unsupported(f"the disk {target}, which is connected by {name}")
    if name == "ide":
        reading.warn(f"disk {target} is connected by SATA, not IDE")
    index = get(element.find("address"), "controller") or "0"
    adapter = root.find(f"devices/controller[@type='scsi'][@index='{index}']")
    if name == "scsi" and get(adapter, "model") not in ("", "virtio-scsi"):
        model = get(adapter, "model")
        reading.warn(f"disk {target} is connected by virtio-scsi, not {model}: a driver is needed")
    return _BUSES[name]


def _driver(reading: Reading, disk: vm_pb2.DiskSpec, element: ET.Element, target: str) -> None:
    driver = element.find("driver")
    cache = get(driver, "cache")
    if cache not in _CACHES:
        raise _unsupported(f"the cache mode {cache!r} of disk {target}")
    disk.cache = _CACHES[cache]
    if cache == "directsync":
        reading.warn(f"disk {target} is cached like 'none', not 'directsync'")
    if get(driver, "discard"):
        disk.discard = get(driver, "discard") == "unmap"
    fine = {"name", "type", "cache", "discard", "detect_zeroes", "io"}
    if extra := sorted(set(driver.attrib if driver is not None else ()) - fine):
        reading.warn(f"settings of disk {target} are left out: {', '.join(extra)}")


def _nic(reading: Reading, element: ET.Element) -> None:
    number = len(reading.spec.nics)
    nic = reading.spec.nics.add(id=f"net{number}", network=_network(reading, element, number))
    nic.mac = get(element.find("mac"), "address").lower()
    model = get(element.find("model"), "type")
    if model in ("virtio", "virtio-non-transitional", "virtio-transitional"):
        nic.model = vm_pb2.NIC_MODEL_VIRTIO
    else:
        nic.model = vm_pb2.NIC_MODEL_E1000E
        if model != "e1000e":
            reading.warn(
                f"interface {nic.id} becomes an e1000e, not {model or 'the default model'}"
            )
    nic.link_down = get(element.find("link"), "state") == "down"
    nic.boot_order = _order(element)
    if element.find("mtu") is not None:
        reading.warn(f"the MTU of interface {nic.id} is its network's")
    for tag in _NIC_LEFT_OUT:
        if element.find(tag) is not None:
            reading.warn(f"what interface {nic.id} says of its {tag} is left out")


def _network(reading: Reading, element: ET.Element, number: int) -> str:
    kind, source = element.get("type", ""), element.find("source")
    match kind:
        case "bridge" | "network" | "direct":
            name = get(source, {"direct": "dev"}.get(kind, kind))
        case "user":
            name = "user"
        case _:
            raise _unsupported(f"interfaces of type {kind!r}")
    if name not in reading.networks:
        raise _bad_map(
            "networks",
            f"no network is given for interface {number + 1}, which is on {name!r}; map that name",
        )
    return reading.networks[name]


def _serial(reading: Reading, element: ET.Element) -> None:
    if element.get("type", "pty") != "pty":
        reading.warn(f"a serial port to a {element.get('type')} is left out")
    elif reading.spec.serial_console:
        reading.warn("serial ports after the first are left out")
    else:
        reading.spec.serial_console = True


def _graphics(reading: Reading, element: ET.Element) -> None:
    kind = element.get("type", "")
    if kind in ("vnc", "spice"):
        reading.spec.vnc = True
    if kind == "vnc":
        if element.get("passwd"):
            reading.warn(
                "the screen's password is left out; it listens on the node's loopback only"
            )
    else:
        reading.warn(
            f"the {kind} screen is left out" + ("; VNC instead" if kind == "spice" else "")
        )


def _video(reading: Reading, element: ET.Element) -> None:
    model = get(element.find("model"), "type")
    if model not in ("vga", "none", ""):
        reading.warn(f"the graphics card becomes a standard VGA one, not {model}")


def _channel(reading: Reading, element: ET.Element) -> None:
    name = get(element.find("target"), "name")
    if name == _AGENT:
        reading.spec.guest_agent = True
    elif element.get("type") != "spicevmc":
        reading.warn(f"the channel {name or element.get('type', '')!r} is left out")


def _boot_order(reading: Reading, root: ET.Element) -> None:
    """The devices' own order, or else the kinds of <os><boot dev=…>."""
    spec = reading.spec
    everything: Sequence[Any] = (*spec.disks, *spec.nics)
    if any(device.boot_order for device in everything):
        return
    kinds = [get(boot, "dev") for boot in root.iterfind("os/boot")] or ["hd"]
    order = 1
    for kind in kinds:
        for device in _of_kind(spec, kind):
            device.boot_order = order
            order += 1


def _of_kind(spec: vm_pb2.VmSpec, kind: str) -> Sequence[Any]:
    cdrom = vm_pb2.DISK_DEVICE_CDROM
    match kind:
        case "hd":
            return [disk for disk in spec.disks if disk.device != cdrom]
        case "cdrom":
            return [disk for disk in spec.disks if disk.device == cdrom]
        case "network":
            return list(spec.nics)
    return []


def _order(element: ET.Element) -> int:
    text = get(element.find("boot"), "order")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def get(element: ET.Element | None, name: str) -> str:
    """An attribute; "" where the element or the attribute is missing."""
    return "" if element is None else element.get(name, "")


def content(element: ET.Element | None) -> str:
    """An element's text without space around it; "" where it is missing."""
    return "" if element is None else (element.text or "").strip()


def _unsupported(what: str) -> PvcError:
    message = f"PVC does not take {what}; change the domain first"
    return PvcError(reason_pb2.REASON_NOT_SUPPORTED, message, field="xml")


def _bad_map(name: str, message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_FIELD, message, field=name)
