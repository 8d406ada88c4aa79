"""A node's storage in one process: memory store, fake driver, and every door to it, without a clock
that runs by itself.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import event_pb2, meta_pb2, operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh import rows
from services.mesh.clock import sortable_id
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError
from services.mesh.jobs import Jobs
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Change, Lease, Put
from services.storage.agent import Agent
from services.storage.core import pools, snapshots, volumes
from services.storage.core.accept import SERVICE
from services.storage.drivers.driver import Driver
from services.storage.drivers.fake import Died, FakeDriver, FakeFolder
from services.storage.far_files import NoFarFiles
from services.storage.files import Files
from services.storage.main import job_methods
from services.storage.workshop import FarFiles, Workshop

MIB, GIB = 1 << 20, 1 << 30
NODE = "nodes/n1"
POOL = "pools/local"
READY = storage_pb2.VolumeStatus.STATE_READY
FAILED = storage_pb2.VolumeStatus.STATE_FAILED
Operation = operation_pb2.Operation


class StillClock:
    """Goes on by a second whenever it is asked for the time of this machine."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.seconds = 1_700_000_000

    def now(self) -> Timestamp:
        return Timestamp(seconds=self.seconds)

    def monotonic(self) -> float:
        self.seconds += 1
        return float(self.seconds)

    def new_id(self) -> str:
        return sortable_id(self.seconds * 1000, next(self._ids))


class FakeOpenVolumes:
    """The compute service of a node with running VMs: changes what the driver must not touch."""

    def __init__(self, driver: FakeDriver) -> None:
        self._driver = driver
        self.folder = "/pool"
        self.calls: list[str] = []

    def _disk(self, volume: str) -> Any:
        disk = self._driver.disk_at(f"{self.folder}/volumes/{volume.rpartition('/')[2]}.qcow2")
        assert disk is not None
        return disk

    def resize(self, node: str, volume: str, size_bytes: int) -> None:
        self.calls.append(f"resize {node} {volume}")
        self._disk(volume).size_bytes = size_bytes

    def snapshot(self, node: str, volume: str, snapshot_id: str, quiesce: bool) -> bool:
        self.calls.append(f"snapshot {node} {volume} {snapshot_id}")
        disk = self._disk(volume)
        assert snapshot_id not in disk.snapshots, "an emulator would take a second one"
        disk.snapshots[snapshot_id] = (disk.size_bytes, disk.content)
        return quiesce

    def delete_snapshot(self, node: str, volume: str, snapshot_id: str) -> None:
        self.calls.append(f"delete {node} {volume} {snapshot_id}")
        self._disk(volume).snapshots.pop(snapshot_id, None)


class CutStore(MemoryStore):
    """A store whose process may end at any commit, and that may be away for one."""

    def __init__(self, cluster: MemoryCluster, before_commit: Callable[[], None]) -> None:
        super().__init__(cluster)
        self._before_commit = before_commit
        self.away_in = 0
        """How many commits from now it is away; 0 for never."""

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        self._before_commit()
        if self.away_in > 0:
            self.away_in -= 1
            if self.away_in == 0:
                raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "the disk is full")
        return super().commit(changes, held_by)


