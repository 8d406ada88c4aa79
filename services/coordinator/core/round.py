"""What one round of deciding works with: the world, and what is counted from it when it is first
asked for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.place import Load, load_of
from services.coordinator.core.plan import DecideVm, Step, Unjudged
from services.coordinator.core.residence import may_run_on
from services.coordinator.core.world import World

Vms = Mapping[str, list[vm_pb2.Vm]]


class Round:
    """One look at one world. What was decided already in this round is counted in `load`."""

    def __init__(self, now: Timestamp, world: World) -> None:
        self.now = now
        self.world = world
        self.decided: set[str] = set()
        """VMs that have a step already: one is enough for a round."""

    @cached_property
    def load(self) -> Load:
        """What the nodes carry."""
        return load_of(self.world)

    @cached_property
    def residents(self) -> Vms:
        """Node → VMs that were given to it."""
        found: dict[str, list[vm_pb2.Vm]] = defaultdict(list)
        for vm in self.world.vms.values():
            found[vm.decision.node].append(vm)
        return found

    @cached_property
    def _near(self) -> Vms:
        """Node → VMs that have anything to do with it."""
        found: dict[str, list[vm_pb2.Vm]] = defaultdict(list)
        for vm in self.world.vms.values():
            places = {vm.decision.node, vm.status.node, vm.arrival.node}
            if vm.decision.HasField("migration"):
                places.add(vm.decision.migration.target)
            for place in places:
                found[place].append(vm)
        return found

    def is_free(self, node: str) -> bool:
        """No VM runs on the node, or may come to."""
        return not any(may_run_on(vm, node) for vm in self._near.get(node, ()))

    def take(self, step: Step | Unjudged) -> None:
        """Counts a step as one of this round's: what comes after it reckons with it."""
        if isinstance(step, DecideVm):
            if "load" in self.__dict__:
                self.load.count(self.world.vms[step.vm.name], -1)
                self.load.count(step.vm, 1)
            self.decided.add(step.vm.name)
