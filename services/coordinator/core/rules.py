"""What a VM's rules about nodes and other VMs say of one node: the musts as filters, the wishes as
scores.

Rules about VMs hold both ways: the rules of those already there bind a newcomer too. A VM whose
node takes no VMs any more binds nobody to it: a pair that must be together can leave it, one after
the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.capacity import Load, Seat

NodeTags = tuple[tuple[str, bool], ...]
"""Tag, and whether the node should lack it."""
Company = Mapping[str, Set[str]]
"""Tag → nodes where VMs with it are bound to be."""
NOBODY: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """A VM's rules, and those of others about it, in the form that they are looked up in."""

    nodes: Set[str]
    """The only nodes that it may be on; empty for all."""
    tags: tuple[str, ...]
    node_musts: NodeTags
    node_wishes: NodeTags
    apart_musts: tuple[str, ...]
    apart_wishes: tuple[str, ...]
    with_musts: Company
    with_wishes: Company
    needed: tuple[tuple[str, str], ...]
    """Node, and who must be together with this VM there."""

    @property
    def wishes(self) -> int:
        """How many there are."""
        return len(self.node_wishes) + len(self.apart_wishes) + len(self.with_wishes)


def rules_of(vm: vm_pb2.Vm, load: Load) -> Rules:
    """The VM itself does not count in `load`."""
    placement = vm.spec.placement
    about_nodes, about_vms = list(placement.node_rules), list(placement.vm_rules)
    return Rules(
        nodes=frozenset(placement.nodes),
        tags=tuple(vm.spec.tags),
        node_musts=tuple((rule.tag, rule.avoid) for rule in about_nodes if rule.required),
        node_wishes=tuple((rule.tag, rule.avoid) for rule in about_nodes if not rule.required),
        apart_musts=tuple(rule.tag for rule in about_vms if rule.apart and rule.required),
        apart_wishes=tuple(rule.tag for rule in about_vms if rule.apart and not rule.required),
        with_musts=_company(load, [rule.tag for rule in about_vms if _binds(rule)]),
        with_wishes=_company(
            load, [rule.tag for rule in about_vms if not rule.apart and not rule.required]
        ),
        needed=tuple(_needed(vm, load)) if load.followers else (),
    )


def refused(rules: Rules, seat: Seat) -> str:
    """The first must that the node breaks; "" when it breaks none."""
    if rules.nodes and seat.node.name not in rules.nodes:
        return f"is none of {listed(rules.nodes)}, the only nodes that it may be on"
    for tag, avoid in rules.node_musts:
        if (tag in seat.tags) == avoid:
            return f"{'has' if avoid else 'lacks'} the tag {tag}"
    for tag in rules.apart_musts:
        if tag in seat.tagged:
            return f"has {listed(seat.tagged[tag])} with the tag {tag}, to be apart from"
    for tag, nodes in rules.with_musts.items():
        if nodes and seat.node.name not in nodes:
            return f"has no VM with the tag {tag} to be together with; {listed(nodes)} has"
    if seat.shunning:
        for tag in rules.tags:
            if tag in seat.shunning:
                return f"has {listed(seat.shunning[tag])}, to be apart from VMs with the tag {tag}"
    for node, lonely in rules.needed:
        if node != seat.node.name:
            return f"is not {listed([node])}, where {lonely} must be together with it"
    return ""


def wishes_met(rules: Rules, seat: Seat) -> int:
    """How many wishes the node meets."""
    met = 0
    for tag, avoid in rules.node_wishes:
        met += (tag in seat.tags) != avoid
    for tag in rules.apart_wishes:
        met += tag not in seat.tagged
    for nodes in rules.with_wishes.values():
        met += not nodes or seat.node.name in nodes
    return met


def listed(names: Iterable[str], most: int = 3) -> str:
    """Some names for people: "a, b, c and 4 more"."""
    short = sorted(name.rpartition("/")[2] for name in names)
    rest = len(short) - most
    return ", ".join(short) if rest <= 0 else f"{', '.join(short[:most])} and {rest} more"


def _binds(rule: vm_pb2.VmRule) -> bool:
    return rule.required and not rule.apart


def _company(load: Load, tags: Iterable[str]) -> Company:
    return {tag: load.anchors.get(tag, {}).keys() for tag in tags}


def _needed(vm: vm_pb2.Vm, load: Load) -> Iterable[tuple[str, str]]:
    """Somebody must be with a VM of one of its tags, and there is no other one with it."""
    for tag in vm.spec.tags:
        company = load.anchors.get(tag, {})
        for node, followers in load.followers.get(tag, {}).items():
            there = company.get(node, NOBODY)
            lonely = [name for name in followers if not there - {name}]
            if lonely:
                yield node, listed(lonely)
