"""What can be asked about nodes and the cluster: refused with the field and a way out, or written
with an event. Plans alone: snapshot and request in, changes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import event_pb2, operation_pb2, secret_pb2
from pvc.gateway.v1 import gateway_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core import cluster_edits, death, node_edits, node_tasks
from services.coordinator.core.leaving import belongings
from services.coordinator.core.limits import filled
from services.mesh import rows
from services.mesh.clock import SystemClock
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.store import Delete, Put

CLOCK = SystemClock()
State = cluster_pb2.NodeState
STATES = {name.removeprefix("NODE_STATE_"): value for name, value in State.items()}
Operation = operation_pb2.Operation


class Town:
    """A state to ask things of: nodes n1 and n2 work and are coordinators."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.put(cluster_pb2.ClusterIdentity(name="clusters/this"))
        for name in ("n1", "n2"):
            self.node(name)

    def put(self, row: Any) -> None:
        self.store.commit([Put(row)])

    def node(self, name: str, state: str = "ONLINE", **spec: Any) -> None:
        row = cluster_pb2.Node(name=f"nodes/{name}")
        there = self.store.snapshot().find(cluster_pb2.Node, row.name)
        row.meta.etag = there.meta.etag if there is not None else ""
        row.spec.CopyFrom(cluster_pb2.NodeSpec(**{"coordinator": True, **spec}))
        row.decision.state = STATES[state]  # type: ignore[assignment]
        row.decision.why = "the test says so"
        row.decision.lost_session = "" if state in ("ONLINE", "DRAINED", "DRAINING") else "0x7"
        self.put(row)
        if not row.decision.lost_session:
            self.store.acquire(row.name, row.name)

    def vm(self, name: str, node: str, *volumes: str, policy: int = 1, on: bool = True) -> None:
        vm = vm_pb2.Vm(name=f"vms/{name}")
        vm.decision.node, vm.decision.power = f"nodes/{node}", 3 if on else 2  # type: ignore[assignment]
        vm.spec.ha.policy = policy  # type: ignore[assignment]
        for volume in volumes:
            vm.spec.disks.add(id=volume.rpartition("/")[2], volume=volume)
        self.put(vm)

    def ask(self, plan: Callable[..., Mutation], request: Any, *known: Any) -> Any:
        """The answer, with the changes written if it is meant."""
        call = Call(CLOCK.now(), "token ann", "nodes/n1", CLOCK.new_id)
        mutation = plan(self.store.snapshot(), request, call, *known)
        if not getattr(request, "validate_only", False):
            self.store.commit(list(mutation.changes))
        return mutation.response

    def refused(self, plan: Callable[..., Mutation], request: Any, *known: Any) -> PvcError:
        before = self.store.snapshot().revision
        with pytest.raises(PvcError) as caught:
            self.ask(plan, request, *known)
        assert self.store.snapshot().revision == before
        return caught.value

    def at(self, name: str) -> cluster_pb2.Node:
        row = self.store.snapshot().find(cluster_pb2.Node, f"nodes/{name}")
        assert row is not None
        return row

    def told(self) -> list[str]:
        return [row.message for row in self.store.snapshot().rows(event_pb2.Event)]


@pytest.fixture
def town() -> Town:
    return Town()


def updating(*paths: str, name: str = "n1", **spec: Any) -> api.UpdateNodeRequest:
    node = cluster_pb2.Node(name=f"nodes/{name}", spec=cluster_pb2.NodeSpec(**spec))
    return api.UpdateNodeRequest(node=node, update_mask={"paths": list(paths)})


# --- Settings.


def test_only_what_is_named_is_taken_over(town: Town) -> None:
    town.node("n1", tags=["old"], description="here", max_vms=3)
    town.ask(node_edits.update, updating("spec.tags", tags=["new"], description="ignored"), b"")
    assert (list(town.at("n1").spec.tags), town.at("n1").spec.description) == (["new"], "here")
    town.ask(node_edits.update, updating(description="there"), b"")
    assert town.at("n1").spec.description == "there" and town.at("n1").spec.max_vms == 3
    town.ask(node_edits.update, updating("*"), b"")
    spec = town.at("n1").spec
    assert (spec.max_vms, list(spec.tags), spec.coordinator) == (0, [], True)


