"""Builds libvirt's domain XML from a VM: a pure function, no I/O, no default taken from the machine
it runs on.

Memory: the domain is given max_memory_mib and a balloon takes away what exceeds memory_mib.
Hot-plugged DIMMs would keep the guest from ever touching more, but need a NUMA cell, grow in steps
of 128 MiB, rarely shrink, and cost every guest 64 MiB of bounce buffers; the balloon goes both ways
in every guest that has the driver, with or without acceleration. The price: a guest without the
driver may use max_memory_mib, so placement must count that as what it can take.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, refuse

NAMESPACE = "urn:pvc:domain:1"
"""The XML namespace of the mark that tells PVC's domains from foreign ones."""
MEMORY_DEFAULT_MIB = 1024
SPARE_PORTS = 12
"""PCI Express slots that a running guest has free for devices to come."""
_TCG_CACHE_MIB = 256
"""Translated code kept by an emulator without acceleration. With less, adding a processor can abort
QEMU."""
_SATA_PORTS = 6
_TCG_MODEL = "Nehalem"
"""What every emulator emulates completely and every distribution still runs on (x86-64-v2)."""
_ILLEGAL = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VM_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_CACHES = {
    vm_pb2.DISK_CACHE_UNSPECIFIED: "none",
    vm_pb2.DISK_CACHE_NONE: "none",
    vm_pb2.DISK_CACHE_WRITEBACK: "writeback",
    vm_pb2.DISK_CACHE_WRITETHROUGH: "writethrough",
    vm_pb2.DISK_CACHE_UNSAFE: "unsafe",
}
_NIC_MODELS = {
    vm_pb2.NIC_MODEL_UNSPECIFIED: "virtio",
    vm_pb2.NIC_MODEL_VIRTIO: "virtio",
    vm_pb2.NIC_MODEL_E1000E: "e1000e",
}

ET.register_namespace("pvc", NAMESPACE)


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """Where a volume is."""

    path: str
    format: str
    """ "qcow2" or "raw"; never left to the emulator to guess, or a guest could write itself a
    backing file."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """Where a network is."""

    name: str
    mtu: int = 0
    """0: the bridge's own."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the XML must know of the node."""

    accelerator: str
    """ "kvm" or "tcg"."""
    console_log: str
    """The file that keeps what the serial console prints."""
    nvram: str
    """The file that keeps UEFI's variables."""
    volumes: Mapping[str, VolumeFile] = field(default_factory=dict)
    """pools/{pool}/volumes/{volume} → its file."""
    networks: Mapping[str, Bridge] = field(default_factory=dict)
    """networks/{network} → its bridge."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """Names ("sda") that drives have already, by their id; they are kept, so that a running guest
    can be compared."""
    emulator: str = "/usr/bin/qemu-system-x86_64"
    firmware_code: str = "/usr/share/OVMF/OVMF_CODE_4M.fd"
    firmware_variables: str = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    cpu_model: str = ""
    """The cluster's default model; "" for the accelerator's default."""


def domain_xml(vm: vm_pb2.Vm, machine: Machine) -> str:
    """The domain that the VM's spec stands for on this node.

    Raises DANGLING_REFERENCE for a volume or network that the node does not have, INVALID_FIELD for
    what XML or libvirt cannot carry; the field is named.
    """
    spec = vm.spec
    if not _VM_ID.fullmatch(vm_id(vm)):
        refuse(reason_pb2.REASON_INVALID_FIELD, f"{vm.name!r} cannot name a domain", "name")
    if _ILLEGAL.search(spec.description):
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "the description has control characters, which XML cannot carry; remove them",
            "spec.description",
        )
    domain = ET.Element("domain", type="kvm" if machine.accelerator == "kvm" else "qemu")
    _add(domain, "name", vm_id(vm))
    if spec.uuid:
        _add(domain, "uuid", spec.uuid)
    _add(domain, "title", vm_id(vm))
    if spec.description:
        _add(domain, "description", spec.description)
    _mark(domain, vm)
    _memory(domain, spec.memory)
    _processors(domain, spec.cpu, machine)
    _boot(domain, spec, machine)
    _behaviour(domain)
    _devices(domain, vm, machine)
    return _text(domain)


def disk_xml(vm: vm_pb2.Vm, machine: Machine, disk_id: str) -> str:
    """One drive of the VM, for plugging it in or changing its disc."""
    index = _index([disk.id for disk in vm.spec.disks], disk_id)
    parent = ET.Element("devices")
    _disk(parent, vm.spec, index, machine, targets(vm.spec, machine)[disk_id])
    return _text(parent[0])


def nic_xml(vm: vm_pb2.Vm, machine: Machine, nic_id: str) -> str:
    """One interface of the VM, for plugging it in or pulling its cable."""
    parent = ET.Element("devices")
    _nic(parent, vm.spec, _index([nic.id for nic in vm.spec.nics], nic_id), machine)
    return _text(parent[0])


def vm_id(vm: vm_pb2.Vm) -> str:
    """vms/web → web."""
    return vm.name.removeprefix("vms/")


def disk_alias(disk_id: str) -> str:
    """The device's name in libvirt and QEMU, which never changes."""
    return f"ua-disk-{disk_id}"


