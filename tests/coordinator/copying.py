"""Two nodes with pools of their own, in a process: real coordinators, compute agents and storage
workers on one store; hypervisors and disks in memory; a clock that the test moves. The guest of the
VM `web` writes to its disk for as long as it runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import event_pb2, meta_pb2, operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from services.compute.drivers.fake_machine import Machine
from services.compute.drivers.fake_migration import Trip, Wire
from services.compute.drivers.observed import parse_domain
from services.coordinator import placement_service
from services.coordinator.loop import Coordinator
from services.mesh import rows
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.mesh.jobs import Jobs
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Change, Lease, Put
from services.storage.agent import Agent as StorageAgent
from services.storage.core import pools, snapshots, volumes
from services.storage.core.accept import SERVICE
from services.storage.drivers.driver import Format, ImageFacts, Place, PoolFacts
from services.storage.drivers.fake import FakeDisk, FakeDriver
from services.storage.files import Files
from services.storage.main import job_methods
from services.storage.workshop import Workshop
from tests.compute.fake_hypervisor import Cut
from tests.compute.moving import Side
from tests.compute.world import ManualClock
from tests.storage.worlds import GIB, MIB, Inline

Operation = operation_pb2.Operation
STEP_S = 0.25
ROOT, SEED, DISC = "pools/one/volumes/root", "pools/one/volumes/web-seed", "pools/one/volumes/disc"
ON, OFF = vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_OFF


class CutStore(MemoryStore):
    """A process's store. The process ends before or after a commit, if the test wants it to."""

    def __init__(self, cluster: MemoryCluster, name: str, before: Any, after: Any) -> None:
        super().__init__(cluster)
        self.name, self.before, self.after = name, before, after

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        self.before(self.name)
        revision = super().commit(changes, held_by)
        self.after(self.name)
        return revision


class ByteDriver(FakeDriver):
    """Its images are files, as other nodes need them."""

    free = 1 << 40

    def export(self, source: Any, snapshot: str, path: str, *others: Any) -> None:
        super().export(source, snapshot, path, *others)
        facts, content = self.images[path]
        Path(path).write_text(f"{facts.size_bytes}:{content}".ljust(64))

    def inspect(self, path: str, format: Format) -> ImageFacts:
        size, _, content = Path(path).read_text().rstrip().partition(":")
        facts = ImageFacts(format, int(size), int(size), "", (), False, False)
        self.images[path] = (facts, content)
        return super().inspect(path, format)

    def open_pool(self, place: Place, make: bool) -> PoolFacts:
        facts = super().open_pool(place, make)
        return PoolFacts(facts.capacity_bytes, self.free, facts.mark)


class CopyingWire(Wire):
    """Copies the disks with the memory."""

    def __init__(self, whole: Whole) -> None:
        super().__init__()
        self.whole = whole

    def _switch(self, trip: Trip, source: Machine, target: Machine) -> None:
        for here, there in trip.route.files.items():
            one = self.whole.shelf(trip.source.host).driver.disk_at(here)
            other = self.whole.shelf(trip.target.host).driver.disk_at(there)
            assert one is not None and other is not None
            if not other.content:
                other.content = one.content
        super()._switch(trip, source, target)


class Shelf:
    """One node's storage."""

    def __init__(self, whole: Whole, name: str, folder: Path) -> None:
        self.whole, self.name, self.folder = whole, f"nodes/{name}", folder
        self.driver = ByteDriver()
        self.up = True
        self.start()

    def start(self) -> None:
        self.store = self.whole.new_store(f"storage {self.name}")
        self.files = Files(self.folder / "files", self.name, self.whole.clock, reserve_bytes=0)
        shop = Workshop(
            self.store, self.whole.clock, self.driver, _NoOpenVolumes(), self.files, self.name,
            _Far(self.whole),
        )  # fmt: skip
        self.jobs = Jobs(self.store, self.whole.clock, SERVICE, self.name, job_methods(shop))
        self.jobs._pool = Inline()  # type: ignore[assignment]
        self.agent = StorageAgent(self.store, self.whole.clock, self.driver, self.name)
        self.up = True

    def stop(self) -> None:
        self.up = False
        self.store.lose_session()

    def step(self) -> None:
        if self.up:
            self.jobs.step()
            self.agent.step()

    def disks(self) -> list[str]:
        """Names of the files in its pool."""
        found = (path for folder in self.driver.folders.values() for path in folder.disks)
        return sorted(Path(path).name for path in found)


