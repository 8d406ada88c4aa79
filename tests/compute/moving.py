"""Two nodes in a process: a store, two real agents with fake hypervisors on one wire, a clock that
the test moves, and a coordinator that does with a migration what the contract says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from services.compute.agent import Agent
from services.compute.drivers.fake_migration import Wire
from services.compute.drivers.hypervisor import Crossing, Power
from services.compute.presence import Hardware, Presence
from services.compute.settings import ComputeSettings
from services.mesh import rows
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Conflict, Put, Snapshot
from tests.compute.fake_hypervisor import TellingHypervisor
from tests.compute.world import BOOTED, NET, ManualClock

POOL = "pools/shared"
Phase = vm_pb2.MigrationStatus
Arrival = vm_pb2.VmArrival
STEP_S = 0.25


class Side:
    """One of the nodes."""

    def __init__(self, pair: Pair, name: str, folder: Path) -> None:
        self.pair, self.name = pair, f"nodes/{name}"
        self.hypervisor = TellingHypervisor(pair.clock.monotonic)
        self.hypervisor.join(pair.wire, name)
        self.settings = ComputeSettings(self.name, folder, parallel=0, migration_host=name)
        self.settings.prepare()
        self.store: MemoryStore = MemoryStore(pair.cluster)
        self.up = True
        self.start()

    def start(self, store: MemoryStore | None = None) -> None:
        """A fresh agent, as after the death of its process."""
        self.store.lose_session()
        self.store = store or MemoryStore(self.pair.cluster)
        self.hypervisor.forget()
        facts, clock = self.hypervisor.facts(), self.pair.clock
        machine = Hardware(4, 8192, "6.1", f"boot-{self.name}", BOOTED)
        presence = Presence(self.store, clock, self.settings, facts, machine)
        self.agent = Agent(self.store, clock, self.hypervisor, self.settings, facts, presence)
        self.hypervisor.on_event(self.agent.look_again)
        self.up = True

    def stop(self) -> None:
        """Its agent is dead; its guests go on."""
        self.up = False
        self.store.lose_session()

    def step(self) -> None:
        if self.up:
            self.agent.look_again()
            self.agent.step()

    def runs(self, vm: str = "web") -> bool:
        """Its processors do, or may any moment: nothing here stops them but this node."""
        machine = self.hypervisor.known(vm)
        return (
            machine is not None
            and machine.power is not Power.OFF
            and machine.crossing is Crossing.NONE
        )


class Pair:
    """What tests act on. The VM `web` runs on n1."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.clock, self.cluster, self.wire = ManualClock(), MemoryCluster(), Wire()
        self.store = MemoryStore(self.cluster)
        self.sides = [Side(self, name, folder / name) for name in ("n1", "n2")]
        self.source, self.target = self.sides
        self.states: list[tuple[str, int]] = []
        """(node, state) as the row said, one after the other."""
        self.ids = 0
        for side in self.sides:
            side.step()
            self.write(side.name, self._online)
        self._furnish(spec)
        self.calm()
        assert self.vm.status.state == vm_pb2.VM_STATE_RUNNING, self.vm

    def _online(self, row: Any) -> None:
        row.decision.state = cluster_pb2.NODE_STATE_ONLINE
        row.decision.boot_id = row.status.boot_id

    def _furnish(self, spec: dict[str, Any]) -> None:
        network = network_pb2.Network(name=NET)
        pool = storage_pb2.Pool(name=POOL)
        pool.spec.shared = True
        volume = storage_pb2.Volume(name=f"{POOL}/volumes/root")
        volume.status.state = storage_pb2.VolumeStatus.STATE_READY
        volume.status.path = "/shared/root.qcow2"
        for name in ("n1", "n2"):
            network.status.nodes[name].ready = True
            network.status.nodes[name].bridge = "br0"
            pool.status.nodes[name].ready = True
        vm = vm_pb2.Vm(name="vms/web", meta=meta_pb2.Meta(uid="u1", generation=1))
        vm.spec.uuid = "11111111-1111-4111-8111-111111111111"
        vm.spec.disks.add(id="root", volume=volume.name)
        vm.spec.nics.add(id="net0", network=NET, mac="52:54:00:00:00:01")
        vm.spec.MergeFrom(vm_pb2.VmSpec(**spec))
        vm.spec.power = vm.decision.power = vm_pb2.POWER_STATE_RUNNING
        vm.spec.power_request = vm.decision.power_request = 1
        vm.decision.node = self.source.name
        self.store.commit([Put(network), Put(pool), Put(volume), Put(vm)])

    @property
    def vm(self) -> vm_pb2.Vm:
        row = self.store.snapshot().find(vm_pb2.Vm, "vms/web")
        assert row is not None
        return row

    @property
    def seen(self) -> vm_pb2.MigrationStatus:
        return self.vm.status.migration

    def write(self, name: str, change: Any) -> None:
        """Somebody else writes a row."""
        there = self.store.snapshot().named(name)
        assert there is not None, name
        row: Any = rows.copied(there)
        change(row)
        self.store.commit([Put(row)])

    def move(self, to: str = "n2", cancel: bool = False) -> None:
        """The coordinator decides it."""
        self.ids += 1

        def change(row: Any) -> None:
            row.decision.migration.CopyFrom(
                vm_pb2.Migration(id=f"m{self.ids}", target=f"nodes/{to}", cancel=cancel)
            )

        self.write("vms/web", change)

    def cancel(self) -> None:
        self.write("vms/web", lambda row: setattr(row.decision.migration, "cancel", True))

    def decide(self) -> None:
        """The coordinator's turn."""
        after = decided(self.store.snapshot())
        try:
            self.store.commit([Put(after)] if after is not None else [])
        except Conflict:
            return  # in the next round

    def fence(self, side: Side) -> None:
        """The node is dead, with all that ran on it, and that is proven."""
        side.stop()
        side.hypervisor.lose_power()
        self.write(side.name, lambda row: row.decision.MergeFrom(FENCED))

    def round(self) -> None:
        """Everybody does one thing, and time passes."""
        for side in self.sides:
            side.step()
            self.check()
        self.decide()
        self.clock.seconds += STEP_S
        self.wire.advance()
        self.check()

    def until(self, condition: Any, rounds: int = 400) -> None:
        for _ in range(rounds):
            if condition():
                return
            self.round()
        raise AssertionError(f"it never came: {self.vm}")

    def calm(self, rounds: int = 400) -> None:
        """Until nothing changes any more, for longer than anything is waited for."""
        quiet = 0
        for _ in range(rounds):
            before = self.store.snapshot().revision
            self.round()
            quiet = quiet + 1 if before == self.store.snapshot().revision else 0
            if quiet >= 60:
                return
        raise AssertionError(f"no calm after {rounds} rounds: {self.vm}")

    def check(self) -> None:
        """What holds at any moment."""
        assert sum(side.runs() for side in self.sides) <= 1, "it runs twice"
        row = self.store.snapshot().find(vm_pb2.Vm, "vms/web")
        status = row.status if row is not None else vm_pb2.VmStatus()
        now = (status.node, status.state)
        if not self.states or self.states[-1] != now:
            self.states.append(now)

    def runs_on(self) -> list[str]:
        return [side.name.removeprefix("nodes/") for side in self.sides if side.runs()]

    def is_at(self, name: str) -> None:
        """It runs there, and everything says so."""
        assert self.runs_on() == [name]
        vm = self.vm
        assert vm.decision.node == vm.status.node == f"nodes/{name}", vm
        assert vm.status.state == vm_pb2.VM_STATE_RUNNING
        assert not vm.decision.HasField("migration")
        for side in self.sides:
            assert ("web" in side.hypervisor.names()) == (side.name == f"nodes/{name}")


