"""A fabric that is only remembered: for tests and the simulator. It keeps the promises of the real
one, and misbehaves as it is told to."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.network.drivers.fabric import (
    FabricError,
    ForeignError,
    Json,
    Lease,
    Link,
    Overlay,
    Server,
    Sysctl,
)

LOOPBACK = Link("lo", "", "", "00:00:00:00:00:00", 65536, True, frozenset({"127.0.0.1/8"}))


class Killed(BaseException):
    """The process that called ended here. Nothing that it could have caught."""


@dataclass
class Machine:
    """What outlives the process: a machine's network. Change it at will, as its administrator
    may."""

    namespace: bool = False
    exists: bool = True
    links: dict[str, Link] = field(default_factory=lambda: {"lo": LOOPBACK})
    rules: tuple[Json, ...] = ()
    sysctls: dict[str, str] = field(
        default_factory=lambda: {
            "net/ipv4/ip_forward": "0",
            "net/bridge/bridge-nf-call-iptables": "1",
            "net/bridge/bridge-nf-call-arptables": "1",
        }
    )
    before: dict[str, str] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    leases: dict[str, tuple[Lease, ...]] = field(default_factory=dict)
    path_mtu: int = 1500
    """Of the interface by which other nodes are reached."""
    listening: dict[tuple[str, int], Callable[[], socket.socket]] = field(default_factory=dict)

    def crash_server(self, bridge: str) -> None:
        """What kill -9 of a server leaves: its files."""
        self.servers[bridge] = Server(bridge, 0, "", "", fresh=False, answers=False)

    def hang_server(self, bridge: str) -> None:
        """It runs but answers nothing."""
        self.servers[bridge] = replace(self.servers[bridge], answers=False)

    def remove_link(self, name: str) -> None:
        """Somebody removes an interface: a bridge's server is bound to what is no more."""
        del self.links[name]
        for other, link in self.links.items():
            self.links[other] = replace(link, ports=link.ports - {name})
        if name in self.servers:
            self.servers[name] = replace(self.servers[name], fresh=False, answers=False)


@dataclass
class Script:
    """What goes wrong: `fails` counts how often a verb refuses from now on, `killed_in` is the
    number of changing verbs after which the process ends, half of the time before the verb had
    effect."""

    fails: Counter[str] = field(default_factory=Counter)
    killed_in: int | None = None
    killed_before: bool = False


