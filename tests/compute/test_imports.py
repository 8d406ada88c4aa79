"""Domains that others wrote, as VMs: what is taken over, what is told, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from services.compute.core.imports import import_vm
from services.compute.drivers.domain_xml import domain_xml
from services.compute.drivers.import_xml import import_xml
from services.compute.machine import machine_for
from services.mesh.errors import PvcError
from tests.compute.world import NET, POOL, World

DOMAIN = """
<domain type='kvm'>
  <name>Old_Server</name>
  <uuid>AAAAAAAA-0000-0000-0000-000000000001</uuid>
  <description>the old &lt;shop&gt;</description>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static' current='2'>4</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-5.2'>hvm</type><boot dev='cdrom'/><boot dev='hd'/></os>
  <cpu mode='host-passthrough'><topology sockets='1' dies='1' cores='2' threads='2'/></cpu>
  <cputune/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='directsync' discard='unmap'/>
      <source file='/var/lib/libvirt/images/old.qcow2'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='/iso/debian.iso'/><target dev='hda' bus='ide'/><readonly/>
    </disk>
    <disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:AB:CD:EF'/><source bridge='br0'/><model type='rtl8139'/>
      <link state='down'/>
    </interface>
    <interface type='user'/>
    <serial type='pty'/>
    <graphics type='spice'/>
    <sound model='ich6'/>
  </devices>
</domain>
"""
VOLUMES = {"vda": f"{POOL}/volumes/root"}
NETWORKS = {"br0": NET}


def test_what_a_domain_says_is_taken_over() -> None:
    found = import_xml(DOMAIN, VOLUMES, NETWORKS)
    spec = found.spec
    assert (spec.cpu.vcpus, spec.cpu.max_vcpus, spec.cpu.cores, spec.cpu.model) == (2, 4, 2, "host")
    assert (spec.memory.memory_mib, spec.memory.max_memory_mib) == (2048, 4096)
    assert spec.machine == "pc-i440fx-5.2" and spec.description == "the old <shop>"
    assert [(d.id, d.bus, d.boot_order) for d in spec.disks] == [
        ("vda", vm_pb2.DISK_BUS_VIRTIO_BLK, 2),
        ("hda", vm_pb2.DISK_BUS_SATA, 1),
    ]
    assert spec.disks[1].volume == "" and spec.disks[1].read_only
    assert spec.nics[0].mac == "52:54:00:ab:cd:ef" and spec.nics[0].link_down
    assert spec.serial_console and spec.vnc and not spec.guest_agent and not spec.rng


def test_what_has_no_place_is_told() -> None:
    told = " ".join(import_xml(DOMAIN, VOLUMES, NETWORKS).warnings)
    for word in (
        "directsync",
        "debian.iso",
        "floppy",
        "rtl8139",
        "user",
        "VNC",
        "<sound>",
        "<cputune>",
    ):
        assert word in told, word


def test_a_domain_of_our_own_comes_back_as_it_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create(start=False, description="mine", firmware=vm_pb2.FIRMWARE_UEFI)
    vm = world.vm()
    xml = domain_xml(vm, machine_for(world.state, vm, world.settings, "tcg", {}))
    found = import_xml(xml, {"sda": f"{POOL}/volumes/root"}, {"br-default": NET})
    spec = found.spec
    assert (found.vm_id, spec.uuid, spec.description) == ("web", vm.spec.uuid, "mine")
    assert spec.firmware == vm_pb2.FIRMWARE_UEFI and spec.nics[0].mac == vm.spec.nics[0].mac
    assert spec.disks[0].boot_order == 1 and spec.disks[0].bus == vm_pb2.DISK_BUS_VIRTIO_SCSI
    assert spec.guest_agent and spec.rng and spec.vnc and spec.serial_console


@pytest.mark.parametrize(
    ("before", "after", "reason", "field"),
    [
        ("<domain", "<domain", "", ""),
        ("<domain type='kvm'>", "<domain type='xen'>", "INVALID_CONTENT", "xml"),
        ("</domain>", "", "INVALID_CONTENT", "xml"),
        ("<domain", "<!DOCTYPE d [<!ENTITY a 'b'>]><domain", "INVALID_CONTENT", "xml"),
        ("arch='x86_64'", "arch='aarch64'", "NOT_SUPPORTED", "xml"),
        ("<boot dev='cdrom'/>", "<kernel>/boot/vmlinuz</kernel>", "NOT_SUPPORTED", "xml"),
        (">4194304<", ">many<", "INVALID_CONTENT", "xml"),
        ("unit='KiB'>4", "unit='cows'>4", "INVALID_CONTENT", "xml"),
        ("current='2'", "current='-2'", "INVALID_CONTENT", "xml"),
        ("dev='vda'", "dev='../vda'", "INVALID_FIELD", "volumes"),
        ("bridge='br0'", "bridge='br9'", "INVALID_FIELD", "networks"),
        ("52:54:00:AB:CD:EF", "ff:ff:ff:ff:ff:ff", "INVALID_FIELD", "xml.nics[0].mac"),
        ("AAAAAAAA-", "../../etc-", "INVALID_FIELD", "xml.uuid"),
        ("current='2'>4<", "current='2'>999999<", "INVALID_FIELD", "xml.cpu.max_vcpus"),
    ],
)
def test_what_is_refused(tmp_path: Path, before: str, after: str, reason: str, field: str) -> None:
    world = World(tmp_path)
    assert before in DOMAIN
    text = DOMAIN.strip().replace(before, after, 1)
    request = api.ImportVmRequest(xml=text, vm_id="old", volumes=VOLUMES, networks=NETWORKS)
    if not reason:
        response = world.ask(import_vm, request)
        assert response.vm.name == "vms/old" and world.vm("old").spec.nics[0].link_down
        return
    with pytest.raises(PvcError) as caught:
        world.ask(import_vm, request)
    assert (caught.value.reason_name, caught.value.field) == (reason, field)


def test_drives_and_bridges_must_be_given_and_exist() -> None:
    for volumes, networks, field in (
        ({}, NETWORKS, "volumes"),
        (VOLUMES, {}, "networks"),
        (VOLUMES | {"vdz": "x"}, NETWORKS, "volumes"),
        (VOLUMES, NETWORKS | {"br7": NET}, "networks"),
    ):
        with pytest.raises(PvcError) as caught:
            import_xml(DOMAIN, volumes, networks)
        assert caught.value.field == field


def test_a_name_that_cannot_be_an_id_needs_another(tmp_path: Path) -> None:
    world = World(tmp_path)
    request = api.ImportVmRequest(xml=DOMAIN, volumes=VOLUMES, networks=NETWORKS)
    with pytest.raises(PvcError) as caught:
        world.ask(import_vm, request)
    assert caught.value.field == "vm_id"
