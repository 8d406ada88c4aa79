"""The answers about nodes, the cluster, operations and events; changes only `cancel_requested`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import event_pb2, operation_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core import health
from services.coordinator.loop import LEADER
from services.mesh import rows
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import not_found
from services.mesh.watches import woken_by
from services.state.store import Put, Snapshot

WAIT_MAX_S = 3600.0
Operation = operation_pb2.Operation


class NodeService(api_grpc.NodeServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetNode(self, request: api.GetNodeRequest, context: Context) -> cluster_pb2.Node:
        """See the contract."""
        return await self._desk.get(cluster_pb2.Node, request, context)

    async def ListNodes(self, request: Any, context: Context) -> api.ListNodesResponse:
        """See the contract."""
        return await self._desk.list(cluster_pb2.Node, request, api.ListNodesResponse, context)

    async def WatchNodes(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchNodesResponse]:
        """See the contract."""
        answers = self._desk.watch(cluster_pb2.Node, request, api.WatchNodesResponse, context)
        async for answer in answers:
            yield answer


class ClusterService(api_grpc.ClusterServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._name = name

    async def GetCluster(
        self, request: api.GetClusterRequest, context: Context
    ) -> cluster_pb2.Cluster:
        """See the contract."""
        return cluster_of(await self._desk.fresh(context), self._name)


def cluster_of(snapshot: Snapshot, name: str) -> cluster_pb2.Cluster:
    """The cluster at a glance."""
    nodes, vms = list(snapshot.rows(cluster_pb2.Node)), list(snapshot.rows(vm_pb2.Vm))
    cluster = cluster_pb2.Cluster(
        name=name,
        leader=snapshot.leases.get(LEADER, ""),
        revision=snapshot.revision,
        volumes=sum(1 for _ in snapshot.rows(storage_pb2.Volume)),
        images=sum(1 for _ in snapshot.rows(image_pb2.Image)),
        networks=sum(1 for _ in snapshot.rows(network_pb2.Network)),
        running_operations=sum(x.state not in rows.FINAL for x in snapshot.rows(Operation)),
    )
    health.count_nodes(cluster, nodes)
    health.count_vms(cluster, vms)
    pools, networks = snapshot.rows(storage_pb2.Pool), snapshot.rows(network_pb2.Network)
    found = sorted(health.faults(cluster.leader, nodes, vms, pools, networks), reverse=True)
    cluster.health = found[0][0] if found else cluster_pb2.Cluster.HEALTH_OK
    cluster.faults.extend(text for _, text in found)
    return cluster


class OperationService(api_grpc.OperationServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def GetOperation(self, request: api.GetOperationRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.get(Operation, request, context)

    async def ListOperations(self, request: Any, context: Context) -> api.ListOperationsResponse:
        """See the contract."""
        return await self._desk.list(Operation, request, api.ListOperationsResponse, context)

    async def WatchOperations(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchOperationsResponse]:
        """See the contract."""
        answers = self._desk.watch(Operation, request, api.WatchOperationsResponse, context)
        async for answer in answers:
            yield answer

    async def WaitOperation(self, request: api.WaitOperationRequest, context: Context) -> Operation:
        """See the contract."""
        await self._desk.fresh(context)
        asked_s = request.timeout.seconds + request.timeout.nanos / 1e9 or WAIT_MAX_S
        left_s = context.time_remaining()
        patience_s = WAIT_MAX_S if left_s is None else max(left_s - 0.5, 0.0)
        return await self._ended(request.name, min(asked_s, patience_s, WAIT_MAX_S))

    async def CancelOperation(
        self, request: api.CancelOperationRequest, context: Context
    ) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, cancel, context)

    async def _ended(self, name: str, wait_s: float) -> Operation:
        """The operation once it has ended, or as it is after the wait."""
        store, clock = self._desk.store, asyncio.get_running_loop()
        end = clock.time() + wait_s
        with woken_by(store) as wake:
            while True:
                operation = store.snapshot().find(Operation, name)
                if operation is None:
                    raise not_found(name)
                if operation.state in rows.FINAL or clock.time() >= end:
                    return operation
                await wake.wait(end - clock.time())


def cancel(snapshot: Snapshot, request: api.CancelOperationRequest, call: Call) -> Mutation:
    """Asks the worker to stop; one that nobody can have begun yet ends at once by its worker's own
    hand."""
    operation = snapshot.find(Operation, request.name)
    if operation is None:
        raise not_found(request.name)
    if operation.state in rows.FINAL or operation.cancel_requested:
        return Mutation((), operation)
    after = rows.copied(operation)
    after.cancel_requested = True
    rows.log_line(after, f"{call.caller} asked to cancel it", call.now)
    return Mutation((Put(after),), after)


class EventService(api_grpc.EventServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListEvents(self, request: Any, context: Context) -> api.ListEventsResponse:
        """See the contract."""
        return await self._desk.list(event_pb2.Event, request, api.ListEventsResponse, context)

    async def WatchEvents(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchEventsResponse]:
        """See the contract."""
        answers = self._desk.watch(event_pb2.Event, request, api.WatchEventsResponse, context)
        async for answer in answers:
            yield answer