def nic_alias(nic_id: str) -> str:
    """The device's name in libvirt and QEMU, which never changes."""
    return f"ua-nic-{nic_id}"


def cold_fields(spec: vm_pb2.VmSpec) -> dict[str, str]:
    """What only a restart of the emulator changes, by field path. Carried in the mark, so that what
    a running domain was started with can be compared with what is wanted now."""
    sockets, cores, threads = topology(spec.cpu)
    return {
        "cpu.max_vcpus": str(_vcpus(spec.cpu)[1]),
        "cpu.model": spec.cpu.model,
        "cpu.topology": f"{sockets}x{cores}x{threads}",
        "firmware": "uefi" if spec.firmware == vm_pb2.FIRMWARE_UEFI else "bios",
        "guest_agent": _yes(_on(spec, "guest_agent")),
        "machine": spec.machine or "q35",
        "memory.max_memory_mib": str(_memory_mib(spec.memory)[1]),
        "rng": _yes(_on(spec, "rng")),
        "serial_console": _yes(_on(spec, "serial_console")),
        "uuid": spec.uuid,
        "vnc": _yes(_on(spec, "vnc")),
    }


def topology(cpu: vm_pb2.CpuSpec) -> tuple[int, int, int]:
    """(sockets, cores, threads). What is not given is made to fit; raises INVALID_FIELD when
    nothing fits."""
    _, most = _vcpus(cpu)
    cores, threads = cpu.cores or 1, cpu.threads or 1
    sockets = cpu.sockets or max(1, most // (cores * threads))
    if sockets * cores * threads != most:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"{sockets} sockets × {cores} cores × {threads} threads are not {most} processors; "
            "make max_vcpus their product",
            "spec.cpu.max_vcpus",
        )
    return sockets, cores, threads


def targets(spec: vm_pb2.VmSpec, machine: Machine) -> dict[str, str]:
    """The name ("sda") of every drive: the one it has, else the first free one, also of drives
    about to leave."""
    chosen = {
        disk.id: machine.targets[disk.id]
        for disk in spec.disks
        if machine.targets.get(disk.id, "").startswith(_prefix(disk))
    }
    taken = {*chosen.values(), *machine.targets.values()}
    for disk in spec.disks:
        if disk.id not in chosen:
            chosen[disk.id] = _free(_prefix(disk), taken)
            taken.add(chosen[disk.id])
    return chosen


def target_index(target: str) -> int:
    """ "sda" → 0, "sdz" → 25, "sdaa" → 26."""
    number = 0
    for letter in target[2:]:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def bus_of(disk: vm_pb2.DiskSpec) -> vm_pb2.DiskBus.ValueType:
    """How a drive is connected, the default filled in."""
    if disk.bus != vm_pb2.DISK_BUS_UNSPECIFIED:
        return disk.bus
    return vm_pb2.DISK_BUS_SATA if is_cdrom(disk) else vm_pb2.DISK_BUS_VIRTIO_SCSI


