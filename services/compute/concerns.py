"""What of the state a node's agent has to do with: of thousands of VMs its own, and of those the
ones that are not at rest. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from services.compute.core.life import at_rest
from services.compute.core.methods import method
from services.compute.core.settle import settles
from services.mesh import rows
from services.mesh.loop import Read
from services.mesh.members import NODES
from services.state.store import Snapshot
from services.state.table import Index

Operation = operation_pb2.Operation
Operations = Mapping[str, Sequence[Operation]]
"""VM → its operations that have not ended."""


def places(vm: vm_pb2.Vm) -> set[str]:
    """The nodes whose agents have something to do with it."""
    return {vm.decision.node, vm.status.node, vm.decision.migration.target} - {""}


def concerns(vm: vm_pb2.Vm | None, node: str, snapshot: Snapshot) -> bool:
    """The node's agent may have to end operations on it."""
    return vm is None or node in places(vm) or is_homeless(vm, snapshot)


def is_lively(vm: vm_pb2.Vm, node: str) -> bool:
    """The node's agent has to look at it now and then, even if it has no domain and nothing is
    asked of it."""
    return not at_rest(vm, node) or vm.decision.HasField("migration")


PLACES = Index(vm_pb2.Vm, lambda vm: places(vm) or ("",))
"""Node → VMs that its agent has something to do with; those of no node under ""."""
LIVELY = Index(vm_pb2.Vm, lambda vm: (node for node in places(vm) if is_lively(vm, node)))
"""Node → VMs that its agent has to look at."""


def rows_of(node: str) -> tuple[Read, ...]:
    """The rows that matter to a node's agent: of the VMs its own, and which there are."""
    return (
        *("pools", "pools/volumes", "networks"),
        lambda snapshot: snapshot.extract(NODES),
        lambda snapshot: snapshot.names(vm_pb2.Vm),
        lambda snapshot: snapshot.having(PLACES, node),
        lambda snapshot: snapshot.having(PLACES, ""),
    )


def reads_of(node: str) -> tuple[Read, ...]:
    """What wakes a node's agent; of the operations only some matter to it, see `unfinished`."""
    return (*rows_of(node), rows.unfinished)


def is_homeless(vm: vm_pb2.Vm | None, snapshot: Snapshot) -> bool:
    """No agent of its own can end its operations: it has no node, its node has no agent, or it is
    gone. One agent does it for all."""
    return vm is None or vm.decision.node not in snapshot.leases


def unfinished(snapshot: Snapshot) -> Operations:
    """The operations that an agent looks at and that have not ended, by the VM that they are about:
    those that end by converging, and deletions."""
    found: dict[str, list[Operation]] = defaultdict(list)
    for operation in rows.unfinished(snapshot):
        if settles(operation) or operation.method == method("DeleteVm"):
            found[operation.target].append(operation)
    return found
