"""Which node must answer a request: the one that has the VM, the volume or the file. Pure."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.gateway.methods import Method
from services.mesh.errors import PvcError
from services.state.store import Snapshot

RUNNING = frozenset(
    {
        vm_pb2.VM_STATE_STARTING,
        vm_pb2.VM_STATE_RUNNING,
        vm_pb2.VM_STATE_PAUSED,
        vm_pb2.VM_STATE_STOPPING,
    }
)
"""States in which a VM is somewhere."""


def node_for(snapshot: Snapshot, method: Method, request: Any) -> str:
    """The node that must answer ("nodes/n1"); "" when any may.

    Raises NOT_FOUND, with the field, for a resource that does not exist.
    """
    if not method.routed_by:
        return ""
    value = getattr(request, method.routed_by)
    name = value if isinstance(value, str) else (value[0] if value else "")
    return _node_of(snapshot, name, method.routed_by) if name else ""


def _node_of(snapshot: Snapshot, name: str, field: str) -> str:
    collection = name.partition("/")[0]
    match collection:
        case "vms":
            vm = snapshot.find(vm_pb2.Vm, name)
            node = _node_of_vm(snapshot, vm) if vm is not None else ""
            return _checked(name, field, vm, node)
        case "pools":
            volume = snapshot.find(storage_pb2.Volume, name)
            node = volume.status.node if volume is not None else ""
            return _checked(name, field, volume, node)
        case "files":
            return _node_of_file(snapshot, name)
    return ""


def _node_of_vm(snapshot: Snapshot, vm: vm_pb2.Vm) -> str:
    """Where it runs; or shall run, when it does not or when that node is away."""
    runs = vm.status.state in RUNNING and vm.status.node in snapshot.leases
    return vm.status.node if runs else vm.decision.node


def _checked(name: str, field: str, row: Message | None, node: str) -> str:
    if row is None:
        raise PvcError(reason_pb2.REASON_NOT_FOUND, f"{name} does not exist", field=field)
    return node


def _node_of_file(snapshot: Snapshot, name: str) -> str:
    """The node in the file's id, "files/{node}.{id}"; a file without one is looked for here."""
    node = "nodes/" + name.partition("/")[2].rpartition(".")[0]
    return node if snapshot.find(cluster_pb2.Node, node) is not None else ""
