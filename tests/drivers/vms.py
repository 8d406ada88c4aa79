"""VMs and nodes to build domains for."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.domain_xml import Bridge, Machine, VolumeFile

_SPACE = uuid.UUID("00000000-0000-4000-8000-000000000001")


def volume(name: str) -> str:
    return f"pools/local/volumes/{name}"


def small_vm(vm_id: str, *disks: str) -> vm_pb2.Vm:
    """A VM of 64 MiB with the disks of these names, each on a volume of its own."""
    vm = vm_pb2.Vm(name=f"vms/{vm_id}")
    vm.meta.uid = f"uid-{vm_id}"
    vm.meta.generation = 1
    vm.spec.uuid = str(uuid.uuid5(_SPACE, vm_id))
    vm.spec.memory.memory_mib = 64
    for index, disk in enumerate(disks):
        vm.spec.disks.add(id=disk, volume=volume(f"{vm_id}-{disk}"), boot_order=index + 1)
    return vm


def node(folder: Path, *volumes: str, bridge: str = "br0", image_format: str = "qcow2") -> Machine:
    """A node with these volumes as files in a folder and the network `default`."""
    files = {
        volume(name): VolumeFile(str(folder / f"{name}.{image_format}"), image_format)
        for name in volumes
    }
    return Machine(
        accelerator="tcg",
        console_log=str(folder / "console.log"),
        nvram=str(folder / "nvram.fd"),
        volumes=files,
        networks={"networks/default": Bridge(bridge)},
    )


def with_targets(machine: Machine, targets: dict[str, str]) -> Machine:
    """The node with the drives' names that a running domain has."""
    return replace(machine, targets=targets)
