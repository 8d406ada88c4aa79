"""The specs of VMs out of what was given on the command line. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pvc.compute.v1 import vm_pb2
from pvc_client.names import full_name


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


def equipped(vm: vm_pb2.Vm, disks: Sequence[str], networks: Sequence[str]) -> vm_pb2.Vm:
    """The VM with these volumes as its drives and an interface on each network."""
    for number, volume in enumerate(disks):
        vm.spec.disks.add(
            id="root" if number == 0 else f"disk{number}",
            volume=full_name("pools/volumes", volume, "--disk"),
            boot_order=1 if number == 0 else 0,
        )
    for number, network in enumerate(networks):
        vm.spec.nics.add(id=f"net{number}", network=full_name("networks", network, "--network"))
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
