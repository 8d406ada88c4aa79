"""Interfaces and bridges over netlink, for a caller that already is in the right namespace. Changes
nothing that does not carry the caller's mark."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from services.network.drivers import namespace as ns
from services.network.drivers.fabric import FabricError, ForeignError, Link, Overlay

ANYBODY = "00:00:00:00:00:00"
"""The hardware address under which a VXLAN device keeps where to flood to."""
LOOPBACK = 1
IFF_UP = 1


def read_links() -> tuple[Link, ...]:
    """Every interface with its IPv4 addresses, by name."""
    with netlink("list interfaces") as route:
        rows = list(route.get_links())
        addresses = _addresses(route)
        flooding = {row["index"]: _flooded(route, row) for row in rows if _is_vxlan(row)}
    names = {row["index"]: row.get("ifname") for row in rows}
    ports: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if (master := row.get("master")) in names:
            ports[names[master]].add(row.get("ifname"))
    found = [_link(row, addresses, ports, flooding) for row in rows]
    return tuple(sorted(found, key=lambda link: link.name))


def mtu_at(address: str) -> int:
    """See Fabric.path_mtu."""
    with netlink("list interfaces") as route:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        rows = route.get_addr(family=family)
        at = {row["index"] for row in rows if (row.get("local") or row.get("address")) == address}
        mtus = [row.get("mtu") for row in route.get_links() if row["index"] in at]
    return min(mtus, default=0)


def put_bridge(name: str, mark: str, mac: str, mtu: int, address: str) -> None:
    """See Fabric.put_bridge. The MAC is set at birth, so the bridge is known for ours from then
    on."""
    with netlink(f"set up bridge {name}") as route:
        row = find(route, name)
        if row is None:
            route.link("add", ifname=name, kind="bridge", address=mac, mtu=mtu)
            row = find(route, name)
            if row is None:
                raise FabricError(f"bridge {name} vanished right after it was made")
        else:
            check_ours(row, "bridge", name, mark, mac)
        index = row["index"]
        route.link("set", index=index, ifalias=mark)
        route.link("set", index=index, address=mac, mtu=mtu, state="up")
        _put_address(route, index, address)


def remove_bridge(name: str, mark: str, mac: str) -> None:
    """See Fabric.remove_bridge."""
    with netlink(f"remove bridge {name}") as route:
        row = find(route, name)
        if row is None:
            return
        check_ours(row, "bridge", name, mark, mac)
        route.link("del", index=row["index"])


def make_namespace(name: str, mark: str) -> None:
    """A new namespace under this name. It is marked before it gets the name: never seen
    unmarked."""
    path = ns.FOLDER / name
    if ns.exists(name):
        return
    if path.is_file() and path.stat().st_size == 0:
        path.unlink()  # somebody died between making the file and mounting on it

    def work() -> None:
        _unshare()
        with netlink(f"mark namespace {name}") as route:
            route.link("set", index=LOOPBACK, ifalias=mark, state="up")
        _ip("netns", "attach", name, str(threading.get_native_id()))

    ns.apart(work)


def remove_namespace(name: str, mark: str) -> None:
    """See Fabric.remove_namespace."""
    if not ns.exists(name):
        return
    marks = [link.alias for link in ns.within(name, read_links) if link.name == "lo"]
    if marks != [mark]:
        raise ForeignError(f"network namespace {name} is not ours: its mark is {marks}")
    _ip("netns", "delete", name)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(ns.CLONE_NEWNET) != 0:
        raise FabricError(f"no new network namespace: errno {errno.errorcode[ctypes.get_errno()]}")


def _ip(*words: str) -> None:
    try:
        result = subprocess.run(
            ["/usr/sbin/ip", *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FabricError(f"ip {' '.join(words)}: {error}") from error
    if result.returncode != 0:
        raise FabricError(f"ip {' '.join(words)}: {result.stderr.strip()}")


@contextlib.contextmanager
def netlink(doing: str) -> Iterator[Any]:
    """A netlink socket of the caller's namespace. What fails is a FabricError that says what was
    being done."""
    try:
        with IPRoute() as route:
            yield route
    except (NetlinkError, OSError) as error:
        raise FabricError(f"{doing}: {error}") from error


def find(route: Any, name: str) -> Any | None:
    """The interface of that name."""
    found = [row for row in route.get_links() if row.get("ifname") == name]
    return found[0] if found else None


def check_ours(row: Any, kind_wanted: str, name: str, mark: str, mac: str) -> None:
    """Raises ForeignError for what is not of that kind, marked or killed before it was marked."""
    alias, kind = row.get("ifalias") or "", row.get(("linkinfo", "kind")) or ""
    unfinished = alias == "" and row.get("address") == mac
    if kind != kind_wanted or not (alias == mark or unfinished):
        raise ForeignError(
            f"interface {name} is not ours: a {kind or 'device'} with the mark '{alias}'"
        )


def _put_address(route: Any, index: int, address: str) -> None:
    """Others go first: with its primary the kernel drops every further address of the subnet."""
    wanted = {address} if address else set()
    for other in _addresses(route)[index] - wanted:
        with contextlib.suppress(NetlinkError):  # gone along with its primary; read again below
            route.addr("del", index=index, **_split(other))
    left = _addresses(route)[index]
    if left - wanted:
        raise FabricError(f"addresses {sorted(left - wanted)} cannot be removed")
    for missing in wanted - left:
        route.addr("add", index=index, **_split(missing))


def _split(address: str) -> dict[str, object]:
    host, length = address.split("/")
    return {"address": host, "prefixlen": int(length), "family": socket.AF_INET}


def _addresses(route: Any) -> defaultdict[int, frozenset[str]]:
    found: defaultdict[int, frozenset[str]] = defaultdict(frozenset)
    for row in route.get_addr(family=socket.AF_INET):
        host = row.get("local") or row.get("address")
        found[row["index"]] |= {f"{host}/{row['prefixlen']}"}
    return found


def _is_vxlan(row: Any) -> bool:
    return bool(row.get(("linkinfo", "kind")) == "vxlan")


def _flooded(route: Any, row: Any) -> frozenset[str]:
    """Where a VXLAN device sends what it does not know a way for."""
    entries = route.fdb("dump", ifindex=row["index"])
    return frozenset(one.get("dst") for one in entries if one.get("lladdr") == ANYBODY)


def _overlay(row: Any, flooded: frozenset[str]) -> Overlay | None:
    told = row.get(("linkinfo", "data"))
    vni, local = told.get("vxlan_id"), told.get("vxlan_local") or told.get("vxlan_local6")
    if vni is None or local is None:
        return None
    return Overlay(vni, local, told.get("vxlan_port") or 0, flooded)


def _link(
    row: Any,
    addresses: dict[int, frozenset[str]],
    ports: dict[str, set[str]],
    flooding: dict[int, frozenset[str]],
) -> Link:
    name = row.get("ifname")
    return Link(
        name=name,
        kind=row.get(("linkinfo", "kind")) or "",
        alias=row.get("ifalias") or "",
        mac=row.get("address") or "",
        mtu=row.get("mtu") or 0,
        up=bool(row["flags"] & IFF_UP),
        addresses=addresses[row["index"]],
        ports=frozenset(ports.get(name, ())),
        overlay=_overlay(row, flooding[row["index"]]) if row["index"] in flooding else None,
    )


def index_of(name: str) -> int | None:
    """The interface's number in the caller's namespace; a bridge made again gets another one."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
