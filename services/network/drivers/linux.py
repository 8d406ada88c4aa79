"""The real fabric: bridges, packet filter, kernel settings and servers of this machine, or of one
named network namespace of it. Decides nothing; refuses to touch what carries no mark of ours."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from services.network.drivers import dnsmasq, links, nftables, vxlan
from services.network.drivers import namespace as ns
from services.network.drivers.fabric import FabricError, Json, Lease, Link, Server, Sysctl

T = TypeVar("T")


class LinuxFabric:
    """Keeps the Fabric protocol. `namespace` "" is the machine's own network.

    `folder` holds the servers' files, below `servers`, and what kernel settings were before. Like
    all else here it means nothing after a reboot, so it belongs below /run; every folder above it
    must be open to all, for the servers do not run as root."""

    def __init__(self, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self._servers = dnsmasq.Servers(folder / "servers")

    def links(self) -> tuple[Link, ...]:
        return self._inside(links.read_links) if self._exists() else ()

    def make_namespace(self, mark: str) -> None:
        if self.namespace:
            links.make_namespace(self.namespace, mark)

    def remove_namespace(self, mark: str) -> None:
        if self.namespace:
            links.remove_namespace(self.namespace, mark)
        self._remove_folder()

    def put_bridge(self, name: str, mark: str, mac: str, mtu: int, address: str) -> None:
        self._inside(lambda: links.put_bridge(name, mark, mac, mtu, address))

    def remove_bridge(self, name: str, mark: str, mac: str) -> None:
        if self._exists():
            self._inside(lambda: links.remove_bridge(name, mark, mac))

    def put_overlay(
        self, name: str, mark: str, mac: str, vni: int, local: str, mtu: int, bridge: str,
        peers: Collection[str],
    ) -> None:  # fmt: skip
        tunnel = vxlan.Tunnel(name, mark, mac, vni, local)
        if not self._inside(lambda: vxlan.is_there(tunnel)):
            vxlan.make(tunnel, self.namespace)
        self._inside(lambda: vxlan.put(tunnel, mtu, bridge, peers))

    def remove_overlay(self, name: str, mark: str, mac: str) -> None:
        if self._exists():
            self._inside(lambda: vxlan.remove(name, mark, mac))

    def path_mtu(self, address: str) -> int:
        """In the network that this process is in, where the services of the node listen too."""
        return links.mtu_at(address)

    def ruleset(self) -> tuple[Json, ...]:
        return self._inside(nftables.read_ruleset) if self._exists() else ()

    def load_ruleset(self, objects: Sequence[Json]) -> None:
        self._inside(lambda: nftables.replace_ruleset(objects))

    def sysctl(self, key: str) -> Sysctl | None:
        if not self._exists():
            return None
        value = self._inside(lambda: _read_sysctl(key))
        return None if value is None else Sysctl(value, self._before().get(key))

    def set_sysctl(self, key: str, value: str | None) -> None:
        """What was before is written down first, and forgotten only when it is back."""
        before = self._before()
        seen = self._inside(lambda: _read_sysctl(key))
        match seen, value, before.get(key):
            case None, _, _:
                raise FabricError(f"this kernel has no setting {key}")
            case _, None, None:
                return
            case _, None, earlier:
                self._inside(lambda: _write_sysctl(key, str(earlier)))
                self._remember({other: text for other, text in before.items() if other != key})
            case present, wanted, earlier:
                self._remember(before | {key: present if earlier is None else earlier})
                self._inside(lambda: _write_sysctl(key, str(wanted)))

    def servers(self) -> tuple[Server, ...]:
        if not self._exists():
            return ()
        return self._inside(lambda: self._servers.read(_addresses(links.read_links())))

    def run_server(
        self, bridge: str, tag: str, config: str, tables: str, files: Mapping[str, str]
    ) -> None:
        self._inside(lambda: self._servers.run(bridge, tag, config, tables, files))

    def feed_server(self, bridge: str, tables: str, files: Mapping[str, str]) -> None:
        with _failing(f"server of {bridge}"):
            self._servers.feed(bridge, tables, files)

    def stop_server(self, bridge: str) -> None:
        with _failing(f"server of {bridge}"):
            self._servers.stop(bridge)
        self._remove_folder()

    def leases(self, bridge: str) -> tuple[Lease, ...]:
        with _failing(f"leases of {bridge}"):
            return self._servers.leases(bridge)

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """Not as a FabricError: callers treat it as they treat any connection."""
        return ns.within(
            self.namespace, lambda: socket.create_connection((address, port), timeout_s)
        )

    def _exists(self) -> bool:
        return not self.namespace or ns.exists(self.namespace)

    def _inside(self, work: Callable[[], T]) -> T:
        with _failing(f"namespace {self.namespace}" if self.namespace else "this machine"):
            return ns.within(self.namespace, work)

    @property
    def _sysctls(self) -> Path:
        return self.folder / "sysctls.json"

    def _before(self) -> dict[str, str]:
        with _failing(str(self._sysctls)):
            return dict(json.loads(self._sysctls.read_text())) if self._sysctls.exists() else {}

    def _remember(self, before: Mapping[str, str]) -> None:
        with _failing(str(self._sysctls)):
            if not before:
                self._sysctls.unlink(missing_ok=True)
                self._remove_folder()
                return
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            fresh = self._sysctls.with_suffix(".new")
            fresh.write_text(json.dumps(dict(before), indent=1))
            fresh.replace(self._sysctls)

    def _remove_folder(self) -> None:
        """If nothing is in it but what a death in the middle of writing left."""
        if not self._sysctls.exists():
            self._sysctls.with_suffix(".new").unlink(missing_ok=True)
            dnsmasq.remove_if_empty(self.folder)


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    """A full disk, a missing file, a permission: the machine refused, like any other way it can."""
    try:
        yield
    except OSError as error:
        raise FabricError(f"{what}: {error}") from error


def _addresses(seen: Sequence[Link]) -> dict[str, str]:
    """Where each bridge's server is asked: an address of the bridge."""
    return {link.name: min(link.addresses).split("/")[0] for link in seen if link.addresses}


def _sysctl_path(key: str) -> Path:
    path = Path("/proc/sys") / key
    if not key.startswith("net/") or ".." in path.parts:
        raise FabricError(f"'{key}' is no setting of the network")
    return path


def _read_sysctl(key: str) -> str | None:
    """Settings below net are those of the reading thread's namespace."""
    try:
        return _sysctl_path(key).read_text().strip()
    except FileNotFoundError:
        return None


def _write_sysctl(key: str, value: str) -> None:
    try:
        _sysctl_path(key).write_text(value)
    except OSError as error:
        raise FabricError(f"kernel setting {key} cannot be set to {value}: {error}") from error