def is_cdrom(disk: vm_pb2.DiskSpec) -> bool:
    """A CD-ROM drive rather than a disk."""
    return disk.device == vm_pb2.DISK_DEVICE_CDROM


def _mark(domain: ET.Element, vm: vm_pb2.Vm) -> None:
    metadata = _add(domain, "metadata")
    mark = _add(
        metadata, f"{{{NAMESPACE}}}vm",
        name=vm.name, uid=vm.meta.uid, generation=str(vm.meta.generation),
    )  # fmt: skip
    for path, value in cold_fields(vm.spec).items():
        _add(mark, f"{{{NAMESPACE}}}cold", path=path, value=value)


def _memory(domain: ET.Element, memory: vm_pb2.MemorySpec) -> None:
    now, most = _memory_mib(memory)
    _add(domain, "memory", str(most), unit="MiB")
    _add(domain, "currentMemory", str(now), unit="MiB")


def _memory_mib(memory: vm_pb2.MemorySpec) -> tuple[int, int]:
    now = memory.memory_mib or MEMORY_DEFAULT_MIB
    most = memory.max_memory_mib or now
    if most < now:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"max_memory_mib ({most}) is below memory_mib ({now}); raise it or leave it out",
            "spec.memory.max_memory_mib",
        )
    return now, most


def _vcpus(cpu: vm_pb2.CpuSpec) -> tuple[int, int]:
    now = cpu.vcpus or 1
    most = cpu.max_vcpus or now
    if most < now:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            f"max_vcpus ({most}) is below vcpus ({now}); raise it or leave it out",
            "spec.cpu.max_vcpus",
        )
    return now, most


def _processors(domain: ET.Element, cpu: vm_pb2.CpuSpec, machine: Machine) -> None:
    now, most = _vcpus(cpu)
    _add(domain, "vcpu", str(most), placement="static", current=str(now))
    model = cpu.model or machine.cpu_model
    match model, machine.accelerator:
        case "host", "kvm":
            element = _add(domain, "cpu", mode="host-passthrough", check="none", migratable="on")
        case "host", _:
            # All that the emulator can do: it has no processor of the node's to pass on.
            element = _add(domain, "cpu", mode="maximum", check="none")
        case "", "kvm":
            element = _add(domain, "cpu", mode="host-model", check="partial")
        case _:
            element = _add(domain, "cpu", mode="custom", match="exact", check="none")
            _add(element, "model", model or _TCG_MODEL, fallback="forbid")
    sockets, cores, threads = (str(number) for number in topology(cpu))
    _add(element, "topology", sockets=sockets, dies="1", cores=cores, threads=threads)


def _boot(domain: ET.Element, spec: vm_pb2.VmSpec, machine: Machine) -> None:
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine=spec.machine or "q35")
    if spec.firmware == vm_pb2.FIRMWARE_UEFI:
        _add(system, "loader", machine.firmware_code, readonly="yes", type="pflash")
        _add(system, "nvram", machine.nvram, template=machine.firmware_variables)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    _add(features, "vmport", state="off")
    if machine.accelerator != "kvm":
        _add(_add(features, "tcg"), "tb-cache", str(_TCG_CACHE_MIB), unit="MiB")


def _behaviour(domain: ET.Element) -> None:
    clock = _add(domain, "clock", offset="utc")
    _add(clock, "timer", name="rtc", tickpolicy="catchup")
    _add(clock, "timer", name="pit", tickpolicy="delay")
    _add(clock, "timer", name="hpet", present="no")
    _add(domain, "on_poweroff", "destroy")
    _add(domain, "on_reboot", "restart")
    _add(domain, "on_crash", "destroy")


