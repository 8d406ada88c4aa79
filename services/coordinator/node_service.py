"""Answers about the nodes, and takes what an administrator asks of them. What follows from that,
whoever leads brings about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import death, joining, node_edits, node_tasks
from services.coordinator.letting_in import LettingIn, secret_hash
from services.coordinator.placement_service import check_drain
from services.mesh import enrolment
from services.mesh.desk import Call, Context, Desk, Mutation, Plan
from services.mesh.errors import PvcError, not_found, refuse
from services.mesh.watches import woken_by
from services.state.store import Snapshot

Node = cluster_pb2.Node
Operation = operation_pb2.Operation
LEAD_WAIT_S = 5.0
"""How long the lead may take to get where it was asked to go."""

Seal = Callable[[str, bytes], bytes]
"""Seals a secret for the row of that name. Raises INVALID_CONFIG."""
IsOn = Callable[[Snapshot, Node], bool]
"""Asks the controller of a node's power. Takes seconds. Raises POWER_FAILED, INVALID_CONFIG."""


class NodeService(api_grpc.NodeServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk, letting_in: LettingIn, seal: Seal, is_on: IsOn) -> None:
        self._desk = desk
        self._letting_in = letting_in
        self._seal = seal
        self._is_on = is_on

    async def GetNode(self, request: api.GetNodeRequest, context: Context) -> Node:
        """See the contract."""
        return await self._desk.get(Node, request, context)

    async def ListNodes(self, request: Any, context: Context) -> api.ListNodesResponse:
        """See the contract."""
        return await self._desk.list(Node, request, api.ListNodesResponse, context)

    async def WatchNodes(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchNodesResponse]:
        """See the contract."""
        answers = self._desk.watch(Node, request, api.WatchNodesResponse, context)
        async for answer in answers:
            yield answer

    async def AddNode(self, request: api.AddNodeRequest, context: Context) -> api.AddNodeResponse:
        """See the contract. A repeated request cannot have the token again: it is not kept."""
        self._letting_in.check_can_add()
        secret = self._letting_in.new_secret()
        plan = _with(joining.add, secret_hash(secret))
        answer = await self._desk.mutate(request, api.AddNodeResponse, plan, context)
        if request.validate_only:
            return answer
        snapshot = self._desk.store.snapshot()
        row = snapshot.find(cluster_pb2.Join, joining.joins_name(answer.node.name))
        if row is None or row.secret_hash != secret_hash(secret):
            refuse(
                reason_pb2.REASON_ALREADY_EXISTS,
                f"{answer.node.name} was added by this request before, and its token was told "
                "then; take it out and add it again",
                "node_id",
            )
        node = snapshot.find(Node, answer.node.name)
        doors = joining.doors_of(snapshot)
        token = self._letting_in.token(answer.node.name, doors, secret)
        return api.AddNodeResponse(node=node, token=token)

    async def JoinNode(
        self, request: api.JoinNodeRequest, context: Context
    ) -> api.JoinNodeResponse:
        """See the contract."""
        self._letting_in.check_can_sign(await self._desk.fresh(context))
        wanted = enrolment.read_request(request.certificate_request)

        def plan(snapshot: Snapshot, asked: api.JoinNodeRequest, call: Call) -> Mutation:
            told = secret_hash(asked.secret)
            mutation = joining.join(snapshot, asked, call, told, wanted.key_hash)
            enrolment.check_name(wanted.name, asked.name.removeprefix("nodes/"))
            return mutation

        node = await self._desk.mutate(request, Node, plan, context)
        return self._letting_in.let_in(node, wanted, self._desk.clock.now())

    async def RenewNode(
        self, request: api.RenewNodeRequest, context: Context
    ) -> api.RenewNodeResponse:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        node = _certified(snapshot, context)
        self._letting_in.check_can_sign(snapshot)
        wanted = enrolment.read_request(request.certificate_request)
        enrolment.check_name(wanted.name, node.name.removeprefix("nodes/"))
        return self._letting_in.renewed(node, wanted, self._desk.clock.now())

    async def UpdateNode(self, request: api.UpdateNodeRequest, context: Context) -> Node:
        """See the contract."""
        sealed, password = b"", request.node.spec.power_control.password
        if password:
            name = node_edits.secret_name(request.node.name)
            sealed = await asyncio.to_thread(self._seal, name, password.encode())
        plan = _with(node_edits.update, sealed)
        return await self._desk.mutate(request, Node, plan, context)

    async def RemoveNode(self, request: api.RemoveNodeRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, node_tasks.remove, context)

    async def DrainNode(self, request: api.DrainNodeRequest, context: Context) -> Operation:
        """See the contract."""
        answer = await self._desk.mutate(request, Operation, node_tasks.drain, context)
        if request.validate_only:
            check_drain(self._desk.store.snapshot(), request, self._desk.clock.now())
        return answer

    async def ReadyNode(self, request: api.ReadyNodeRequest, context: Context) -> Operation:
        """See the contract."""
        return await self._desk.mutate(request, Operation, node_tasks.ready, context)

    async def PromoteNode(self, request: api.PromoteNodeRequest, context: Context) -> Node:
        """See the contract."""
        return await self._desk.mutate(request, Node, node_edits.promote, context)

    async def DemoteNode(self, request: api.DemoteNodeRequest, context: Context) -> Node:
        """See the contract."""
        return await self._desk.mutate(request, Node, node_edits.demote, context)

    async def LeadNode(self, request: api.LeadNodeRequest, context: Context) -> Node:
        """See the contract."""
        answer = await self._desk.mutate(request, Node, node_edits.lead, context)
        if not request.validate_only:
            await self._led(request)
        return self._desk.store.snapshot().find(Node, request.name) or answer

    async def ConfirmNodeDead(
        self, request: api.ConfirmNodeDeadRequest, context: Context
    ) -> api.ConfirmNodeDeadResponse:
        """See the contract."""
        answer = api.ConfirmNodeDeadResponse
        return await self._desk.mutate(request, answer, death.confirm, context)

    async def CheckNodePower(
        self, request: api.CheckNodePowerRequest, context: Context
    ) -> api.CheckNodePowerResponse:
        """See the contract."""
        snapshot = await self._desk.fresh(context)
        node = snapshot.find(Node, request.name)
        if node is None:
            raise not_found(request.name)
        if not node.spec.HasField("power_control"):
            refuse(
                reason_pb2.REASON_POWER_FAILED,
                f"{node.name} has no controller of its power; name one: pvc node bmc set",
                "name",
            )
        clock, answer = self._desk.clock, api.CheckNodePowerResponse()
        asked = clock.monotonic()
        answer.on = await asyncio.to_thread(self._is_on, snapshot, node)
        answer.took.FromMilliseconds(round((clock.monotonic() - asked) * 1000))
        return answer

    async def _led(self, request: api.LeadNodeRequest) -> None:
        """Waits until the lead is where it was asked to go. Raises DEADLINE."""
        store, clock = self._desk.store, asyncio.get_running_loop()
        end = clock.time() + LEAD_WAIT_S
        with woken_by(store) as wake:
            while not node_edits.leads_as_asked(store.snapshot(), request):
                if clock.time() >= end:
                    leader = store.snapshot().leases.get(node_edits.LEADER, "") or "nobody"
                    raise PvcError(
                        reason_pb2.REASON_DEADLINE,
                        f"{leader} leads still after {LEAD_WAIT_S:g} s; the wish stays: see "
                        "'pvc cluster status'",
                    )
                await wake.wait(end - clock.time())


def _with(plan: Callable[..., Mutation], *known: Any) -> Plan:
    """The plan, with what is known beside the request."""

    def planned(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
        return plan(snapshot, request, call, *known)

    return planned


def _certified(snapshot: Snapshot, context: Context) -> Node:
    """The node whose certificate the caller showed: no word of the caller counts here. Raises
    PERMISSION_DENIED."""
    names = [name.decode() for name in context.auth_context().get("x509_common_name", ())]
    node = snapshot.find(Node, f"nodes/{names[0]}") if names else None
    if node is None or node.spec.leaving:
        raise PvcError(
            reason_pb2.REASON_PERMISSION_DENIED,
            "a certificate is renewed for a node of the cluster that shows its present one",
        )
    return node
