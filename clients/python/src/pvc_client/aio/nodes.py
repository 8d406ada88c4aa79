"""The machines of the cluster: let them in, change them, empty them, take them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pvc.coordinator.v1 import cluster_pb2
from pvc_client.aio.operations import AsyncPending, AsyncWorking
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import NODES, Options, mask

if TYPE_CHECKING:
    from pvc.coordinator.v1 import coordinator_service_pb2 as pb

Node = cluster_pb2.Node


class AsyncNodes(AsyncWorking[Node]):
    """The cluster's nodes."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, NODES, Node, "nodes")

    async def add(
        self,
        node_id: str,
        address: str,
        *,
        coordinator: bool = False,
        expires_in_s: int = 0,
        **options: Unpack[Options],
    ) -> pb.AddNodeResponse:
        """Expects a machine; the answer's token lets it join, once, and is told nowhere else.

        expires_in_s: how long the token is good for; 0 for an hour."""
        answer: pb.AddNodeResponse = await self._ask(
            NODES["AddNode"],
            options,
            node_id=node_id,
            address=address,
            coordinator=coordinator,
            expires_in=Duration(seconds=expires_in_s) if expires_in_s else None,
        )
        return answer

    async def join(
        self, node: str, secret: bytes, certificate_request: str, version: str
    ) -> pb.JoinNodeResponse:
        """Lets the machine in that has the secret of a token. `pvc cluster join` does all that a
        machine needs."""
        answer: pb.JoinNodeResponse = await self._ask(
            NODES["JoinNode"],
            name=self.name(node),
            secret=secret,
            certificate_request=certificate_request,
            version=version,
        )
        return answer

    async def update(
        self, node: Node, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Node:
        """Takes over the fields of the mask ("spec.tags"); all that are set without one."""
        method = NODES["UpdateNode"]
        updated: Node = await self._ask(method, options, node=node, update_mask=mask(update_mask))
        return updated

    async def change(
        self, node: str, change: Callable[[Node], object], **options: Unpack[Options]
    ) -> Node:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        async def update(wanted: Node, paths: Sequence[str]) -> Node:
            return await self.update(wanted, paths, **options)

        changed: Node = await self._changed(node, change, update)
        return changed

    async def remove(self, node: str, **options: Unpack[Options]) -> AsyncPending[Message]:
        """Takes out one that is drained, or dead."""
        return await self._begin(NODES["RemoveNode"], Message, options, name=self.name(node))

    async def drain(
        self,
        node: str,
        *,
        shutdown: bool = False,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Node]:
        """Moves all VMs off it. shutdown: those that cannot move while they run are restarted.
        copy_volumes: volumes that cannot be opened elsewhere go along."""
        return await self._begin(
            NODES["DrainNode"],
            Node,
            options,
            name=self.name(node),
            shutdown=shutdown,
            copy_volumes=copy_volumes,
        )

    async def ready(
        self,
        node: str,
        *,
        leave_vms: bool = False,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Node]:
        """Lets it carry VMs again, and brings back those that had to leave, unless leave_vms.
        copy_volumes: with the volumes that went along."""
        return await self._begin(
            NODES["ReadyNode"],
            Node,
            options,
            name=self.name(node),
            leave_vms=leave_vms,
            copy_volumes=copy_volumes,
        )

    async def promote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator."""
        promoted: Node = await self._ask(NODES["PromoteNode"], options, name=self.name(node))
        return promoted

    async def demote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator no longer."""
        demoted: Node = await self._ask(NODES["DemoteNode"], options, name=self.name(node))
        return demoted

    async def lead(self, node: str, *, away: bool = False, **options: Unpack[Options]) -> Node:
        """Hands the lead over to it, or away from it; done when another leads."""
        method = NODES["LeadNode"]
        leader: Node = await self._ask(method, options, name=self.name(node), away=away)
        return leader

    async def confirm_dead(
        self, node: str, why: str, **options: Unpack[Options]
    ) -> pb.ConfirmNodeDeadResponse:
        """Says that it is dead, so that its VMs are started elsewhere. With validate_only the
        answer names what would be damaged if that is not so."""
        answer: pb.ConfirmNodeDeadResponse = await self._ask(
            NODES["ConfirmNodeDead"], options, name=self.name(node), why=why
        )
        return answer

    async def check_power(self, node: str) -> pb.CheckNodePowerResponse:
        """Asks its controller whether its power is on. Raises PowerFailed."""
        method = NODES["CheckNodePower"]
        answer: pb.CheckNodePowerResponse = await self._ask(method, name=self.name(node))
        return answer
