"""Where a VM goes: filters that say why not, scores that say how well, and the verdicts that people
read.

A filter answers "" or one short sentence. A score is a number between 0 and 1 with a weight; the
table at the end of each list is the whole policy.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.capacity import Load, Seat, load_of
from services.coordinator.core.rules import Rules, refused, rules_of, wishes_met
from services.coordinator.core.world import WANT_MEMORY, World, memory_of

__all__ = ["Load", "Seat", "judge", "load_of", "place", "why_none"]

VERDICTS_KEPT = 12
"""Verdicts that are kept with a decision; of more nodes only the best are told."""
NODES_TOLD = 3
"""Nodes that a refusal names where many refuse for one reason."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A VM that wants a node: what does not depend on the node. It is not counted in `load`."""

    vm: vm_pb2.Vm
    load: Load
    memory_mib: int
    """What it takes once it is there; 0 while it is to be off."""
    vcpus: int
    model: str
    pinned: tuple[tuple[str, str], ...]
    """Volume → the only node that can open it."""
    shared: tuple[tuple[str, Mapping[str, str]], ...]
    """Shared pool or network → node → why it cannot be used there."""
    rules: Rules
    ruled: bool
    """There are rules, its own or those of others about it."""
    wishes: int
    """How many wishes it has."""


def not_open(ask: Ask, seat: Seat) -> str:
    """The node must be there, and take VMs."""
    return seat.closed


def rule_broken(ask: Ask, seat: Seat) -> str:
    """The musts about nodes and VMs, its own and those of others about it."""
    return refused(ask.rules, seat) if ask.ruled or seat.shunning else ""


def volume_elsewhere(ask: Ask, seat: Seat) -> str:
    """The node must be able to open every volume."""
    for volume, holder in ask.pinned:
        if holder != seat.node.name:
            return f"cannot open {volume}, which is on {holder}"
    return ""


def not_ready(ask: Ask, seat: Seat) -> str:
    """Shared pools and networks must work there."""
    for resource, nodes in ask.shared:
        if (why := nodes.get(seat.node.name)) is not None:
            return f"cannot use {resource}: {why}"
    return ""


def model_unknown(ask: Ask, seat: Seat) -> str:
    """The node must be able to show the guest this processor."""
    if ask.model in ("", "host") or not seat.models or ask.model in seat.models:
        return ""
    return f"cannot give its guests the CPU model {ask.model}"


def processors_short(ask: Ask, seat: Seat) -> str:
    """A guest cannot have more processors than the machine."""
    if ask.vcpus <= seat.cpus or not seat.kvm:
        return ""
    return f"has {seat.cpus} processors, fewer than the {ask.vcpus} it needs"


def memory_short(ask: Ask, seat: Seat) -> str:
    """The memory of a VM that is to run must be free."""
    free = seat.memory_mib - seat.taken_mib
    if ask.memory_mib <= free or not ask.memory_mib:
        return ""
    return f"has {max(free, 0)} MiB free of the {ask.memory_mib} MiB it needs"


def full(ask: Ask, seat: Seat) -> str:
    """No more VMs than the administrator allows."""
    if not seat.max_vms or seat.vms < seat.max_vms or not ask.memory_mib:
        return ""
    return f"has its {seat.max_vms} VMs already"


FILTERS: tuple[Callable[[Ask, Seat], str], ...] = (
    not_open,
    rule_broken,
    volume_elsewhere,
    not_ready,
    model_unknown,
    processors_short,
    memory_short,
    full,
)


def unpromised_memory(ask: Ask, seat: Seat) -> float:
    """The share of memory that stays free of promises."""
    free = seat.memory_mib - seat.taken_mib - memory_of(ask.vm)
    return max(free, 0) / seat.memory_mib if seat.memory_mib else 0.0


def available_memory(ask: Ask, seat: Seat) -> float:
    """The share of memory that is truly free, less what was placed since that was told."""
    if not seat.available_mib:
        return unpromised_memory(ask, seat)
    since = seat.taken_mib - seat.told_mib + memory_of(ask.vm)
    whole = seat.node.status.memory_mib or seat.memory_mib
    return min(max(seat.available_mib - since, 0) / max(whole, 1), 1.0)


def idle_processors(ask: Ask, seat: Seat) -> float:
    """How little waits for a processor."""
    return 1 / (1 + seat.load)


def free_processors(ask: Ask, seat: Seat) -> float:
    """How few processors are promised for each that is there."""
    return seat.cpus / (seat.cpus + seat.vcpus + ask.vcpus) if seat.cpus else 0.0


def few_vms(ask: Ask, seat: Seat) -> float:
    """How few VMs it has."""
    return 1 / (1 + seat.vms)


def at_home(ask: Ask, seat: Seat) -> float:
    """It is there already."""
    return float(ask.vm.decision.node == seat.node.name)


def wishes(ask: Ask, seat: Seat) -> float:
    """The share of its wishes that the node meets."""
    return wishes_met(ask.rules, seat) / ask.wishes if ask.wishes else 0.0


Score = Callable[[Ask, Seat], float]

MAIN: Mapping[int, tuple[str, Score]] = {
    vm_pb2.NODE_SELECTOR_UNSPECIFIED: ("free memory", unpromised_memory),
    vm_pb2.NODE_SELECTOR_MEM: ("available memory", available_memory),
    vm_pb2.NODE_SELECTOR_MEMPROV: ("free memory", unpromised_memory),
    vm_pb2.NODE_SELECTOR_LOAD: ("idle processors", idle_processors),
    vm_pb2.NODE_SELECTOR_VCPUS: ("free processors", free_processors),
    vm_pb2.NODE_SELECTOR_VMS: ("few VMs", few_vms),
}
"""What the VM's selector makes the main score."""
MAIN_WEIGHT = 10.0

