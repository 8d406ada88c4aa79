"""Virtual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from google.protobuf.message import Message

from pvc.network.v1 import network_pb2
from pvc_client.aio.operations import AsyncPending, AsyncWorking
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import NETWORKS, Options, mask

Network = network_pb2.Network
NetworkSpec = network_pb2.NetworkSpec


class AsyncNetworks(AsyncWorking[Network]):
    """The cluster's virtual networks."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, NETWORKS, Network, "networks")

    async def create(
        self, network_id: str, spec: NetworkSpec, **options: Unpack[Options]
    ) -> AsyncPending[Network]:
        """Makes a network; done when VMs can use it."""
        network = Network(spec=spec)
        method = NETWORKS["CreateNetwork"]
        return await self._begin(method, Network, options, network_id=network_id, network=network)

    async def update(
        self, network: Network, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> AsyncPending[Network]:
        """Takes over the fields of the mask; all that are set without one."""
        fields = {"network": network, "update_mask": mask(update_mask)}
        return await self._begin(NETWORKS["UpdateNetwork"], Network, options, **fields)

    async def change(
        self, network: str, change: Callable[[Network], object], **options: Unpack[Options]
    ) -> AsyncPending[Network]:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        async def update(wanted: Network, paths: Sequence[str]) -> AsyncPending[Network]:
            return await self.update(wanted, paths, **options)

        begun: AsyncPending[Network] = await self._changed(network, change, update)
        return begun

    async def delete(self, network: str, **options: Unpack[Options]) -> AsyncPending[Message]:
        """Removes a network that no VM uses."""
        method = NETWORKS["DeleteNetwork"]
        return await self._begin(method, Message, options, name=self.name(network))
