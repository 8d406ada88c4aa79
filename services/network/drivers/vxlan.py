"""VXLAN devices over netlink. Made in the machine's own network, where their packets travel, and
put into the namespace of their bridge; all else is done by a caller that is in that namespace."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from services.network.drivers import namespace as ns
from services.network.drivers.fabric import FabricError
from services.network.drivers.links import ANYBODY, check_ours, find, netlink

PORT = 4789
KIND = "vxlan"
LASTING = ("vxlan_port", "vxlan_learning")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A device, and what cannot change while it exists."""

    name: str
    mark: str
    mac: str
    vni: int
    local: str


def is_there(tunnel: Tunnel) -> bool:
    """Whether the device exists as it is. One of ours that carries something else is removed."""
    with netlink(f"look at {tunnel.name}") as route:
        row = find(route, tunnel.name)
        if row is None:
            return False
        check_ours(row, KIND, tunnel.name, tunnel.mark, tunnel.mac)
        told = row.get(("linkinfo", "data"))
        is_ = tuple(told.get(key) for key in ("vxlan_id", _local(tunnel), *LASTING))
        if is_ == (tunnel.vni, tunnel.local, PORT, 1):
            return True
        route.link("del", index=row["index"])
        return False


def make(tunnel: Tunnel, namespace: str) -> None:
    """The device, unmarked, not yet on a bridge. For a caller in the machine's own network."""
    with netlink(f"make {tunnel.name}") as route, ns.opened(namespace) as there:
        target = {} if there is None else {"net_ns_fd": there}
        route.link(
            "add", ifname=tunnel.name, kind=KIND, address=tunnel.mac, vxlan_id=tunnel.vni,
            **{_local(tunnel): tunnel.local}, vxlan_port=PORT, vxlan_learning=1, **target,
        )  # fmt: skip


def put(tunnel: Tunnel, mtu: int, bridge: str, peers: Collection[str]) -> None:
    """Marks the device, attaches it, and has it flood to these addresses alone."""
    with netlink(f"set up {tunnel.name}") as route:
        row, master = find(route, tunnel.name), find(route, bridge)
        if row is None or master is None:
            raise FabricError(f"{tunnel.name if row is None else bridge} is not there")
        index = row["index"]
        route.link("set", index=index, ifalias=tunnel.mark)
        _flood_to(route, index, peers)
        route.link("set", index=index, mtu=mtu, master=master["index"], state="up")


def remove(name: str, mark: str, mac: str) -> None:
    """See Fabric.remove_overlay."""
    with netlink(f"remove {name}") as route:
        row = find(route, name)
        if row is None:
            return
        check_ours(row, KIND, name, mark, mac)
        route.link("del", index=row["index"])


def _local(tunnel: Tunnel) -> str:
    """What netlink calls the address that packets are sent from."""
    return "vxlan_local6" if ":" in tunnel.local else "vxlan_local"


def _flood_to(route: Any, index: int, peers: Collection[str]) -> None:
    """What was learned of a node that is no more goes too: it would be sent there for minutes."""
    entries = [(one.get("lladdr"), one.get("dst")) for one in route.fdb("dump", ifindex=index)]
    there = {dst for mac, dst in entries if mac == ANYBODY}
    for peer in sorted(set(peers) - there):
        route.fdb("append", ifindex=index, lladdr=ANYBODY, dst=peer)
    for gone in sorted(there - set(peers)):
        for mac, dst in entries:
            if dst == gone:
                route.fdb("del", ifindex=index, lladdr=mac, dst=gone)
