"""What a VM's rules about nodes and other VMs say of one node: the musts as filters, the wishes as
scores.

Rules about VMs hold both ways: the rules of those already there bind a newcomer too. A VM whose
node takes no VMs any more binds nobody to it: a pair that must be together can leave it, one after
the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.capacity import Load, Names, Seat


def node_refused(vm: vm_pb2.Vm, seat: Seat) -> str:
    """The nodes it may be on, and its musts about nodes' tags."""
    placement = vm.spec.placement
    if placement.nodes and seat.node.name not in placement.nodes:
        return f"is none of {listed(placement.nodes)}, the only nodes that it may be on"
    for rule in placement.node_rules:
        if rule.required and (rule.tag in seat.tags) == rule.avoid:
            return f"{'has' if rule.avoid else 'lacks'} the tag {rule.tag}"
    return ""


def company_refused(vm: vm_pb2.Vm, seat: Seat, load: Load) -> str:
    """Its musts about other VMs, then the others' about it."""
    for rule in vm.spec.placement.vm_rules:
        if rule.required and (why := _broken(rule, seat, load)):
            return why
    for tag in vm.spec.tags:
        if shunning := seat.shunning.get(tag):
            return f"has {listed(shunning)}, to be apart from VMs with the tag {tag}"
        if why := _deserting(tag, vm, seat, load):
            return why
    return ""


def wishes_met(vm: vm_pb2.Vm, seat: Seat, load: Load) -> tuple[int, int]:
    """How many of its wishes the node meets, of how many."""
    nodes = [rule for rule in vm.spec.placement.node_rules if not rule.required]
    others = [rule for rule in vm.spec.placement.vm_rules if not rule.required]
    met = sum((rule.tag in seat.tags) != rule.avoid for rule in nodes)
    met += sum(not _broken(rule, seat, load) for rule in others)
    return met, len(nodes) + len(others)


def listed(names: Iterable[str], most: int = 3) -> str:
    """Some names for people: "a, b, c and 4 more"."""
    short = sorted(name.rpartition("/")[2] for name in names)
    rest = len(short) - most
    return ", ".join(short) if rest <= 0 else f"{', '.join(short[:most])} and {rest} more"


def _broken(rule: vm_pb2.VmRule, seat: Seat, load: Load) -> str:
    if rule.apart:
        there = seat.tagged.get(rule.tag)
        return f"has {listed(there)} with the tag {rule.tag}, to be apart from" if there else ""
    anchors = load.anchors.get(rule.tag)
    if not anchors or seat.node.name in anchors:
        return ""
    return f"has no VM with the tag {rule.tag} to be together with; {listed(anchors)} has"


def _deserting(tag: str, vm: vm_pb2.Vm, seat: Seat, load: Load) -> str:
    """Somebody elsewhere must be with a VM of this tag, and there is no other one with it."""
    for node, followers in load.followers.get(tag, {}).items():
        if node == seat.node.name:
            continue
        company = load.anchors.get(tag, Names()).get(node, set())
        lonely = sorted(name for name in followers if not company - {name})
        if lonely:
            return f"is not {listed([node])}, where {listed(lonely)} must be together with it"
    return ""
