"""What must be so at every moment, whatever fails: looked up in the machines as they truly are and
in every commit, and never in what anybody believes.

`Watch` is told of every commit and of every change of a machine. What it finds it keeps as
sentences; the first one ends a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.compute.core.status import TRANSITIONS as VM_TRANSITIONS
from services.coordinator.core.nodes import TRANSITIONS as NODE_TRANSITIONS
from services.coordinator.core.residence import IDLE
from services.mesh import rows
from services.state.table import Row
from tests.simulator.cluster import SimCluster

Check = Callable[["Watch", str, Row], Iterator[str]]
FENCED = cluster_pb2.NODE_STATE_FENCED
ON = (vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED)


class Watch:
    """The invariants of one run."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.found: list[str] = []
        self._dirty = False
        cluster.on_touched = self._touched
        cluster.ensemble.observe = self._committed
        cluster.engine.after_event = self._event

    def broken(self, sentence: str) -> None:
        """An invariant does not hold."""
        if sentence not in self.found:
            self.found.append(sentence)
            self.cluster.tell("BROKEN", sentence)

    def _touched(self) -> None:
        self._dirty = True

    def _event(self) -> None:
        if self._dirty:
            self._dirty = False
            for sentence in run_once(self.cluster):
                self.broken(sentence)

    def _committed(self, store: Any, revision: int, changed: Sequence[Row]) -> None:
        writer = store.writer
        expected = self.cluster.ensemble.snapshot.revision
        if revision != expected:
            self.broken(f"{writer} was told of revision {revision}, and it is {expected}")
        for row in changed:
            kind = row.name.partition("/")[0]
            for sentence in without_lease(store, row):
                self.broken(f"{writer}: {sentence}")
            for check in CHECKS.get(kind, ()):
                for sentence in check(self, writer, row):
                    self.broken(f"{writer}: {sentence}")


def run_once(cluster: SimCluster) -> Iterator[str]:
    """A VM runs on at most one machine that is truly on; so its volumes have one writer."""
    where: dict[str, list[str]] = {}
    for node in cluster.nodes.values():
        for vm in node.machine.writing():
            where.setdefault(vm, []).append(node.id)
    for vm, machines in where.items():
        if len(machines) > 1:
            yield f"{vm} runs on {' and '.join(machines)}"


# --- Who writes what.


def without_lease(store: Any, row: Row) -> Iterator[str]:
    """What is decided is written by who leads then, what is seen by who holds the node's lease."""
    node, _, service = store.writer.partition("/")
    lease = {"coordinator": "leader", "compute": f"nodes/{node}"}.get(service)
    field = {"coordinator": "decision", "compute": "status"}.get(service)
    if lease is None or not row.name.startswith(("vms/", "nodes/")) or row.name.count("/") > 1:
        return
    before, after = getattr(row.before, str(field), None), getattr(row.value, str(field), None)
    if before != after and row.value is not None and not store.holds(lease):
        if service == "compute" and row.name.startswith("nodes/") and _promises_less(before, after):
            return
        yield f"{row.name}.{field} was written without the lease {lease}"


def _promises_less(before: Any, after: Any) -> bool:
    """Nothing changes but that the watchdog is promised no longer: that harms nobody."""
    less = cluster_pb2.NodeStatus()
    less.CopyFrom(before)
    less.ClearField("watchdog")
    less.restarting = after.restarting
    return bool(less == after)


