"""Answers about where VMs are, and takes requests to move them: the leading coordinator does it.

A request writes the VM's row as it was beside the operation: that keeps two requests from being
taken for the same VM at the same moment.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import drain
from services.coordinator.core.balance import plan_balance
from services.coordinator.core.capacity import load_of
from services.coordinator.core.explain import explain
from services.coordinator.core.methods import BALANCE, HOLDS, MIGRATE, MOVE, SERVICE, UNMIGRATE
from services.coordinator.core.migration import NONE
from services.coordinator.core.rounds import Round
from services.coordinator.core.routes import Route, route_of, why_wait
from services.coordinator.core.world import short
from services.coordinator.loop import world_of
from services.mesh import rows
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import not_found, refuse
from services.mesh.rows import THIS_CLUSTER
from services.state.store import Put, Snapshot

Operation = operation_pb2.Operation


class PlacementService(api_grpc.PlacementServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def MigrateVm(self, request: api.MigrateVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, migrate, context)

    async def MoveVm(self, request: api.MoveVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, move, context)

    async def UnmigrateVm(self, request: api.UnmigrateVmRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, unmigrate, context)

    async def ExplainVm(
        self, request: api.ExplainVmRequest, context: Context
    ) -> api.ExplainVmResponse:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        vm = snapshot.find(vm_pb2.Vm, request.name)
        if vm is None:
            raise not_found(request.name)
        world = world_of(snapshot)
        return explain(world, load_of(world), vm)

    async def PlanBalance(
        self, request: api.PlanBalanceRequest, context: Context
    ) -> api.BalancePlan:
        """See the contract."""
        return planned(await self._desk.fresh(context), request, self._desk.clock.now())

    async def BalanceCluster(
        self, request: api.BalanceClusterRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, balance, context)


def migrate(snapshot: Snapshot, request: api.MigrateVmRequest, call: Call) -> Mutation:
    """To another node for a while."""
    return _accepted(snapshot, request, call, MIGRATE)


def move(snapshot: Snapshot, request: api.MoveVmRequest, call: Call) -> Mutation:
    """To another node for good."""
    return _accepted(snapshot, request, call, MOVE)


def unmigrate(snapshot: Snapshot, request: api.UnmigrateVmRequest, call: Call) -> Mutation:
    """Back to the node that it had to leave."""
    return _accepted(snapshot, request, call, UNMIGRATE)


def planned(
    snapshot: Snapshot,
    request: api.PlanBalanceRequest | api.BalanceClusterRequest,
    now: Timestamp,
) -> api.BalancePlan:
    """The moves that would make the nodes evenly used."""
    world = world_of(snapshot)
    return plan_balance(now, world, load_of(world), request.selector, request.max_moves)


def balance(snapshot: Snapshot, request: api.BalanceClusterRequest, call: Call) -> Mutation:
    """One at a time. A dry run's result is the plan."""
    for there in rows.unfinished(snapshot):
        if there.method == BALANCE:
            refuse(
                reason_pb2.REASON_BUSY,
                f"the cluster is being balanced ({there.name}); wait for it, or cancel it",
            )
    plan = planned(snapshot, request, call.now)
    what = f"{len(plan.moves)} moves: spread {plan.spread_before} → {plan.spread_after} %"
    operation = rows.new_operation(
        call, request, method=BALANCE, target=THIS_CLUSTER, service=SERVICE, node=""
    )
    operation.stage = f"would be accepted: {what}" if request.validate_only else "accepted"
    if request.validate_only:
        operation.name = ""
        operation.result.Pack(plan)
    rows.log_line(operation, what, call.now)
    return Mutation((Put(operation),), operation)


def check_drain(snapshot: Snapshot, request: api.DrainNodeRequest, now: Timestamp) -> None:
    """Raises NO_NODE_FITS with the reasons of all VMs that could not leave the node."""
    round = Round(now, world_of(snapshot))
    bound = drain.bound(round, request.name, request.shutdown, request.copy_volumes)
    if bound:
        reasons = "; ".join(f"vm {short(vm)}: {why}" for vm, why in bound.items())
        refuse(reason_pb2.REASON_NO_NODE_FITS, f"{request.name} would not get empty: {reasons}")


def _accepted(snapshot: Snapshot, request: Any, call: Call, method: str) -> Mutation:
    vm = _free_vm(snapshot, request)
    world = world_of(snapshot)
    route = route_of(world, load_of(world), vm, request)
    stays = route.target == vm.decision.node
    if stays and (method != MOVE or not vm.decision.home):
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{vm.name} is on {short(route.target)} already",
            "node",
        )
    operation = rows.new_operation(
        call, request, method=method, target=vm.name, service=SERVICE, node=""
    )
    what = _what(vm, route)
    if route.volumes:
        what += f", with {', '.join(sorted(route.volumes))} copied along"
    operation.stage = "would be accepted: " + what if request.validate_only else "accepted"
    if request.validate_only:
        operation.name = ""
    rows.log_line(operation, what, call.now)
    told = rows.event(
        call.new_id(), call.now, vm.name, what, cause=call.caller, operation=operation.name
    )
    return Mutation((Put(rows.copied(vm)), Put(operation), told), operation)


def _free_vm(snapshot: Snapshot, request: Any) -> vm_pb2.Vm:
    """The VM, with which nothing goes on that keeps it where it is."""
    vm = snapshot.find(vm_pb2.Vm, request.name)
    if vm is None:
        raise not_found(request.name)
    rows.check_etag(vm, request.etag)
    if vm.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{vm.name} is being deleted", "name")
    for operation in rows.unfinished(snapshot, vm.name):
        if operation.service == SERVICE or operation.method in HOLDS:
            refuse(
                reason_pb2.REASON_BUSY,
                f"{vm.name} is busy with {operation.method.rpartition('/')[2]} ({operation.name}); "
                "wait for it, or cancel it",
                "name",
            )
    if vm.decision.HasField("migration"):
        refuse(reason_pb2.REASON_BUSY, f"{vm.name} {why_wait(vm, None)}", "name")
    return vm


def _what(vm: vm_pb2.Vm, route: Route) -> str:
    name, source, target = short(vm.name), short(vm.decision.node), short(route.target)
    if source == target:
        return f"vm {name} is to stay on {target} for good"
    how = (
        "" if route.method == NONE else vm_pb2.MigrationMethod.Name(route.method).rpartition("_")[2]
    )
    return f"vm {name} is to move {source} → {target}" + (f" ({how.lower()})" if how else " (off)")
