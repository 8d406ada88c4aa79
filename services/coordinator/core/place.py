"""Where a VM goes: filters that say why not, scores that say how well, and the verdicts that people
read.

A filter answers "" or one short sentence. A score is a number between 0 and 1 with a weight; the
table at the end of each list is the whole policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.world import WANT_MEMORY, World, is_online, memory_of


@dataclass(frozen=True, slots=True)
class Load:
    """What the nodes carry: counted once for a round, then kept up as the round places VMs."""

    memory_mib: dict[str, int]
    vcpus: dict[str, int]

    def count(self, vm: vm_pb2.Vm, times: int) -> None:
        """Adds (1) or takes away (-1) what a VM's decision promises it."""
        if vm.decision.power in WANT_MEMORY:
            node = vm.decision.node
            added_mib, added_vcpus = times * memory_of(vm), times * vm.spec.cpu.vcpus
            self.memory_mib[node] = self.memory_mib.get(node, 0) + added_mib
            self.vcpus[node] = self.vcpus.get(node, 0) + added_vcpus


def load_of(world: World) -> Load:
    """What the nodes carry by the decisions in force."""
    load = Load({}, {})
    for vm in world.vms.values():
        load.count(vm, 1)
    return load


@dataclass(frozen=True, slots=True)
class Fit:
    """The question that filters and scores answer: this VM on this node?"""

    vm: vm_pb2.Vm
    node: cluster_pb2.Node
    world: World
    free_memory_mib: int
    """What the node can still give, not counting this VM."""
    other_vcpus: int


def not_online(fit: Fit) -> str:
    """The node must be there."""
    return "" if is_online(fit.node) else "is not online"


def memory_short(fit: Fit) -> str:
    """The memory of a VM that is to run must be free."""
    if fit.vm.spec.power not in WANT_MEMORY:
        return ""
    wanted = memory_of(fit.vm)
    if wanted <= fit.free_memory_mib:
        return ""
    return f"has {max(fit.free_memory_mib, 0)} MiB free of the {wanted} MiB it needs"


def processors_short(fit: Fit) -> str:
    """A guest cannot have more processors than the machine."""
    wanted, there = fit.vm.spec.cpu.vcpus, fit.node.status.cpus
    if wanted <= there or fit.node.status.accelerator != "kvm":
        return ""
    return f"has {there} processors, fewer than the {wanted} it needs"


def model_unknown(fit: Fit) -> str:
    """The node must be able to show the guest this processor."""
    model, known = fit.vm.spec.cpu.model, fit.node.status.cpu_models
    if model in ("", "host") or not known or model in known:
        return ""
    return f"cannot give its guests the CPU model {model}"


def volume_elsewhere(fit: Fit) -> str:
    """The node must be able to open every volume."""
    for disk in fit.vm.spec.disks:
        holder = fit.world.volume_nodes.get(disk.volume, fit.node.name)
        if holder != fit.node.name:
            return f"cannot open {disk.volume}, which is on {holder}"
    return ""


FILTERS: tuple[Callable[[Fit], str], ...] = (
    not_online,
    volume_elsewhere,
    model_unknown,
    processors_short,
    memory_short,
)


def free_memory(fit: Fit) -> float:
    """The share of memory that stays free."""
    whole = fit.node.status.memory_for_vms_mib
    return max(fit.free_memory_mib - memory_of(fit.vm), 0) / whole if whole else 0.0


def free_processors(fit: Fit) -> float:
    """How few processors are promised for each that is there."""
    there = fit.node.status.cpus
    return there / (there + fit.other_vcpus + fit.vm.spec.cpu.vcpus) if there else 0.0


def at_home(fit: Fit) -> float:
    """It is there already."""
    return float(fit.vm.decision.node == fit.node.name)


SCORES: tuple[tuple[float, str, Callable[[Fit], float]], ...] = (
    (10.0, "free memory", free_memory),
    (3.0, "free processors", free_processors),
    (2.0, "at home", at_home),
)


def place(world: World, vm: vm_pb2.Vm, load: Load) -> tuple[str, tuple[vm_pb2.NodeVerdict, ...]]:
    """The best node ("" if none fits) and the verdict on each, the best first."""
    verdicts = [judge(world, vm, node, load) for node in world.nodes.values()]
    verdicts.sort(key=lambda v: (not v.fits, -v.score, v.node))
    best = verdicts[0].node if verdicts and verdicts[0].fits else ""
    return best, tuple(verdicts)


def judge(world: World, vm: vm_pb2.Vm, node: cluster_pb2.Node, load: Load) -> vm_pb2.NodeVerdict:
    """What placement thinks of one node."""
    fit = _fit(world, vm, node, load)
    if reasons := [reason for check in FILTERS if (reason := check(fit))]:
        return vm_pb2.NodeVerdict(node=node.name, fits=False, reasons=reasons)
    parts = [(weight * score(fit), label) for weight, label, score in SCORES]
    return vm_pb2.NodeVerdict(
        node=node.name,
        fits=True,
        score=round(sum(points for points, _ in parts), 3),
        reasons=[f"{label} {points:.2f}" for points, label in parts],
    )


def why_none(verdicts: tuple[vm_pb2.NodeVerdict, ...]) -> str:
    """Why no node fits, one sentence."""
    if not verdicts:
        return "there is no node"
    return "; ".join(f"{v.node.removeprefix('nodes/')} {' and '.join(v.reasons)}" for v in verdicts)


def _fit(world: World, vm: vm_pb2.Vm, node: cluster_pb2.Node, load: Load) -> Fit:
    memory = load.memory_mib.get(node.name, 0)
    vcpus = load.vcpus.get(node.name, 0)
    if vm.decision.node == node.name and vm.decision.power in WANT_MEMORY:
        memory -= memory_of(vm)
        vcpus -= vm.spec.cpu.vcpus
    return Fit(vm, node, world, node.status.memory_for_vms_mib - memory, vcpus)
