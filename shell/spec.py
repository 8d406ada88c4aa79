"""The specs of VMs out of what was given on the command line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc_client.names import full_name
from shell.measures import MIB

FIELDS: Mapping[str, str] = {
    "vcpus": "spec.cpu.vcpus",
    "max_vcpus": "spec.cpu.max_vcpus",
    "cpu_model": "spec.cpu.model",
    "memory": "spec.memory.memory_mib",
    "max_memory": "spec.memory.max_memory_mib",
    "description": "spec.description",
    "machine": "spec.machine",
    "firmware": "spec.firmware",
    "autostart": "spec.autostart",
    "shutdown_timeout": "spec.shutdown_timeout_s",
    "tags": "spec.tags",
}
"""Option → field of a Vm."""
IN_MIB = ("memory", "max_memory")
ENUMS: Mapping[str, tuple[Any, str]] = {
    "firmware": (vm_pb2.Firmware, "FIRMWARE_"),
    "autostart": (vm_pb2.Autostart, "AUTOSTART_"),
}


def apply(vm: vm_pb2.Vm, given: Mapping[str, Any]) -> list[str]:
    """Sets the fields of the options that were given; gives their paths, for an update mask."""
    paths = []
    for option, path in FIELDS.items():
        value = given.get(option)
        if value is None:
            continue
        paths.append(path)
        *outer, last = path.split(".")
        target: Any = vm
        for step in outer:
            target = getattr(target, step)
        if isinstance(value, list | tuple):
            target.ClearField(last)
            getattr(target, last).extend(value)
        else:
            setattr(target, last, plain(option, value))
    return paths


def plain(option: str, value: Any) -> Any:
    """An option's value as its field has it."""
    if option in ENUMS:
        enum, prefix = ENUMS[option]
        return enum.Value(prefix + value.upper().replace("-", "_"))
    return value // MIB if option in IN_MIB else value


def new_vm(given: Mapping[str, Any], disks: Sequence[str], networks: Sequence[str]) -> vm_pb2.Vm:
    """A VM with these volumes as its drives and an interface on each network."""
    vm = vm_pb2.Vm()
    apply(vm, given)
    for number, volume in enumerate(disks):
        vm.spec.disks.add(
            id="root" if number == 0 else f"disk{number}",
            volume=full_name("pools/volumes", volume, "disk"),
            boot_order=1 if number == 0 else 0,
        )
    for number, network in enumerate(networks):
        vm.spec.nics.add(id=f"net{number}", network=full_name("networks", network, "network"))
    return vm


def retagged(there: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> list[str]:
    """Tags after adding and removing some, in their order."""
    kept = [tag for tag in there if tag not in remove]
    return kept + [tag for tag in add if tag not in kept]


def next_id(prefix: str, there: Sequence[str]) -> str:
    """The first free id: "disk1", "net0"."""
    number = 0 if prefix == "net" else 1
    while f"{prefix}{number}" in there:
        number += 1
    return f"{prefix}{number}"
