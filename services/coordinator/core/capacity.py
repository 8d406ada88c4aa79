"""What the nodes carry: counted once for a round, then kept up as the round decides on VMs.

Counts and looks up; what follows from it is said in place, rules and moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.limits import limits_of
from services.coordinator.core.world import World, memory_of, takes_memory

CLOSED: Mapping[int, str] = {
    cluster_pb2.NODE_STATE_UNSPECIFIED: "is not online",
    cluster_pb2.NODE_STATE_UNKNOWN: "is not online",
    cluster_pb2.NODE_STATE_JOINING: "has not joined yet",
    cluster_pb2.NODE_STATE_FENCING: "is being fenced",
    cluster_pb2.NODE_STATE_FENCED: "was fenced",
    cluster_pb2.NODE_STATE_DRAINING: "is being drained",
    cluster_pb2.NODE_STATE_DRAINED: "is drained",
    cluster_pb2.NODE_STATE_MAINTENANCE: "is in maintenance",
    cluster_pb2.NODE_STATE_LEAVING: "is leaving the cluster",
}
"""State → why a node in it takes no VMs."""

RESTARTED = frozenset({vm_pb2.NODE_FAILURE_POLICY_UNSPECIFIED, vm_pb2.NODE_FAILURE_POLICY_RESTART})
"""Policies with which a VM is started on another node when its own fails."""

Names = dict[str, set[str]]
"""Tag → names of VMs."""


@dataclass(slots=True)
class Seat:
    """One node as placement sees it: what does not change in a round, then what is counted."""

    node: cluster_pb2.Node
    closed: str
    """Why it takes no VMs; "" when it does."""
    memory_mib: int
    cpus: int
    kvm: bool
    models: frozenset[str]
    tags: frozenset[str]
    max_vms: int
    load: float
    """Processes that want a processor, for each that is there."""
    available_mib: int
    """Memory that was truly free when the node last told; 0 when it does not tell."""
    taken_mib: int = 0
    told_mib: int = 0
    """taken_mib at the beginning of the round: what `available_mib` knows of."""
    restarted_mib: int = 0
    """The part of taken_mib that is started elsewhere when the node fails."""
    vcpus: int = 0
    vms: int = 0
    moving: int = 0
    """Migrations that it takes part in."""
    tagged: Names = field(default_factory=dict)
    shunning: Names = field(default_factory=dict)
    """VMs here that must be apart from those with the tag."""

    @property
    def free_mib(self) -> int:
        """Memory not promised."""
        return self.memory_mib - self.taken_mib


@dataclass(slots=True)
class Load:
    """All seats, and where VMs with a tag are bound to."""

    seats: dict[str, Seat]
    moving: int = 0
    """Migrations in the cluster."""
    anchors: dict[str, Names] = field(default_factory=dict)
    """Tag → node that takes VMs → those with the tag that are, or soon will be, there."""
    followers: dict[str, Names] = field(default_factory=dict)
    """Tag → node → VMs there that must be together with one that has the tag."""
    coming: dict[str, str] = field(default_factory=dict)
    """New places of volumes that are copied along → the volumes."""
    _users: Names | None = None

    def count(self, vm: vm_pb2.Vm, times: int) -> None:
        """Adds (1) or takes away (-1) what a VM's decision promises it, on the target of its
        migration too."""
        decision = vm.decision
        target = decision.migration.target if decision.HasField("migration") else ""
        if target and decision.migration.volumes:
            self._carry(decision.migration, times)
        if not takes_memory(vm) and not target:
            return
        if target and decision.migration.method == vm_pb2.MIGRATION_METHOD_NONE:
            self._move(decision.node, target, times)
            return
        for name in {decision.node, target}:
            if (seat := self.seats.get(name)) is not None:
                _count(seat, vm, times)
        if target:
            self._move(decision.node, target, times)
        home = target if target and not decision.migration.cancel else decision.node
        self._bind(vm, home, times)

    def users(self, world: World) -> Names:
        """Volume → the VMs that are to have it."""
        if self._users is None:
            self._users = {}
            for vm in world.vms.values():
                for disk in vm.spec.disks:
                    self._users.setdefault(disk.volume, set()).add(vm.name)
        return self._users

    def _move(self, source: str, target: str, times: int) -> None:
        for name in {source, target}:
            if (seat := self.seats.get(name)) is not None:
                seat.moving += times
        self.moving += times

    def _carry(self, migration: vm_pb2.Migration, times: int) -> None:
        for volume, place in migration.volumes.items():
            if times > 0:
                self.coming[place] = volume
            else:
                self.coming.pop(place, None)

    def _bind(self, vm: vm_pb2.Vm, node: str, times: int) -> None:
        """Whoever has to leave its node anyway binds nobody to it."""
        seat = self.seats.get(node)
        if seat is None or seat.closed:
            return
        for tag in vm.spec.tags:
            _note(self.anchors.setdefault(tag, {}), node, vm.name, times)
        for rule in vm.spec.placement.vm_rules:
            if rule.required and not rule.apart:
                _note(self.followers.setdefault(rule.tag, {}), node, vm.name, times)


def load_of(world: World) -> Load:
    """What the nodes carry by the decisions in force."""
    load = Load({name: _seat(node) for name, node in world.nodes.items()})
    for vm in world.vms.values():
        load.count(vm, 1)
    for seat in load.seats.values():
        seat.told_mib = seat.taken_mib
    return load


def slot_short(world: World, load: Load, source: str, target: str) -> str:
    """Why no further migration from source to target may begin now; "" when it may."""
    limits = limits_of(world.spec)
    most = limits.migrations_per_cluster
    if load.moving >= most:
        return f"{load.moving} of {most} migrations of the cluster go on"
    most = limits.migrations_per_node
    for name in (source, target):
        seat = load.seats.get(name)
        if seat is not None and seat.moving >= most:
            return f"{name.removeprefix('nodes/')} takes part in {seat.moving} of {most} migrations"
    return ""


def _seat(node: cluster_pb2.Node) -> Seat:
    status = node.status
    return Seat(
        node=node,
        closed=_closed(node),
        memory_mib=status.memory_for_vms_mib,
        cpus=status.cpus,
        kvm=status.accelerator == "kvm",
        models=frozenset(status.cpu_models),
        tags=frozenset(node.spec.tags),
        max_vms=node.spec.max_vms,
        load=status.load.load_percent / 100 / max(status.cpus, 1),
        available_mib=status.load.available_memory_mib,
    )


def _closed(node: cluster_pb2.Node) -> str:
    if node.decision.state != cluster_pb2.NODE_STATE_ONLINE:
        return CLOSED[node.decision.state]
    if node.spec.leaving:
        return "is to leave the cluster"
    return "is to be drained" if node.spec.drained else ""


def _count(seat: Seat, vm: vm_pb2.Vm, times: int) -> None:
    memory = times * memory_of(vm)
    seat.taken_mib += memory
    seat.restarted_mib += memory if vm.spec.ha.policy in RESTARTED else 0
    seat.vcpus += times * vm.spec.cpu.vcpus
    seat.vms += times
    for tag in vm.spec.tags:
        _note(seat.tagged, tag, vm.name, times)
    for rule in vm.spec.placement.vm_rules:
        if rule.required and rule.apart:
            _note(seat.shunning, rule.tag, vm.name, times)


def _note(names: Names, key: str, vm: str, times: int) -> None:
    if times > 0:
        names.setdefault(key, set()).add(vm)
    elif (there := names.get(key)) is not None:
        there.discard(vm)
        if not there:
            del names[key]
