# Made from aio/nodes.py by tools/sync_client.py: change that one.
"""The machines of the cluster: let them in, change them, empty them, take them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pvc.coordinator.v1 import cluster_pb2
from pvc_client.contract import NODES, Options, mask
from pvc_client.operations import Pending, Working
from pvc_client.transport import Transport

if TYPE_CHECKING:
    from pvc.coordinator.v1 import coordinator_service_pb2 as pb

Node = cluster_pb2.Node


class Nodes(Working[Node]):
    """The cluster's nodes."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, NODES, Node, "nodes")

    def add(
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
        answer: pb.AddNodeResponse = self._ask(
            NODES["AddNode"],
            options,
            node_id=node_id,
            address=address,
            coordinator=coordinator,
            expires_in=Duration(seconds=expires_in_s) if expires_in_s else None,
        )
        return answer

    def join(
        self, node: str, secret: bytes, certificate_request: str, version: str
    ) -> pb.JoinNodeResponse:
        """Lets the machine in that has the secret of a token. `pvc cluster join` does all that a
        machine needs."""
        answer: pb.JoinNodeResponse = self._ask(
            NODES["JoinNode"],
            name=self.name(node),
            secret=secret,
            certificate_request=certificate_request,
            version=version,
        )
        return answer

    def update(
        self, node: Node, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Node:
        """Takes over the fields of the mask ("spec.tags"); all that are set without one."""
        method = NODES["UpdateNode"]
        updated: Node = self._ask(method, options, node=node, update_mask=mask(update_mask))
        return updated

    def change(
        self, node: str, change: Callable[[Node], object], **options: Unpack[Options]
    ) -> Node:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        def update(wanted: Node, paths: Sequence[str]) -> Node:
            return self.update(wanted, paths, **options)

        changed: Node = self._changed(node, change, update)
        return changed

    def remove(self, node: str, **options: Unpack[Options]) -> Pending[Message]:
        """Takes out one that is drained, or dead."""
        return self._begin(NODES["RemoveNode"], Message, options, name=self.name(node))

    def drain(
        self,
        node: str,
        *,
        shutdown: bool = False,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Node]:
        """Moves all VMs off it. shutdown: those that cannot move while they run are restarted.
        copy_volumes: volumes that cannot be opened elsewhere go along."""
        return self._begin(
            NODES["DrainNode"],
            Node,
            options,
            name=self.name(node),
            shutdown=shutdown,
            copy_volumes=copy_volumes,
        )

    def ready(
        self,
        node: str,
        *,
        leave_vms: bool = False,
        copy_volumes: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Node]:
        """Lets it carry VMs again, and brings back those that had to leave, unless leave_vms.
        copy_volumes: with the volumes that went along."""
        return self._begin(
            NODES["ReadyNode"],
            Node,
            options,
            name=self.name(node),
            leave_vms=leave_vms,
            copy_volumes=copy_volumes,
        )

    def promote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator."""
        promoted: Node = self._ask(NODES["PromoteNode"], options, name=self.name(node))
        return promoted

    def demote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator no longer."""
        demoted: Node = self._ask(NODES["DemoteNode"], options, name=self.name(node))
        return demoted

    def lead(self, node: str, *, away: bool = False, **options: Unpack[Options]) -> Node:
        """Hands the lead over to it, or away from it; done when another leads."""
        method = NODES["LeadNode"]
        leader: Node = self._ask(method, options, name=self.name(node), away=away)
        return leader

    def confirm_dead(
        self, node: str, why: str, **options: Unpack[Options]
    ) -> pb.ConfirmNodeDeadResponse:
        """Says that it is dead, so that its VMs are started elsewhere. With validate_only the
        answer names what would be damaged if that is not so."""
        answer: pb.ConfirmNodeDeadResponse = self._ask(
            NODES["ConfirmNodeDead"], options, name=self.name(node), why=why
        )
        return answer

    def check_power(self, node: str) -> pb.CheckNodePowerResponse:
        """Asks its controller whether its power is on. Raises PowerFailed."""
        method = NODES["CheckNodePower"]
        answer: pb.CheckNodePowerResponse = self._ask(method, name=self.name(node))
        return answer