def test_a_change_that_changes_nothing_writes_nothing(town: Town) -> None:
    before = town.store.snapshot().revision
    town.ask(node_edits.update, updating("spec.max_vms"), b"")
    assert town.store.snapshot().revision == before and not town.told()


@pytest.mark.parametrize(
    "path",
    ["spec.coordinator", "spec.drained", "decision.state", "name", "spec.tag", "spec.tags.x"],
)
def test_what_cannot_be_changed_is_said(path: str, town: Town) -> None:
    error = town.refused(node_edits.update, updating(path), b"")
    assert (error.reason_name, error.field) == ("INVALID_FIELD", "update_mask")


def test_every_node_has_its_own_address(town: Town) -> None:
    town.node("n2", address="10.0.0.2")
    error = town.refused(node_edits.update, updating(address="10.0.0.2"), b"")
    assert (error.reason_name, error.field) == ("IN_USE", "node.spec.address")


CONTROL = cluster_pb2.PowerControl
REDFISH, IPMI = CONTROL.PROTOCOL_REDFISH, CONTROL.PROTOCOL_IPMI


@pytest.mark.parametrize(
    ("control", "field"),
    [
        (CONTROL(protocol=REDFISH, address="10.0.0.9"), "address"),
        (CONTROL(protocol=IPMI, address="https://bmc"), "address"),
        (CONTROL(address="10.0.0.9"), "protocol"),
        (CONTROL(protocol=IPMI), "protocol"),
    ],
)
def test_a_controller_that_cannot_be_is_refused(
    control: cluster_pb2.PowerControl, field: str, town: Town
) -> None:
    error = town.refused(node_edits.update, updating(power_control=control), b"")
    assert error.field == f"node.spec.power_control.{field}"


def test_a_password_is_kept_beside_the_node_and_goes_with_its_controller(town: Town) -> None:
    control = CONTROL(protocol=IPMI, address="10.0.0.9", password="s3cr3t")
    answer = town.ask(node_edits.update, updating(power_control=control), b"sealed")
    assert answer.spec.power_control.address and not answer.spec.power_control.password
    assert not town.at("n1").spec.power_control.password
    name = "secrets/power.n1"
    row = town.store.snapshot().find(secret_pb2.Secret, name)
    assert row is not None and row.sealed == b"sealed"
    control.ClearField("password")
    control.address = "10.0.0.10"
    town.ask(node_edits.update, updating("spec.power_control", power_control=control), b"")
    assert town.store.snapshot().find(secret_pb2.Secret, name) == row, "it stays as it was"
    town.ask(node_edits.update, updating("spec.power_control"), b"")
    assert town.store.snapshot().find(secret_pb2.Secret, name) is None


def test_the_clusters_settings(town: Town) -> None:
    spec = cluster_pb2.ClusterSpec(maintenance=True, fence_delay_ms=800)
    row = town.ask(cluster_edits.update, api.UpdateClusterRequest(spec=spec))
    assert (row.spec.maintenance, row.spec.fence_delay_ms) == (True, 800)
    assert town.told() == ["the cluster's maintenance is on, fence_delay_ms is 800"]
    mask = {"paths": ["maintenance"]}
    town.ask(cluster_edits.update, api.UpdateClusterRequest(update_mask=mask))
    assert town.told()[-1] == "the cluster's maintenance is off"
    error = town.refused(
        cluster_edits.update, api.UpdateClusterRequest(update_mask={"paths": ["maintenence"]})
    )
    assert error.field == "update_mask"
    full = filled(cluster_pb2.ClusterSpec(fence_delay_ms=800))
    assert (full.fence_delay_ms, full.fence_max_percent, full.reserve_nodes) == (800, 34, 0)
    assert full.power_on_after_fence, "on unless somebody says otherwise"
    assert not filled(cluster_pb2.ClusterSpec(power_on_after_fence=False)).power_on_after_fence


