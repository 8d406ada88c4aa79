"""Two private libvirtds, each in a network namespace of its own, joined by a wire: two nodes as far
as migration goes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from services.compute.drivers.daemon import Daemon
from services.compute.drivers.daemon_settings import Door
from services.compute.drivers.hypervisor import Domain, Passage
from services.compute.drivers.libvirt import Libvirt
from services.mesh.identity import Files, Pair, new_authority, new_node, write_private

WIRE = "wire0"


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30, capture_output=True)


class End:
    """One of the two nodes."""

    def __init__(self, folder: Path, number: int, namespace: str, authority: Pair) -> None:
        self.host = f"10.97.0.{number}"
        self.namespace = namespace
        tls = folder / f"tls{number}"
        write_private(tls / "ca.crt", authority.certificate_pem)
        pair = new_node(authority, f"n{number}", [self.host], datetime.now(UTC))
        Files(tls).write("node", pair)
        self.daemon = Daemon(
            folder / f"lv{number}",
            net_namespace=Path("/run/netns") / namespace,
            door=Door(self.host, tls),
        )
        self.hypervisor = self.connect()

    def connect(self) -> Libvirt:
        """As a fresh process of the agent would."""
        return Libvirt(
            self.daemon.uri, ("tcg", "a test"),
            pid_directory=self.daemon.pid_directory, peers=self.daemon.peers,
        )  # fmt: skip

    def domain(self, vm: str) -> Domain | None:
        return self.hypervisor.domains().get(vm)

    def kill_daemon(self) -> None:
        os.kill(int((self.daemon.directory / "run" / "libvirtd.pid").read_text()), signal.SIGKILL)

    def kill_emulator(self, vm: str) -> None:
        os.kill(int((self.daemon.pid_directory / f"{vm}.pid").read_text()), signal.SIGKILL)

    def slow(self, mbit: int) -> None:
        """So much gets out of it in a second."""
        run("tc", "-n", self.namespace, "qdisc", "replace", "dev", WIRE, "root", "tbf",
            "rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms")  # fmt: skip

    def fast(self) -> None:
        subprocess.run(["tc", "-n", self.namespace, "qdisc", "del", "dev", WIRE, "root"],
                       check=False, timeout=30, capture_output=True)  # fmt: skip

    def plug(self, state: str) -> None:
        run("ip", "-n", self.namespace, "link", "set", WIRE, state)

    def until(self, what: str, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        until(what, condition, timeout_s)

    def ended(self, vm: str, timeout_s: float = 60) -> Passage:
        """Its migration away from here, once that has ended."""
        found: list[Passage] = []

        def looked() -> bool:
            passage = self.hypervisor.migration(vm)
            found[:] = [passage] if passage is not None else []
            return passage is None or passage.ended

        until(f"the end of {vm}'s migration", looked, timeout_s)
        assert found, "nobody knows how it ended"
        return found[0]


def until(what: str, condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
        time.sleep(0.05)


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[End, End]]:
    """Their images are the same files, as on storage that is shared."""
    names = [f"pvc-mig{number}-{os.getpid()}" for number in (1, 2)]
    authority = new_authority("test", datetime.now(UTC))
    ends: list[End] = []
    try:
        for number, name in enumerate(names, 1):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
            run("ip", "-n", name, "link", "set", "br0", "up")
        run("ip", "-n", names[0], "link", "add", WIRE, "type", "veth",
            "peer", "name", WIRE, "netns", names[1])  # fmt: skip
        for number, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"10.97.0.{number}/24", "dev", WIRE)
            run("ip", "-n", name, "link", "set", WIRE, "up")
            ends.append(End(folder, number, name, authority))
            ends[-1].daemon.start()
        yield ends[0], ends[1]
    finally:
        for end in ends:
            end.hypervisor.close()
            end.daemon.stop(kill_guests=True)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30)