def vm_fields(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """The spec is the user's, the decision the coordinator's, the status the agent's of the VM's
    node, the arrival that of the target's."""
    before: Any = row.before or vm_pb2.Vm(name=row.name)
    after: Any = row.value
    node, _, service = writer.partition("/")
    me = f"nodes/{node}"
    if after is None:
        gone = service == "compute" and before.meta.HasField("delete_time")
        if not gone and not (service == "coordinator" and not before.decision.node):
            yield f"{row.name} was removed"
        return
    theirs = {
        "spec": service == "gateway",
        "decision": service == "coordinator",
        "status": service == "compute" and me in (before.decision.node, before.status.node),
        "arrival": service == "compute"
        and me in (before.decision.migration.target, before.arrival.node),
    }
    for field, may in theirs.items():
        if not may and getattr(before, field) != getattr(after, field):
            yield f"{row.name}.{field} is not for {writer} to write"


def node_fields(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """The decision is the coordinator's, the status the node's own."""
    before: Any = row.before or cluster_pb2.Node(name=row.name)
    after: Any = row.value
    node, _, service = writer.partition("/")
    if after is None:
        if before.decision.state != cluster_pb2.NODE_STATE_LEAVING:
            yield f"{row.name} was removed"
        return
    theirs = {
        "spec": service == "gateway" or not row.before,
        "decision": service == "coordinator" or service == "gateway",
        "status": service == "compute" and row.name == f"nodes/{node}",
    }
    for field, may in theirs.items():
        if not may and getattr(before, field) != getattr(after, field):
            yield f"{row.name}.{field} is not for {writer} to write"


# --- Moves.


def vm_moves(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """A VM's state goes as its table says."""
    before: Any = row.before or vm_pb2.Vm()
    after: Any = row.value
    if after is not None:
        one, other = before.status.state, after.status.state
        if one != other and other not in VM_TRANSITIONS[one]:
            names = [vm_pb2.VmState.Name(state).removeprefix("VM_STATE_") for state in (one, other)]
            yield f"{row.name} went {' → '.join(names)}"


def node_moves(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """A node's state goes as its table says."""
    before: Any = row.before or cluster_pb2.Node()
    after: Any = row.value
    if after is not None:
        pair = (before.decision.state, after.decision.state)
        if pair[0] != pair[1] and pair not in NODE_TRANSITIONS:
            names = [cluster_pb2.NodeState.Name(s).removeprefix("NODE_STATE_") for s in pair]
            yield f"{row.name} went {' → '.join(names)}"


def recovered_with_proof(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """A VM changes its node only where it is known to be off on this very decision, where its node
    is fenced with a proof for its last session, or where it has moved; and runs on no other."""
    before: Any = row.before
    after: Any = row.value
    if before is None or after is None or before.decision.node in ("", after.decision.node):
        return
    old = before.decision.node
    node = watch.cluster.node_row(old.removeprefix("nodes/"))
    decided = node.decision if node is not None else cluster_pb2.NodeDecision()
    idle = before.status.state in IDLE and before.status.node in ("", old)
    moved = has_moved(before, after)
    fenced = decided.state == FENCED and proof_holds(decided)
    if not (idle or fenced or moved):
        yield f"{row.name} left {old} without a proof that it does not run there"
    for machine in watch.cluster.nodes.values():
        if machine.name != after.decision.node and row.name[4:] in machine.machine.writing():
            yield f"{row.name} was given to {after.decision.node} and runs on {machine.id}"


def has_moved(before: Any, after: Any) -> bool:
    """The source says that it went, or the target that it came in."""
    migration, status, arrival = before.decision.migration, before.status.migration, before.arrival
    if not migration.id or after.decision.node != migration.target:
        return False
    said = status.id == migration.id and status.phase == vm_pb2.MigrationStatus.PHASE_MOVED
    there = arrival.id == migration.id and arrival.state == vm_pb2.VmArrival.STATE_RUNNING
    return bool(said or there)


def proof_holds(decision: Any) -> bool:
    """There is a proof, and it is about the session that was lost."""
    proof = decision.proof
    return bool(proof.means and proof.session == decision.lost_session)


def fenced_is_dead(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """A node becomes FENCED only with a proof that holds, and then its machine is truly off, or was
    reset since the lost session began."""
    before: Any = row.before or cluster_pb2.Node()
    after: Any = row.value
    if after is None or after.decision.state != FENCED or before.decision.state == FENCED:
        return
    decision = after.decision
    if not proof_holds(decision):
        yield f"{row.name} was fenced without a proof about {decision.lost_session}"
    machine_id, boots = watch.cluster.owners.get(decision.lost_session, ("", 0))
    node = watch.cluster.nodes.get(machine_id)
    alive = node is not None and node.machine.on and node.machine.boots == boots
    if node is not None and alive and not node.machine.fenced_off:
        yield f"{row.name} was fenced ({decision.proof.text}) and its machine is alive"


def off_for_a_cause(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """A VM that somebody wants to run is decided to be off only for a cause; one after which it may
    stay off is remembered for the calm."""
    before: Any = row.before
    after: Any = row.value
    if before is None or after is None or before.meta.HasField("delete_time"):
        return
    turned_off = before.decision.power in ON and after.decision.power not in ON
    same = before.decision.power_request == after.decision.power_request
    if not (turned_off and same and after.spec.power in ON):
        return
    status, decision, spec = before.status, after.decision, after.spec
    for_good = (
        status.guest_shutdown
        or status.state in (vm_pb2.VM_STATE_CRASHED, vm_pb2.VM_STATE_FAILED)
        or spec.autostart == vm_pb2.AUTOSTART_NEVER
        or spec.ha.policy == vm_pb2.NODE_FAILURE_POLICY_STOP
    )
    for_now = decision.HasField("migration") or decision.waits_for or decision.recoveries
    if for_good:
        watch.cluster.excused[row.name] = decision.power_request
    elif not for_now:
        yield f"{row.name} is wanted and was decided to be off: {decision.why}"


# --- Operations.


def operation_lives(watch: Watch, writer: str, row: Row) -> Iterator[str]:
    """An accepted operation ends once, is never lost, and never goes back."""
    before: Any = row.before
    after: Any = row.value
    if before is None:
        return
    if after is None:
        if before.state not in rows.FINAL:
            yield f"{row.name} ({before.method}) was removed before it had ended"
        return
    if before.state in rows.FINAL and after.state != before.state:
        yield f"{row.name} had ended and was changed"
    if after.percent < before.percent:
        yield f"{row.name} went back from {before.percent} to {after.percent} percent"


CHECKS: dict[str, tuple[Check, ...]] = {
    "vms": (vm_fields, vm_moves, recovered_with_proof, off_for_a_cause),
    "nodes": (node_fields, node_moves, fenced_is_dead),
    "operations": (operation_lives,),
}
