"""A domain that PVC wrote comes back as the VM that it was."""

from __future__ import annotations

from pathlib import Path

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.domain_xml import domain_xml
from services.compute.drivers.import_xml import import_xml
from services.compute.machine import machine_for
from tests.compute.world import NET, POOL, World


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
