"""One round of deciding: what it knows, and what it has changed already. What is counted from the
world is counted when it is first asked for: at rest, a round asks for little."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2
from services.coordinator.core.capacity import Load, load_of
from services.coordinator.core.lively import LIVELY, NEAR, RESIDENTS
from services.coordinator.core.methods import HOLDS, SERVICE
from services.coordinator.core.plan import DecideVm, Step, Unjudged, WriteOperation
from services.coordinator.core.residence import assign_to, may_leave, may_run_on
from services.coordinator.core.world import World
from services.state.table import Table

Operation = operation_pb2.Operation
Row = vm_pb2.Vm | cluster_pb2.Node | cluster_pb2.ClusterIdentity | operation_pb2.Operation


class Round:
    """One look at one world."""

    def __init__(self, now: Timestamp, world: World) -> None:
        self.now = now
        self.world = world
        self.taken: set[str] = set()
        """Rows that this round has changed already: each is written once."""
        self.unrecovered: set[str] = set()
        """VMs of dead nodes that wait to be started elsewhere: their why says what for."""

    @cached_property
    def load(self) -> Load:
        """What the nodes carry, with what this round has decided."""
        return load_of(self.world)

    @cached_property
    def operations(self) -> Mapping[str, Operation]:
        """The coordinator's own, by name."""
        return {x.name: x for x in self.world.operations if x.service == SERVICE}

    @cached_property
    def busy(self) -> Mapping[str, Operation]:
        """VM → work that has to be finished before it may leave."""
        return {x.target: x for x in self.world.operations if x.method in HOLDS}

    @cached_property
    def _table(self) -> Table:
        """The VMs. What follows from each of them by itself need not be found out in every
        round."""
        vms = self.world.vms
        return vms if isinstance(vms, Table) else Table(vms)

    @property
    def lively(self) -> tuple[vm_pb2.Vm, ...]:
        """VMs about which there may be something to decide, as the round began."""
        return self._table.follow(LIVELY).values

    @property
    def residents(self) -> Mapping[str, tuple[vm_pb2.Vm, ...]]:
        """Node → VMs that were given to it, as the round began."""
        return self._table.follow(RESIDENTS)

    def is_free(self, node: str) -> bool:
        """No VM runs on the node, or may come to."""
        return not any(may_run_on(vm, node) for vm in self._table.follow(NEAR).get(node, ()))

    def take(self, vm: vm_pb2.Vm, step: DecideVm) -> DecideVm:
        """Counts the step in. Its rows must be free. Every change of a VM's node passes here: none
        that could have the VM run twice does."""
        if step.vm.decision.node != vm.decision.node:
            assert may_leave(self.world, vm, step.vm.decision.node), (
                f"{vm.name} may run: {step.why}"
            )
            assign_to(self.world, step.vm, step.vm.decision.node)
        names = {step.vm.name, *(operation.name for operation in step.also)}
        assert not names & self.taken, f"{names & self.taken} change twice in a round"
        self.taken.update(names)
        self.load.count(vm, -1)
        self.load.count(step.vm, 1)
        return step

    def write(self, operation: Operation, why: str) -> WriteOperation:
        """As `take`, for an operation alone."""
        assert operation.name not in self.taken, f"{operation.name} changes twice in a round"
        self.taken.add(operation.name)
        return WriteOperation(operation, why)


def guarded(row: Row, rule: Callable[[], Iterable[Step]]) -> Iterator[Step | Unjudged]:
    """What the rule says of the row. One that the rules cannot cope with must not keep the others
    from being decided on."""
    try:
        steps = list(rule())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        yield Unjudged(row, error)
    else:
        yield from steps
