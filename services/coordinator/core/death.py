"""An administrator's own proof that a node is dead, and what it would damage if that is not so.
Pure.

The one place where the service and not the leader writes into a node's decision: a proof has to be
there before anything follows from it, and the leader only ever takes it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import event_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.asked import Node, state_of, the_node
from services.coordinator.core.world import WANT_MEMORY, short
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import refuse
from services.state.store import Put, Snapshot

MISSED = frozenset({cluster_pb2.NODE_STATE_UNKNOWN, cluster_pb2.NODE_STATE_FENCING})
RESTARTED = frozenset({vm_pb2.NODE_FAILURE_POLICY_UNSPECIFIED, vm_pb2.NODE_FAILURE_POLICY_RESTART})


def confirm(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Stores the proof for the session that was lost. Raises NOT_FOUND, ETAG_MISMATCH,
    WRONG_STATE."""
    node = the_node(snapshot, request.name, request.etag)
    _check_missed(snapshot, node)
    after = rows.copied(node)
    proof = after.decision.proof
    proof.Clear()
    proof.means, proof.text = cluster_pb2.PROOF_MEANS_ADMIN, request.why
    proof.session = node.decision.lost_session or node.status.session
    proof.time.CopyFrom(call.now)
    proof.given_by = call.caller
    event = rows.event(
        call.new_id(),
        call.now,
        node.name,
        f"node {short(node.name)} was confirmed dead",
        request.why,
        cause=call.caller,
        severity=event_pb2.Event.SEVERITY_WARNING,
    )
    found = list(warnings(snapshot, node))
    answer = api.ConfirmNodeDeadResponse(node=after, warnings=found)
    return Mutation((Put(after), event), answer)


def _check_missed(snapshot: Snapshot, node: Node) -> None:
    held = node.name in snapshot.leases
    if node.decision.state in MISSED and not held:
        return
    if held:
        why = "holds its session: it lives. Switch it off first, or drain it"
    elif node.decision.state == cluster_pb2.NODE_STATE_FENCED:
        why = f"is FENCED already: {node.decision.proof.text or node.decision.why}"
    else:
        why = (
            f"is {state_of(node)} ({node.decision.why}), so nothing waits for a proof of its death"
        )
    refuse(reason_pb2.REASON_WRONG_STATE, f"{node.name} {why}", "name")


def warnings(snapshot: Snapshot, node: Node) -> Iterator[str]:
    """What is damaged if the node is not dead, one sentence each: its VMs that are started
    elsewhere, with the volumes that both would write."""
    nodes = {pool.name: pool.spec.node for pool in snapshot.rows(storage_pb2.Pool)}
    for vm in snapshot.rows(vm_pb2.Vm):
        if vm.decision.node != node.name or vm.decision.power not in WANT_MEMORY:
            continue
        if vm.spec.ha.policy not in RESTARTED:
            continue
        written = [
            disk.volume
            for disk in vm.spec.disks
            if disk.volume and not disk.read_only and _elsewhere(nodes, disk.volume)
        ]
        if len(written) < sum(bool(d.volume) and not d.read_only for d in vm.spec.disks):
            continue  # a volume that only this node has keeps it from starting elsewhere
        yield f"{vm.name} would run twice" + (
            f", and destroy {_listed(written)}" if written else ""
        )


def _elsewhere(nodes: dict[str, str], volume: str) -> bool:
    """Whether other nodes can open the volume."""
    return not nodes.get(volume.partition("/volumes/")[0], "")


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
