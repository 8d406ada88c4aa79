"""Two agents with a libvirtd each, TLS between them, and a guest that moves: as on two nodes, with
a store in memory. Cut at the hands of those who move it, it runs exactly once in the end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.agent import Agent
from services.compute.concerns import reads_of
from services.compute.drivers.hypervisor import Power
from services.compute.presence import Presence, read_hardware
from services.compute.settings import ComputeSettings
from services.mesh import rows
from services.mesh.clock import SystemClock
from services.mesh.loop import Loop
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Conflict, Put
from tests.compute.moving import POOL, decided
from tests.compute.world import NET
from tests.drivers.pair import RealEnd, two_nodes, until
from tests.guests.tiny import READY, tiny_disk

pytestmark = pytest.mark.real


class RealSide:
    """A node: its libvirtd, and its agent in a thread."""

    def __init__(self, cluster: MemoryCluster, end: RealEnd, name: str, folder: Path) -> None:
        self.cluster, self.end, self.name = cluster, end, f"nodes/{name}"
        self.settings = ComputeSettings(self.name, folder, parallel=2, migration_host=end.host)
        self.settings.prepare()
        self.start()

    def start(self) -> None:
        """A fresh process of the agent."""
        self.hypervisor, clock = self.end.fresh(), SystemClock()
        self.store = MemoryStore(self.cluster)
        facts, machine = self.hypervisor.facts(), read_hardware()
        presence = Presence(self.store, clock, self.settings, facts, machine)
        self.agent = Agent(self.store, clock, self.hypervisor, self.settings, facts, presence)
        self.loop = Loop(f"agent-{self.name}", self.agent.step, 0.25, reads_of(self.name))
        self.agent.wake = self.loop.wake
        self.forget = self.store.on_change(self.loop.wake)
        self.hypervisor.on_event(self.agent.look_again)
        self.loop.start()

    def stop(self) -> None:
        """The process ends; the guests go on."""
        self.forget()
        self.loop.stop(10)
        self.agent.stop()
        self.hypervisor.close()
        self.store.lose_session()

    def runs(self) -> bool:
        domain = self.end.domain("web")
        return domain is not None and domain.power is Power.RUNNING


class Cluster:
    """Two of them, and a coordinator that does with migrations what the contract says."""

    def __init__(self, ends: tuple[RealEnd, RealEnd], folder: Path) -> None:
        self.cluster, self.folder = MemoryCluster(), folder
        self.store = MemoryStore(self.cluster)
        self.sides = [
            RealSide(self.cluster, end, name, folder / name)
            for name, end in zip(("n1", "n2"), ends, strict=True)
        ]
        self.ids = 0
        self.loop = Loop("coordinator", self.decide, 0.5, ("vms",))
        self.store.on_change(self.loop.wake)
        self.loop.start()

    def decide(self) -> None:
        after = decided(self.store.snapshot())
        if after is not None:
            self.store.commit([Put(after)])

    def boot(self, disk: Path) -> None:
        for side in self.sides:
            until(f"{side.name}", lambda side=side: self.store.snapshot().named(side.name))
            self.write(side.name, online)
        root = self.folder / "root.qcow2"
        command = ["qemu-img", "convert", "-O", "qcow2", str(disk), str(root)]
        subprocess.run(command, check=True, timeout=60)
        self.store.commit([Put(row) for row in furniture(root)])
        log = self.sides[0].settings.console_log("web")
        until("the guest", lambda: log.exists() and READY in log.read_text(errors="replace"), 90)

    @property
    def vm(self) -> vm_pb2.Vm:
        row = self.store.snapshot().find(vm_pb2.Vm, "vms/web")
        assert row is not None
        return row

    def write(self, name: str, change: Callable[[Any], None]) -> None:
        """Again and again while others write it."""
        for _ in range(50):
            row: Any = rows.copied(self.store.snapshot().named(name))
            change(row)
            try:
                self.store.commit([Put(row)])
            except Conflict:
                continue
            return
        raise AssertionError(f"{name} is never left alone")

    def ends(self) -> tuple[RealSide, RealSide]:
        """Where it is, and the other."""
        one, other = self.sides
        return (one, other) if self.vm.decision.node == one.name else (other, one)

    def move(self) -> tuple[RealSide, RealSide]:
        """Begins it."""
        source, target = self.ends()
        self.ids += 1
        migration = vm_pb2.Migration(id=f"m{self.ids}", target=target.name)
        self.write("vms/web", lambda row: row.decision.migration.CopyFrom(migration))
        return source, target

    def copying(self) -> tuple[RealSide, RealSide]:
        """Begins it, slowly, and comes back when it has begun."""
        self.ends()[0].end.slow()
        source, target = self.move()
        seen = lambda: self.vm.status.migration  # noqa: E731
        until("copying", lambda: seen().id == f"m{self.ids}" and seen().total_bytes > 0)
        return source, target

    def settled(self, side: RealSide, timeout_s: float = 120) -> None:
        """It runs there and nowhere else, and all is over."""
        (other,) = (one for one in self.sides if one is not side)

        def over() -> bool:
            vm = self.vm
            return (
                not vm.decision.HasField("migration")
                and vm.decision.node == vm.status.node == side.name
                and vm.status.state == vm_pb2.VM_STATE_RUNNING
                and other.end.domain("web") is None
            )

        until(f"calm on {side.name}", over, timeout_s)
        assert side.runs() and not other.runs()
        assert self.vm.status.crashes == 0

    def close(self) -> None:
        self.loop.stop(10)
        for side in self.sides:
            side.stop()


def online(row: Any) -> None:
    row.decision.state = 1
    row.decision.boot_id = row.status.boot_id


def furniture(root: Path) -> list[Any]:
    network = network_pb2.Network(name=NET)
    network.status.state, network.status.bridge = network_pb2.NetworkStatus.STATE_READY, "br0"
    pool = storage_pb2.Pool(name=POOL)
    pool.spec.shared = True
    volume = storage_pb2.Volume(name=f"{POOL}/volumes/root")
    volume.status.state = storage_pb2.VolumeStatus.STATE_READY
    volume.status.path = str(root)
    vm = vm_pb2.Vm(name="vms/web")
    vm.meta.uid, vm.meta.generation = "u1", 1
    vm.spec.uuid = "22222222-2222-4222-8222-222222222222"
    vm.spec.memory.memory_mib = 128
    vm.spec.disks.add(id="root", volume=volume.name, boot_order=1)
    vm.spec.nics.add(id="net0", network=NET, mac="52:54:00:00:00:01")
    vm.spec.power = vm.decision.power = vm_pb2.POWER_STATE_RUNNING
    vm.spec.power_request = vm.decision.power_request = 1
    vm.decision.node = "nodes/n1"
    return [network, pool, volume, vm]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("mv")
    with two_nodes(folder) as ends:
        made = Cluster(ends, folder)
        try:
            made.boot(tiny_disk())
            yield made
        finally:
            made.close()


@pytest.fixture(autouse=True)
def fast_again(cluster: Cluster) -> Iterator[None]:
    yield
    for side in cluster.sides:
        side.end.fast()


def test_it_moves(cluster: Cluster) -> None:
    _, target = cluster.move()
    cluster.settled(target)
    assert cluster.vm.status.migration.downtime_ms > 0


def test_cancelled(cluster: Cluster) -> None:
    source, _ = cluster.copying()
    cluster.write("vms/web", lambda row: setattr(row.decision.migration, "cancel", True))
    cluster.settled(source)


def test_the_sources_agent_is_replaced(cluster: Cluster) -> None:
    source, target = cluster.copying()
    source.stop()
    source.start()
    source.end.fast()
    cluster.settled(target)


def test_the_sources_agent_is_away_until_it_is_over(cluster: Cluster) -> None:
    source, target = cluster.copying()
    source.stop()
    source.end.fast()
    until("it runs there", target.runs)
    until("what it left", lambda: not source.runs())
    source.start()
    cluster.settled(target)


def test_the_targets_agent_is_away_until_it_is_over(cluster: Cluster) -> None:
    source, target = cluster.copying()
    target.stop()
    source.end.fast()
    until("it is decided", lambda: cluster.vm.decision.node == target.name)
    assert cluster.vm.status.state == vm_pb2.VM_STATE_RUNNING
    target.start()
    cluster.settled(target)


def test_the_sources_libvirtd_is_killed(cluster: Cluster) -> None:
    source, _ = cluster.copying()
    source.end.kill_daemon()
    source.end.daemon.start()
    cluster.settled(source)


def test_the_targets_libvirtd_is_killed(cluster: Cluster) -> None:
    source, target = cluster.copying()
    target.end.kill_daemon()
    target.end.daemon.start()
    cluster.settled(source)


def test_what_comes_in_is_killed(cluster: Cluster) -> None:
    source, target = cluster.copying()
    target.end.kill_emulator("web")
    cluster.settled(source)


def test_it_is_switched_off_meanwhile(cluster: Cluster) -> None:
    """The last one: the guest is gone after it."""
    cluster.copying()

    def off(row: Any) -> None:
        row.decision.power, row.decision.power_request = vm_pb2.POWER_STATE_OFF, 2

    cluster.write("vms/web", off)
    until("it is off", lambda: cluster.vm.status.state == vm_pb2.VM_STATE_STOPPED, 60)
    until("no domain runs", lambda: not any(side.runs() for side in cluster.sides))
