"""What a decision consists of: steps for the leader to write, each with its why.

Steps are data. They carry the version of the row that they were decided on, so that a plan that
came too late writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2

INFO = event_pb2.Event.SEVERITY_INFO
WARNING = event_pb2.Event.SEVERITY_WARNING
ERROR = event_pb2.Event.SEVERITY_ERROR


@dataclass(frozen=True, slots=True)
class DecideVm:
    """Writes a VM's decision; `vm` is the whole row as it is to be. Without a `what` there is
    nothing to tell of it."""

    vm: vm_pb2.Vm
    what: str
    why: str
    severity: event_pb2.Event.Severity.ValueType = INFO
    also: tuple[operation_pb2.Operation, ...] = ()
    """Operations as they are to be, written in the same commit: those that asked for it."""
    asked: operation_pb2.Operation | None = None
    """The operation that the decision belongs to, where that is not one of `also`."""
    storage: tuple[storage_pb2.Volume | operation_pb2.Operation, ...] = ()
    """Volumes, and work on them for the storage service, written in the same commit. What is new
    gets its name and uid when it is written."""


@dataclass(frozen=True, slots=True)
class DecideNode:
    """Writes a node's decision; `node` is the whole row as it is to be. Without a `what` there is
    nothing to tell of it."""

    node: cluster_pb2.Node
    what: str
    why: str
    severity: event_pb2.Event.Severity.ValueType = INFO
    also: tuple[operation_pb2.Operation, ...] = ()
    """As in DecideVm."""


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """Removes the row of a node that has left the cluster."""

    node: cluster_pb2.Node
    why: str
    also: tuple[operation_pb2.Operation, ...] = ()
    """As in DecideVm."""


@dataclass(frozen=True, slots=True)
class ForgetVm:
    """Removes the row of a deleted VM that no node ever had."""

    vm: vm_pb2.Vm
    why: str


@dataclass(frozen=True, slots=True)
class DecideCluster:
    """Writes what the leader notes of the cluster; `cluster` is the whole row as it is to be."""

    cluster: cluster_pb2.ClusterIdentity
    why: str
    new: operation_pb2.Operation | None = None
    """An operation of the cluster's own, which gets its name when it is written."""


@dataclass(frozen=True, slots=True)
class WriteOperation:
    """Writes an operation that the coordinator itself works on: begun, further on, or ended. No
    event; `operation` is the whole row as it is to be."""

    operation: operation_pb2.Operation
    why: str


@dataclass(frozen=True, slots=True)
class FailOperation:
    """Ends an operation that cannot succeed."""

    operation: operation_pb2.Operation
    reason: reason_pb2.Reason.ValueType
    why: str


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Nothing to be written: the rules failed on this row, and went on with the others."""

    row: vm_pb2.Vm | cluster_pb2.Node | cluster_pb2.ClusterIdentity | operation_pb2.Operation
    error: Exception


Step = (
    DecideVm | DecideNode | DecideCluster | ForgetVm | ForgetNode | WriteOperation | FailOperation
)
Plan = tuple[Step | Unjudged, ...]
