"""A cluster as a Python program sees it: one object with a collection for each kind of thing.

Each collection, and the contract that it speaks, is loaded when it is first used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from pvc_client.addresses import LOCAL_SOCKET
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import ACCESS, AUDIT, CLUSTER, EVENTS, PLACEMENT, Options, filled, mask

if TYPE_CHECKING:
    from pvc.compute.v1 import vm_pb2
    from pvc.coordinator.v1 import cluster_pb2
    from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator_pb
    from pvc.core.v1 import event_pb2
    from pvc.gateway.v1 import access_service_pb2 as access_pb
    from pvc.gateway.v1 import audit_pb2
    from pvc_client.aio.access import AsyncTokens
    from pvc_client.aio.files import AsyncFiles
    from pvc_client.aio.images import AsyncImages
    from pvc_client.aio.networks import AsyncNetworks
    from pvc_client.aio.nodes import AsyncNodes
    from pvc_client.aio.operations import AsyncOperations, AsyncPending
    from pvc_client.aio.resources import AsyncResources
    from pvc_client.aio.storage import AsyncPools, AsyncVolumes
    from pvc_client.aio.vms import AsyncVms


class AsyncCluster:
    """A connection to a cluster. Opens when first used; may be shared; close it when done.

    address: "unix:/run/pvc/pvc.sock" on a node of it (root only, no token needed), or "host:port";
    several, "n1:7371,n2:7371" or a list, for a connection that goes on when a node is lost.
    token: the secret of a token. ca: file with the cluster's CA certificate; without one the
    system's CAs count, and the loopback address is spoken to without TLS.
    timeout_s: deadline of calls that do not stream.
    """

    def __init__(
        self,
        address: str | Sequence[str] = LOCAL_SOCKET,
        *,
        token: str = "",
        ca: str | Path | None = None,
        timeout_s: float = 0,
    ) -> None:
        self.transport = AsyncTransport(address, token, ca, timeout_s)

    @classmethod
    def from_environment(cls, *, timeout_s: float = 0) -> Self:
        """The one that `pvc` would speak to: PVC_CONNECTION, PVC_TOKEN and PVC_CA, the local socket
        without."""
        address = os.environ.get("PVC_CONNECTION") or LOCAL_SOCKET
        token, ca = os.environ.get("PVC_TOKEN", "").strip(), os.environ.get("PVC_CA") or None
        return cls(address, token=token, ca=ca, timeout_s=timeout_s)

    @cached_property
    def vms(self) -> AsyncVms:
        """Virtual machines."""
        from pvc_client.aio.vms import AsyncVms

        return AsyncVms(self.transport)

    @cached_property
    def pools(self) -> AsyncPools:
        """Places to keep volumes in."""
        from pvc_client.aio.storage import AsyncPools

        return AsyncPools(self.transport)

    @cached_property
    def volumes(self) -> AsyncVolumes:
        """Virtual disks."""
        from pvc_client.aio.storage import AsyncVolumes

        return AsyncVolumes(self.transport)

    @cached_property
    def files(self) -> AsyncFiles:
        """Files on their way in or out."""
        from pvc_client.aio.files import AsyncFiles

        return AsyncFiles(self.transport)

    @cached_property
    def networks(self) -> AsyncNetworks:
        """Virtual networks."""
        from pvc_client.aio.networks import AsyncNetworks

        return AsyncNetworks(self.transport)

    @cached_property
    def images(self) -> AsyncImages:
        """Images that VMs are made from."""
        from pvc_client.aio.images import AsyncImages

        return AsyncImages(self.transport)

    @cached_property
    def nodes(self) -> AsyncNodes:
        """The machines of the cluster."""
        from pvc_client.aio.nodes import AsyncNodes

        return AsyncNodes(self.transport)

    @cached_property
    def operations(self) -> AsyncOperations:
        """Long work."""
        from pvc_client.aio.operations import AsyncOperations

        return AsyncOperations(self.transport)

    @cached_property
    def events(self) -> AsyncResources[event_pb2.Event]:
        """What happened, and why."""
        from pvc.core.v1 import event_pb2
        from pvc_client.aio.resources import AsyncResources

        return AsyncResources(self.transport, EVENTS, event_pb2.Event, "events")

    @cached_property
    def tokens(self) -> AsyncTokens:
        """Tokens that let callers in."""
        from pvc_client.aio.access import AsyncTokens

        return AsyncTokens(self.transport)

    @cached_property
    def audit(self) -> AsyncResources[audit_pb2.AuditEntry]:
        """Who did what, and what came of it."""
        from pvc.gateway.v1 import audit_pb2
        from pvc_client.aio.resources import AsyncResources

        kind = audit_pb2.AuditEntry
        return AsyncResources(self.transport, AUDIT, kind, "auditEntries", "AuditEntries")

    async def status(self) -> cluster_pb2.Cluster:
        """Who leads, how many of what in which state, what is wrong."""
        method = CLUSTER["GetCluster"]
        status: cluster_pb2.Cluster = await self.transport.unary(method, method.request())
        return status

    async def update(
        self,
        spec: cluster_pb2.ClusterSpec,
        update_mask: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> cluster_pb2.Cluster:
        """Takes over how the cluster is to behave: the fields of the mask ("maintenance"), all that
        are set without one."""
        method = CLUSTER["UpdateCluster"]
        request = filled(method.request(spec=spec, update_mask=mask(update_mask)), options)
        updated: cluster_pb2.Cluster = await self.transport.unary(method, request)
        return updated

    async def plan_balance(
        self, selector: vm_pb2.NodeSelector.ValueType | None = None, max_moves: int = 0
    ) -> coordinator_pb.BalancePlan:
        """The moves that would make the nodes evenly used. Changes nothing."""
        method = PLACEMENT["PlanBalance"]
        request = method.request(selector=selector, max_moves=max_moves)
        plan: coordinator_pb.BalancePlan = await self.transport.unary(method, request)
        return plan

    async def balance(
        self,
        selector: vm_pb2.NodeSelector.ValueType | None = None,
        max_moves: int = 0,
        **options: Unpack[Options],
    ) -> AsyncPending[coordinator_pb.BalancePlan]:
        """Makes the moves that make the nodes evenly used."""
        from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator_pb
        from pvc_client.aio.operations import AsyncPending

        method = PLACEMENT["BalanceCluster"]
        request = filled(method.request(selector=selector, max_moves=max_moves), options)
        started = await self.transport.unary(method, request)
        return AsyncPending(self.transport, started, coordinator_pb.BalancePlan)

    async def whoami(self) -> access_pb.WhoAmIResponse:
        """Who the cluster takes this connection for."""
        method = ACCESS["WhoAmI"]
        answer: access_pb.WhoAmIResponse = await self.transport.unary(method, method.request())
        return answer

    async def close(self) -> None:
        """Ends the connection and all calls on it."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
