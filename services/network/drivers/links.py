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
from services.network.drivers.fabric import FabricError, ForeignError, Link

LOOPBACK = 1
IFF_UP = 1


def read_links() -> tuple[Link, ...]:
    """Every interface with its IPv4 addresses, by name."""
    with _netlink("list interfaces") as route:
        rows = list(route.get_links())
        addresses = _addresses(route)
    names = {row["index"]: row.get("ifname") for row in rows}
    ports: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if (master := row.get("master")) in names:
            ports[names[master]].add(row.get("ifname"))
    return tuple(sorted((_link(row, addresses, ports) for row in rows), key=lambda link: link.name))


def put_bridge(name: str, mark: str, mac: str, mtu: int, address: str) -> None:
    """See Fabric.put_bridge. The MAC is set at birth, so the bridge is known for ours from then
    on."""
    with _netlink(f"set up bridge {name}") as route:
        row = _find(route, name)
        if row is None:
            route.link("add", ifname=name, kind="bridge", address=mac, mtu=mtu)
            row = _find(route, name)
            if row is None:
                raise FabricError(f"bridge {name} vanished right after it was made")
        else:
            _check_ours(row, name, mark, mac)
        index = row["index"]
        route.link("set", index=index, ifalias=mark)
        route.link("set", index=index, address=mac, mtu=mtu, state="up")
        _put_address(route, index, address)


def remove_bridge(name: str, mark: str, mac: str) -> None:
    """See Fabric.remove_bridge."""
    with _netlink(f"remove bridge {name}") as route:
        row = _find(route, name)
        if row is None:
            return
        _check_ours(row, name, mark, mac)
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
        with _netlink(f"mark namespace {name}") as route:
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
def _netlink(doing: str) -> Iterator[Any]:
    try:
        with IPRoute() as route:
            yield route
    except (NetlinkError, OSError) as error:
        raise FabricError(f"{doing}: {error}") from error


def _find(route: Any, name: str) -> Any | None:
    found = [row for row in route.get_links() if row.get("ifname") == name]
    return found[0] if found else None


def _check_ours(row: Any, name: str, mark: str, mac: str) -> None:
    alias, kind = row.get("ifalias") or "", row.get(("linkinfo", "kind")) or ""
    unfinished = alias == "" and row.get("address") == mac
    if kind != "bridge" or not (alias == mark or unfinished):
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


def _link(row: Any, addresses: dict[int, frozenset[str]], ports: dict[str, set[str]]) -> Link:
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
    )


def index_of(name: str) -> int | None:
    """The interface's number in the caller's namespace; a bridge made again gets another one."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
