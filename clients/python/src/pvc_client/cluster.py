"""A cluster as a Python program sees it: one object with a collection for each kind of thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator_pb
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as coordinator_grpc_pb
from pvc.core.v1 import event_pb2, operation_pb2, options_pb2
from pvc.gateway.v1 import access_service_pb2 as access_pb
from pvc.gateway.v1 import access_service_pb2_grpc as access_grpc_pb
from pvc.gateway.v1 import audit_pb2, token_pb2
from pvc.gateway.v1 import audit_service_pb2 as audit_pb
from pvc.gateway.v1 import audit_service_pb2_grpc as audit_grpc_pb
from pvc.network.v1 import network_pb2
from pvc.network.v1 import network_service_pb2 as network_pb
from pvc.network.v1 import network_service_pb2_grpc as network_grpc_pb
from pvc.provisioner.v1 import image_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as provision_pb
from pvc.provisioner.v1 import provisioner_service_pb2_grpc as provision_grpc_pb
from pvc_client.names import full_name
from pvc_client.nodes import Nodes
from pvc_client.operations import Operations, Pending
from pvc_client.resources import Options, Resources, filled
from pvc_client.storage import Files, Pools, Volumes
from pvc_client.transport import Transport
from pvc_client.vms import Vms

LOCAL_SOCKET = "unix:/run/pvc/pvc.sock"
Operation = operation_pb2.Operation
SELECTOR = vm_pb2.NODE_SELECTOR_UNSPECIFIED


class Networks(Resources[network_pb2.Network]):
    """Virtual networks."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        stub = network_grpc_pb.NetworkServiceStub(transport.channel)
        super().__init__(transport, stub, network_pb, network_pb2.Network, "networks")
        self._networks = stub
        self._operations = operations

    def create(
        self, network_id: str, spec: network_pb2.NetworkSpec, **options: Unpack[Options]
    ) -> Pending[network_pb2.Network]:
        """Makes a network; done when VMs can use it."""
        network = network_pb2.Network(spec=spec)
        request = network_pb.CreateNetworkRequest(network_id=network_id, network=network)
        method = self._networks.CreateNetwork
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, network_pb2.Network)

    def update(
        self,
        network: network_pb2.Network,
        update_mask: tuple[str, ...] = (),
        **options: Unpack[Options],
    ) -> Pending[network_pb2.Network]:
        """Takes over the fields of the mask; all that are set without one."""
        mask = FieldMask(paths=update_mask)
        request = network_pb.UpdateNetworkRequest(network=network, update_mask=mask)
        method = self._networks.UpdateNetwork
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, network_pb2.Network)

    def delete(self, network: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes a network that no VM uses."""
        request = network_pb.DeleteNetworkRequest(name=self.name(network))
        method = self._networks.DeleteNetwork
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, Message)


class Images(Resources[image_pb2.Image]):
    """Images that VMs are made from."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        stub = provision_grpc_pb.ProvisionerServiceStub(transport.channel)
        super().__init__(transport, stub, provision_pb, image_pb2.Image, "images")
        self._images = stub
        self._operations = operations

    def recipes(self) -> list[provision_pb.Recipe]:
        """The recipes that PVC brings along."""
        request = provision_pb.ListRecipesRequest()
        response = provision_pb.ListRecipesResponse
        return list(self.transport.unary(self._images.ListRecipes, request, response).recipes)

    def build(
        self,
        image_id: str,
        *,
        pool: str,
        recipe_id: str = "",
        recipe_text: str = "",
        **options: Unpack[Options],
    ) -> Pending[image_pb2.Image]:
        """Builds an image from a recipe of PVC's or, given as text, of one's own."""
        request = provision_pb.BuildImageRequest(image_id=image_id, pool=full_name("pools", pool))
        if recipe_text:
            request.recipe_text = recipe_text
        else:
            request.recipe_id = recipe_id or image_id
        method = self._images.BuildImage
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, image_pb2.Image)

    def import_file(
        self,
        image_id: str,
        file: str,
        *,
        pool: str,
        description: str = "",
        **options: Unpack[Options],
    ) -> Pending[image_pb2.Image]:
        """Makes an image from an uploaded file (files/…)."""
        request = provision_pb.ImportImageRequest(
            image_id=image_id,
            file=full_name("files", file, "file"),
            pool=full_name("pools", pool, "pool"),
            description=description,
        )
        method = self._images.ImportImage
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, image_pb2.Image)

    def delete(self, image: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes an image that nothing is a copy on write of."""
        request = provision_pb.DeleteImageRequest(name=self.name(image))
        method = self._images.DeleteImage
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self._operations, started, Message)


class Tokens(Resources[token_pb2.Token]):
    """Tokens that let callers in."""

    def __init__(self, transport: Transport) -> None:
        stub = access_grpc_pb.AccessServiceStub(transport.channel)
        super().__init__(transport, stub, access_pb, token_pb2.Token, "tokens")
        self._access = stub

    def create(
        self,
        token_id: str,
        role: options_pb2.Role.ValueType,
        *,
        ttl_s: int = 0,
        description: str = "",
        **options: Unpack[Options],
    ) -> access_pb.CreateTokenResponse:
        """Makes a token; its secret is in this answer and nowhere else. ttl_s: 0 for ever."""
        request = access_pb.CreateTokenRequest(
            token_id=token_id,
            role=role,
            description=description,
            ttl=Duration(seconds=ttl_s) if ttl_s else None,
        )
        response = access_pb.CreateTokenResponse
        return self.transport.unary(self._access.CreateToken, filled(request, options), response)

    def update(
        self, token: token_pb2.Token, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> token_pb2.Token:
        """Takes over the fields of the mask (role, expire_time, description, meta.labels), all that
        are set without one; holds at once."""
        mask = FieldMask(paths=update_mask)
        request = filled(access_pb.UpdateTokenRequest(token=token, update_mask=mask), options)
        return self.transport.unary(self._access.UpdateToken, request, token_pb2.Token)

    def delete(self, token: str, **options: Unpack[Options]) -> None:
        """Revokes it, at once."""
        request = filled(access_pb.DeleteTokenRequest(name=self.name(token)), options)
        self.transport.unary(self._access.DeleteToken, request, access_pb.DeleteTokenResponse)


class Cluster:
    """A connection to a cluster. Opens when first used; may be shared by threads; close it when
    done.

    address: "unix:/run/pvc/pvc.sock" on a node of it (root only, no token needed), or "host:port".
    token: the secret of a token. ca: file with the cluster's CA certificate; without one the
    system's CAs count, and the loopback address is spoken to without TLS.
    timeout_s: deadline of calls that do not stream.
    """

    def __init__(
        self,
        address: str = LOCAL_SOCKET,
        *,
        token: str = "",
        ca: str | Path | None = None,
        timeout_s: float = 0,
    ) -> None:
        self.transport = Transport(address, token, ca, timeout_s)
        channel = self.transport.channel
        coordinator, t = coordinator_grpc_pb, self.transport
        self.operations = Operations(t)
        self.vms = Vms(t, self.operations)
        self.pools = Pools(t, self.operations)
        self.volumes = Volumes(t, self.operations)
        self.files = Files(t)
        self.networks = Networks(t, self.operations)
        self.images = Images(t, self.operations)
        self.tokens = Tokens(t)
        self.nodes = Nodes(t, self.operations)
        events = coordinator.EventServiceStub(channel)
        self.events = Resources(t, events, coordinator_pb, event_pb2.Event, "events")
        audit, kind = audit_grpc_pb.AuditServiceStub(channel), audit_pb2.AuditEntry
        self.audit = Resources(t, audit, audit_pb, kind, "auditEntries", "AuditEntries")
        self._cluster = coordinator.ClusterServiceStub(channel)
        self._placement = coordinator.PlacementServiceStub(channel)
        self._access = access_grpc_pb.AccessServiceStub(channel)

    def status(self) -> cluster_pb2.Cluster:
        """Who leads, how many of what in which state, what is wrong."""
        request = coordinator_pb.GetClusterRequest()
        return self.transport.unary(self._cluster.GetCluster, request, cluster_pb2.Cluster)

    def update(
        self,
        spec: cluster_pb2.ClusterSpec,
        update_mask: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> cluster_pb2.Cluster:
        """Takes over how the cluster is to behave: the fields of the mask ("maintenance"), all that
        are set without one."""
        mask = FieldMask(paths=update_mask)
        request = coordinator_pb.UpdateClusterRequest(spec=spec, update_mask=mask)
        method = self._cluster.UpdateCluster
        return self.transport.unary(method, filled(request, options), cluster_pb2.Cluster)

    def plan_balance(
        self, selector: vm_pb2.NodeSelector.ValueType = SELECTOR, max_moves: int = 0
    ) -> coordinator_pb.BalancePlan:
        """The moves that would make the nodes evenly used. Changes nothing."""
        request = coordinator_pb.PlanBalanceRequest(selector=selector, max_moves=max_moves)
        method = self._placement.PlanBalance
        return self.transport.unary(method, request, coordinator_pb.BalancePlan)

    def balance(
        self,
        selector: vm_pb2.NodeSelector.ValueType = SELECTOR,
        max_moves: int = 0,
        **options: Unpack[Options],
    ) -> Pending[coordinator_pb.BalancePlan]:
        """Makes the moves that make the nodes evenly used."""
        request = coordinator_pb.BalanceClusterRequest(selector=selector, max_moves=max_moves)
        method = self._placement.BalanceCluster
        started = self.transport.unary(method, filled(request, options), Operation)
        return Pending(self.operations, started, coordinator_pb.BalancePlan)

    def whoami(self) -> access_pb.WhoAmIResponse:
        """Who the cluster takes this connection for."""
        request = access_pb.WhoAmIRequest()
        return self.transport.unary(self._access.WhoAmI, request, access_pb.WhoAmIResponse)

    def close(self) -> None:
        """Ends the connection and all calls on it."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
