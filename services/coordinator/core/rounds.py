"""One round of deciding about moves: what it knows, and what it has changed already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as compute_api
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2
from services.coordinator.core.capacity import Load
from services.coordinator.core.plan import DecideVm, WriteOperation
from services.coordinator.core.world import World

Operation = operation_pb2.Operation

SERVICE = "coordinator"


def method(service: str, name: str) -> str:
    """("PlacementService", "MigrateVm") → as operations carry it; a name that the contract does not
    have is a mistake."""
    found = api.DESCRIPTOR.services_by_name[service]
    return f"{found.full_name}/{found.methods_by_name[name].name}"


_VM_SERVICE = compute_api.DESCRIPTOR.services_by_name["VmService"]
HOLDS = frozenset(
    f"{_VM_SERVICE.full_name}/{_VM_SERVICE.methods_by_name[name].name}"
    for name in ("CloneVm", "CreateVmSnapshot", "DeleteVmSnapshot", "RollbackVmSnapshot",
                 "RebootVm", "ResetVm", "RenameVm")
)  # fmt: skip
"""Work on a VM that its node has to finish before the VM may leave."""


@dataclass(slots=True)
class Round:
    """One round of deciding about moves."""

    now: Timestamp
    world: World
    load: Load
    operations: Mapping[str, Operation]
    busy: Mapping[str, Operation]
    """VM → work that has to be finished before it may leave."""
    taken: set[str] = field(default_factory=set)
    """Rows that this round has changed already: each is written once."""

    def take(self, vm: vm_pb2.Vm, step: DecideVm) -> DecideVm:
        """Counts the step in. Its rows must be free."""
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


def round_of(now: Timestamp, world: World, load: Load, taken: Iterable[str] = ()) -> Round:
    """taken: rows that were decided on already."""
    ours = {x.name: x for x in world.operations if x.service == SERVICE}
    busy = {x.target: x for x in world.operations if x.method in HOLDS}
    return Round(now, world, load, ours, busy, set(taken))