FENCED = cluster_pb2.NodeDecision(state=cluster_pb2.NODE_STATE_FENCED, fences=1)


def decided(snapshot: Snapshot) -> vm_pb2.Vm | None:
    """What the coordinator makes of a migration, as the contract has it."""
    vm = snapshot.find(vm_pb2.Vm, "vms/web")
    if vm is None or not vm.decision.HasField("migration"):
        return None
    after, migration = rows.copied(vm), vm.decision.migration
    seen = vm.status.migration if vm.status.migration.id == migration.id else Phase()
    here = vm.arrival if vm.arrival.id == migration.id else Arrival()
    match seen.phase:
        case Phase.PHASE_MOVED:
            after.decision.node = migration.target
        case Phase.PHASE_FAILED:
            pass
        case _ if not is_fenced(snapshot, vm.decision.node):
            return None
        case _ if here.state in (Arrival.STATE_RUNNING, Arrival.STATE_GONE):
            after.decision.node = migration.target  # it runs there, or is started there
        case _ if migration.cancel:
            return None
        case _:
            after.decision.migration.cancel = True
            return after
    after.decision.ClearField("migration")
    return after


def is_fenced(snapshot: Snapshot, node: str) -> bool:
    row = snapshot.find(cluster_pb2.Node, node)
    return row is not None and row.decision.state == cluster_pb2.NODE_STATE_FENCED