def test_to_leave_fenced_nodes_off_is_written_and_told(town: Town) -> None:
    off = api.UpdateClusterRequest(spec=cluster_pb2.ClusterSpec(power_on_after_fence=False))
    after = town.ask(cluster_edits.update, off)
    assert after.spec.HasField("power_on_after_fence") and not after.spec.power_on_after_fence
    messages = [event.message for event in town.store.snapshot().rows(event_pb2.Event)]
    assert messages == ["the cluster's power_on_after_fence is off"]


# --- Long work.


def test_a_drain_and_its_opposite_call_each_other_off(town: Town) -> None:
    drain = town.ask(node_tasks.drain, api.DrainNodeRequest(name="nodes/n1"))
    assert town.at("n1").spec.drained and drain.method.endswith("NodeService/DrainNode")
    busy = town.refused(node_tasks.drain, api.DrainNodeRequest(name="nodes/n1"))
    assert busy.reason_name == "BUSY" and drain.name in busy.message
    town.ask(node_tasks.ready, api.ReadyNodeRequest(name="nodes/n1"))
    assert not town.at("n1").spec.drained and town.at("n1").spec.ready_request == 1
    after = town.store.snapshot().find(Operation, drain.name)
    assert after is not None and after.cancel_requested


@pytest.mark.parametrize("state", ["UNKNOWN", "FENCING", "FENCED", "JOINING", "MAINTENANCE"])
def test_only_a_node_that_works_is_drained(state: str, town: Town) -> None:
    town.node("n3", state)
    error = town.refused(node_tasks.drain, api.DrainNodeRequest(name="nodes/n3"))
    assert error.reason_name == "WRONG_STATE" and f"nodes/n3 is {state}" in error.message


