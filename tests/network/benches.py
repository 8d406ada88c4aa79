"""Test benches: a place for a fabric with a hand on what is around it, faked and real. Real ones
are namespaces with a prefix of this run, and leave nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Protocol

from services.network.drivers import namespace as ns
from services.network.drivers.fabric import Fabric, Link
from services.network.drivers.fake import FakeFabric, Machine
from services.network.drivers.linux import LinuxFabric

RUN = f"pvct{os.getpid()}"


class Bench(Protocol):
    """A fabric and what others do to the same machine."""

    fabric: Fabric
    folder: Path

    def again(self) -> Fabric:
        """The fabric as a new process would have it."""

    def add_bridge(self, name: str, mac: str = "") -> None:
        """Somebody else's bridge, without a mark."""

    def remove_link(self, name: str) -> None: ...

    def crash_server(self, bridge: str) -> None: ...

    def hang_server(self, bridge: str) -> None: ...


class FakeBench:
    """Keeps the Bench protocol."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(namespace=True, exists=False, links={})
        self.fabric: Fabric = FakeFabric(self.machine)
        self.folder = folder

    def again(self) -> Fabric:
        return FakeFabric(self.machine)

    def add_bridge(self, name: str, mac: str = "") -> None:
        link = Link(name, "bridge", "", mac or "02:00:00:00:00:99", 1500, False, frozenset())
        self.machine.links[name] = link

    def remove_link(self, name: str) -> None:
        self.machine.remove_link(name)

    def crash_server(self, bridge: str) -> None:
        self.machine.crash_server(bridge)

    def hang_server(self, bridge: str) -> None:
        self.machine.hang_server(bridge)

    def close(self) -> None:
        """Nothing is there that could stay."""


class RealBench:
    """Keeps the Bench protocol with a namespace of this machine."""

    count = 0

    def __init__(self) -> None:
        RealBench.count += 1
        self.namespace = f"{RUN}-{RealBench.count}"
        self.folder = Path("/run") / self.namespace
        self.others: list[str] = []
        self.fabric: Fabric = self.again()

    def again(self) -> Fabric:
        return LinuxFabric(self.namespace, self.folder)

    def add_bridge(self, name: str, mac: str = "") -> None:
        address = ["address", mac] if mac else []
        self.ip("link", "add", "name", name, *address, "type", "bridge")

    def remove_link(self, name: str) -> None:
        self.ip("link", "del", name)

    def crash_server(self, bridge: str) -> None:
        pid = self.server_pid(bridge)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}/cmdline").exists(), "dnsmasq to be gone")

    def hang_server(self, bridge: str) -> None:
        os.kill(self.server_pid(bridge), signal.SIGSTOP)

    def server_pid(self, bridge: str) -> int:
        return int((self.folder / "servers" / f"{bridge}.pid").read_text())

    def ip(self, *words: str) -> None:
        run("ip", "-n", self.namespace, *words)

    def inside(self, *words: str, timeout: float = 60) -> str:
        return run_in(self.namespace, *words, timeout=timeout)

    def state(self) -> dict[str, object]:
        """Everything of the namespace but our own, to compare before and after. IPv6 addresses that
        the kernel makes by itself come in their own time."""
        links = [
            {
                **{key: link[key] for key in ("ifname", "address", "mtu")},
                "addresses": [one for one in link["addr_info"] if one["family"] == "inet"],
            }
            for link in json.loads(self.inside("ip", "-j", "address"))
            if not link["ifname"].startswith("pvcbr-")
        ]
        rules = json.loads(self.inside("nft", "-j", "list", "ruleset"))["nftables"]
        ours = [row for row in rules if '"pvc"' not in json.dumps(row) and "metainfo" not in row]
        return {"links": links, "rules": ours}

    def other(self, suffix: str) -> str:
        """A further namespace, for a guest or for the outside."""
        name = f"{self.namespace}-{suffix}"
        run("ip", "netns", "add", name)
        self.others.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def plug(self, bridge: str, suffix: str, mac: str) -> str:
        """A guest: a namespace with an interface eth0 of that MAC on the bridge."""
        guest, port = self.other(suffix), f"tap{suffix}"
        self.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", guest)
        run("ip", "-n", guest, "link", "set", "eth0", "address", mac)
        self.ip("link", "set", port, "master", bridge, "up")
        run("ip", "-n", guest, "link", "set", "eth0", "up")
        return guest

    def outside(self, here: str, there: str) -> str:
        """The world behind the node: `there` answers, and knows no way to any guest."""
        name = self.other("out")
        self.ip("link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", name)
        self.ip("address", "add", here, "dev", "uplink")
        self.ip("link", "set", "uplink", "up")
        run("ip", "-n", name, "address", "add", there, "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        self.ip("route", "add", "default", "via", str(IPv4Interface(there).ip))
        return name

    def close(self) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):  # a child that ends with its parent
                os.kill(process, signal.SIGKILL)
        for name in [*self.others, self.namespace]:
            if ns.exists(name):
                run("ip", "netns", "delete", name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self) -> list[int]:
        """Servers that run with a file of our folder."""
        prefix = f"--conf-file={self.folder}/".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if prefix in path.read_bytes():
                    found.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return found


def run(*words: str, timeout: float = 60) -> str:
    result = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False)
    assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
    return result.stdout


def run_in(namespace: str, *words: str, timeout: float = 60) -> str:
    return run("nsenter", f"--net=/run/netns/{namespace}", *words, timeout=timeout)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """The condition within the time, looked at 50 times a second."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"no sign of {what} within {timeout_s} s"
        threading.Event().wait(0.02)
