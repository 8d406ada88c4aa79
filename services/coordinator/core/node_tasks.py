"""The acceptance of long work on a node: drain it, make it ready, take it out. Whoever leads
carries it out. Pure."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.asked import Node, accepted, changed, going_on, state_of, staying
from services.coordinator.core.joining import forgotten
from services.coordinator.core.methods import method
from services.coordinator.core.node_edits import check_not_last, lead_leaves
from services.coordinator.core.world import WORKING, short
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import refuse
from services.state.store import Change, Put, Snapshot

DRAIN, READY, REMOVE = "DrainNode", "ReadyNode", "RemoveNode"
GONE = frozenset({cluster_pb2.NODE_STATE_JOINING, cluster_pb2.NODE_STATE_FENCED})
"""States of nodes that run nothing, and need not be drained."""
EMPTY = frozenset({cluster_pb2.NODE_STATE_DRAINED, cluster_pb2.NODE_STATE_MAINTENANCE})


def drain(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY."""
    node = staying(snapshot, request)
    _check_works(node, "drained")
    _check_free(snapshot, node, DRAIN)
    after = changed(node, call)
    after.spec.drained = True
    what = f"node {short(node.name)} is to be drained"
    changes = [Put(after), *_called_off(snapshot, node, READY, call)]
    return accepted(call, request, DRAIN, node, what, changes)


def ready(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY."""
    node = staying(snapshot, request)
    if not node.spec.drained and node.decision.state == cluster_pb2.NODE_STATE_JOINING:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} has not joined yet; it is ready once it has",
            "name",
        )
    _check_free(snapshot, node, READY)
    after = changed(node, call)
    after.spec.drained = False
    after.spec.ready_request += 1
    what = f"node {short(node.name)} is to be ready"
    changes = [Put(after), *_called_off(snapshot, node, DRAIN, call)]
    return accepted(call, request, READY, node, what, changes)


def remove(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, IN_USE, BUSY."""
    node = staying(snapshot, request)
    _check_empty(snapshot, node)
    check_not_last(snapshot, node, "removed")
    _check_free(snapshot, node, REMOVE, DRAIN, READY)
    after = changed(node, call)
    after.spec.leaving = True
    what = f"node {short(node.name)} is to leave the cluster"
    changes: list[Change] = [Put(after), *forgotten(snapshot, node.name)]
    changes += lead_leaves(snapshot, node, call)
    return accepted(call, request, REMOVE, node, what, changes)


def _check_works(node: Node, deed: str) -> None:
    if node.decision.state not in WORKING:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} is {state_of(node)} ({node.decision.why}) and cannot be {deed}: only a "
            "node that works can",
            "name",
        )


def _check_free(snapshot: Snapshot, node: Node, *names: str) -> None:
    """Raises BUSY while the same goes on already."""
    same = {method("NodeService", name) for name in names}
    for operation in going_on(snapshot, node.name):
        if operation.method in same and not operation.cancel_requested:
            what = operation.method.rpartition("/")[2]
            refuse(
                reason_pb2.REASON_BUSY,
                f"{node.name} is busy with {what} ({operation.name}); wait for it, or cancel it",
                "name",
            )


def _called_off(snapshot: Snapshot, node: Node, name: str, call: Call) -> list[Change]:
    """The opposite, which is asked to stop where it goes on."""
    stopped: list[Change] = []
    for operation in going_on(snapshot, node.name):
        if operation.method == method("NodeService", name) and not operation.cancel_requested:
            after = rows.copied(operation)
            after.cancel_requested = True
            rows.log_line(after, f"{call.caller} asked for the opposite", call.now)
            stopped.append(Put(after))
    return stopped


def _check_empty(snapshot: Snapshot, node: Node) -> None:
    """Raises WRONG_STATE unless the node is drained or dead, IN_USE while something is on it."""
    if node.decision.state not in GONE | EMPTY:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{node.name} is {state_of(node)}: drain it first (pvc node drain {short(node.name)}), "
            "or prove that it is dead (pvc node confirm-dead)",
            "name",
        )
    vms = [vm.name for vm in snapshot.rows(vm_pb2.Vm) if vm.decision.node == node.name]
    if vms:
        refuse(
            reason_pb2.REASON_IN_USE,
            f"{', '.join(vms[:5])}{' and more' if vms[5:] else ''} belong to {node.name}; move or "
            "delete them first",
            "name",
        )
    pools = {pool.name for pool in snapshot.rows(storage_pb2.Pool) if pool.spec.node == node.name}
    _check_volumes(snapshot, node, pools)


def _check_volumes(snapshot: Snapshot, node: Node, pools: Set[str]) -> None:
    """Volumes that only this node has are not thrown away with it: none while it lives, none that a
    VM wants when it is dead."""
    wanted = {disk.volume: vm.name for vm in snapshot.rows(vm_pb2.Vm) for disk in vm.spec.disks}
    for volume in snapshot.rows(storage_pb2.Volume):
        pool = volume.name.partition("/volumes/")[0]
        if pool not in pools:
            continue
        if node.decision.state in EMPTY or volume.name in wanted:
            user = f", which {wanted[volume.name]} uses" if volume.name in wanted else ""
            refuse(
                reason_pb2.REASON_IN_USE,
                f"{pool} is on {node.name} alone and still has {volume.name}{user}; move or "
                "delete it first",
                "name",
            )