@pytest.mark.parametrize("state", ["DRAINED", "JOINING", "FENCED", "MAINTENANCE"])
def test_a_node_that_runs_nothing_is_taken_out(state: str, town: Town) -> None:
    town.node("n3", state)
    town.put(cluster_pb2.Join(name="joins/n3"))
    operation = town.ask(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert town.at("n3").spec.leaving and operation.target == "nodes/n3"
    assert town.store.snapshot().find(cluster_pb2.Join, "joins/n3") is None
    again = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert "is leaving the cluster" in again.message


@pytest.mark.parametrize("state", ["ONLINE", "DRAINING", "UNKNOWN", "FENCING"])
def test_a_node_that_may_run_something_is_not(state: str, town: Town) -> None:
    town.node("n3", state)
    error = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert error.reason_name == "WRONG_STATE" and "pvc node drain n3" in error.message


def test_what_is_on_a_node_is_not_thrown_away_with_it(town: Town) -> None:
    town.node("n3", "DRAINED")
    town.put(storage_pb2.Pool(name="pools/own", spec={"node": "nodes/n3"}))
    town.put(storage_pb2.Volume(name="pools/own/volumes/a"))
    error = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert error.reason_name == "IN_USE" and "pools/own/volumes/a" in error.message
    town.node("n3", "FENCED")
    town.ask(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3", validate_only=True))
    town.vm("tied", "n1", "pools/own/volumes/a", on=False)
    error = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert "pools/own/volumes/a, which vms/tied uses" in error.message
    town.vm("web", "n3", on=False)
    error = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    assert "vms/web belong to nodes/n3" in error.message


def test_a_leader_that_is_taken_out_hands_the_lead_over(town: Town) -> None:
    town.node("n3", "DRAINED")
    town.store.acquire("leader", "nodes/n3")
    town.ask(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n3"))
    row = town.store.snapshot().find(cluster_pb2.ClusterIdentity, "clusters/this")
    assert row is not None and row.lead_request.away == "nodes/n3"


def test_all_that_was_a_nodes_own_goes_with_it(town: Town) -> None:
    town.node("n3", "FENCED")
    own = ("pools/own", "pools/own/volumes/a", "pools/own/volumes/a/snapshots/s")
    town.put(storage_pb2.Pool(name=own[0], spec={"node": "nodes/n3"}))
    town.put(storage_pb2.Volume(name=own[1]))
    town.put(storage_pb2.Snapshot(name=own[2]))
    town.put(storage_pb2.Pool(name="pools/ownother", spec={"node": "nodes/n1"}))
    town.put(storage_pb2.Volume(name="pools/ownother/volumes/a"))
    town.put(secret_pb2.Secret(name="secrets/power.n3"))
    town.put(gateway_pb2.Gateway(name="gateways/n3"))
    gone = [change.name for change in belongings(town.store.snapshot(), "nodes/n3")]
    assert gone == [*own, "secrets/power.n3", "gateways/n3"]


def test_the_last_coordinator_stays(town: Town) -> None:
    town.node("n1", coordinator=False)
    town.node("n2", "DRAINED")
    error = town.refused(node_tasks.remove, api.RemoveNodeRequest(name="nodes/n2"))
    assert "last coordinator that works" in error.message
    town.store.commit([Delete("nodes/n1", "*")])


# --- Death.


def confirming(name: str = "n3") -> api.ConfirmNodeDeadRequest:
    return api.ConfirmNodeDeadRequest(name=f"nodes/{name}", why="pulled both plugs")


@pytest.mark.parametrize("state", ["UNKNOWN", "FENCING"])
def test_an_admins_proof_is_for_the_session_that_was_lost(state: str, town: Town) -> None:
    town.node("n3", state)
    town.ask(death.confirm, confirming())
    proof = town.at("n3").decision.proof
    assert (proof.means, proof.text) == (cluster_pb2.PROOF_MEANS_ADMIN, "pulled both plugs")
    assert (proof.session, proof.given_by) == ("0x7", "token ann")
    assert town.at("n3").decision.state == STATES[state], "what follows is not ours to say"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("ONLINE", "holds its session: it lives"),
        ("FENCED", "is FENCED already"),
        ("MAINTENANCE", "nothing waits for a proof"),
        ("JOINING", "nothing waits for a proof"),
    ],
)
def test_nobody_confirms_what_does_not_wait_for_it(state: str, words: str, town: Town) -> None:
    town.node("n3", state)
    error = town.refused(death.confirm, confirming())
    assert error.reason_name == "WRONG_STATE" and words in error.message


def test_a_node_that_is_back_is_not_confirmed_dead(town: Town) -> None:
    town.node("n3", "UNKNOWN")
    town.store.acquire("nodes/n3", "nodes/n3")
    assert "it lives" in town.refused(death.confirm, confirming()).message


def test_what_would_be_damaged_is_named(town: Town) -> None:
    town.node("n3", "UNKNOWN")
    town.put(storage_pb2.Pool(name="pools/own", spec={"node": "nodes/n3"}))
    town.put(storage_pb2.Pool(name="pools/all", spec={"shared": True}))
    town.vm("web", "n3", "pools/all/volumes/a", "pools/all/volumes/b")
    town.vm("diskless", "n3")
    town.vm("bound", "n3", "pools/own/volumes/c", "pools/all/volumes/d")
    town.vm("stays", "n3", "pools/all/volumes/e", policy=vm_pb2.NODE_FAILURE_POLICY_IGNORE)
    town.vm("off", "n3", "pools/all/volumes/f", on=False)
    town.vm("elsewhere", "n1", "pools/all/volumes/g")
    answer = town.ask(death.confirm, confirming())
    assert list(answer.warnings) == [
        "vms/diskless would run twice",
        "vms/web would run twice, and destroy pools/all/volumes/a and pools/all/volumes/b",
    ]


def test_rows_are_copied_before_they_are_changed(town: Town) -> None:
    before = rows.copied(town.at("n1"))
    town.ask(node_tasks.drain, api.DrainNodeRequest(name="nodes/n1", validate_only=False))
    assert before != town.at("n1") and not before.spec.drained
