"""Reads a user's libvirt XML into a VM's spec. Pure. What a spec has no place for is refused where
the guest cannot do without, and told as a warning where it can; nothing is dropped in silence that
the guest could notice.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers.import_devices import Reading, content, get, read_devices
from services.compute.drivers.observed import memory_bytes
from services.mesh.errors import PvcError, refuse
from services.mesh.validate import check_message

XML_BYTES_MAX = 1 << 18
DEPTH_MAX = 32
_ID_MAX = 63
_MIB = 1 << 20

# What a spec says in its own way, or PVC always does the same about.
_READ = {
    "name", "uuid", "genid", "title", "description", "metadata", "memory", "currentMemory", "vcpu",
    "cpu", "os", "features", "clock", "on_poweroff", "on_reboot", "on_crash", "devices", "pm",
    "vcpus", "resource", "seclabel",
}  # fmt: skip
_REFUSED = {
    "commandline": "arguments handed straight to QEMU (qemu:commandline)",
    "override": "properties handed straight to QEMU (qemu:override)",
    "capabilities": "abilities handed straight to QEMU (qemu:capabilities)",
    "launchSecurity": "encrypted memory (launchSecurity)",
    "idmap": "a container's user ids (idmap)",
    "bootloader": "a boot loader run by the host (bootloader)",
}
_LEFT_OUT = {
    "maxMemory": "slots for memory modules are left out; memory grows by the balloon instead",
    "iothreads": "threads for disks (iothreads) are left out",
    "cputune": "processor limits and pinning (cputune) are left out",
    "memtune": "memory limits (memtune) are left out",
    "numatune": "NUMA placement (numatune) is left out",
    "blkiotune": "disk weights (blkiotune) are left out",
    "memoryBacking": "how memory is backed (memoryBacking) is left out",
    "throttlegroups": "shared disk limits (throttlegroups) are left out",
    "perf": "performance counters (perf) are left out",
    "sysinfo": "what the firmware says of the machine (sysinfo) is left out",
}
_FEATURES_SILENT = {"acpi", "apic", "pae", "vmport", "tcg", "ioapic"}
_ENDINGS = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy"}
_MACHINE = re.compile(r"q35|pc|pc-(q35|i440fx)-[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Imported:
    """What a domain stands for."""

    vm_id: str
    """The domain's name, as near to it as a VM's id can be."""
    spec: vm_pb2.VmSpec
    warnings: tuple[str, ...]
    """What is left out or will be otherwise, one sentence each."""


def import_xml(xml: str, volumes: Mapping[str, str], networks: Mapping[str, str]) -> Imported:
    """volumes: target ("vda") → volume; networks: bridge or network → network.

    Raises TOO_LARGE; INVALID_CONTENT for what is no domain's XML; NOT_SUPPORTED for what the guest
    cannot do without and PVC has not; INVALID_FIELD for a disk or interface that the maps lack.
    """
    root = _parse(xml)
    reading = Reading(vm_pb2.VmSpec(), dict(volumes), dict(networks))
    _outline(reading, root)
    _identity(reading, root)
    _memory(reading, root)
    _processors(reading, root)
    _system(reading, root)
    _behaviour(reading, root)
    read_devices(reading, root)
    check_message(reading.spec, "vm.spec")
    return Imported(_vm_id(reading, root), reading.spec, tuple(reading.warnings))


def _parse(xml: str) -> ET.Element:
    """The tree, without ever expanding an entity."""
    if len(xml.encode(errors="replace")) > XML_BYTES_MAX:
        refuse(
            reason_pb2.REASON_TOO_LARGE,
            f"the XML has more than {XML_BYTES_MAX} bytes; no domain is that large",
            "xml",
        )
    try:
        _check_shape(xml)
        root = ET.fromstring(xml)
    except (expat.ExpatError, ET.ParseError, ValueError, LookupError) as error:
        raise _bad(f"this is no XML: {error}") from error
    if root.tag != "domain":
        raise _bad(f"this is a <{root.tag}>, not a <domain>; give what `virsh dumpxml` writes")
    if root.get("type") not in ("kvm", "qemu", None):
        raise _unsupported(f"domains of type {root.get('type')!r}")
    return root


def _check_shape(xml: str) -> None:
    """Refuses document types, and with them entities, and nesting that only an attack has."""
    depth = 0

    def forbidden(*_: object) -> None:
        raise _bad("the XML has a document type; take the <!DOCTYPE …> out")

    def opened(name: str, attributes: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH_MAX:
            raise _bad(f"the XML is nested more than {DEPTH_MAX} deep")

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = forbidden
    parser.EntityDeclHandler = forbidden
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.Parse(xml, True)


def _outline(reading: Reading, root: ET.Element) -> None:
    """What the parts of the domain are, before any of them is read."""
    for element in root:
        namespace, _, name = element.tag.rpartition("}")
        if name in _REFUSED:
            raise _unsupported(_REFUSED[name])
        if namespace:
            raise _unsupported(f"<{name}> of the foreign namespace {namespace[1:]}")
        if name in _LEFT_OUT:
            reading.warn(_LEFT_OUT[name])
        elif name not in _READ:
            reading.warn(f"<{name}> is not known and left out")


def _vm_id(reading: Reading, root: ET.Element) -> str:
    name = content(root.find("name"))
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_ID_MAX].strip("-") or "imported"
    if slug != name:
        reading.warn(f"the domain's name {name!r} cannot be a VM's id; without vm_id it is {slug}")
    return slug


def _identity(reading: Reading, root: ET.Element) -> None:
    spec = reading.spec
    spec.uuid = content(root.find("uuid")).lower()
    text = root.findtext("description") or root.findtext("title") or ""
    if len(text) > 1024:
        reading.warn("the description is cut to 1024 characters")
    spec.description = text.strip()[:1024]
    if root.find("metadata") is not None and len(root.find("metadata") or ()):
        reading.warn("what other programs noted in <metadata> is left out")


def _memory(reading: Reading, root: ET.Element) -> None:
    most = _mib(reading, root.find("memory"), "memory")
    now = _mib(reading, root.find("currentMemory"), "currentMemory") or most
    reading.spec.memory.max_memory_mib = most
    reading.spec.memory.memory_mib = min(now, most)


def _mib(reading: Reading, element: ET.Element | None, name: str) -> int:
    try:
        amount = memory_bytes(element)
    except ValueError as error:
        raise _bad(f"<{name}> is no amount of memory: {error}") from error
    if amount % _MIB:
        reading.warn(f"<{name}> is rounded up to whole MiB")
    return -(-amount // _MIB)


def _processors(reading: Reading, root: ET.Element) -> None:
    cpu, vcpu = reading.spec.cpu, root.find("vcpu")
    cpu.max_vcpus = _number(content(vcpu) or "1", "vcpu")
    cpu.vcpus = _number(get(vcpu, "current") or str(cpu.max_vcpus), "vcpu")
    if get(vcpu, "cpuset"):
        reading.warn("the processors' places on the host (cpuset) are left out")
    element = root.find("cpu")
    if element is None:
        return
    match element.get("mode", "custom"):
        case "host-passthrough" | "maximum":
            cpu.model = "host"
        case "custom":
            cpu.model = content(element.find("model"))
    _topology(reading, element.find("topology"))
    changed = [get(feature, "name") for feature in element.iterfind("feature")]
    if changed:
        reading.warn(f"the processor's single features are left out: {', '.join(sorted(changed))}")
    for part in ("numa", "cache", "maxphysaddr"):
        if element.find(part) is not None:
            reading.warn(f"what <cpu> says of its {part} is left out")


def _topology(reading: Reading, element: ET.Element | None) -> None:
    if element is None:
        return
    cpu = reading.spec.cpu
    dies = _number(get(element, "dies") or "1", "topology")
    cpu.sockets = _number(get(element, "sockets") or "1", "topology") * dies
    cpu.cores = _number(get(element, "cores") or "1", "topology")
    cpu.threads = _number(get(element, "threads") or "1", "topology")
    if dies > 1:
        reading.warn("each die of a processor becomes a socket")


def _system(reading: Reading, root: ET.Element) -> None:
    system = root.find("os")
    kind = system.find("type") if system is not None else None
    if system is None or content(kind) != "hvm":
        raise _unsupported(f"systems of type {content(kind) or '(none)'!r}; only hvm")
    if get(kind, "arch") not in ("x86_64", ""):
        raise _unsupported(f"processors of the kind {get(kind, 'arch')}; only x86_64")
    if system.find("kernel") is not None or system.find("initrd") is not None:
        raise _unsupported("a kernel started by the host (<os><kernel>); install a boot loader")
    reading.spec.machine = _machine_type(reading, get(kind, "machine"))
    _firmware(reading, system)
    for part in ("bootmenu", "smbios", "bios", "acpi"):
        if system.find(part) is not None:
            reading.warn(f"what <os> says of its {part} is left out")


def _machine_type(reading: Reading, machine: str) -> str:
    if _MACHINE.fullmatch(machine):
        return machine
    plain = "q35" if "q35" in machine else "pc"
    if machine and not machine.startswith(("pc-", "pc")):
        raise _unsupported(f"machines of type {machine!r}; only q35 and pc")
    if machine:
        reading.warn(f"the machine type {machine} becomes {plain}")
    return plain


def _firmware(reading: Reading, system: ET.Element) -> None:
    loader = system.find("loader")
    path = content(loader).lower()
    pflash = get(loader, "type") == "pflash" or "ovmf" in path or "edk2" in path
    if system.get("firmware") == "efi" or pflash:
        reading.spec.firmware = vm_pb2.FIRMWARE_UEFI
        reading.warn("UEFI's variables begin afresh; boot entries that the guest made are not kept")
        if get(loader, "secure") == "yes":
            reading.warn("secure boot is off")
    else:
        reading.spec.firmware = vm_pb2.FIRMWARE_BIOS


def _behaviour(reading: Reading, root: ET.Element) -> None:
    features = root.find("features")
    extra = {element.tag for element in features if element.tag not in _FEATURES_SILENT} if (
        features is not None
    ) else set()  # fmt: skip
    if extra:
        reading.warn(f"machine features are left out: {', '.join(sorted(extra))}")
    if features is None or features.find("acpi") is None:
        reading.warn("the machine gets ACPI, which it had not")
    offset = get(root.find("clock"), "offset") or "utc"
    if offset != "utc":
        reading.warn(f"the clock begins at UTC, not at {offset!r}")
    for tag, usual in _ENDINGS.items():
        told = content(root.find(tag)) or usual
        # A crashed guest that libvirt would start anew is started anew by PVC.
        if told != usual and (tag, told) != ("on_crash", "restart"):
            reading.warn(f"<{tag}> {told} becomes {usual}")


def _number(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise _bad(f"<{where}> has {text!r} where a number belongs")
    return int(text)


def _bad(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONTENT, message, field="xml")


def _unsupported(what: str) -> PvcError:
    message = f"PVC does not take {what}; change the domain first"
    return PvcError(reason_pb2.REASON_NOT_SUPPORTED, message, field="xml")