class _NoOpenVolumes:
    def resize(self, *_: Any) -> None:
        raise AssertionError("nothing is resized here")

    snapshot = delete_snapshot = resize  # type: ignore[assignment]


class _Far:
    """Other nodes' storage, asked at once."""

    def __init__(self, whole: Whole) -> None:
        self.whole = whole

    def _shelf(self, node: str) -> Shelf:
        shelf = self.whole.shelf(node.removeprefix("nodes/"))
        if not shelf.up:
            raise PvcError(reason_pb2.REASON_UNREACHABLE, f"{node} does not answer")
        return shelf

    def export(self, node: str, volume: str, snapshot_id: str, request_id: str) -> str:
        shelf = self._shelf(node)
        request = storage_api.ExportVolumeRequest(name=volume, snapshot_id=snapshot_id)
        asked = self.whole.ask(volumes.export_volume, request, node)
        try:
            shelf.jobs.step()
        except Cut:  # its death, not that of whoever asked
            self.whole.restart(f"storage {node}")
            shelf.jobs.step()
        return asked

    def read(self, name: str) -> Iterator[bytes]:
        return self._shelf(name[6:].partition(".")[0]).files.read(name, 0)

    def delete(self, name: str) -> None:
        self._shelf(name[6:].partition(".")[0]).files.delete(name)


