"""The machines of the cluster: let them in, change them, empty them, take them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as pb
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as grpc_pb
from pvc.core.v1 import operation_pb2
from pvc_client.operations import Operations, Pending
from pvc_client.resources import Options, Resources, filled
from pvc_client.transport import Transport

Node = cluster_pb2.Node
Operation = operation_pb2.Operation
R = TypeVar("R", bound=Message)


class Nodes(Resources[Node]):
    """The cluster's nodes."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        stub = grpc_pb.NodeServiceStub(transport.channel)
        super().__init__(transport, stub, pb, Node, "nodes")
        self._nodes = stub
        self._operations = operations

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
        request = pb.AddNodeRequest(
            node_id=node_id,
            address=address,
            coordinator=coordinator,
            expires_in=Duration(seconds=expires_in_s) if expires_in_s else None,
        )
        return self._ask(self._nodes.AddNode, request, options, pb.AddNodeResponse)

    def join(
        self, node: str, secret: bytes, certificate_request: str, version: str
    ) -> pb.JoinNodeResponse:
        """Lets the machine in that has the secret of a token. `pvc cluster join` does all that a
        machine needs."""
        request = pb.JoinNodeRequest(
            name=self.name(node),
            secret=secret,
            certificate_request=certificate_request,
            version=version,
        )
        return self._ask(self._nodes.JoinNode, request, {}, pb.JoinNodeResponse)

    def update(
        self, node: Node, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Node:
        """Takes over the fields of the mask ("spec.tags"); all that are set without one."""
        request = pb.UpdateNodeRequest(node=node, update_mask=FieldMask(paths=update_mask))
        return self._ask(self._nodes.UpdateNode, request, options, Node)

    def remove(self, node: str, **options: Unpack[Options]) -> Pending[Message]:
        """Takes out one that is drained, or dead."""
        request = pb.RemoveNodeRequest(name=self.name(node))
        return self._begin(self._nodes.RemoveNode, request, options, Message)

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
        request = pb.DrainNodeRequest(
            name=self.name(node), shutdown=shutdown, copy_volumes=copy_volumes
        )
        return self._begin(self._nodes.DrainNode, request, options, Node)

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
        request = pb.ReadyNodeRequest(
            name=self.name(node), leave_vms=leave_vms, copy_volumes=copy_volumes
        )
        return self._begin(self._nodes.ReadyNode, request, options, Node)

    def promote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator."""
        request = pb.PromoteNodeRequest(name=self.name(node))
        return self._ask(self._nodes.PromoteNode, request, options, Node)

    def demote(self, node: str, **options: Unpack[Options]) -> Node:
        """Makes it a coordinator no longer."""
        request = pb.DemoteNodeRequest(name=self.name(node))
        return self._ask(self._nodes.DemoteNode, request, options, Node)

    def lead(self, node: str, *, away: bool = False, **options: Unpack[Options]) -> Node:
        """Hands the lead over to it, or away from it; done when another leads."""
        request = pb.LeadNodeRequest(name=self.name(node), away=away)
        return self._ask(self._nodes.LeadNode, request, options, Node)

    def confirm_dead(
        self, node: str, why: str, **options: Unpack[Options]
    ) -> pb.ConfirmNodeDeadResponse:
        """Says that it is dead, so that its VMs are started elsewhere. With validate_only the
        answer names what would be damaged if that is not so."""
        request = pb.ConfirmNodeDeadRequest(name=self.name(node), why=why)
        answer = pb.ConfirmNodeDeadResponse
        return self._ask(self._nodes.ConfirmNodeDead, request, options, answer)

    def check_power(self, node: str) -> pb.CheckNodePowerResponse:
        """Asks its controller whether its power is on. Raises PowerFailed."""
        request = pb.CheckNodePowerRequest(name=self.name(node))
        return self._ask(self._nodes.CheckNodePower, request, {}, pb.CheckNodePowerResponse)

    def _ask(self, method: Any, request: Any, options: Options, answer: type[R]) -> R:
        return self.transport.unary(method, filled(request, options), answer)

    def _begin(self, method: Any, request: Any, options: Options, kind: type[R]) -> Pending[R]:
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, kind)
