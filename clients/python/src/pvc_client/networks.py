# Made from aio/networks.py by tools/sync_client.py: change that one.
"""Virtual networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from google.protobuf.message import Message

from pvc.network.v1 import network_pb2
from pvc_client.contract import NETWORKS, Options, mask
from pvc_client.operations import Pending, Working
from pvc_client.transport import Transport

Network = network_pb2.Network
NetworkSpec = network_pb2.NetworkSpec


class Networks(Working[Network]):
    """The cluster's virtual networks."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, NETWORKS, Network, "networks")

    def create(
        self, network_id: str, spec: NetworkSpec, **options: Unpack[Options]
    ) -> Pending[Network]:
        """Makes a network; done when VMs can use it."""
        network = Network(spec=spec)
        method = NETWORKS["CreateNetwork"]
        return self._begin(method, Network, options, network_id=network_id, network=network)

    def update(
        self, network: Network, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Pending[Network]:
        """Takes over the fields of the mask; all that are set without one."""
        fields = {"network": network, "update_mask": mask(update_mask)}
        return self._begin(NETWORKS["UpdateNetwork"], Network, options, **fields)

    def change(
        self, network: str, change: Callable[[Network], object], **options: Unpack[Options]
    ) -> Pending[Network]:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        def update(wanted: Network, paths: Sequence[str]) -> Pending[Network]:
            return self.update(wanted, paths, **options)

        begun: Pending[Network] = self._changed(network, change, update)
        return begun

    def delete(self, network: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes a network that no VM uses."""
        method = NETWORKS["DeleteNetwork"]
        return self._begin(method, Message, options, name=self.name(network))
