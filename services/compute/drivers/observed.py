"""Reads a domain's XML as libvirt gives it: what a domain is made of now. Pure; never trusts the
XML to be complete.

`parse_domain` of what `domain_xml` builds and of what libvirt shows for it are equal in all fields
that can be compared, so that the difference of two of them is what there is to do.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.compute.drivers.domain_xml import NAMESPACE

_UNIT_BYTES = {
    "b": 1, "bytes": 1, "KB": 1000, "k": 1 << 10, "KiB": 1 << 10, "MB": 1000**2, "M": 1 << 20,
    "MiB": 1 << 20, "GB": 1000**3, "G": 1 << 30, "GiB": 1 << 30, "TB": 1000**4, "T": 1 << 40,
    "TiB": 1 << 40,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObservedDisk:
    """A drive as it is attached."""

    id: str
    path: str
    """"" for a CD-ROM drive without a disc."""
    format: str
    device: str
    """ "disk" or "cdrom"."""
    bus: str
    """ "scsi", "virtio" or "sata"."""
    cache: str
    discard: bool
    read_only: bool
    boot_order: int
    target: str = field(compare=False)
    """ "sda"; libvirt's choice, so not compared."""


@dataclass(frozen=True, slots=True)
class ObservedNic:
    """An interface as it is attached."""

    id: str
    mac: str
    bridge: str
    model: str
    mtu: int
    link_down: bool
    boot_order: int
    device: str = field(compare=False)
    """The node's device, "vnet3"; "" while off."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A domain as it is. Foreign domains have vm == ""."""

    vm: str
    uid: str
    generation: int
    uuid: str
    description: str
    cold: Mapping[str, str]
    """What only a restart changes, by field path, as it was when this XML was built. See
    domain_xml.cold_fields."""
    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int
    accelerator: str
    disks: Mapping[str, ObservedDisk]
    nics: Mapping[str, ObservedNic]
    vnc: str
    """ "127.0.0.1:5900"; "" when it has none or is off."""
    console: str
    """The serial console's terminal, "/dev/pts/3"; "" when it has none or is off."""
    console_log: str
    nvram: str
    agent_connected: bool
    """The guest's agent has its end of the channel open. As stale as the XML."""

    @property
    def targets(self) -> dict[str, str]:
        """Disk id → the name that it has; what Machine.targets wants."""
        return {disk.id: disk.target for disk in self.disks.values()}


def parse_domain(xml: str) -> Observed:
    """Reads what libvirt wrote. Devices that PVC did not add are not shown."""
    root = ET.fromstring(xml)
    mark = root.find(f"metadata/{{{NAMESPACE}}}vm")
    disks = [_disk(element) for element in root.iterfind("devices/disk")]
    nics = [_nic(element) for element in root.iterfind("devices/interface")]
    vcpu = root.find("vcpu")
    most = int(_content(vcpu) or 1)
    return Observed(
        vm=_get(mark, "name").removeprefix("vms/"),
        uid=_get(mark, "uid"),
        generation=int(_get(mark, "generation") or 0),
        uuid=_content(root.find("uuid")),
        description=root.findtext("description") or "",
        cold=_cold(mark),
        vcpus=int(_get(vcpu, "current") or most),
        max_vcpus=most,
        memory_mib=_mib(root.find("currentMemory")),
        max_memory_mib=_mib(root.find("memory")),
        accelerator="kvm" if root.get("type") == "kvm" else "tcg",
        disks={disk.id: disk for disk in disks if disk.id},
        nics={nic.id: nic for nic in nics if nic.id},
        vnc=_vnc(root.find("devices/graphics[@type='vnc']")),
        console=_get(root.find("devices/serial/source"), "path"),
        console_log=_get(root.find("devices/serial/log"), "file"),
        nvram=_content(root.find("os/nvram")),
        agent_connected=_get(root.find(_AGENT), "state") == "connected",
    )


