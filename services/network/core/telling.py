"""What is to be said of a network: by each node of its part, and by one of the whole. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pvc.network.v1.network_pb2 import (
    AddressAssignment,
    Network,
    NetworkAtNode,
    NetworkStatus,
)
from services.mesh.members import id_of
from services.network.core.desired import Lease, NetworkPlan, Place, bridge_of
from services.network.core.overlay import Standing
from services.network.core.servers import LEASE_S

NAMED_MAX = 5
"""Interfaces without an address that a status names."""


def part(plan: NetworkPlan, place: Place, standing: Standing, obstacle: str) -> NetworkAtNode:
    """This node's part. `obstacle` is what keeps the node from doing it."""
    network, why = plan.network, plan.why or obstacle
    before = network.status.nodes.get(id_of(standing.node))
    former = before.generation if before is not None else 0
    return NetworkAtNode(
        ready=not why,
        why=why,
        bridge=bridge_of(network),
        namespace=place.namespace,
        generation=former if why else network.meta.generation,
        mtu=standing.underlay.inner_mtu if standing.underlay else 0,
    )


def sum_up(row: Network, plan: NetworkPlan, own: NetworkAtNode, there: Collection[str]) -> None:
    """Writes into the row what is true of the network as a whole, from the part of the node that
    speaks for it. `there` are the nodes that are there now: what others said before they left is
    not told."""
    states, status = NetworkStatus.State, row.status
    status.state = states.STATE_READY if own.ready else states.STATE_FAILED
    elsewhere = [
        f"{node}: {one.why}"
        for node, one in sorted(status.nodes.items())
        if not one.ready and one != own and f"nodes/{node}" in there
    ]
    status.why = "; ".join(filter(None, [own.why or _lacking(plan), *elsewhere]))
    status.bridge, status.namespace = own.bridge, own.namespace
    status.generation = own.generation
    if plan.bridge is not None:
        status.mtu = plan.bridge.mtu


def _lacking(plan: NetworkPlan) -> str:
    """The network works, but not for these."""
    more = len(plan.lacking) - NAMED_MAX
    return "; ".join([*plan.lacking[:NAMED_MAX], *([f"{more} more lack one"] if more > 0 else [])])


def assignments(plan: NetworkPlan) -> list[AddressAssignment]:
    """Who has which address, for the status."""
    before = {(row.mac, row.address): row for row in plan.network.status.addresses}
    rows = []
    for host in sorted(plan.hosts, key=lambda host: (host.vm, host.nic)):
        name = f"{host.vm}.{plan.domain}" if host.first else f"{host.nic}.{host.vm}.{plan.domain}"
        row = AddressAssignment(
            vm=f"vms/{host.vm}",
            nic=host.nic,
            mac=host.mac,
            address=str(host.address),
            host_name=name,
        )
        if (former := before.get((host.mac, row.address))) and former.HasField("lease_time"):
            row.lease_time.CopyFrom(former.lease_time)
        rows.append(row)
    return rows


def note_leases(row: Network, leases: Iterable[Lease]) -> None:
    """Writes down when guests asked for their addresses, as far as this node's server knows better
    than what is written: a guest may have been elsewhere."""
    asked = {(one.mac, one.address): one.expires - LEASE_S for one in leases if one.expires}
    for given in row.status.addresses:
        when = asked.get((given.mac, given.address), 0)
        if when > given.lease_time.seconds:
            given.lease_time.FromSeconds(when)


def who_has(given: Iterable[AddressAssignment]) -> list[tuple[str, ...]]:
    """Without what the guests do with it."""
    return [(row.vm, row.nic, row.mac, row.address, row.host_name) for row in given]
