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
    "ha_policy": "spec.ha.policy",
    "ha_priority": "spec.ha.priority",
    "start_after": "spec.ha.start_after",
    "selector": "spec.placement.selector",
    "limit_nodes": "spec.placement.nodes",
    "node_rule": "spec.placement.node_rules",
    "vm_rule": "spec.placement.vm_rules",
    "balance": "spec.placement.balance",
    "migration_method": "spec.migration.method",
    "allow_post_copy": "spec.migration.allow_post_copy",
    "max_downtime": "spec.migration.max_downtime_ms",
}
"""Option → field of a Vm."""
IN_MIB = ("memory", "max_memory")
ENUMS: Mapping[str, tuple[Any, str]] = {
    "firmware": (vm_pb2.Firmware, "FIRMWARE_"),
    "autostart": (vm_pb2.Autostart, "AUTOSTART_"),
    "ha_policy": (vm_pb2.NodeFailurePolicy, "NODE_FAILURE_POLICY_"),
    "selector": (vm_pb2.NodeSelector, "NODE_SELECTOR_"),
    "migration_method": (vm_pb2.MigrationMethod, "MIGRATION_METHOD_"),
}
NAMED: Mapping[str, str] = {"start_after": "vms", "limit_nodes": "nodes"}
"""Option whose values name others → where those are."""


def apply(vm: vm_pb2.Vm, given: Mapping[str, Any]) -> list[str]:
    """Sets the fields of the options that were given; gives their paths, for an update mask."""
    paths = []
    for option, path in FIELDS.items():
        value = given.get(option)
        if value is None or value == ():
            continue
        paths.append(path)
        *outer, last = path.split(".")
        target: Any = vm
        for step in outer:
            target = getattr(target, step)
        if isinstance(value, list | tuple):
            target.ClearField(last)
            getattr(target, last).extend(items(option, value))
        else:
            setattr(target, last, plain(option, value))
    return paths


def plain(option: str, value: Any) -> Any:
    """An option's value as its field has it."""
    if option in ENUMS:
        enum, prefix = ENUMS[option]
        return enum.Value(prefix + value.upper().replace("-", "_"))
    return value // MIB if option in IN_MIB else value


def items(option: str, values: Sequence[Any]) -> list[Any]:
    """An option's values as its list has them; "" stands for none. Raises ValueError."""
    given = [value for value in values if value != ""]
    if option in NAMED:
        return [full_name(NAMED[option], one, option) for one in given]
    rules = {"node_rule": node_rule, "vm_rule": vm_rule}
    return [rules[option](one) for one in given] if option in rules else given


def node_rule(text: str) -> vm_pb2.NodeRule:
    """A rule about nodes: "ssd", "avoid:rack-b:required". Raises ValueError."""
    rest, required = _required(text)
    kind, _, tag = rest.rpartition(":")
    if kind not in ("", "on", "avoid") or not tag:
        raise ValueError(f"{text!r}: write TAG or avoid:TAG, and :required for a must")
    return vm_pb2.NodeRule(tag=tag, avoid=kind == "avoid", required=required)


def vm_rule(text: str) -> vm_pb2.VmRule:
    """A rule about other VMs: "with:cache", "apart:db:required". Raises ValueError."""
    rest, required = _required(text)
    kind, _, tag = rest.partition(":")
    if kind not in ("with", "apart") or not tag:
        raise ValueError(f"{text!r}: write with:TAG or apart:TAG, and :required for a must")
    return vm_pb2.VmRule(tag=tag, apart=kind == "apart", required=required)


def _required(text: str) -> tuple[str, bool]:
    rest = text.removesuffix(":required")
    return rest, rest != text


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
