"""Requests about where VMs are, over a real socket, with a coordinator that leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from services.coordinator.loop import Coordinator
from services.coordinator.main import build
from services.mesh.amend import amend
from services.mesh.calls import error_of
from services.mesh.clock import SystemClock
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put
from tests.coordinator.moving import world
from tests.coordinator.test_service import started
from tests.mesh.serving import Host

Operation = operation_pb2.Operation

CLUSTER = """
    node n1 online 4096
    node n2 online 4096
    node n3 online 512 deaf
    vm web tags=app power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
    vm off | node=n1 | STOPPED
"""


class Site:
    """A coordinator with its services, and the agents' store to write what they would see."""

    def __init__(self, directory: Path, text: str) -> None:
        shared = MemoryCluster()
        self.agents = MemoryStore(shared)
        for row in (w := world(text)).nodes.values():
            self.agents.commit([Put(row)])
        for name in w.present:
            assert self.agents.acquire(name, name)
        for vm in w.vms.values():
            vm.meta.etag = ""
            self.agents.commit([Put(vm)])
        self.host = Host()
        self.coordinator = Coordinator(MemoryStore(shared), SystemClock(), "nodes/n1")
        parts = build(MemoryStore(shared), SystemClock(), "nodes/n1", "home")
        self.server = self.host.do(started(parts, directory / "c.sock"))
        self.channel = grpc.insecure_channel(f"unix:{directory / 'c.sock'}")
        self.placement: Any = api_grpc.PlacementServiceStub(self.channel)

    def vm(self, name: str = "vms/web") -> vm_pb2.Vm:
        found = self.agents.snapshot().find(vm_pb2.Vm, name)
        assert found is not None
        return found

    def operation(self, name: str) -> Operation:
        found = self.agents.snapshot().find(Operation, name)
        assert found is not None
        return found

    def sees(self, change: Callable[[vm_pb2.Vm], Any]) -> None:
        """An agent writes, and the coordinator looks."""
        amend(self.agents, vm_pb2.Vm, "vms/web", change)
        self.coordinator.step()

    def close(self) -> None:
        self.channel.close()
        self.host.do(self.server.drain(0.2))
        self.host.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, CLUSTER)
    yield site
    site.close()


def refused(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request)
    found = error_of(error.value)
    return found.reason_name, found.message


def test_a_migration_from_the_request_to_its_end(site: Site) -> None:
    accepted = site.placement.MigrateVm(api.MigrateVmRequest(name="vms/web"))
    assert accepted.state == Operation.STATE_PENDING
    assert accepted.log[0].text == "vm web is to move n1 → n2 (live)"
    site.coordinator.step()
    migration = site.vm().decision.migration
    assert migration.target == "nodes/n2" and migration.operation == accepted.name

    def ready(vm: vm_pb2.Vm) -> None:
        vm.arrival.id, vm.arrival.node = migration.id, "nodes/n2"
        vm.arrival.state = vm_pb2.VmArrival.STATE_READY

    def moved(vm: vm_pb2.Vm) -> None:
        vm.status.migration.id = migration.id
        vm.status.migration.phase = vm_pb2.MigrationStatus.PHASE_MOVED

    site.sees(ready)
    assert site.operation(accepted.name).stage == "n2 waits for it"
    site.sees(moved)
    assert site.vm().decision.node == "nodes/n2"
    assert site.operation(accepted.name).state == Operation.STATE_SUCCEEDED
    back = site.placement.UnmigrateVm(api.UnmigrateVmRequest(name="vms/web"))
    assert back.log[0].text == "vm web is to move n2 → n1 (live)"


def test_a_dry_run_changes_nothing(site: Site) -> None:
    before = site.agents.snapshot().revision
    request = api.MoveVmRequest(name="vms/web", node="nodes/n2", validate_only=True)
    answer = site.placement.MoveVm(request)
    assert answer.stage == "would be accepted: vm web is to move n1 → n2 (live)"
    assert (answer.name, site.agents.snapshot().revision) == ("", before)


def test_refusals_name_all_reasons(site: Site) -> None:
    migrate = site.placement.MigrateVm
    assert refused(migrate, api.MigrateVmRequest(name="vms/none"))[0] == "NOT_FOUND"
    assert refused(migrate, api.MigrateVmRequest(name="vms/web", node="nodes/n9")) == (
        "NOT_FOUND",
        "nodes/n9 does not exist",
    )
    assert refused(migrate, api.MigrateVmRequest(name="vms/web", node="nodes/n1")) == (
        "WRONG_STATE",
        "vms/web is on n1 already",
    )
    assert refused(migrate, api.MigrateVmRequest(name="vms/web", etag="1"))[0] == "ETAG_MISMATCH"
    method = vm_pb2.MIGRATION_METHOD_NONE
    assert refused(migrate, api.MigrateVmRequest(name="vms/web", method=method))[0] == (
        "INVALID_FIELD"
    )
    back = refused(site.placement.UnmigrateVm, api.UnmigrateVmRequest(name="vms/web"))
    assert back == ("WRONG_STATE", "vms/web is where it belongs, on n1")
    amend(site.agents, vm_pb2.Vm, "vms/web", lambda vm: vm.spec.cpu.MergeFrom(big))
    assert refused(migrate, api.MigrateVmRequest(name="vms/web", node="nodes/n3")) == (
        "NO_NODE_FITS",
        "vms/web cannot move: n3 has 4 processors, fewer than the 9 it needs; "
        "n3 has a hypervisor that takes no VMs from others",
    )


