"""Domain XML: golden files, every field carried through, nothing escapes into the XML.

Run with PVC_WRITE_GOLDEN=1 to write the golden files anew, then read the difference.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers import observed
from services.compute.drivers.domain_xml import (
    Bridge,
    Machine,
    VolumeFile,
    disk_xml,
    domain_xml,
    nic_xml,
    target_index,
    targets,
)
from services.mesh.errors import PvcError
from tests.drivers.subjects import RealSubject
from tests.drivers.vms import node, small_vm, volume, with_targets

GOLDEN = Path(__file__).with_name("golden")
FOLDER = Path("/var/lib/pvc/pools/local")


def plain() -> tuple[vm_pb2.Vm, Machine]:
    vm = small_vm("web", "root")
    vm.spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01")
    return vm, node(FOLDER, "web-root")


def full() -> tuple[vm_pb2.Vm, Machine]:
    vm, spec = (vm := small_vm("web", "root")), vm.spec
    spec.description = "shop & <stock>\nsecond line ]]>"
    spec.firmware = vm_pb2.FIRMWARE_UEFI
    spec.cpu.vcpus, spec.cpu.max_vcpus, spec.cpu.cores, spec.cpu.threads = 2, 8, 2, 2
    spec.cpu.model = "host"
    spec.memory.memory_mib, spec.memory.max_memory_mib = 1024, 4096
    spec.disks.add(id="fast", volume=volume("fast"), bus=vm_pb2.DISK_BUS_VIRTIO_BLK,
                   cache=vm_pb2.DISK_CACHE_WRITEBACK, discard=False)  # fmt: skip
    spec.disks.add(id="old", volume=volume("old"), bus=vm_pb2.DISK_BUS_SATA,
                   cache=vm_pb2.DISK_CACHE_UNSAFE)  # fmt: skip
    spec.disks.add(id="cd", volume=volume("disc"), device=vm_pb2.DISK_DEVICE_CDROM, boot_order=2)
    spec.disks.add(id="base", volume=volume("old"), read_only=True)
    spec.disks.add(id="empty", device=vm_pb2.DISK_DEVICE_CDROM)
    spec.nics.add(id="net0", network="networks/default", mac="52:54:00:00:00:01", boot_order=3)
    spec.nics.add(id="net1", network="networks/jumbo", mac="52:54:00:00:00:02", link_down=True,
                  model=vm_pb2.NIC_MODEL_E1000E)  # fmt: skip
    machine = node(FOLDER, "web-root", "fast", "old")
    return vm, replace(
        machine,
        accelerator="kvm",
        volumes={**machine.volumes, volume("disc"): VolumeFile("/iso/a b&c.iso", "raw")},
        networks={**machine.networks, "networks/jumbo": Bridge("br-jumbo", 9000)},
    )


def bare() -> tuple[vm_pb2.Vm, Machine]:
    vm = small_vm("bare")
    vm.spec.machine = "pc"
    vm.spec.cpu.model = "qemu64"
    for switch in ("serial_console", "vnc", "guest_agent", "rng"):
        setattr(vm.spec, switch, False)
    return vm, node(FOLDER)


@pytest.mark.parametrize("example", [plain, full, bare])
def test_golden(example: Callable[[], tuple[vm_pb2.Vm, Machine]]) -> None:
    path = GOLDEN / f"{example.__name__}.xml"
    built = domain_xml(*example())
    if os.environ.get("PVC_WRITE_GOLDEN"):
        path.write_text(built)
    assert built == path.read_text()


@pytest.mark.real
@pytest.mark.parametrize("example", [plain, full, bare])
def test_libvirt_finds_nothing_to_complain(
    example: Callable[[], tuple[vm_pb2.Vm, Machine]], real: RealSubject
) -> None:
    """Checked against libvirt's grammar, which is stricter than what it takes."""
    vm, machine = example()
    xml = domain_xml(vm, replace(machine, accelerator="tcg"))
    flag = libvirt.VIR_DOMAIN_DEFINE_VALIDATE
    real.hypervisor._call("define", lambda connection: connection.defineXMLFlags(xml, flag))
    seen = observed.parse_domain(real.hypervisor.domains()[observed.parse_domain(xml).vm].xml)
    wanted = observed.parse_domain(xml)
    assert (seen.disks, seen.nics, seen.cold) == (wanted.disks, wanted.nics, wanted.cold)
    assert seen.description == wanted.description


