"""Several nodes as namespaces of this machine, each with a network agent of its own, one state, and
a switch between them. Guests are namespaces on the nodes' bridges."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pvc.compute.v1.vm_pb2 import Vm
from pvc.coordinator.v1 import cluster_pb2
from pvc.network.v1.network_pb2 import Network
from services.mesh import rows
from services.network.agent import NetworkAgent
from services.network.core.desired import Place
from services.network.drivers import namespace as ns
from services.network.drivers.linux import LinuxFabric
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Delete, Put
from tests.network.benches import run, run_in
from tests.network.worlds import TestClock

COUNT = iter(range(1, 1000))
TELL = """#!{python}
import json, os, sys
if sys.argv[1] == "bound":
    with open({file!r}, "w") as out:
        json.dump(dict(os.environ), out)
"""


class Node:
    """One node: a namespace, or one within it for the bridges, and its agent."""

    def __init__(self, cluster: NodeCluster, number: int, inner: bool, six: bool) -> None:
        self.cluster, self.name = cluster, f"nodes/n{number}"
        self.space = f"{cluster.prefix}-n{number}"
        self.inner = f"{self.space}i" if inner else ""
        self.folder = Path("/run") / self.space
        self.address = f"2001:db8::{number}" if six else f"192.0.2.{number}"
        self.store = MemoryStore(cluster.state)
        self.fabric = LinuxFabric(self.inner, self.folder)
        self.guests: list[str] = []

    @property
    def bridges(self) -> str:
        """The namespace that the bridges are in."""
        return self.inner or self.space

    def step(self) -> None:
        """A round of the agent, as a process in the node's namespace has it."""
        place = Place(self.inner, str(self.folder / "servers"), address=self.address)
        agent = NetworkAgent(self.store, self.cluster.clock, self.fabric, place, self.name)
        ns.within(self.space, agent.step)

    def plug(self, bridge: str, name: str, mac: str, mtu: int = 1450) -> str:
        """A guest: a namespace with an interface eth0 of that MAC on a bridge."""
        guest = f"{self.cluster.prefix}-{name}"
        if not ns.exists(guest):
            run("ip", "netns", "add", guest)
            self.cluster.spaces.append(guest)
            run("ip", "-n", guest, "link", "set", "lo", "up")
        run("ip", "-n", self.bridges, "link", "add", f"tap{name}", "mtu", str(mtu), "type", "veth",
            "peer", "name", "eth0", "mtu", str(mtu), "netns", guest)  # fmt: skip
        run("ip", "-n", guest, "link", "set", "eth0", "address", mac)
        run("ip", "-n", self.bridges, "link", "set", f"tap{name}", "master", bridge, "up")
        run("ip", "-n", guest, "link", "set", "eth0", "up")
        return guest

    def ip(self, *words: str) -> Any:
        """What ip says in JSON of the place where the bridges are."""
        return json.loads(run("ip", "-n", self.bridges, "-j", *words) or "[]")

    def flooded(self, device: str) -> set[str]:
        """Whom a device floods to, by the kernel."""
        words = ("bridge", "-j", "fdb", "show", "dev", device)
        entries = json.loads(run_in(self.bridges, *words))
        return {one["dst"] for one in entries if one["mac"] == "00:00:00:00:00:00"}