class Inline:
    """Does at once what a pool of threads would do soon; what ends the process ends the caller."""

    def submit(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        pass


class World:
    """Everything that outlives a process: the state, the disks, the kept files; and the process
    that is there now.
    """

    def __init__(
        self, folder: Path, driver: Driver | None = None, pool_path: str = "/pool"
    ) -> None:
        self.clock = StillClock()
        self.cluster = MemoryCluster()
        self.fake = FakeDriver()
        self.driver: Driver = driver or self.fake
        self.open_volumes = FakeOpenVolumes(self.fake)
        self.folder = folder
        self.countdown = -1
        self.steps = 0
        self.fake.before_call = lambda verb: self.tick()
        self.start()
        meta = meta_pb2.Meta(uid="uid-1", generation=1)
        self.store.commit([Put(pools.new_pool(POOL, pool_path, NODE, meta, MIB))])
        self.agent.step()

    node = NODE

    def beside(self, folder: Path, node: str) -> World:
        """Another node of the cluster, whose folders are those of this one until they are parted;
        pools of one node are not there."""
        other = World.__new__(World)
        other.node, other.clock, other.cluster = node, self.clock, self.cluster
        other.fake = FakeDriver(folders=self.fake.folders)
        other.driver, other.open_volumes = other.fake, FakeOpenVolumes(other.fake)
        other.folder, other.countdown, other.steps = folder, -1, 0
        other.start()
        return other

    def start(self) -> None:
        """A process begins."""
        self.store = CutStore(self.cluster, self.tick)
        self.files = Files(self.folder / "files", self.node, self.clock, reserve_bytes=0)
        self.work()

    def work(self, far: FarFiles | None = None) -> None:
        """The process's jobs and agent, with a way to other nodes' files or without."""
        store, clock, driver, node = self.store, self.clock, self.driver, self.node
        far = far or NoFarFiles()
        shop = Workshop(store, clock, driver, self.open_volumes, self.files, node, far)
        self.jobs = Jobs(store, clock, SERVICE, node, job_methods(shop))
        self.jobs._pool = Inline()  # type: ignore[assignment]
        self.agent = Agent(store, clock, driver, node)

    def look(self) -> None:
        """The agent looks at every pool."""
        self.agent._looked.clear()
        self.agent.step()

    def apart(self, path: str) -> FakeFolder:
        """From now on this node has a folder of its own there."""
        self.shared = self.fake.folders
        self.fake.folders = {**self.shared, path: FakeFolder()}
        return self.fake.folders[path]

    def together(self, path: str) -> None:
        """It has the folder again that the others have."""
        self.fake.folders[path] = self.shared[path]

    def far(self, files: Files) -> None:
        """Gives the jobs a way to another node's files."""

        class Far(NoFarFiles):
            def read(self, name: str) -> Iterator[bytes]:
                return files.read(name, 0)

        self.work(Far())

    def dies(self, work: Callable[[], object]) -> None:
        """The node's process ends in the middle of this."""
        with contextlib.suppress(Died):
            work()
        self.die()

    def give(self, operation: str, node: str) -> None:
        """The coordinator gives an operation to another node."""
        row = rows.copied(self.operation(operation))
        row.node = node
        self.store.commit([Put(row)])

    def events(self, part: str) -> list[event_pb2.Event]:
        """Those whose message has this part."""
        found = self.store.snapshot().rows(event_pb2.Event)
        return [event for event in found if part in event.message]

    def tick(self) -> None:
        """One call of a driver or a store; the process dies when its time has come."""
        self.steps += 1
        self.countdown -= 1
        if self.countdown == 0:
            raise Died

    def die(self) -> None:
        """The process ends: its session goes, its memory too."""
        self.countdown = -1
        self.store.lose_session()
        self.start()

    def call(self) -> Call:
        return Call(self.clock.now(), "test", self.node, self.clock.new_id)

    def plan(self, plan: Callable[[Any, Any, Call], Mutation], request: Any) -> str:
        """Accepts a request; returns the operation's name."""
        mutation = plan(self.store.snapshot(), request, self.call())
        self.store.commit(list(mutation.changes))
        assert isinstance(mutation.response, Operation)
        return mutation.response.name

    def do(self, plan: Callable[[Any, Any, Call], Mutation], request: Any) -> Operation:
        """Accepts a request and does its work."""
        name = self.plan(plan, request)
        self.jobs.step()
        return self.operation(name)

    def operation(self, name: str) -> Operation:
        found = self.store.snapshot().find(Operation, name)
        assert found is not None
        return found

    def cancel(self, name: str) -> None:
        row = rows.copied(self.operation(name))
        row.cancel_requested = True
        self.store.commit([Put(row)])

    def volume(self, volume_id: str) -> storage_pb2.Volume | None:
        return self.store.snapshot().find(storage_pb2.Volume, f"{POOL}/volumes/{volume_id}")

    def pool(self) -> storage_pb2.Pool:
        found = self.store.snapshot().find(storage_pb2.Pool, POOL)
        assert found is not None
        return found

    def create(self, volume_id: str, size: int = 8 * MIB, **spec: Any) -> Operation:
        return self.do(volumes.create_volume, create(volume_id, size, **spec))

    def snapshot(self, volume_id: str, snapshot_id: str, **fields: Any) -> Operation:
        request = api.CreateSnapshotRequest(
            parent=f"{POOL}/volumes/{volume_id}", snapshot_id=snapshot_id, **fields
        )
        return self.do(snapshots.create_snapshot, request)

    def vm(self, vm_id: str, volume_id: str, state: Any) -> None:
        """A VM with one disk."""
        vm = vm_pb2.Vm(name=f"vms/{vm_id}")
        vm.spec.disks.add(id="root", volume=f"{POOL}/volumes/{volume_id}")
        vm.status.state, vm.status.node = state, NODE
        there = self.store.snapshot().find(vm_pb2.Vm, vm.name)
        vm.meta.etag = there.meta.etag if there is not None else ""
        self.store.commit([Put(vm)])
        path = f"/pool/volumes/{volume_id}.qcow2"
        if state == vm_pb2.VM_STATE_RUNNING:
            self.fake.open_paths.add(path)
        else:
            self.fake.open_paths.discard(path)

    def vm_etag(self, vm_id: str) -> str:
        found = self.store.snapshot().find(vm_pb2.Vm, f"vms/{vm_id}")
        return found.meta.etag if found is not None else ""

    def disks(self) -> list[str]:
        """Names of the files that lie in the pool."""
        return [Path(path).name for path in sorted(self.fake.folders["/pool"].disks)]


def create(volume_id: str, size: int = 8 * MIB, **spec: Any) -> api.CreateVolumeRequest:
    volume = storage_pb2.Volume(spec=storage_pb2.VolumeSpec(size_bytes=size, **spec))
    return api.CreateVolumeRequest(parent=POOL, volume_id=volume_id, volume=volume)


def name(volume_id: str) -> str:
    return f"{POOL}/volumes/{volume_id}"