def names(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


IDS = names(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
HOSTILE = st.text(
    st.one_of(st.sampled_from("\"'<>&]/\\;,=$`{}%\n\t é\u202e\U0001f600"), st.characters(
        min_codepoint=0x20, exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")),
    max_size=40,
)  # fmt: skip
PATHS = HOSTILE.map(lambda text: "/pool/" + text.strip().replace("\n", "_"))


@st.composite
def vms(draw: st.DrawFn) -> tuple[vm_pb2.Vm, Machine]:
    """A VM and a node with whatever a user or a file name may hold."""
    vm = small_vm(draw(names(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")))
    spec, volumes, networks = vm.spec, {}, {}
    spec.description = draw(HOSTILE)
    vm.meta.uid = draw(HOSTILE)
    spec.memory.memory_mib = draw(st.integers(64, 1 << 24))
    spec.memory.max_memory_mib = draw(st.sampled_from([0, spec.memory.memory_mib, 1 << 24]))
    spec.cpu.vcpus = draw(st.integers(1, 512))
    for disk_id in draw(st.lists(IDS, unique=True, max_size=4)):
        disk = spec.disks.add(id=disk_id, volume=f"pools/{draw(HOSTILE)}/volumes/{disk_id}")
        disk.device = draw(st.sampled_from([0, 1, 2]))
        allowed = [0, 1, 3] if disk.device == vm_pb2.DISK_DEVICE_CDROM else [0, 1, 2, 3]
        disk.bus = draw(st.sampled_from(allowed))
        disk.cache = draw(st.sampled_from([0, 1, 2, 3, 4]))
        cdrom_or_not_sata = disk.device == vm_pb2.DISK_DEVICE_CDROM or disk.bus != 3
        disk.read_only = cdrom_or_not_sata and draw(st.booleans())
        disk.boot_order = draw(st.integers(0, 64))
        volumes[disk.volume] = VolumeFile(draw(PATHS), draw(st.sampled_from(["qcow2", "raw"])))
    for nic_id in draw(st.lists(IDS, unique=True, max_size=4)):
        nic = spec.nics.add(id=nic_id, network=f"networks/{draw(HOSTILE)}")
        nic.mac = draw(names(r"5[26]:54(:[0-9a-f]{2}){4}"))
        nic.link_down = draw(st.booleans())
        networks[nic.network] = Bridge(draw(HOSTILE), draw(st.sampled_from([0, 1450, 9000])))
    return vm, Machine("tcg", draw(PATHS), draw(PATHS), volumes, networks)


@given(vms())
def test_every_field_is_carried(example: tuple[vm_pb2.Vm, Machine]) -> None:
    vm, machine = example
    seen = observed.parse_domain(domain_xml(vm, machine))
    spec = vm.spec
    assert f"vms/{seen.vm}" == vm.name
    assert (seen.uid, seen.uuid) == (vm.meta.uid, spec.uuid)
    assert seen.description == spec.description
    assert seen.memory_mib == spec.memory.memory_mib
    assert seen.max_memory_mib == max(spec.memory.memory_mib, spec.memory.max_memory_mib)
    assert (seen.vcpus, seen.max_vcpus) == (spec.cpu.vcpus, spec.cpu.vcpus)
    assert seen.console_log == machine.console_log
    assert list(seen.disks) == [disk.id for disk in spec.disks]
    for disk in spec.disks:
        found = seen.disks[disk.id]
        file = machine.volumes[disk.volume]
        cdrom = disk.device == vm_pb2.DISK_DEVICE_CDROM
        assert (found.path, found.format) == (file.path, file.format)
        assert (found.boot_order, found.read_only) == (disk.boot_order, disk.read_only or cdrom)
        assert found.device == ("cdrom" if cdrom else "disk")
    assert list(seen.nics) == [nic.id for nic in spec.nics]
    for nic in spec.nics:
        bridge = machine.networks[nic.network]
        got = seen.nics[nic.id]
        assert (got.mac, got.link_down) == (nic.mac, nic.link_down)
        assert (got.bridge, got.mtu) == (bridge.name, bridge.mtu)


@given(vms())
def test_nothing_escapes(example: tuple[vm_pb2.Vm, Machine]) -> None:
    """Whatever the values, the elements are the ones that the builder makes."""
    vm, machine = example
    root = ET.fromstring(domain_xml(vm, machine))
    known = {"domain", "name", "uuid", "title", "description", "metadata", "memory",
             "currentMemory", "vcpu", "cpu", "os", "features", "clock", "on_poweroff",
             "on_reboot", "on_crash", "devices"}  # fmt: skip
    assert {element.tag for element in root} <= known
    assert len(root.findall("devices/disk")) == len(vm.spec.disks)
    assert len(root.findall("devices/interface")) == len(vm.spec.nics)


@given(vms())
def test_one_device_is_built_like_the_whole(example: tuple[vm_pb2.Vm, Machine]) -> None:
    vm, machine = example
    root = ET.fromstring(domain_xml(vm, machine))

    def canonical(element: ET.Element | str) -> str:
        text = element if isinstance(element, str) else ET.tostring(element, encoding="unicode")
        return ET.canonicalize(text, strip_text=True)

    built = [disk_xml(vm, machine, disk.id) for disk in vm.spec.disks]
    built += [nic_xml(vm, machine, nic.id) for nic in vm.spec.nics]
    whole = [*root.iterfind("devices/disk"), *root.iterfind("devices/interface")]
    assert [canonical(one) for one in built] == [canonical(one) for one in whole]


@pytest.mark.parametrize("value", ["\x00", "\x1b[2J", "a\rb", "\ufffe", "\ud800"])
def test_what_xml_cannot_carry_is_refused(value: str) -> None:
    vm, machine = plain()
    if value != "\ud800":
        vm.spec.description = value
        with pytest.raises(PvcError) as caught:
            domain_xml(vm, machine)
        assert caught.value.reason == reason_pb2.REASON_INVALID_FIELD
        assert caught.value.field == "spec.description"
    with pytest.raises(PvcError) as caught:
        domain_xml(plain()[0], replace(machine, console_log=f"/x/{value}"))
    assert caught.value.reason == reason_pb2.REASON_INVALID_FIELD


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        (lambda vm: setattr(vm, "name", "vms/../x"), "INVALID_FIELD", "name"),
        (lambda vm: setattr(vm.spec.disks[0], "volume", volume("x")),
         "DANGLING_REFERENCE", "spec.disks[0].volume"),
        (lambda vm: setattr(vm.spec.disks[0], "volume", ""),
         "DANGLING_REFERENCE", "spec.disks[0].volume"),
        (lambda vm: setattr(vm.spec.nics[0], "network", "networks/x"),
         "DANGLING_REFERENCE", "spec.nics[0].network"),
        (lambda vm: setattr(vm.spec.cpu, "sockets", 3), "INVALID_FIELD", "spec.cpu.max_vcpus"),
        (lambda vm: vm.spec.cpu.MergeFrom(vm_pb2.CpuSpec(vcpus=4, max_vcpus=2)),
         "INVALID_FIELD", "spec.cpu.max_vcpus"),
        (lambda vm: vm.spec.memory.MergeFrom(vm_pb2.MemorySpec(memory_mib=99, max_memory_mib=64)),
         "INVALID_FIELD", "spec.memory.max_memory_mib"),
        (lambda vm: vm.spec.disks[0].MergeFrom(vm_pb2.DiskSpec(device=2, bus=2)),
         "INVALID_FIELD", "spec.disks[0].bus"),
        (lambda vm: vm.spec.disks[0].MergeFrom(vm_pb2.DiskSpec(read_only=True, bus=3)),
         "INVALID_FIELD", "spec.disks[0].read_only"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_names_its_field(
    change: Callable[[vm_pb2.Vm], None], reason: str, field: str
) -> None:
    vm, machine = plain()
    change(vm)
    with pytest.raises(PvcError) as caught:
        domain_xml(vm, machine)
    assert (caught.value.reason_name, caught.value.field) == (reason, field)


def test_drives_keep_their_names() -> None:
    vm = small_vm("web", "b", "c")
    machine = node(FOLDER, "web-b", "web-c")
    assert targets(vm.spec, machine) == {"b": "sda", "c": "sdb"}
    held = with_targets(machine, {"a": "sda", "c": "sdb"})
    assert targets(vm.spec, held) == {"b": "sdc", "c": "sdb"}
    vm.spec.disks[1].bus = vm_pb2.DISK_BUS_VIRTIO_BLK
    assert targets(vm.spec, held)["c"] == "vda"


def test_target_names_count_like_the_kernel_does() -> None:
    assert [target_index(name) for name in ("sda", "vdz", "sdaa", "sdba")] == [0, 25, 26, 52]


def test_many_disks_share_one_controller() -> None:
    vm = small_vm("web", *(f"d{number}" for number in range(32)))
    machine = node(FOLDER, *(f"web-d{number}" for number in range(32)))
    root = ET.fromstring(domain_xml(vm, machine))
    addresses = [address.attrib for address in root.iterfind("devices/disk/address")]
    assert len({address["target"] for address in addresses}) == 32
    assert {address["controller"] for address in addresses} == {"0"}


def test_devices_keep_their_places_on_the_bus() -> None:
    vm, machine = plain()
    vm.spec.nics.add(id="net1", network="networks/default", mac="52:54:00:00:00:02")
    before = ET.fromstring(domain_xml(vm, machine))
    place = dict(type="pci", domain="0x0000", bus="0x05", slot="0x00", function="0x0")
    ET.SubElement(before.findall("devices/interface")[1], "address", place)
    del vm.spec.nics[0]
    kept = observed.kept_places(domain_xml(vm, machine), ET.tostring(before, encoding="unicode"))
    found = ET.fromstring(kept).find("devices/interface/address")
    assert found is not None
    assert found.attrib == place
    vm.spec.machine = "pc"
    kept = observed.kept_places(domain_xml(vm, machine), ET.tostring(before, encoding="unicode"))
    assert ET.fromstring(kept).find("devices/interface/address") is None


def test_foreign_domains_have_no_name() -> None:
    seen = observed.parse_domain("<domain><name>x</name><memory>65536</memory></domain>")
    assert seen.vm == ""
    assert seen.max_memory_mib == 64
