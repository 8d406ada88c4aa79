"""A stream that one certain node answers ends when what it is about goes to another one, and says
where it is answered now; whoever tries again gets there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from pvc_client.errors import NotFound, Unreachable
from services.gateway.methods import METHODS
from services.state.store import ANY_VERSION, Delete, Put
from tests.doors.world import World, world_in

PLACES = {
    "VmService/AttachConsole": "here, and in tests/contract/test_three.py",
    "VmService/ReadConsoleLog": "tests/routing/test_dead_nodes.py",
    "StorageService/ImportVolume": "tests/contract/test_three.py",
    "StorageService/DownloadFile": "tests/contract/test_three.py",
    "StorageService/DeleteFile": "tests/contract/test_three.py",
    "ProvisionerService/ImportImage": "tests/contract/test_three.py",
}
"""Methods that one certain node answers, and where they are asked at another one's door."""


def test_every_method_that_one_node_answers_is_asked_elsewhere() -> None:
    assert {m.short for m in METHODS.values() if m.routed_by and not m.internal} == set(PLACES)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("services.gateway.lasting.RECHECK_S", 0.2)
    with world_in(tmp_path) as world:
        nodes = [cluster_pb2.Node(name=f"nodes/{name}") for name in ("n2", "n3")]
        world.store.commit([Put(node) for node in nodes])
        yield world


def put_on(world: World, node: str) -> None:
    row = vm_pb2.Vm(name="vms/web", meta={"etag": ANY_VERSION}, decision={"node": node})
    world.store.commit([Put(row)])


def change_others(world: World, ended: threading.Event) -> None:
    """As it is in a cluster: something changes all the time."""
    while not ended.wait(0.03):
        world.store.commit([Put(vm_pb2.Vm(name="vms/other", meta={"etag": ANY_VERSION}))])


def test_a_console_whose_vm_moves_ends_and_says_where_it_is(world: World) -> None:
    put_on(world, "nodes/n2")
    with Cluster(world.grpc_address, token=world.secrets["eve"]) as cluster:
        with cluster.vms.console("web") as console:
            assert console.read()
            put_on(world, "nodes/n3")
            ended = threading.Event()
            others = threading.Thread(target=change_others, args=(world, ended))
            others.start()
            try:  # others who change do not put it off for ever
                with pytest.raises(Unreachable, match=r"nodes/n2 to nodes/n3.*try again"):
                    while console.read():
                        continue
            finally:
                ended.set()
                others.join()
        assert world.peers.asked[-1] == ("compute", "nodes/n2")
        with cluster.vms.console("web") as again:
            assert again.read()
        assert world.peers.asked[-1] == ("compute", "nodes/n3")


def test_one_whose_vm_is_deleted_ends_too(world: World) -> None:
    put_on(world, "nodes/n2")
    with (
        Cluster(world.grpc_address, token=world.secrets["eve"]) as cluster,
        cluster.vms.console("web") as console,
    ):
        assert console.read()
        world.store.commit([Delete("vms/web", ANY_VERSION)])
        with pytest.raises(NotFound):
            while console.read():
                continue