def kept_places(xml: str, former: str) -> str:
    """The new domain with each device that the former one has too where it was on the PCI bus.

    libvirt gives places in the order of the devices. Without this, taking out the first interface
    would rename the second one in the guest at its next start.
    """
    root, before = ET.fromstring(xml), ET.fromstring(former)
    if _family(root) != _family(before):
        return xml
    places = {_identity(device): _place(device) for device in before.iterfind("devices/*")}
    for device in root.iterfind("devices/*"):
        place = places.get(_identity(device))
        if place is not None and device.find("address") is None:
            device.append(place)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def device_alias(device_xml: str) -> str:
    """The alias of one device's XML; "" for none."""
    return _get(ET.fromstring(device_xml).find("alias"), "name")


def device_aliases(xml: str) -> frozenset[str]:
    """The aliases of all devices of a domain."""
    return frozenset(
        _get(alias, "name") for alias in ET.fromstring(xml).iterfind("devices/*/alias")
    )


_AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0']"


def _disk(element: ET.Element) -> ObservedDisk:
    driver, source = element.find("driver"), element.find("source")
    path = _get(source, "file") or _get(source, "dev")
    return ObservedDisk(
        id=_id(element, "ua-disk-"),
        path=path,
        # libvirt drops the format of an empty drive.
        format=(_get(driver, "type") or "raw") if path else "",
        device=element.get("device", "disk"),
        bus=_get(element.find("target"), "bus"),
        cache=_get(driver, "cache"),
        discard=_get(driver, "discard") == "unmap",
        read_only=element.find("readonly") is not None,
        boot_order=_boot_order(element),
        target=_get(element.find("target"), "dev"),
    )


def _nic(element: ET.Element) -> ObservedNic:
    return ObservedNic(
        id=_id(element, "ua-nic-"),
        mac=_get(element.find("mac"), "address"),
        bridge=_get(element.find("source"), "bridge"),
        model=_get(element.find("model"), "type"),
        mtu=int(_get(element.find("mtu"), "size") or 0),
        link_down=_get(element.find("link"), "state") == "down",
        boot_order=_boot_order(element),
        device=_get(element.find("target"), "dev"),
    )


def _id(element: ET.Element, prefix: str) -> str:
    alias = _get(element.find("alias"), "name")
    return alias.removeprefix(prefix) if alias.startswith(prefix) else ""


def _boot_order(element: ET.Element) -> int:
    return int(_get(element.find("boot"), "order") or 0)


def _cold(mark: ET.Element | None) -> dict[str, str]:
    if mark is None:
        return {}
    return {
        _get(cold, "path"): _get(cold, "value") for cold in mark.iterfind(f"{{{NAMESPACE}}}cold")
    }


def _vnc(graphics: ET.Element | None) -> str:
    port = _get(graphics, "port")
    return f"{_get(graphics, 'listen') or '127.0.0.1'}:{port}" if port not in ("", "-1") else ""


def _mib(element: ET.Element | None) -> int:
    return memory_bytes(element) >> 20


def memory_bytes(element: ET.Element | None) -> int:
    """An amount of memory with its unit; libvirt's own is KiB. Raises ValueError for a unit that
    libvirt has not."""
    unit = _get(element, "unit") or "KiB"
    if unit not in _UNIT_BYTES:
        raise ValueError(f"{unit!r} is no unit of memory")
    return int(_content(element) or 0) * _UNIT_BYTES[unit]


def _family(root: ET.Element) -> str:
    machine = _get(root.find("os/type"), "machine")
    return "q35" if "q35" in machine else "pc"


def _identity(device: ET.Element) -> tuple[str, ...]:
    """What makes it the same device on the same kind of slot."""
    if device.tag == "controller":
        return (
            "controller",
            device.get("type", ""),
            device.get("index", ""),
            device.get("model", ""),
        )
    model = _get(device.find("model"), "type") or device.get("model", "")
    bus = _get(device.find("target"), "bus")
    return (device.tag, _get(device.find("alias"), "name"), bus, model)


def _place(device: ET.Element) -> ET.Element | None:
    address = device.find("address")
    return address if address is not None and address.get("type") == "pci" else None


def _get(element: ET.Element | None, name: str) -> str:
    return "" if element is None else element.get(name, "")


def _content(element: ET.Element | None) -> str:
    return "" if element is None else (element.text or "").strip()