class Whole:
    """What tests act on."""

    def __init__(self, folder: Path, power: int = ON, disks: int = 3) -> None:
        self.clock, self.cluster = ManualClock(), MemoryCluster()
        self.cut: Callable[[str, str], None] = lambda name, when: None
        self.wire = CopyingWire(self)
        self.store = MemoryStore(self.cluster)
        self.shelves = [Shelf(self, name, folder / name) for name in ("n1", "n2")]
        self.sides = [Side(self, name, folder / name / "c") for name in ("n1", "n2")]  # type: ignore[arg-type]
        for side in self.sides:
            side.start(self.new_store(f"compute {side.name}"))
        self.lead()
        self.written = itertools.count(1)
        self.last = ""
        self._furnish(power, disks)
        self.calm()

    def _furnish(self, power: int, disks: int) -> None:
        meta = meta_pb2.Meta(uid="uid-1", generation=1)
        one = pools.new_pool("pools/one", "/one", "nodes/n1", meta, MIB)
        meta.uid = "uid-2"
        two = pools.new_pool("pools/two", "/two", "nodes/n2", meta, MIB)
        self.store.commit([Put(one), Put(two)])
        self.calm()
        for volume_id in ("root", "web-seed", "disc")[:disks]:
            self._add_volume(volume_id)
        self.calm()
        for volume in (ROOT, SEED, DISC)[:disks]:
            self.disk(volume).content = volume.rpartition("/")[2]
        named = (("root", ROOT), ("seed", SEED), ("disc", DISC))[:disks]
        self._add_row("web", 1, named, power)

    def _add_volume(self, volume_id: str) -> None:
        request = storage_api.CreateVolumeRequest(parent="pools/one", volume_id=volume_id)
        request.volume.spec.size_bytes = 8 * MIB
        self.ask(volumes.create_volume, request)

    def _add_row(
        self, name: str, number: int, disks: Sequence[tuple[str, str]], power: int
    ) -> None:
        vm = vm_pb2.Vm(name=f"vms/{name}", meta=meta_pb2.Meta(uid=f"u{number}", generation=1))
        vm.spec.uuid = f"11111111-1111-4111-8111-{number:012d}"
        vm.spec.memory.memory_mib, vm.spec.cpu.vcpus = 128, 1
        for disk_id, volume in disks:
            vm.spec.disks.add(id=disk_id, volume=volume, read_only=disk_id != "root")
        vm.spec.power, vm.spec.power_request = power, 1  # type: ignore[assignment]
        self.store.commit([Put(vm)])

    def add_vm(self, name: str) -> None:
        """One more, that runs."""
        self._add_volume(name)
        self.calm()
        self._add_row(name, 2, [("root", f"pools/one/volumes/{name}")], ON)
        self.calm()

    def new_store(self, name: str) -> CutStore:
        return CutStore(
            self.cluster, name, lambda x: self.cut(x, "before"), lambda x: self.cut(x, "after")
        )

    def shelf(self, host: str) -> Shelf:
        return self.shelves[0] if host == "n1" else self.shelves[1]

    def lead(self) -> None:
        """A fresh coordinator, the one before dead."""
        if hasattr(self, "leader"):
            self.leader_store.lose_session()
        self.leader_store = self.new_store("coordinator")
        self.leader = Coordinator(self.leader_store, self.clock, "nodes/n3")

    @property
    def vm(self) -> vm_pb2.Vm:
        row = self.store.snapshot().find(vm_pb2.Vm, "vms/web")
        assert row is not None
        return row

    def row(self, kind: Any, name: str) -> Any:
        return self.store.snapshot().find(kind, name)

    def write(self, name: str, change: Callable[[Any], object]) -> None:
        """Somebody else writes a row."""
        there = self.store.snapshot().named(name)
        assert there is not None, name
        row: Any = rows.copied(there)
        change(row)
        self.store.commit([Put(row)])

    def ask(self, plan: Callable[..., Any], request: Message, node: str = "nodes/n1") -> str:
        """Accepts a request; gives the operation's name."""
        call = Call(self.clock.now(), "ann", node, self.clock.new_id)
        mutation = plan(self.store.snapshot(), request, call)
        self.store.commit(list(mutation.changes))
        return str(mutation.response.name)

    def migrate(self, method: str = "", copy: bool = True, node: str = "nodes/n2") -> str:
        request = api.MigrateVmRequest(name="vms/web", node=node, copy_volumes=copy)
        if method:
            request.method = vm_pb2.MigrationMethod.Value(f"MIGRATION_METHOD_{method}")
        return self.ask(placement_service.migrate, request)

    def unmigrate(self) -> str:
        request = api.UnmigrateVmRequest(name="vms/web", copy_volumes=True)
        return self.ask(placement_service.unmigrate, request)

    def snapshot(self, volume: str) -> None:
        request = storage_api.CreateSnapshotRequest(parent=volume, snapshot_id="before")
        self.ask(snapshots.create_snapshot, request)
        self.calm()

    def operation(self, name: str) -> Operation:
        found = self.row(Operation, name)
        assert isinstance(found, Operation)
        return found

    def cancel(self, name: str) -> None:
        self.write(name, lambda row: setattr(row, "cancel_requested", True))

    def power(self, power: int) -> None:
        def change(row: Any) -> None:
            row.spec.power, row.spec.power_request = power, row.spec.power_request + 1

        self.write("vms/web", change)

    def guest_writes(self) -> None:
        """Wherever it runs, to the file that it has open there."""
        running = [side for side in self.sides if side.runs()]
        assert len(running) <= 1, "it runs twice"
        for side in running:
            machine = side.hypervisor.known("web")
            assert machine is not None
            path = parse_domain(machine.live or machine.defined).disks["root"].path
            disk = self.shelf(side.name.removeprefix("nodes/")).driver.disk_at(path)
            assert disk is not None, f"{path} vanished under the guest on {side.name}"
            assert disk.content == (self.last or disk.content), "it lost what it had written"
            disk.content = self.last = f"write {next(self.written)}"

    def round(self) -> None:
        """Everybody does one thing, and time passes."""
        for part in (*self.sides, *self.shelves):
            part.step()
            self.guest_writes()
        self.leader.step()
        self.clock.seconds += STEP_S
        self.wire.advance()
        self.guest_writes()

    def until(self, condition: Callable[[], object], count: int = 400) -> None:
        for _ in range(count):
            if condition():
                return
            self.round()
        raise AssertionError(f"it never came: {self.vm}")

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.round()

    def calm(self, count: int = 2000, quiet_s: float = 70.0) -> None:
        """Until nothing has changed for longer than anything is waited for."""
        quiet = 0.0
        for _ in range(count):
            before = self.store.snapshot().revision
            self.round()
            quiet = quiet + STEP_S if before == self.store.snapshot().revision else 0.0
            if quiet >= (quiet_s if self._is_left() else 6.0):
                return
        raise AssertionError(f"no calm after {count} rounds: {self.vm}")

    def _is_left(self) -> bool:
        vm = self.store.snapshot().find(vm_pb2.Vm, "vms/web")
        return vm is not None and bool(vm.decision.left_volumes)

    def restart(self, name: str) -> None:
        """A fresh process in the place of the one that died."""
        kind, _, node = name.partition(" ")
        match kind:
            case "coordinator":
                self.lead()
            case "compute":
                side = next(side for side in self.sides if side.name == node)
                side.stop()
                side.start(self.new_store(name))
            case "storage":
                shelf = next(shelf for shelf in self.shelves if shelf.name == node)
                shelf.stop()
                shelf.start()

    def dies(self, number: int) -> None:
        """The node's power is cut, and its death is proven."""
        self.sides[number].stop()
        self.sides[number].hypervisor.lose_power()
        self.shelves[number].stop()
        node = self.sides[number].name
        fencing = cluster_pb2.NODE_STATE_FENCING
        self.until(lambda: self.row(cluster_pb2.Node, node).decision.state == fencing)

        def prove(row: Any) -> None:
            row.decision.proof.means = cluster_pb2.PROOF_MEANS_ADMIN
            row.decision.proof.session = row.decision.lost_session

        self.write(node, prove)

    def returns(self, number: int) -> None:
        """The node is back."""
        self.shelves[number].start()
        self.sides[number].start(self.new_store(f"compute {self.sides[number].name}"))

    # --- What is so.

    def disk(self, volume: str) -> FakeDisk:
        """A volume's disk."""
        row = self.row(storage_pb2.Volume, volume)
        assert row is not None, f"{volume} is no more"
        shelf = self.shelves[0] if volume.startswith("pools/one/") else self.shelves[1]
        disk = shelf.driver.disk_at(row.status.path)
        assert disk is not None, f"{volume} has no file"
        return disk

    def disks_of_vm(self) -> dict[str, str]:
        return {disk.id: disk.volume for disk in self.vm.spec.disks}

    def is_at(self, name: str, discs: bool = True) -> None:
        """It runs there, once, on its own volumes, with all that was ever written."""
        assert [side.name for side in self.sides if side.runs()] == [f"nodes/{name}"]
        self.is_of(name, discs)

    def is_of(self, name: str, discs: bool = True) -> None:
        """It belongs there, with all its data, and nothing is left over."""
        vm, pool = self.vm, "pools/one" if name == "n1" else "pools/two"
        assert vm.decision.node == f"nodes/{name}" and not vm.decision.HasField("migration"), vm
        assert not vm.decision.left_volumes, vm.decision.left_volumes
        named = self.disks_of_vm()
        assert all(volume.startswith(pool) for volume in named.values()), named
        contents = {disk_id: self.disk(volume).content for disk_id, volume in named.items()}
        wanted = {"root": self.last or "root", "seed": "web-seed", "disc": "disc"}
        assert contents == {disk_id: wanted[disk_id] for disk_id in named}
        stays = ["disc.qcow2"] if "disc" in named or not discs else []
        other = self.shelves[1 if name == "n1" else 0]
        assert other.disks() == ([] if name == "n1" else stays), other.disks()
        rows_left = {row.name for row in self.store.snapshot().rows(storage_pb2.Volume)}
        assert rows_left == {*named.values(), *([DISC] if stays else [])}

    def events(self) -> list[str]:
        return [row.message for row in self.store.snapshot().rows(event_pb2.Event)]


def unfinished(whole: Whole) -> Mapping[str, str]:
    """Operations that have not ended."""
    every = whole.store.snapshot().rows(Operation)
    return {row.name: row.method for row in every if row.state not in rows.FINAL}


__all__ = ["GIB", "Cut", "Whole", "unfinished"]
