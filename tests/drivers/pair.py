"""Two private libvirtds, each in a network namespace of its own, joined by a wire: two nodes as far
as migration goes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from services.compute.drivers.daemon import Daemon
from services.compute.drivers.daemon_settings import Door
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.fake_migration import Wire
from services.compute.drivers.hypervisor import Domain, Hypervisor, Passage
from services.compute.drivers.libvirt import Libvirt
from services.mesh.identity import Files, Pair, new_authority, new_node, write_private
from tests import logs

WIRE = "wire0"
CLONE_NEWNET = 0x40000000


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30, capture_output=True)


class End(Protocol):
    """One of two nodes."""

    host: str
    hypervisor: Hypervisor
    real: bool

    def domain(self, vm: str) -> Domain | None: ...

    def fresh(self) -> Hypervisor:
        """As another process would ask."""
        ...

    def slow(self) -> None:
        """Copying from here takes long."""
        ...

    def fast(self) -> None: ...

    def ended(self, vm: str) -> Passage:
        """Its migration away from here, once that has ended."""
        ...


class FakeEnd:
    """In memory; time passes when somebody waits."""

    real = False

    def __init__(self, host: str, wire: Wire, clock: list[float]) -> None:
        self.host, self.clock = host, clock
        self.hypervisor = FakeHypervisor(lambda: clock[0])
        self.hypervisor.join(wire, host)

    def domain(self, vm: str) -> Domain | None:
        return self.hypervisor.domains().get(vm)

    def fresh(self) -> Hypervisor:
        self.hypervisor.forget()
        return self.hypervisor

    def slow(self) -> None:
        self.hypervisor.script("web").copying_s = 1000.0

    def fast(self) -> None:
        self.hypervisor.script("web").copying_s = 0.0

    def ended(self, vm: str) -> Passage:
        self.clock[0] += 1
        passage = self.hypervisor.migration(vm)
        assert passage is not None and passage.ended, passage
        return passage


class RealEnd:
    """A private libvirtd in a network namespace."""

    real = True

    def __init__(self, folder: Path, number: int, namespace: str, authority: Pair) -> None:
        self.host = f"10.97.0.{number}"
        self.namespace = namespace
        self.tls, self.authority = folder / f"tls{number}", authority
        write_private(self.tls / "ca.crt", authority.certificate_pem)
        self.renew()
        self.daemon = Daemon(
            folder / f"lv{number}",
            net_namespace=Path("/run/netns") / namespace,
            door=Door(self.host, self.tls),
        )
        self.others: list[Libvirt] = []
        self.hypervisor = self.fresh()

    def renew(self) -> None:
        """Another certificate of the cluster's."""
        name = self.tls.name.replace("tls", "n")
        pair = new_node(self.authority, name, [self.host], datetime.now(UTC))
        Files(self.tls).write("node", pair)

    def fresh(self) -> Libvirt:
        """See End. Its threads, and with them its calls to the other node, are in the namespace."""
        with ThreadPoolExecutor(1) as inside:
            made = inside.submit(self._connect).result(30)
        self.others.append(made)
        return made

    def _connect(self) -> Libvirt:
        with Path(f"/run/netns/{self.namespace}").open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return Libvirt(
            self.daemon.uri, ("tcg", "a test"),
            pid_directory=self.daemon.pid_directory, peers=self.daemon.peers,
        )  # fmt: skip

    def close(self) -> None:
        for hypervisor in self.others:
            hypervisor.close()

    def domain(self, vm: str) -> Domain | None:
        return self.hypervisor.domains().get(vm)

    def kill_daemon(self) -> None:
        os.kill(self.daemon_pid(), signal.SIGKILL)

    def daemon_pid(self) -> int:
        return int((self.daemon.directory / "run" / "libvirtd.pid").read_text())

    def kill_emulator(self, vm: str) -> None:
        os.kill(int((self.daemon.pid_directory / f"{vm}.pid").read_text()), signal.SIGKILL)

    def slow(self, mbit: int = 25) -> None:
        """See End. So slow that nobody who looks now and then misses it."""
        run("tc", "-n", self.namespace, "qdisc", "replace", "dev", WIRE, "root", "tbf",
            "rate", f"{mbit}mbit", "burst", "64kb", "latency", "50ms")  # fmt: skip

    def fast(self) -> None:
        subprocess.run(["tc", "-n", self.namespace, "qdisc", "del", "dev", WIRE, "root"],
                       check=False, timeout=30, capture_output=True)  # fmt: skip

    def plug(self, state: str) -> None:
        run("ip", "-n", self.namespace, "link", "set", WIRE, state)

    def ended(self, vm: str) -> Passage:
        """See End."""
        found: list[Passage] = []

        def looked() -> bool:
            passage = self.hypervisor.migration(vm)
            found[:] = [passage] if passage is not None else []
            return passage is None or passage.ended

        until(f"the end of {vm}'s migration", looked, 120)
        assert found, "nobody knows how it ended"
        return found[0]


def until(what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
        time.sleep(0.05)


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[RealEnd, RealEnd]]:
    """Their images are the same files, as on storage that is shared."""
    names = [f"pvc-mig{number}-{os.getpid()}" for number in (1, 2)]
    authority = new_authority("test", datetime.now(UTC))
    ends: list[RealEnd] = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
            run("ip", "-n", name, "link", "set", "br0", "up")
        run("ip", "-n", names[0], "link", "add", WIRE, "type", "veth",
            "peer", "name", WIRE, "netns", names[1])  # fmt: skip
        for number, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"10.97.0.{number}/24", "dev", WIRE)
            run("ip", "-n", name, "link", "set", WIRE, "up")
            ends.append(RealEnd(folder, number, name, authority))
            ends[-1].daemon.start()
        with logs.followed(folder, "lv*/log/**/*.log"):
            yield ends[0], ends[1]
    finally:
        for end in ends:
            end.close()
            end.daemon.stop(kill_guests=True)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30)