def _devices(domain: ET.Element, vm: vm_pb2.Vm, machine: Machine) -> None:
    spec = vm.spec
    devices = _add(domain, "devices")
    _add(devices, "emulator", machine.emulator)
    names = targets(spec, machine)
    for index, disk in enumerate(spec.disks):
        _disk(devices, spec, index, machine, names[disk.id])
    _controllers(devices, spec)
    for index in range(len(spec.nics)):
        _nic(devices, spec, index, machine)
    if _on(spec, "serial_console"):
        _serial(devices, machine)
    if _on(spec, "guest_agent"):
        channel = _add(devices, "channel", type="unix")
        _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
        _add(channel, "alias", name="ua-agent")
    _screen(devices, _on(spec, "vnc"))
    balloon = _add(devices, "memballoon", model="virtio")
    _add(balloon, "stats", period="10")
    _add(balloon, "alias", name="ua-balloon")
    if _on(spec, "rng"):
        rng = _add(devices, "rng", model="virtio")
        _add(rng, "backend", "/dev/urandom", model="random")
        _add(rng, "alias", name="ua-rng")


def _controllers(devices: ET.Element, spec: vm_pb2.VmSpec) -> None:
    if not spec.machine.startswith(("pc-i440fx", "pc-0")) and spec.machine != "pc":
        slots = len(spec.nics) + sum(
            bus_of(disk) == vm_pb2.DISK_BUS_VIRTIO_BLK for disk in spec.disks
        )
        _add(devices, "controller", type="pci", index="0", model="pcie-root")
        for port in range(1, slots + SPARE_PORTS + 1):
            _add(devices, "controller", type="pci", index=str(port), model="pcie-root-port")
    _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    _add(devices, "controller", type="virtio-serial", index="0")
    usb = "qemu-xhci" if _on(spec, "vnc") else "none"
    _add(devices, "controller", type="usb", index="0", model=usb)


def _disk(
    devices: ET.Element, spec: vm_pb2.VmSpec, index: int, machine: Machine, target: str
) -> None:
    disk, where = spec.disks[index], f"spec.disks[{index}]"
    cdrom, bus = is_cdrom(disk), bus_of(disk)
    if cdrom and bus == vm_pb2.DISK_BUS_VIRTIO_BLK:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "a CD-ROM drive cannot be a virtio-blk device; use SATA or virtio-scsi",
            f"{where}.bus",
        )
    if disk.read_only and not cdrom and bus == vm_pb2.DISK_BUS_SATA:
        refuse(
            reason_pb2.REASON_INVALID_FIELD,
            "QEMU has no read-only SATA disks; use virtio-scsi or virtio-blk",
            f"{where}.read_only",
        )
    element = _add(devices, "disk", type="file", device="cdrom" if cdrom else "disk")
    _disk_source(element, disk, machine, where)
    name = {vm_pb2.DISK_BUS_VIRTIO_BLK: "virtio", vm_pb2.DISK_BUS_SATA: "sata"}.get(bus, "scsi")
    _add(element, "target", dev=target, bus=name)
    if cdrom or disk.read_only:
        _add(element, "readonly")
    _add(element, "serial", disk.id)
    if disk.boot_order:
        _add(element, "boot", order=str(disk.boot_order))
    _add(element, "alias", name=disk_alias(disk.id))
    _drive_address(element, spec, disk, target)


def _disk_source(element: ET.Element, disk: vm_pb2.DiskSpec, machine: Machine, where: str) -> None:
    cdrom = is_cdrom(disk)
    file = machine.volumes.get(disk.volume)
    if file is None and (disk.volume or not cdrom):
        refuse(
            reason_pb2.REASON_DANGLING_REFERENCE,
            f"the volume {disk.volume or '(none given)'} is not on this node",
            f"{where}.volume",
        )
    driver = _add(element, "driver", name="qemu", type=file.format if file else "raw")
    driver.set("cache", _CACHES[disk.cache])
    if not cdrom:
        discards = disk.discard if disk.HasField("discard") else True
        driver.set("discard", "unmap" if discards else "ignore")
        driver.set("detect_zeroes", "unmap" if discards else "off")
    if file is not None:
        _add(element, "source", file=file.path)


