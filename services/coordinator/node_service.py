"""Answers about the nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from services.mesh.desk import Context, Desk
from services.mesh.errors import PvcError

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

    async def AddNode(self, request: api.AddNodeRequest, context: Context) -> api.AddNodeResponse:
        """See the contract."""
        raise _absent()

    async def JoinNode(
        self, request: api.JoinNodeRequest, context: Context
    ) -> api.JoinNodeResponse:
        """See the contract."""
        raise _absent()

    async def UpdateNode(
        self, request: api.UpdateNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        raise _absent()

    async def RemoveNode(self, request: api.RemoveNodeRequest, context: Context) -> Operation:
        """See the contract."""
        raise _absent()

    async def DrainNode(self, request: api.DrainNodeRequest, context: Context) -> Operation:
        """See the contract."""
        raise _absent()

    async def ReadyNode(self, request: api.ReadyNodeRequest, context: Context) -> Operation:
        """See the contract."""
        raise _absent()

    async def PromoteNode(
        self, request: api.PromoteNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        raise _absent()

    async def DemoteNode(
        self, request: api.DemoteNodeRequest, context: Context
    ) -> cluster_pb2.Node:
        """See the contract."""
        raise _absent()

    async def LeadNode(self, request: api.LeadNodeRequest, context: Context) -> cluster_pb2.Node:
        """See the contract."""
        raise _absent()

    async def ConfirmNodeDead(
        self, request: api.ConfirmNodeDeadRequest, context: Context
    ) -> api.ConfirmNodeDeadResponse:
        """See the contract."""
        raise _absent()

    async def CheckNodePower(
        self, request: api.CheckNodePowerRequest, context: Context
    ) -> api.CheckNodePowerResponse:
        """See the contract."""
        raise _absent()


def _absent() -> PvcError:
    return PvcError(reason_pb2.REASON_NOT_SUPPORTED, "this version cannot do that yet")
