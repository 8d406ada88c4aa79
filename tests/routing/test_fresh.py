"""A command after another sees what that one saw, though each is a program of its own and another
process, whose mirror is behind, answers it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from services.coordinator.main import build as coordinator
from services.gateway.limits import Bounds
from services.mesh.desk import Desk
from services.mesh.server import Server
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import ANY_VERSION, Put
from tests.doors.servicers import Vms
from tests.doors.world import World
from tests.mesh.stores import LateStore
from tests.mesh.vms import vm

LATE_S = 0.3


class TwoProcesses(World):
    """A coordinator that hears at once, and a gateway and a compute service that hear late."""

    def __init__(self, folder: Path) -> None:
        self.cluster = MemoryCluster()
        self.at_once = MemoryStore(self.cluster)
        self.late = LateStore(self.cluster, LATE_S)
        super().__init__(folder, 0.0, Bounds(0, 0), self.at_once, self.late)
        self.run(self._second())
        self.late.wait(self.at_once.snapshot().revision, 60)

    async def _second(self) -> None:
        desk = Desk(self.late, self.clock, "nodes/n1")
        self.second = Server(
            [
                *coordinator(self.at_once, self.clock, "nodes/n1", "test").servicers,
                (vm_grpc.add_VmServiceServicer_to_server, Vms(desk, 0.0)),
            ],
            self.clock,
        )
        self.peers.address = f"unix:{self.socket.parent}/second.sock"
        self.second.listen_unix(self.socket.parent / "second.sock")
        await self.second.start()

    def close(self) -> None:
        self.run(self.second.drain(0))
        super().close()

    def command(self) -> Cluster:
        """A program of its own."""
        return Cluster(self.grpc_address, token=self.secrets["eve"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwoProcesses]:
    world = TwoProcesses(tmp_path)
    yield world
    world.close()


def make(world: TwoProcesses, name: str) -> None:
    """A VM, and a node, in one commit."""
    rows = vm(name), cluster_pb2.Node(name=f"nodes/{name}")
    for row in rows:
        row.meta.etag = ANY_VERSION
    world.at_once.commit([Put(row) for row in rows])


def names(world: TwoProcesses) -> list[str]:
    with world.command() as cluster:
        return [one.name for one in cluster.vms.list()]


def test_what_one_command_was_told_the_next_one_sees(world: TwoProcesses) -> None:
    make(world, "a")
    with world.command() as cluster:
        assert [one.name for one in cluster.nodes.list()] == ["nodes/a"]
    assert names(world) == ["vms/a"]


def test_so_does_one_after_a_watch_that_was_left(world: TwoProcesses) -> None:
    with world.command() as cluster:
        changes = cluster.nodes.watch()
        next(changes)
        make(world, "b")
        while (change := next(changes)).resource is None:
            continue
        assert change.resource.name == "nodes/b"
    assert names(world) == ["vms/b"]


def test_a_process_that_hears_of_nothing_still_answers(world: TwoProcesses) -> None:
    """Reads go on when the state is away, from what is known."""
    world.late._delay_s = 3600
    make(world, "c")
    with world.command() as cluster:
        assert len(list(cluster.nodes.list())) == 1
    began = time.monotonic()
    assert names(world) == []
    assert time.monotonic() - began > 0.9
