"""A whole PVC in this process: all six services as they are, their agents, jobs and doors, on real
sockets, with fakes in the place of drivers alone. The fakes are at hand, to misbehave as told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from pvc.compute.v1.vm_pb2 import Vm
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2, options_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.gateway.v1 import token_pb2
from pvc_client import Cluster
from services.compute.drivers.fake import FakeHypervisor
from services.compute.main import assemble as compute
from services.compute.settings import ComputeSettings
from services.compute.volumes import StorageVolumes
from services.coordinator.drivers.fake import FakePower
from services.coordinator.main import build as coordinator
from services.coordinator.settings import Membership
from services.gateway.access import make_secret, secret_hash
from services.gateway.doors import Doors, Settings
from services.gateway.limits import Bounds
from services.gateway.main import build as gateway
from services.mesh import identity
from services.mesh.channel import Peers, peers_of
from services.mesh.clock import SystemClock
from services.mesh.config import parse
from services.mesh.desk import Call
from services.mesh.enrolment import make_cluster_key
from services.mesh.parts import Parts
from services.mesh.process import Ground, _run
from services.mesh.rows import FINAL, THIS_CLUSTER, copied, new_meta
from services.network.drivers.fake import FakeFabric
from services.network.main import assemble as network
from services.network.service import default_network
from services.network.settings import NetworkSettings
from services.provisioner.main import assemble as provisioner
from services.provisioner.neighbours import GrpcNeighbours
from services.provisioner.settings import ProvisionerSettings
from services.pvcd.__main__ import SERVICES
from services.pvcd.init import first_node
from services.state.memory import MemoryStore
from services.state.schema import TYPES
from services.state.store import Put, Store
from services.storage.drivers.driver import Disk, Format, Progress
from services.storage.drivers.fake import FakeDriver
from services.storage.far_files import PeerFiles
from services.storage.main import StorageSettings, default_pool
from services.storage.main import assemble as storage
from services.storage.open_volumes import ComputeVolumes
from tests.provisioner.worlds import FakeBuilder, SeeingDriver, qcow2

CLUSTER = "test"
STARTING_S = 60.0
MEMORY_MIB = 1 << 20
"""What fake VMs may have beyond this machine's own memory, so that as many fit anywhere."""
MIB = 1 << 20
QUIET_S = 0.03
REDFISH = cluster_pb2.PowerControl.PROTOCOL_REDFISH
ROLES = {"ann": options_pb2.ROLE_VIEWER, "bob": options_pb2.ROLE_OPERATOR, "eve": 3}
"""Token → what it may do."""
ROUND_THE_CLOCK = ("nodes", "auditEntries", "tokenUses")
"""Collections that are written without anybody asking for it, events of which are too."""


class Locked:
    """A fake that knows one thread, for many."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.held = threading.RLock()
        """Who has it sees things happen at one moment: nobody else asks the fake meanwhile."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, verb: Any, *arguments: Any, **named: Any) -> Any:
        with self.held:
            return verb(*arguments, **named)


class Machines(FakeHypervisor):
    """The hypervisor fake, whose guests write to the disks of the storage fake."""

    def __init__(self, disks: FakeDriver) -> None:
        super().__init__(time.monotonic)
        self._disks = disks

    def snapshot(self, vm: str, paths: Sequence[str], snapshot_id: str, quiesce: bool) -> bool:
        quiesced = super().snapshot(vm, paths, snapshot_id, quiesce)
        for disk in map(self._disks.disk_at, paths):
            assert disk is not None
            disk.snapshots[snapshot_id] = (disk.size_bytes, disk.content)
        return quiesced

    def delete_snapshot(self, vm: str, path: str, snapshot_id: str) -> None:
        super().delete_snapshot(vm, path, snapshot_id)
        disk = self._disks.disk_at(path)
        assert disk is not None
        disk.snapshots.pop(snapshot_id, None)

    def resize(self, vm: str, path: str, size_bytes: int) -> None:
        super().resize(vm, path, size_bytes)
        disk = self._disks.disk_at(path)
        assert disk is not None
        disk.size_bytes = size_bytes


