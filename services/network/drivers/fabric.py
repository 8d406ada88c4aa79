"""What a machine's network can be asked to do, and what it looks like when asked: the protocol that
the real driver and the fake both keep. It decides nothing and knows no contract."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Json = Mapping[str, object]
"""One object of a ruleset in the JSON of libnftables(5)."""


class FabricError(Exception):
    """The machine refused or failed; the text says which verb, on what, and in whose words."""


class ForeignError(FabricError):
    """What the verb would change carries no mark of ours: it belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a VXLAN device carries: its number, the address that it sends from, its UDP port, and
    the addresses that it floods to."""

    vni: int
    local: str
    port: int
    peers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as seen: `alias` is the mark we set, `ports` are the names attached to
    it. `overlay` of VXLAN devices with one number and one address."""

    name: str
    kind: str
    alias: str
    mac: str
    mtu: int
    up: bool
    addresses: frozenset[str]
    ports: frozenset[str] = frozenset()
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting as seen; `before` is what it was when we first changed it, None if we did
    not."""

    value: str
    before: str | None


@dataclass(frozen=True, slots=True)
class Server:
    """A DHCP and DNS server of ours as seen, whatever its state.

    `config` and `tables` are the tags that it was last started and fed with; `fresh` says that the
    bridge it is bound to is still the same one, `answers` that it answered a query just now."""

    bridge: str
    pid: int
    config: str
    tables: str
    fresh: bool
    answers: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that a server has given out. `expires` in seconds since the epoch, 0 is never."""

    mac: str
    address: str
    hostname: str
    expires: int


class Fabric(Protocol):
    """The network of one machine, or of one namespace of it. Every verb may be repeated safely.

    Verbs that change or remove refuse with ForeignError what does not carry the mark they are
    given, and fail with FabricError when the machine does."""

    def links(self) -> tuple[Link, ...]:
        """All interfaces, foreign ones included; none while the namespace does not exist.

        The mark on a namespace of ours is the alias of its loopback."""

    def make_namespace(self, mark: str) -> None:
        """Make the namespace and mark it as ours. One that exists is left as it is."""

    def remove_namespace(self, mark: str) -> None:
        """Take away the namespace that carries the mark. The kernel frees it with its last
        process."""

    def put_bridge(self, name: str, mark: str, mac: str, mtu: int, address: str) -> None:
        """Make the bridge or bring it to these values, with this IPv4 address ("a.b.c.d/len")
        alone.

        One that has the MAC but no mark yet is ours too: we died between making and marking it."""

    def remove_bridge(self, name: str, mark: str, mac: str) -> None:
        """Remove the bridge; what was attached to it stays, unattached."""

    def put_overlay(
        self, name: str, mark: str, mac: str, vni: int, local: str, mtu: int, bridge: str,
        peers: Collection[str],
    ) -> None:  # fmt: skip
        """Make the VXLAN device or bring it to these values, on this bridge. Its packets travel in
        the machine's own network, wherever the bridge is."""

    def remove_overlay(self, name: str, mark: str, mac: str) -> None:
        """Remove the VXLAN device."""

    def path_mtu(self, address: str) -> int:
        """The largest packet on the interface of the machine's own network that has this address;
        0 when none has it."""

    def ruleset(self) -> tuple[Json, ...]:
        """Chains and rules of our own table, empty without one."""

    def load_ruleset(self, objects: Sequence[Json]) -> None:
        """Replace our own table whole, in one transaction. Without objects the table is removed."""

    def sysctl(self, key: str) -> Sysctl | None:
        """A setting of the kernel for this network, by its path below /proc/sys; None if
        unknown."""

    def set_sysctl(self, key: str, value: str | None) -> None:
        """Change one, remembering what it was before our first change; None puts that back."""

    def servers(self) -> tuple[Server, ...]:
        """The servers that we started, also those that an earlier process of ours started.

        One that has ended is among them, with pid 0, as long as its files are there."""

    def run_server(
        self, bridge: str, tag: str, config: str, tables: str, files: Mapping[str, str]
    ) -> None:
        """Start the bridge's server with this configuration and these files, in place of any other.

        `tag` names the configuration and `tables` the files' contents in `servers()`."""

    def feed_server(self, bridge: str, tables: str, files: Mapping[str, str]) -> None:
        """Give the running server new files without interrupting it."""

    def stop_server(self, bridge: str) -> None:
        """End the bridge's server and remove its files."""

    def leases(self, bridge: str) -> tuple[Lease, ...]:
        """What its server has given out, also while it is down."""

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection that begins inside the namespace. Raises OSError as a socket does."""
