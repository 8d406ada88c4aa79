"""What carries a network between the nodes: one VXLAN device a network on every node, which floods
to all other nodes and learns from what comes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address

from pvc.coordinator.v1 import cluster_pb2
from pvc.network.v1.network_pb2 import Network
from services.network.core import naming

PORT = 4789
HEADERS = {4: 50, 6: 70}
"""Version of IP → bytes that a guest's packet grows by on its way: IP, UDP, VXLAN, its frame."""
LEAST_MTU = 1500
"""Of the device itself, whatever the network's: what a guest sends that began with larger packets
is cut in pieces on the way, and never lost."""
VNI_MAX = (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class Underlay:
    """What this node reaches the others by: its own address, the largest packet there, and the
    others' addresses."""

    address: str
    mtu: int
    peers: frozenset[str]

    @property
    def inner_mtu(self) -> int:
        """The largest packet of a guest that passes whole; 0 when that is not known."""
        return max(self.mtu - HEADERS[ip_address(self.address).version], 0)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A network's VXLAN device as it should be."""

    name: str
    mark: str
    mac: str
    vni: int
    local: str
    mtu: int
    bridge: str
    peers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node stands among the others. `speaks` names the networks that it speaks for, None for
    all; `underlay` is None while there are no others."""

    node: str = ""
    speaks: frozenset[str] | None = None
    underlay: Underlay | None = None

    def speaks_for(self, network: str) -> bool:
        """Whether this node's agent writes what is true of the network as a whole."""
        return self.speaks is None or network in self.speaks


ALONE = Standing()


def overlay_of(
    network: Network, bridge: str, mtu: int, underlay: Underlay | None
) -> Overlay | None:
    """The network's device on this node; None while it has nobody to talk to."""
    if underlay is None:
        return None
    network_id, vni = network.name.removeprefix("networks/"), vni_of(network)
    name = naming.overlay_name(vni)
    return Overlay(
        name, naming.overlay_mark(network_id), naming.own_mac(name), vni, underlay.address,
        max(mtu, LEAST_MTU), bridge, underlay.peers,
    )  # fmt: skip


def underlay_of(
    nodes: Iterable[cluster_pb2.Node], node: str, address: str, mtu: int
) -> Underlay | None:
    """What this node reaches the others by; None when it has no address for them, or nobody else
    has one of the same kind. A node whose death is proven gets nothing until it is known to be
    harmless again."""
    if not address:
        return None
    own = ip_address(address)
    found = {
        address_of(row)
        for row in nodes
        if row.name != node and row.decision.state != cluster_pb2.NODE_STATE_FENCED
    }
    peers = {peer for peer in found - {"", str(own)} if ip_address(peer).version == own.version}
    return Underlay(str(own), mtu, frozenset(peers)) if peers else None


def address_of(node: cluster_pb2.Node) -> str:
    """The IP address at which a node's services are reached; "" for none."""
    for service in node.status.services:
        if service.address.startswith("unix:"):
            continue
        try:
            return str(ip_address(service.address.rpartition(":")[0].strip("[]")))
        except ValueError:
            continue
    return ""


def vni_of(network: Network) -> int:
    """The number of the network's overlay; that of a row of old, which has none, follows from its
    uid."""
    return network.spec.vni or _from_uid(network)


def free_vni(network: Network, others: Iterable[Network]) -> int:
    """A number that no other network has. It begins at a place that the uid chooses, so that the
    number of a network that was removed is not soon another's: a node that was away has it yet."""
    taken = {vni_of(other) for other in others if other.name != network.name}
    vni = _from_uid(network)
    while vni in taken:
        vni = vni % VNI_MAX + 1
    return vni


def mtu_for(network: Network, node: str, own: int, wanted: int) -> int:
    """The largest packet of the network's guests: what was asked for, unless a node's way to the
    others allows less. `own` is what this node's allows, 0 for any."""
    parts = network.status.nodes.items()
    allowed = {part.mtu for name, part in parts if part.mtu and name != node.removeprefix("nodes/")}
    return min(allowed | {wanted} | ({own} if own else set()))


def _from_uid(network: Network) -> int:
    digest = sha256((network.meta.uid or network.name).encode()).digest()
    return 1 + int.from_bytes(digest[:4]) % VNI_MAX
