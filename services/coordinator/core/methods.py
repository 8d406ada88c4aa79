"""Full names of methods, as operations carry them; a name that the contract does not have is a
mistake."""

from __future__ import annotations

from pvc.compute.v1 import vm_service_pb2
from pvc.coordinator.v1 import coordinator_service_pb2
from pvc.storage.v1 import storage_service_pb2

SERVICE = "coordinator"
"""As operations name it that the coordinator itself works on."""


def method(service: str, name: str) -> str:
    """("PlacementService", "MigrateVm") → "pvc.coordinator.v1.PlacementService/MigrateVm"."""
    found = coordinator_service_pb2.DESCRIPTOR.services_by_name[service]
    return f"{found.full_name}/{found.methods_by_name[name].name}"


def vm_method(name: str) -> str:
    """A method of the VM service."""
    found = vm_service_pb2.DESCRIPTOR.services_by_name["VmService"]
    return f"{found.full_name}/{found.methods_by_name[name].name}"


def storage_method(name: str) -> str:
    """A method of the storage service."""
    found = storage_service_pb2.DESCRIPTOR.services_by_name["StorageService"]
    return f"{found.full_name}/{found.methods_by_name[name].name}"


MIGRATE = method("PlacementService", "MigrateVm")
MOVE = method("PlacementService", "MoveVm")
UNMIGRATE = method("PlacementService", "UnmigrateVm")
BALANCE = method("PlacementService", "BalanceCluster")
DRAIN = method("NodeService", "DrainNode")
READY = method("NodeService", "ReadyNode")
REMOVE = method("NodeService", "RemoveNode")

HOLDS = frozenset(
    vm_method(name)
    for name in (
        "CloneVm",
        "CreateVmSnapshot",
        "DeleteVmSnapshot",
        "RollbackVmSnapshot",
        "RebootVm",
        "ResetVm",
        "RenameVm",
    )
)
"""Work on a VM that its node has to finish before the VM may leave."""
