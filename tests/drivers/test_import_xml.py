"""A user's libvirt XML becomes a spec: golden files, and what is refused and why.

Run with PVC_WRITE_GOLDEN=1 to write the golden files anew, then read the difference.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from services.compute.drivers import observed
from services.compute.drivers.domain_xml import Bridge, Machine, VolumeFile, domain_xml
from services.compute.drivers.import_xml import XML_BYTES_MAX, Imported, import_xml
from services.mesh.errors import PvcError

IMPORTS = Path(__file__).with_name("imports")
MAPS = {
    "workstation": ({"vda": "pools/local/volumes/build"}, {"default": "networks/default"}),
    "uefi-desktop": (
        {"sda": "pools/local/volumes/c", "sdb": "pools/local/volumes/d"},
        {"br-office": "networks/office"},
    ),
    "old-server": (
        {"hda": "pools/local/volumes/mail"},
        {"user": "networks/default", "eno1": "networks/office"},
    ),
}


def example(name: str) -> Imported:
    return import_xml((IMPORTS / f"{name}.xml").read_text(), *MAPS[name])


@pytest.mark.parametrize("name", MAPS)
def test_golden(name: str) -> None:
    found = example(name)
    lines = [f"# {found.vm_id}", *(f"# {warning}" for warning in found.warnings)]
    text = "\n".join(lines) + "\n" + text_format.MessageToString(found.spec)
    path = IMPORTS / f"{name}.txt"
    if os.environ.get("PVC_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", MAPS)
def test_what_is_imported_can_be_built(name: str) -> None:
    spec = example(name).spec
    machine = Machine(
        "tcg", "/log", "/nvram",
        {disk.volume: VolumeFile(f"/{disk.volume}", "raw") for disk in spec.disks if disk.volume},
        {nic.network: Bridge("br0") for nic in spec.nics},
    )  # fmt: skip
    seen = observed.parse_domain(domain_xml(vm_pb2.Vm(name="vms/web", spec=spec), machine))
    assert [disk.id for disk in spec.disks] == list(seen.disks)


def test_a_built_domain_comes_back() -> None:
    """What PVC says of one of its own VMs can be imported again."""
    spec = example("workstation").spec
    machine = Machine(
        "tcg", "/log", "/nvram",
        {"pools/local/volumes/build": VolumeFile("/b", "qcow2")},
        {"networks/default": Bridge("br0")},
    )  # fmt: skip
    xml = domain_xml(vm_pb2.Vm(name="vms/web", spec=spec), machine)
    again = import_xml(xml, {"vda": "pools/local/volumes/build"}, {"br0": "networks/default"})
    assert again.vm_id == "web"
    assert again.spec.disks[0].volume == spec.disks[0].volume
    assert (again.spec.memory, again.spec.uuid) == (spec.memory, spec.uuid)
    assert again.spec.nics[0].mac == spec.nics[0].mac


BASE = """<domain type='kvm'><name>web</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<devices>DEVICES</devices>EXTRA</domain>"""


def domain(devices: str = "", extra: str = "") -> str:
    return BASE.replace("DEVICES", devices).replace("EXTRA", extra)


@dataclass(frozen=True)
class Refusal:
    xml: str
    reason: str
    field: str
    words: str


DISK = "<disk type='file' device='disk'><source file='/x.img'/><target dev='vda'/>{}</disk>"
REFUSALS = {
    "passthrough": Refusal(
        domain("<hostdev type='pci'><source><address bus='3'/></source></hostdev>"),
        "NOT_SUPPORTED", "xml", "hostdev"),
    "raw qemu arguments": Refusal(
        domain(extra="<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>"
               "<q:arg value='-snapshot'/></q:commandline>"),
        "NOT_SUPPORTED", "xml", "qemu:commandline"),
    "a foreign namespace": Refusal(
        domain(extra="<x:y xmlns:x='urn:x'/>"), "NOT_SUPPORTED", "xml", "urn:x"),
    "encrypted memory": Refusal(
        domain(extra="<launchSecurity type='sev'/>"), "NOT_SUPPORTED", "xml", "launchSecurity"),
    "a kernel of the host": Refusal(
        domain().replace("</type></os>", "</type><kernel>/boot/vmlinuz</kernel></os>"),
        "NOT_SUPPORTED", "xml", "boot loader"),
    "a container": Refusal(domain().replace("kvm", "lxc"), "NOT_SUPPORTED", "xml", "lxc"),
    "another processor": Refusal(
        domain().replace("x86_64", "aarch64"), "NOT_SUPPORTED", "xml", "aarch64"),
    "another machine": Refusal(
        domain().replace("q35", "microvm"), "NOT_SUPPORTED", "xml", "microvm"),
    "a disk without volume": Refusal(
        domain(DISK.format("")), "INVALID_FIELD", "volumes", "/x.img"),
    "a volume without disk": Refusal(
        domain(DISK.format("").replace("vda", "vdb")), "INVALID_FIELD", "volumes", "vdb"),
    "an interface without network": Refusal(
        domain("<interface type='bridge'><source bridge='br9'/></interface>"),
        "INVALID_FIELD", "networks", "br9"),
    "an interface of the host's": Refusal(
        domain("<interface type='hostdev'/>"), "NOT_SUPPORTED", "xml", "hostdev"),
    "a shared disk": Refusal(
        domain(DISK.format("<shareable/>")), "NOT_SUPPORTED", "xml", "shared"),
    "a floppy disk": Refusal(
        domain("<disk type='file' device='floppy'><target dev='fda'/></disk>"),
        "NOT_SUPPORTED", "xml", "floppy"),
    "two disks of one target": Refusal(
        domain(DISK.format("") * 2), "INVALID_CONTENT", "xml", "names two"),
    "no XML": Refusal("virsh: no such domain", "INVALID_CONTENT", "xml", "no XML"),
    "NUL": Refusal("<domain>\0</domain>", "INVALID_CONTENT", "xml", "no XML"),
    "a surrogate": Refusal("<domain>\ud800</domain>", "INVALID_CONTENT", "xml", "no XML"),
    "another document": Refusal("<network/>", "INVALID_CONTENT", "xml", "virsh dumpxml"),
    "a bomb": Refusal(
        "<!DOCTYPE d [<!ENTITY a 'aa'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>",
        "INVALID_CONTENT", "xml", "DOCTYPE"),
    "a file of the host": Refusal(
        "<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/shadow'>]><domain><name>&a;</name></domain>",
        "INVALID_CONTENT", "xml", "DOCTYPE"),
    "a deep one": Refusal("<domain>" + "<a>" * 99 + "</a>" * 99 + "</domain>",
                          "INVALID_CONTENT", "xml", "deep"),
    "a huge one": Refusal("<domain>" + " " * XML_BYTES_MAX + "</domain>",
                          "TOO_LARGE", "xml", "bytes"),
    "no number": Refusal(domain().replace("u>1", "u>1e9"), "INVALID_CONTENT", "xml", "vcpu"),
    "no unit": Refusal(domain().replace("'MiB'", "'MB or so'"), "INVALID_CONTENT", "xml", "memory"),
    "a bad MAC": Refusal(
        domain("<interface type='bridge'><source bridge='br0'/><mac address='&quot;;rm'/>"
               "</interface>"), "INVALID_FIELD", "vm.spec.nics[0].mac", ""),
    "a bad UUID": Refusal(
        domain(extra="<uuid>../../etc</uuid>"), "INVALID_FIELD", "vm.spec.uuid", ""),
    "a bad model": Refusal(
        domain(extra="<cpu><model>qemu64,+x</model></cpu>"), "INVALID_FIELD",
        "vm.spec.cpu.model", ""),
    "too much memory": Refusal(
        domain().replace("512", "99999999999"), "INVALID_FIELD", "vm.spec.memory.memory_mib", ""),
    "too little memory": Refusal(
        domain().replace("512", "8"), "INVALID_FIELD", "vm.spec.memory.memory_mib", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(name: str) -> None:
    refusal = REFUSALS[name]
    volumes = {} if name == "a disk without volume" else {"vda": "pools/p/volumes/v"}
    if "vda" not in refusal.xml and name != "a volume without disk":
        volumes = {}
    with pytest.raises(PvcError, match=refusal.words or None) as caught:
        import_xml(refusal.xml, volumes, {"br0": "networks/default"})
    assert (caught.value.reason_name, caught.value.field) == (refusal.reason, refusal.field)


@pytest.mark.parametrize(
    ("name", "vm_id"),
    [("Web_Server 01", "web-server-01"), ("x" * 99, "x" * 63), ("日本", "imported")],
)
def test_names_that_are_no_ids(name: str, vm_id: str) -> None:
    found = import_xml(domain().replace("web", name), {}, {})
    assert found.vm_id == vm_id
    assert any(repr(name) in warning for warning in found.warnings)


@given(st.text(alphabet="<>/domainevcsk='\"&;![]-# \n\u2028", max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    for xml in (text, domain(text), domain(extra=text)):
        try:
            import_xml(xml, {}, {})
        except PvcError as error:
            assert error.message