def _drive_address(
    element: ET.Element, spec: vm_pb2.VmSpec, disk: vm_pb2.DiskSpec, target: str
) -> None:
    """libvirt's own choice would put the 16th SCSI disk on a second, much slower controller."""
    match bus_of(disk):
        case vm_pb2.DISK_BUS_VIRTIO_SCSI:
            controller, number, unit = 0, target_index(target), 0
        case vm_pb2.DISK_BUS_SATA:
            sata = [other.id for other in spec.disks if bus_of(other) == vm_pb2.DISK_BUS_SATA]
            controller, unit = divmod(sata.index(disk.id), _SATA_PORTS)
            number = 0
        case _:
            return
    _add(
        element, "address", type="drive",
        controller=str(controller), bus="0", target=str(number), unit=str(unit),
    )  # fmt: skip


def _nic(devices: ET.Element, spec: vm_pb2.VmSpec, index: int, machine: Machine) -> None:
    nic = spec.nics[index]
    bridge = machine.networks.get(nic.network)
    if bridge is None:
        refuse(
            reason_pb2.REASON_DANGLING_REFERENCE,
            f"the network {nic.network or '(none given)'} is not on this node",
            f"spec.nics[{index}].network",
        )
    element = _add(devices, "interface", type="bridge")
    if nic.mac:
        _add(element, "mac", address=nic.mac.lower())
    _add(element, "source", bridge=bridge.name)
    _add(element, "model", type=_NIC_MODELS[nic.model])
    if bridge.mtu:
        _add(element, "mtu", size=str(bridge.mtu))
    _add(element, "link", state="down" if nic.link_down else "up")
    if nic.boot_order:
        _add(element, "boot", order=str(nic.boot_order))
    else:
        # Without its boot ROM the firmware does not wait for a network that nobody boots from.
        _add(element, "rom", enabled="no")
    _add(element, "alias", name=nic_alias(nic.id))


def _serial(devices: ET.Element, machine: Machine) -> None:
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=machine.console_log, append="on")
    _add(_add(serial, "target", type="isa-serial", port="0"), "model", name="isa-serial")
    _add(_add(devices, "console", type="pty"), "target", type="serial", port="0")


def _screen(devices: ET.Element, vnc: bool) -> None:
    video = _add(devices, "video")
    if not vnc:
        _add(video, "model", type="none")
        return
    _add(video, "model", type="vga", vram="16384", heads="1", primary="yes")
    graphics = _add(devices, "graphics", type="vnc", port="-1", autoport="yes", listen="127.0.0.1")
    _add(graphics, "listen", type="address", address="127.0.0.1")
    # A tablet tells absolute places, so that the pointer is where the user's is.
    _add(devices, "input", type="tablet", bus="usb")


def _on(spec: vm_pb2.VmSpec, name: str) -> bool:
    """An optional switch that is on unless it says false."""
    return bool(getattr(spec, name)) if spec.HasField(name) else True  # type: ignore[arg-type]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _prefix(disk: vm_pb2.DiskSpec) -> str:
    return "vd" if bus_of(disk) == vm_pb2.DISK_BUS_VIRTIO_BLK else "sd"


def _free(prefix: str, taken: Collection[str]) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    short = (prefix + letter for letter in letters)
    long = (prefix + first + second for first in letters for second in letters)
    return next(name for names in (short, long) for name in names if name not in taken)


def _index(ids: list[str], wanted: str) -> int:
    if wanted in ids:
        return ids.index(wanted)
    raise PvcError(reason_pb2.REASON_NOT_FOUND, f"the VM has no device {wanted}")


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    for value in (*attributes.values(), text or ""):
        if _ILLEGAL.search(value):
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{value!r} has control characters, which the domain's <{tag}> cannot carry",
            )
    return element


def _text(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode") + "\n"