big = vm_pb2.CpuSpec(vcpus=9)


def test_one_move_at_a_time(site: Site) -> None:
    first = site.placement.MigrateVm(api.MigrateVmRequest(name="vms/web"))
    reason, message = refused(site.placement.MoveVm, api.MoveVmRequest(name="vms/web"))
    assert reason == "BUSY" and first.name in message


def test_what_is_off_moves_without_any_agent(site: Site) -> None:
    asked = site.placement.MoveVm(api.MoveVmRequest(name="vms/off", node="nodes/n3"))
    site.coordinator.step()
    assert site.operation(asked.name).state == Operation.STATE_SUCCEEDED
    decision = site.vm("vms/off").decision
    assert (decision.node, decision.home) == ("nodes/n3", "")


def test_one_that_waits_is_cancelled_by_the_leader(site: Site) -> None:
    operations: Any = api_grpc.OperationServiceStub(site.channel)
    asked = site.placement.MigrateVm(api.MigrateVmRequest(name="vms/web"))
    operations.CancelOperation(api.CancelOperationRequest(name=asked.name))
    site.coordinator.step()
    assert site.operation(asked.name).state == Operation.STATE_CANCELLED
    assert not site.vm().decision.HasField("migration")


def test_explain_answers_from_the_newest_state(site: Site) -> None:
    answer = site.placement.ExplainVm(api.ExplainVmRequest(name="vms/web"))
    assert (answer.node, answer.verdicts[0].node) == ("nodes/n1", "nodes/n1")
    assert refused(site.placement.ExplainVm, api.ExplainVmRequest(name="vms/x"))[0] == "NOT_FOUND"


def test_balancing_is_planned_tried_dry_and_done(tmp_path: Path) -> None:
    vms = [
        f"vm v{n} memory=500 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING"
        for n in range(4)
    ]
    site = Site(tmp_path, "\n".join(["node n1 online 2000", "node n2 online 2000", *vms]))
    try:
        plan = site.placement.PlanBalance(api.PlanBalanceRequest())
        assert [x.vm for x in plan.moves] == ["vms/v0", "vms/v1"]
        dry = site.placement.BalanceCluster(api.BalanceClusterRequest(validate_only=True))
        result = api.BalancePlan()
        assert dry.result.Unpack(result) and result == plan
        asked = site.placement.BalanceCluster(api.BalanceClusterRequest())
        call = site.placement.BalanceCluster
        assert refused(call, api.BalanceClusterRequest())[0] == "BUSY"
        site.coordinator.step()
        assert site.operation(asked.name).parts_begun == 2
        assert site.vm("vms/v0").decision.migration.operation == asked.name
    finally:
        site.close()


def test_a_drain_is_tried_dry_with_the_reasons_of_all_that_could_not_move(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        """
        node n1 online 4096
        node n2 online 256
        vm a how=NONE power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm b power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm c memory=64 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        """,
    )
    nodes: Any = api_grpc.NodeServiceStub(site.channel)
    try:
        request = api.DrainNodeRequest(name="nodes/n1", validate_only=True)
        assert refused(nodes.DrainNode, request) == (
            "NO_NODE_FITS",
            "nodes/n1 would not get empty: vm a: its spec.migration.method says that it stays "
            "where it is; vm b: n2 has 256 MiB free of the 512 MiB it needs",
        )
    finally:
        site.close()


def looked_at(vm: vm_pb2.Vm) -> None:
    vm.status.node = "nodes/n2"


def test_a_drain_from_the_request_to_the_drained_node(tmp_path: Path) -> None:
    off = "node n1 online 4096\nnode n2 online 4096\nvm a | node=n1 | STOPPED"
    site = Site(tmp_path, off)
    nodes: Any = api_grpc.NodeServiceStub(site.channel)
    try:
        asked = nodes.DrainNode(api.DrainNodeRequest(name="nodes/n1"))
        site.coordinator.step()
        assert site.operation(asked.name).state == Operation.STATE_SUCCEEDED
        assert nodes.GetNode(api.GetNodeRequest(name="nodes/n1")).decision.why == (
            "no VM runs on it any more"
        )
        assert (site.vm("vms/a").decision.node, site.vm("vms/a").decision.home) == (
            "nodes/n2",
            "nodes/n1",
        )
        amend(site.agents, vm_pb2.Vm, "vms/a", looked_at)
        back = nodes.ReadyNode(api.ReadyNodeRequest(name="nodes/n1"))
        site.coordinator.step()
        assert site.operation(back.name).state == Operation.STATE_SUCCEEDED
        assert site.vm("vms/a").decision.node == "nodes/n1"
    finally:
        site.close()
