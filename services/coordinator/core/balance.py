"""Which moves make the nodes evenly used: as few as do, none that a filter or a rule forbids, none
that meets fewer of a VM's wishes.

Each move goes from a fuller node to an emptier one and leaves both strictly between where they
were: the spread never grows, and it comes to an end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from services.coordinator.core.capacity import Load, Seat
from services.coordinator.core.limits import limits_of
from services.coordinator.core.migration import LIVE
from services.coordinator.core.place import asking, refusal
from services.coordinator.core.routes import cannot_receive, usual_method, why_bound
from services.coordinator.core.rules import listed, wishes_met
from services.coordinator.core.world import World, memory_of, short

Selector = vm_pb2.NodeSelector
MOVES_MAX = 100
TARGETS = 8
"""The emptiest nodes, which are looked at first."""
TRIES = 200
"""Pairs of a VM and a target that are looked at for one move."""
MEASURED = frozenset({Selector.NODE_SELECTOR_MEM, Selector.NODE_SELECTOR_LOAD})
"""Selectors that go by what nodes tell, not by what is promised."""
EPSILON = 1e-6


@dataclass(slots=True)
class Scale:
    """How full every node is, in percent, by one selector."""

    selector: int
    used: dict[str, float] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    """What is 100 percent of a node."""
    load_of_vcpu: dict[str, float] = field(default_factory=dict)
    """What a node's load is for each processor of its VMs; nobody measures it VM by VM."""

    def weight(self, vm: vm_pb2.Vm, source: str) -> float:
        """What the VM takes of any node, in the same unit as `whole`."""
        match self.selector:
            case Selector.NODE_SELECTOR_VCPUS:
                return vm.spec.cpu.vcpus
            case Selector.NODE_SELECTOR_VMS:
                return 1.0
            case Selector.NODE_SELECTOR_LOAD:
                return vm.spec.cpu.vcpus * self.load_of_vcpu[source]
            case _:
                return memory_of(vm)

    def moved(self, weight: float, source: str, target: str) -> tuple[float, float]:
        """How full both would be."""
        return (
            self.used[source] - 100 * weight / self.whole[source],
            self.used[target] + 100 * weight / self.whole[target],
        )

    @property
    def spread(self) -> float:
        """Most used minus least used."""
        return max(self.used.values()) - min(self.used.values()) if self.used else 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A move that would help, if it is allowed."""

    gain: float
    vm: vm_pb2.Vm
    source: str
    target: str
    after: tuple[float, float]


def plan_balance(
    now: Timestamp,
    world: World,
    load: Load,
    selector: vm_pb2.NodeSelector.ValueType = Selector.NODE_SELECTOR_UNSPECIFIED,
    max_moves: int = 0,
) -> api.BalancePlan:
    """The moves, in an order in which each is possible after those before it. `load` is as it was
    afterwards. Migrations that go on count as if they had ended."""
    threshold = limits_of(world.spec).balance_threshold_percent
    scale = scale_of(load, selector)
    table = Table(now, world, load, scale)
    plan = api.BalancePlan(spread_before=round(scale.spread, 1))
    while scale.spread > threshold and len(plan.moves) < (max_moves or MOVES_MAX):
        if (best := table.best()) is None:
            plan.limits.extend(table.limits())
            break
        before = scale.used[best.source], scale.used[best.target]
        table.make(best)
        plan.moves.add(
            vm=best.vm.name,
            source=best.source,
            target=best.target,
            why=f"{short(best.source)} {before[0]:.0f} → {best.after[0]:.0f} %, "
            f"{short(best.target)} {before[1]:.0f} → {best.after[1]:.0f} %",
        )
    else:
        if scale.spread > threshold:
            plan.limits.append(f"no more than {max_moves or MOVES_MAX} moves were asked for")
    table.undo()
    plan.spread_after = round(scale.spread, 1)
    return plan


def scale_of(load: Load, selector: int) -> Scale:
    """How full the nodes are that take VMs."""
    scale = Scale(selector)
    seats = {name: seat for name, seat in load.seats.items() if not seat.closed}
    mean = sum(seat.vms for seat in seats.values()) / max(len(seats), 1)
    for name, seat in seats.items():
        whole, used = _measured(seat, selector, mean)
        if whole > 0:
            scale.whole[name], scale.used[name] = whole, 100 * used / whole
            scale.load_of_vcpu[name] = used / max(seat.vcpus, 1)
    return scale


def _measured(seat: Seat, selector: int, mean: float) -> tuple[float, float]:
    """What is 100 percent, and what is used of it. VMs: 100 percent are as many as all have on
    average."""
    match selector:
        case Selector.NODE_SELECTOR_MEM if seat.available_mib:
            whole = seat.node.status.memory_mib
            return whole, max(whole - seat.available_mib, 0)
        case Selector.NODE_SELECTOR_LOAD:
            return seat.cpus, seat.load * seat.cpus
        case Selector.NODE_SELECTOR_VCPUS:
            return seat.cpus, seat.vcpus
        case Selector.NODE_SELECTOR_VMS:
            return mean, seat.vms
        case _:
            return seat.memory_mib, seat.taken_mib


def why_fixed(now: Timestamp, world: World, vm: vm_pb2.Vm) -> str:
    """Why balancing leaves the VM alone wherever it could go; "" when it may move it."""
    placement = vm.spec.placement
    if placement.HasField("balance") and not placement.balance:
        return "are not to be balanced (spec.placement.balance)"
    if vm.decision.HasField("migration"):
        return "move already"
    if usual_method(vm) != LIVE:
        return "do not move while they run (spec.migration.method)"
    if vm.status.state != vm_pb2.VM_STATE_RUNNING or why_bound(world, vm, LIVE):
        return "do not run, or not for sure"
    if any(disk.volume in world.volume_nodes for disk in vm.spec.disks):
        return "have volumes that no other node can open"
    if vm.decision.move_not_before.ToNanoseconds() > now.ToNanoseconds():
        return "could not be moved a moment ago"
    return ""


class Table:
    """The VMs by the nodes that they are on, as the moves are made one by one."""

    def __init__(self, now: Timestamp, world: World, load: Load, scale: Scale) -> None:
        self._world = world
        self._load = load
        self._scale = scale
        self._movable: dict[str, dict[str, vm_pb2.Vm]] = defaultdict(dict)
        self._fixed: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._refused: dict[str, str] = {}
        self._made: list[tuple[vm_pb2.Vm, vm_pb2.Vm]] = []
        for vm in world.vms.values():
            if vm.decision.node not in scale.used:
                continue
            if why := why_fixed(now, world, vm):
                self._fixed[vm.decision.node][why].append(vm.name)
            else:
                self._movable[vm.decision.node][vm.name] = vm
        self._settle_migrations()

    def _settle_migrations(self) -> None:
        """What moves already will have left its node. Promises are counted on both nodes; what was
        measured, on the one."""
        used = self._scale.used
        for vm in self._world.vms.values():
            source, target = vm.decision.node, vm.decision.migration.target
            if target in used and source in used:
                weight = self._scale.weight(vm, source)
                low, high = self._scale.moved(weight, source, target)
                used[source] = low
                used[target] = high if self._scale.selector in MEASURED else used[target]

    def best(self) -> Candidate | None:
        """The move that helps the most of those that are allowed: away from the fullest node that
        has one; where the very fullest has none, to the emptiest."""
        used = self._scale.used
        by_room = sorted(used, key=lambda name: (used[name], name))
        for source in reversed(by_room):
            fullest = used[source] > used[by_room[-1]] - EPSILON
            emptiest = [by_room[:TARGETS], by_room[TARGETS:]] if fullest else [by_room[:1]]
            for targets in emptiest:
                if (found := self._first_allowed(source, targets)) is not None:
                    return found
        return None

    def _first_allowed(self, source: str, targets: Sequence[str]) -> Candidate | None:
        ranked = sorted(
            self._helping(source, targets), key=lambda c: (-c.gain, c.vm.name, c.target)
        )
        return next((one for one in ranked[:TRIES] if self._allows(one)), None)

    def make(self, candidate: Candidate) -> None:
        """Counts a move as made. No VM is moved twice."""
        vm = candidate.vm
        after = vm_pb2.Vm()
        after.CopyFrom(vm)
        after.decision.node = candidate.target
        self._load.count(vm, -1)
        self._load.count(after, 1)
        self._made.append((vm, after))
        del self._movable[candidate.source][vm.name]
        self._scale.used[candidate.source], self._scale.used[candidate.target] = candidate.after

    def undo(self) -> None:
        """Gives the load back as it was."""
        for before, after in reversed(self._made):
            self._load.count(after, -1)
            self._load.count(before, 1)

    def limits(self) -> Iterator[str]:
        """What keeps the VMs of the fullest node where they are."""
        if not self._scale.used:
            return
        fullest = max(self._scale.used, key=lambda n: self._scale.used[n])
        for why, names in self._fixed[fullest].items():
            yield f"{len(names)} VMs of {short(fullest)} {why}: {listed(names)}"
        movable = self._movable[fullest]
        for name in sorted(movable)[:10]:
            why = self._refused.get(name, "is too large, or too small to matter")
            yield f"vm {short(name)} of {short(fullest)}: {why}"

    def _helping(self, source: str, targets: Sequence[str]) -> Iterator[Candidate]:
        """Moves that leave both nodes strictly between where they are."""
        used = self._scale.used
        for vm in self._movable[source].values():
            weight = self._scale.weight(vm, source)
            for target in targets:
                low, high = self._scale.moved(weight, source, target)
                if low > used[target] + EPSILON and high < used[source] - EPSILON:
                    gain = used[source] ** 2 + used[target] ** 2 - low**2 - high**2
                    yield Candidate(gain, vm, source, target, (low, high))

    def _allows(self, candidate: Candidate) -> bool:
        vm = candidate.vm
        source = self._load.seats[candidate.source]
        target = self._load.seats[candidate.target]
        with asking(self._world, vm, self._load) as ask:
            why = refusal(ask, target) or " and ".join(
                cannot_receive(self._world, vm, target.node, LIVE)
            )
            if not why and ask.wishes:
                fewer = wishes_met(ask.rules, target) < wishes_met(ask.rules, source)
                why = "meets fewer of its wishes" if fewer else ""
        if why:
            self._refused[vm.name] = f"{short(candidate.target)} {why}"
        return not why