class Disks(SeeingDriver):
    """The storage fake, whose exports are files that can be downloaded."""

    def export(
        self, source: Disk, snapshot: str, path: str, format: Format, compress: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        super().export(source, snapshot, path, format, compress, progress)
        Path(path).write_bytes(qcow2())


def is_yet_to_be_seen(vm: Vm) -> bool:
    """Nobody has decided where it lives, or the agent there has said nothing of it. The other nodes
    of a stage have no agents; and a VM that no node has room for is told why, and waits."""
    if not vm.decision.node:
        return not vm.decision.why
    return vm.decision.node == "nodes/n1" and not vm.status.state


class Whole:
    """One PVC. Everything asynchronous runs in an event loop of a thread of its own.

    hypervisor, disks, fabric, builder and power are the fakes and tell how they can misbehave.
    """

    def __init__(self, folder: Path, store: Store | None = None, node: str = "n1") -> None:
        self.folder, self.clock, self.node = folder, SystemClock(), f"nodes/{node}"
        self.store: Store = store or MemoryStore()
        self.disks, self.fabric = Disks(), FakeFabric()
        self.hypervisor: Any = Locked(Machines(self.disks))
        self.builder, self.power = FakeBuilder(lambda: None), FakePower()
        self.secrets = self.tokens()
        places = f'state_dir = "{folder}/state"\nrun_dir = "{folder}/run"'
        self.config = parse(f'[node]\nname = "{node}"\n{places}\n', "pvc")
        self.peers: Peers
        self.doors: Doors

    def tokens(self) -> dict[str, str]:
        """The secrets of the tokens that there are from the beginning."""
        return {name: self.add_token(name, role) for name, role in ROLES.items()}

    def add_token(self, name: str, role: Any, **fields: Any) -> str:
        """A token of that name, written past the API; gives its secret."""
        secret = make_secret(name, self.clock.new_id())
        meta = meta_pb2.Meta(uid=self.clock.new_id(), create_time=self.clock.now())
        row = token_pb2.Token(name=f"tokens/{name}", meta=meta, role=role, **fields)
        row.secret_hash = secret_hash(secret)
        self.store.commit([Put(row)])
        return secret

    def client(self, name: str = "eve", timeout_s: float = 60) -> Cluster:
        """A client at the gRPC door, with the token of that name."""
        address = f"127.0.0.1:{self.doors.grpc_port}"
        return Cluster(address, token=self.secrets[name], timeout_s=timeout_s)

    @property
    def rest_url(self) -> str:
        """Where the REST door is."""
        return f"http://127.0.0.1:{self.doors.rest_port}"

    def rows(self) -> dict[str, bytes]:
        """The state, but for what is written without anybody asking."""
        snapshot = self.store.snapshot()
        return {
            name: asked(row).SerializeToString(deterministic=True)
            for name, row in everything(snapshot)
            if name.partition("/")[0] not in ROUND_THE_CLOCK
            and getattr(row, "subject", "").partition("/")[0] not in ROUND_THE_CLOCK
        }

    def ended(self, name: str, timeout_s: float = 60.0) -> Operation:
        """The operation of that name, once it has ended."""
        changed = threading.Event()
        forget = self.store.on_change(changed.set)
        try:
            while True:
                changed.clear()
                row = self.store.snapshot().find(Operation, name)
                assert row is not None, f"{name} is gone"
                if row.state in FINAL:
                    return row
                assert changed.wait(timeout_s), row
        finally:
            forget()

    def calm(self, timeout_s: float = 60.0) -> dict[str, bytes]:
        """Waits until no operation goes on, every VM was decided on and seen, and nobody writes;
        gives the state as it is then."""
        end, before, since = time.monotonic() + timeout_s, -1, 0.0
        while time.monotonic() < end:
            snapshot = self.store.snapshot()
            going = [row.name for row in snapshot.rows(Operation) if row.state not in FINAL]
            going += [row.name for row in snapshot.rows(Vm) if is_yet_to_be_seen(row)]
            if going or snapshot.revision != before:
                before, since = snapshot.revision, time.monotonic()
            elif time.monotonic() - since > QUIET_S:
                return self.rows()
            time.sleep(0.005)
        raise AssertionError(f"it never comes to rest; {going} go on")

    def parts(self) -> dict[str, Parts]:
        """The services, put together as `pvcd` does."""
        store, clock, state = self.store, self.clock, self.folder / "state"
        peers = self.peers

        def storage_of(node: str) -> grpc.Channel:
            return peers.blocking("storage", node)

        volumes = StorageVolumes(store, clock, storage_of)
        addresses = self.config.public_addresses() or self.config.addresses()
        addresses = addresses | {"door": "127.0.0.1:7371"}
        doors = self.door_settings
        far = PeerFiles(peers)
        machine = ComputeSettings(
            self.node, state / "compute", "2.0", addresses, memory_reserve_mib=-MEMORY_MIB,
            parallel=0,
        )  # fmt: skip
        images, neighbours = ProvisionerSettings(state / "images"), GrpcNeighbours(peers, store)
        built = {
            "network": network(store, clock, self.node, self.network_settings, self.fabric),
            "storage": storage(
                self.storage_settings, store, clock, ComputeVolumes(peers), self.disks, far
            ),
            "compute": compute(machine, store, clock, volumes, self.hypervisor, self.hypervisor),
            "provisioner": provisioner(store, clock, self.node, images, neighbours, self.builder),
            "coordinator": coordinator(
                store, clock, self.node, CLUSTER, self.membership, {REDFISH: self.power}
            ),
            "gateway": gateway(
                doors,
                store,
                clock,
                peers,
                node=self.node,
                cluster_name=CLUSTER,
                version="2.0",
                journal=state / "gateway" / "audit.journal",
            ),
        }
        (door,) = built["gateway"].doors
        assert isinstance(door, Doors)
        self.doors = door
        return built

    @property
    def door_settings(self) -> Settings:
        """Where the doors are, and what they let in."""
        socket = str(self.folder / "run" / "pvc.sock")
        bounds = Bounds(tries_per_s=10_000.0, requests_per_s=0)
        return Settings("127.0.0.1:0", "127.0.0.1:0", socket, bounds=bounds)

    @property
    def membership(self) -> Membership:
        """What machines that join are told."""
        return Membership(CLUSTER, self.config.tls_dir, ("127.0.0.1:2181",))

    @property
    def network_settings(self) -> NetworkSettings:
        """What the network service is told."""
        return NetworkSettings(address=self.config.mesh.listen)

    @property
    def storage_settings(self) -> StorageSettings:
        """What the storage service is told."""
        return StorageSettings(self.node, self.folder / "state", "/pool", MIB, 0)

    def first_rows(self) -> None:
        """As `pvc cluster init` has it."""
        now = self.clock.now()
        identity.create_cluster(self.config.tls_dir, CLUSTER, "n1", ["127.0.0.1"], now)
        make_cluster_key(self.config.tls_dir)
        call = Call(now, "cluster init", self.node, self.clock.new_id)
        pool = default_pool(self.storage_settings, self.clock)
        this = cluster_pb2.ClusterIdentity(name=THIS_CLUSTER, meta=new_meta(call))
        network = default_network(call, "10.64.0.0/24")
        self.store.commit([Put(row) for row in (pool, network, first_node(call, ""), this)])

    def is_up(self) -> bool:
        """Whether the node is online, and its pool and network are ready."""
        snapshot = self.store.snapshot()
        nodes = [row.decision.state for row in snapshot.rows(cluster_pb2.Node)]
        ready: Any = [snapshot.named("pools/local"), snapshot.named("networks/default")]
        return nodes == [cluster_pb2.NODE_STATE_ONLINE] and all(row.status.state for row in ready)

    async def serve(self, ended: asyncio.Event, ready: Callable[[], None]) -> None:
        """Runs it all, in the order of `pvcd`, until told to end."""
        self.peers = peers_of(self.config, self.store, self.clock.now())
        ground = Ground(self.config, self.store, self.clock, self.peers)
        parts = list((await asyncio.to_thread(self.parts)).values())
        try:
            await _run(SERVICES, ground, parts, ended, ready)
        finally:
            for close in (one for part in parts for one in part.close):
                await asyncio.to_thread(close)
            await self.peers.close()


def asked(row: Any) -> Any:
    """A row without what its agent tells of it when it comes to it: how full a pool is, which
    generation of a VM it has seen."""
    if not row.name.startswith(("pools/", "vms/")) or row.name.count("/") > 1:
        return row
    other = copied(row)
    other.ClearField("status")
    other.meta.etag = ""
    return other


def everything(snapshot: Any) -> Iterator[tuple[str, Any]]:
    """Every row of the state, by name."""
    for kind in TYPES.values():
        for row in snapshot.rows(kind):
            yield row.name, row


class Thread:
    """A PVC that runs in a thread of its own, from `start` to `stop`."""

    def __init__(self, whole: Whole) -> None:
        self._whole, self._loop = whole, asyncio.new_event_loop()
        self._ended, self._up = asyncio.Event(), threading.Event()
        self.failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Returns when its doors are open."""
        self._thread.start()
        assert self._up.wait(STARTING_S) and not self.failed, self.failed

    def stop(self) -> None:
        """Returns when it has ended. May be called again."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "it does not end"
        self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._whole.serve(self._ended, self._up.set))
        except BaseException as error:  # noqa: BLE001 - raised where the test is
            self.failed.append(error)
        finally:
            self._up.set()


@contextmanager
def running(folder: Path, store: Store | None = None) -> Iterator[Whole]:
    """A PVC that is up."""
    whole = Whole(folder, store)
    whole.first_rows()
    thread = Thread(whole)
    thread.start()
    try:
        end = time.monotonic() + STARTING_S
        while not whole.is_up():
            assert time.monotonic() < end, "never up"
            time.sleep(0.005)
        yield whole
    finally:
        thread.stop()
    assert not thread.failed, thread.failed