class FakeFabric:
    """Keeps the Fabric protocol. Make another one for the same machine to begin anew after a
    kill."""

    def __init__(self, machine: Machine | None = None, script: Script | None = None) -> None:
        self.machine = machine or Machine()
        self.script = script or Script()
        self.calls: list[str] = []

    def links(self) -> tuple[Link, ...]:
        self._may_fail("links")
        if not self.machine.exists:
            return ()
        return tuple(link for _, link in sorted(self.machine.links.items()))

    def make_namespace(self, mark: str) -> None:
        def act() -> None:
            if self.machine.namespace and not self.machine.exists:
                fresh = Machine(namespace=True)
                self.machine.links = {"lo": replace(LOOPBACK, alias=mark)}
                self.machine.rules, self.machine.sysctls = (), fresh.sysctls
                self.machine.exists = True

        self._change("make_namespace", act)

    def remove_namespace(self, mark: str) -> None:
        def act() -> None:
            if not self.machine.namespace or not self.machine.exists:
                return
            if self.machine.links["lo"].alias != mark:
                raise ForeignError("the network namespace is not ours")
            self.machine.exists, self.machine.links = False, {}

        self._change("remove_namespace", act)

    def put_bridge(self, name: str, mark: str, mac: str, mtu: int, address: str) -> None:
        def act() -> None:
            self._check_ours(name, mark, mac)
            ports = self.machine.links[name].ports if name in self.machine.links else frozenset()
            addresses = frozenset({address} if address else ())
            link = Link(name, "bridge", mark, mac, mtu, True, addresses, ports)
            self.machine.links[name] = link

        self._change("put_bridge", act)

    def remove_bridge(self, name: str, mark: str, mac: str) -> None:
        def act() -> None:
            if self.machine.exists and name in self.machine.links:
                self._check_ours(name, mark, mac)
                self.machine.remove_link(name)

        self._change("remove_bridge", act)

    def put_overlay(
        self, name: str, mark: str, mac: str, vni: int, local: str, mtu: int, bridge: str,
        peers: Collection[str],
    ) -> None:  # fmt: skip
        def act() -> None:
            self._check_ours(name, mark, mac, "vxlan")
            links = self.machine.links
            if bridge not in links:
                raise FabricError(f"{bridge} is not there")
            overlay = Overlay(vni, local, 4789, frozenset(peers))
            links[name] = Link(name, "vxlan", mark, mac, mtu, True, frozenset(), overlay=overlay)
            links[bridge] = replace(links[bridge], ports=links[bridge].ports | {name})

        self._change("put_overlay", act)

    def remove_overlay(self, name: str, mark: str, mac: str) -> None:
        def act() -> None:
            if not self.machine.exists or name not in self.machine.links:
                return
            self._check_ours(name, mark, mac, "vxlan")
            self.machine.remove_link(name)

        self._change("remove_overlay", act)

    def path_mtu(self, address: str) -> int:
        self._may_fail("path_mtu")
        return self.machine.path_mtu

    def ruleset(self) -> tuple[Json, ...]:
        self._may_fail("ruleset")
        return self.machine.rules if self.machine.exists else ()

    def load_ruleset(self, objects: Sequence[Json]) -> None:
        def act() -> None:
            self._need_namespace()
            self.machine.rules = tuple(objects)

        self._change("load_ruleset", act)

    def sysctl(self, key: str) -> Sysctl | None:
        self._may_fail("sysctl")
        if not self.machine.exists or key not in self.machine.sysctls:
            return None
        return Sysctl(self.machine.sysctls[key], self.machine.before.get(key))

    def set_sysctl(self, key: str, value: str | None) -> None:
        def act() -> None:
            self._need_namespace()
            if key not in self.machine.sysctls:
                raise FabricError(f"this kernel has no setting {key}")
            if value is None:
                self.machine.sysctls[key] = self.machine.before.pop(key, self.machine.sysctls[key])
                return
            self.machine.before.setdefault(key, self.machine.sysctls[key])
            self.machine.sysctls[key] = value

        self._change("set_sysctl", act)

    def servers(self) -> tuple[Server, ...]:
        self._may_fail("servers")
        return tuple(server for _, server in sorted(self.machine.servers.items()))

    def run_server(
        self, bridge: str, tag: str, config: str, tables: str, files: Mapping[str, str]
    ) -> None:
        def act() -> None:
            self._need_namespace()
            if bridge not in self.machine.links:
                raise FabricError(f"server of {bridge}: there is no such bridge")
            pid = 1 + max((server.pid for server in self.machine.servers.values()), default=0)
            self.machine.texts |= {f"{bridge}.conf": config, **files}
            self.machine.servers[bridge] = Server(bridge, pid, tag, tables, True, True)
            self.machine.leases.setdefault(bridge, ())

        self._change("run_server", act)

    def feed_server(self, bridge: str, tables: str, files: Mapping[str, str]) -> None:
        def act() -> None:
            if bridge not in self.machine.servers or not self.machine.servers[bridge].pid:
                raise FabricError(f"server of {bridge} is not running")
            self.machine.texts |= files
            self.machine.servers[bridge] = replace(self.machine.servers[bridge], tables=tables)

        self._change("feed_server", act)

    def stop_server(self, bridge: str) -> None:
        def act() -> None:
            self.machine.servers.pop(bridge, None)
            self.machine.leases.pop(bridge, None)
            for name in [name for name in self.machine.texts if name.startswith(f"{bridge}.")]:
                del self.machine.texts[name]

        self._change("stop_server", act)

    def leases(self, bridge: str) -> tuple[Lease, ...]:
        self._may_fail("leases")
        return self.machine.leases.get(bridge, ())

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self._may_fail("connect")
        self._need_namespace()
        if (address, port) not in self.machine.listening:
            raise ConnectionRefusedError(f"nobody listens at {address}:{port}")
        return self.machine.listening[address, port]()

    def _change(self, verb: str, act: Callable[[], None]) -> None:
        """Every verb that changes something passes here: it may fail, and the process may end at
        it, with its effect or without."""
        self._may_fail(verb)
        ending = self.script.killed_in == 0
        if self.script.killed_in is not None:
            self.script.killed_in -= 1
        if ending and self.script.killed_before:
            raise Killed(f"before {verb}")
        act()
        self.calls.append(verb)
        if ending:
            raise Killed(f"after {verb}")

    def _may_fail(self, verb: str) -> None:
        if self.script.fails[verb] > 0:
            self.script.fails[verb] -= 1
            raise FabricError(f"{verb}: as the script wants it")

    def _need_namespace(self) -> None:
        if not self.machine.exists:
            raise FabricError("the network namespace cannot be opened: it does not exist")

    def _check_ours(self, name: str, mark: str, mac: str, kind: str = "bridge") -> None:
        self._need_namespace()
        link = self.machine.links.get(name)
        if link is None:
            return
        unfinished = link.alias == "" and link.mac == mac
        if link.kind != kind or not (link.alias == mark or unfinished):
            raise ForeignError(f"interface {name} is not ours")