class NodeCluster:
    """See the module."""

    def __init__(self, count: int, *, inner: bool = False, six: bool = False) -> None:
        """inner: bridges in a namespace of their own. six: nodes reach each other by IPv6."""
        self.six = six
        self.prefix = f"pvcc{os.getpid()}x{next(COUNT)}"
        self.state, self.clock = MemoryCluster(), TestClock()
        self.spaces: list[str] = []
        self.switch = self._space("sw")
        run("ip", "-n", self.switch, "link", "add", "sw", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "sw", "up")
        self.nodes = {f"n{number}": self._node(number, inner) for number in range(1, count + 1)}
        self.store = next(iter(self.nodes.values())).store

    def __getitem__(self, node: str) -> Node:
        return self.nodes[node]

    def _space(self, name: str) -> str:
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        self.spaces.append(full)
        return full

    def _node(self, number: int, inner: bool) -> Node:
        node = Node(self, number, inner, self.six)
        self._space(f"n{number}")
        run("ip", "-n", node.space, "link", "add", "mesh0", "type", "veth", "peer", "name",
            f"p{number}", "netns", self.switch)  # fmt: skip
        run("ip", "-n", node.space, "address", "add", f"{node.address}/{64 if self.six else 24}",
            "dev", "mesh0", *(["nodad"] if self.six else []))  # fmt: skip
        run("ip", "-n", node.space, "link", "set", "mesh0", "up")
        run("ip", "-n", self.switch, "link", "set", f"p{number}", "master", "sw", "up")
        for kind in ("arptables", "iptables"):
            self._write(node.space, f"net/bridge/bridge-nf-call-{kind}", "0")
        self.arrive(node)
        return node

    @staticmethod
    def _write(space: str, key: str, value: str) -> None:
        ns.within(space, lambda: Path("/proc/sys", key).write_text(value))

    def arrive(self, node: Node, state: int = cluster_pb2.NODE_STATE_ONLINE) -> None:
        """The node's row, with where its services are, and its lease."""
        row = cluster_pb2.Node(name=node.name)
        row.decision.state = state  # type: ignore[assignment]
        row.status.services.add(
            service="network",
            address=f"[{node.address}]:7382" if self.six else f"{node.address}:7382",
        )
        self.put(node.store, row)
        assert node.store.acquire(node.name, node.name) is not None

    def put(self, store: MemoryStore, *made: Any) -> None:
        for row in made:
            there = store.snapshot().named(row.name)
            fresh: Any = rows.copied(row)
            fresh.meta.etag = there.meta.etag if there is not None else ""
            store.commit([Put(fresh)])

    def leave(self, name: str) -> None:
        """The node is removed from the cluster."""
        self[name].store.lose_session()
        self.store.commit([Delete(f"nodes/{name}", "*")])

    def settle(self, *names: str) -> None:
        """All agents step until none of them writes anything."""
        before = -1
        for _ in range(8):
            for name in names or self.nodes:
                self[name].step()
            if before == (before := self.store.snapshot().revision):
                return
        raise AssertionError("they go on writing")

    def network(self, name: str = "default") -> Network:
        row = self.store.snapshot().find(Network, f"networks/{name}")
        assert row is not None
        return row

    def addresses(self) -> dict[str, str]:
        return {row.vm.removeprefix("vms/"): row.address for row in self.network().status.addresses}

    def place(self, name: str, node: str) -> None:
        """Where a VM is."""
        found = self.store.snapshot().find(Vm, f"vms/{name}")
        assert found is not None
        row = rows.copied(found)
        row.decision.node = row.status.node = f"nodes/{node}"
        self.put(self.store, row)

    def ask_dhcp(self, guest: str) -> dict[str, str]:
        """What a DHCP client in the guest is told."""
        folder = next(iter(self.nodes.values())).folder
        told, script = folder / f"{guest}.json", folder / f"{guest}.py"
        script.write_text(TELL.format(python=sys.executable, file=str(told)))
        script.chmod(0o755)
        words = ["-i", "eth0", "-f", "-q", "-n", "-t", "30", "-T", "1", "-s", str(script)]
        run_in(guest, "busybox", "udhcpc", *words, "-O", "mtu")
        return dict(json.loads(told.read_text()))

    def set_up(self, guest: str) -> str:
        """A guest with the address that it is given; the address."""
        told = self.ask_dhcp(guest)
        run("ip", "-n", guest, "address", "add", f"{told['ip']}/{told['mask']}", "dev", "eth0")
        run("ip", "-n", guest, "route", "add", "default", "via", told["router"])
        run("ip", "-n", guest, "link", "set", "eth0", "mtu", told["mtu"])
        return told["ip"]

    def close(self) -> None:
        for node in self.nodes.values():
            for process in _servers(node.folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.spaces += [node.inner] if node.inner else []
        for space in self.spaces:
            if ns.exists(space):
                run("ip", "netns", "delete", space)
        for node in self.nodes.values():
            shutil.rmtree(node.folder, ignore_errors=True)


def reaches(guest: str, address: str, *words: str) -> bool:
    """Whether a ping comes back."""
    words = ("ping", "-c", "3", "-i", "0.2", "-W", "2", *words, address)
    called = ["nsenter", f"--net=/run/netns/{guest}", *words]
    return subprocess.run(called, capture_output=True, timeout=60, check=False).returncode == 0


def _servers(folder: Path) -> list[int]:
    prefix, found = f"--conf-file={folder}/".encode(), []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if prefix in path.read_bytes():
                found.append(int(path.parent.name))
    return found