SCORES: tuple[tuple[float, str, Score], ...] = (
    (3.0, "free processors", free_processors),
    (2.0, "at home", at_home),
    (20.0, "wishes met", wishes),
)
"""Beside it. A wish outweighs all the rest."""


def place(world: World, vm: vm_pb2.Vm, load: Load) -> tuple[str, tuple[vm_pb2.NodeVerdict, ...]]:
    """The best node ("" if none fits) and the verdicts, the best first; at most VERDICTS_KEPT where
    one fits, else all."""
    with asking(world, vm, load) as ask:
        table = _table(ask)
        fitting = [seat for seat in load.seats.values() if not refusal(ask, seat)]
        ranked = heapq.nsmallest(
            VERDICTS_KEPT, ((-_points(ask, seat, table), seat.node.name) for seat in fitting)
        )
        best = [load.seats[name] for _, name in ranked]
        kept = {name for _, name in ranked}
        rest = [seat for name, seat in sorted(load.seats.items()) if name not in kept]
        told = [*best, *rest][: VERDICTS_KEPT if best else None]
        return ranked[0][1] if ranked else "", tuple(_verdict(ask, seat) for seat in told)


def judge(world: World, vm: vm_pb2.Vm, node: cluster_pb2.Node, load: Load) -> vm_pb2.NodeVerdict:
    """What placement thinks of one node."""
    with asking(world, vm, load) as ask:
        return _verdict(ask, load.seats[node.name])


def judge_all(world: World, vm: vm_pb2.Vm, load: Load) -> tuple[vm_pb2.NodeVerdict, ...]:
    """What placement thinks of every node, the best first."""
    with asking(world, vm, load) as ask:
        verdicts = [_verdict(ask, seat) for seat in load.seats.values()]
    return tuple(sorted(verdicts, key=lambda v: (not v.fits, -v.score, v.node)))


def why_none(verdicts: Sequence[vm_pb2.NodeVerdict]) -> str:
    """Why no node fits, one sentence; nodes with the same reasons together."""
    if not verdicts:
        return "there is no node"
    alike: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        alike[" and ".join(verdict.reasons)].append(verdict.node.removeprefix("nodes/"))
    return "; ".join(_refusal(nodes, why) for why, nodes in alike.items())


@contextmanager
def asking(world: World, vm: vm_pb2.Vm, load: Load) -> Iterator[Ask]:
    """The VM as one that wants a node; it is not counted where it is meanwhile."""
    load.count(vm, -1)
    try:
        yield _ask(world, vm, load)
    finally:
        load.count(vm, 1)


def fits(ask: Ask, seat: Seat) -> bool:
    """No filter refuses."""
    return not refusal(ask, seat)


def _ask(world: World, vm: vm_pb2.Vm, load: Load) -> Ask:
    volumes = [disk.volume for disk in vm.spec.disks if disk.volume]
    used = dict.fromkeys(volume.partition("/volumes/")[0] for volume in volumes)
    used |= dict.fromkeys(nic.network for nic in vm.spec.nics)
    rules = rules_of(vm, load)
    return Ask(
        vm=vm,
        load=load,
        memory_mib=memory_of(vm) if {vm.spec.power, vm.decision.power} & WANT_MEMORY else 0,
        vcpus=vm.spec.cpu.vcpus,
        model=vm.spec.cpu.model,
        pinned=tuple((v, world.volume_nodes[v]) for v in volumes if v in world.volume_nodes),
        shared=tuple((x, world.not_ready[x]) for x in used if x in world.not_ready),
        rules=rules,
        ruled=bool(
            rules.nodes or rules.node_musts or rules.apart_musts or rules.with_musts or rules.needed
        ),
        wishes=rules.wishes,
    )


def refusal(ask: Ask, seat: Seat) -> str:
    """The first filter that refuses, in its words; "" when the node fits."""
    for check in FILTERS:
        if reason := check(ask, seat):
            return reason
    return ""


def _table(ask: Ask) -> Sequence[tuple[float, str, Score]]:
    label, main = MAIN[ask.vm.spec.placement.selector]
    rest = [entry for entry in SCORES if ask.wishes or entry[2] is not wishes]
    return [(MAIN_WEIGHT, label, main), *(entry for entry in rest if entry[2] is not main)]


def _points(ask: Ask, seat: Seat, table: Sequence[tuple[float, str, Score]]) -> float:
    return sum(weight * score(ask, seat) for weight, _, score in table)


def _verdict(ask: Ask, seat: Seat) -> vm_pb2.NodeVerdict:
    name = seat.node.name
    if reasons := [reason for check in FILTERS if (reason := check(ask, seat))]:
        return vm_pb2.NodeVerdict(node=name, fits=False, reasons=reasons)
    parts = [(weight * score(ask, seat), label) for weight, label, score in _table(ask)]
    return vm_pb2.NodeVerdict(
        node=name,
        fits=True,
        score=round(sum(points for points, _ in parts), 3),
        reasons=[f"{label} {points:.2f}" for points, label in parts],
    )


def _refusal(nodes: Sequence[str], why: str) -> str:
    rest = len(nodes) - NODES_TOLD
    if rest <= 1:
        return "; ".join(f"{node} {why}" for node in nodes)
    return f"{', '.join(nodes[:NODES_TOLD])} and {rest} more: each {why}"
