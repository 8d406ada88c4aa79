"""The provisioner over real sockets: its service, its jobs and the way to the other services, each
behind a server of its own, with the storage service whole and compute's door alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1.vm_service_pb2_grpc import VmServiceServicer, add_VmServiceServicer_to_server
from pvc.coordinator.v1.coordinator_service_pb2_grpc import (
    add_OperationServiceServicer_to_server,
)
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import provisioner_service_pb2 as api
from pvc.provisioner.v1 import provisioner_service_pb2_grpc as api_grpc
from pvc.provisioner.v1.image_pb2 import Image, ImageStatus
from pvc.storage.v1 import storage_pb2
from services.compute.core import edits
from services.coordinator.operation_service import OperationService
from services.mesh import rows
from services.mesh.channel import Peers
from services.mesh.clock import SystemClock
from services.mesh.desk import Desk
from services.mesh.errors import PvcError
from services.mesh.parts import Parts
from services.mesh.rows import FINAL
from services.mesh.server import Server
from services.provisioner.jobs.images import Builder
from services.provisioner.main import assemble
from services.provisioner.neighbours import GrpcNeighbours
from services.provisioner.settings import ProvisionerSettings
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Delete, Put
from services.storage.drivers.driver import Driver
from services.storage.main import StorageSettings, default_pool
from services.storage.main import assemble as storage
from tests.provisioner.worlds import FakeBuilder, SeeingDriver, build, provision

Operation = operation_pb2.Operation
NODE = "nodes/n1"
SUCCEEDED = Operation.STATE_SUCCEEDED


class Compute(VmServiceServicer):
    """Accepts as the compute service does; what is to run runs at once."""

    def __init__(self, store: MemoryStore, clock: SystemClock) -> None:
        self._desk = Desk(store, clock, NODE)
        self._store, self._clock = store, clock

    async def CreateVm(self, request: Any, context: Any) -> Operation:
        operation = await self._desk.mutate(request, Operation, edits.create, context)
        if not request.validate_only and operation.state not in FINAL:
            vm = rows.copied(self._store.snapshot().find(vm_pb2.Vm, operation.target))
            vm.status.state = vm_pb2.VM_STATE_RUNNING
            self._end(operation.name, Put(vm))
        return operation

    async def DeleteVm(self, request: Any, context: Any) -> Operation:
        operation = await self._desk.mutate(request, Operation, edits.delete, context)
        self._end(operation.name, Delete(request.name, "*"))
        return operation

    def _end(self, name: str, change: Put | Delete) -> None:
        there = self._store.snapshot().find(Operation, name)
        assert there is not None
        ended = rows.enter_operation(there, SUCCEEDED, self._clock.now())
        self._store.commit([Put(ended), change])


class Node:
    """The services of a node, each with its own store of one cluster and its own socket."""

    def __init__(self, folder: Path, builder: Builder, driver: Driver) -> None:
        self.folder, self.clock, self.cluster = folder, SystemClock(), MemoryCluster()
        self.store = MemoryStore(self.cluster)
        self.addresses = {
            name: f"unix:{folder}/{name}.sock"
            for name in ("provisioner", "storage", "compute", "coordinator")
        }
        self.peers = Peers(NODE, self.addresses, self.store)
        self.driver, self.builder = driver, builder

    def parts(self) -> dict[str, Parts]:
        settings = StorageSettings(NODE, self.folder, str(self.folder / "pool"), 1 << 20, 0)
        pool, network = default_pool(settings, self.clock), network_pb2.Network()
        network.name = "networks/default"
        self.store.commit([Put(pool), Put(network)])
        compute = Compute(MemoryStore(self.cluster), self.clock)
        operations = OperationService(Desk(self.store, self.clock, NODE))
        own = MemoryStore(self.cluster)
        neighbours = GrpcNeighbours(Peers(NODE, self.addresses, own), own)
        return {
            "storage": storage(
                settings, MemoryStore(self.cluster), self.clock, None, self.driver  # type: ignore[arg-type]
            ),
            "compute": Parts(((add_VmServiceServicer_to_server, compute),)),
            "coordinator": Parts(((add_OperationServiceServicer_to_server, operations),)),
            "provisioner": assemble(
                own, self.clock, NODE, ProvisionerSettings(self.folder / "images"), neighbours,
                self.builder,
            ),
        }  # fmt: skip

    @contextmanager
    def running(self) -> Iterator[Node]:
        with ExitStack() as ending:
            event_loop = asyncio.new_event_loop()
            thread = threading.Thread(target=event_loop.run_forever, daemon=True)
            thread.start()
            ending.callback(thread.join, 10)
            ending.callback(event_loop.call_soon_threadsafe, event_loop.stop)
            for name, parts in self.parts().items():
                self._serve(event_loop, name, parts, ending)
            yield self

    def _serve(self, event_loop: Any, name: str, parts: Parts, ending: ExitStack) -> None:
        async def begin() -> Server:
            server = Server(parts.servicers, self.clock)
            server.listen_unix(self.folder / f"{name}.sock")
            await server.start()
            return server

        def wait(coroutine: Any) -> Any:
            future: Future[Any] = asyncio.run_coroutine_threadsafe(coroutine, event_loop)
            return future.result(30)

        server = wait(begin())
        ending.callback(lambda: wait(server.drain(0)))
        for loop in parts.loops:
            loop.start()
            ending.callback(loop.stop, 10)
            ending.callback(self.store.on_change(loop.wake))

    @property
    def provisioner(self) -> Any:
        return api_grpc.ProvisionerServiceStub(self.peers.blocking("provisioner"))

    def ended(self, operation: Operation, timeout_s: float = 60) -> Operation:
        """The operation once it has ended."""
        with self.watched() as changed:
            while True:
                changed.clear()
                found = self.store.snapshot().find(Operation, operation.name)
                if found is not None and found.state in FINAL:
                    return found
                assert changed.wait(timeout_s), found

    @contextmanager
    def watched(self) -> Iterator[threading.Event]:
        changed = threading.Event()
        stop: Callable[[], None] = self.store.on_change(changed.set)
        try:
            yield changed
        finally:
            stop()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, FakeBuilder(lambda: None), SeeingDriver()).running() as node:
        yield node


def test_from_a_recipe_to_a_vm_and_back(node: Node) -> None:
    stub = node.provisioner
    assert [recipe.id for recipe in stub.ListRecipes(api.ListRecipesRequest()).recipes]
    built = node.ended(stub.BuildImage(build()))
    assert built.state == SUCCEEDED, built.error
    image = stub.GetImage(api.GetImageRequest(name="images/debian"))
    assert image.status.state == ImageStatus.STATE_READY
    made = node.ended(stub.ProvisionVm(provision()))
    assert made.state == SUCCEEDED, made.error
    vm = vm_pb2.Vm()
    assert made.result.Unpack(vm) and vm.status.state == vm_pb2.VM_STATE_RUNNING
    with pytest.raises(PvcError) as caught:
        stub.DeleteImage(api.DeleteImageRequest(name="images/debian"))
    assert caught.value.reason_name == "IN_USE"
    listed = stub.ListImages(api.ListImagesRequest(filter="status.state = READY"))
    assert [row.name for row in listed.images] == ["images/debian"]
    by = {op.target: op.caller for op in node.store.snapshot().rows(Operation)}
    assert set(by.values()) == {made.caller}, "others work for who asked"


def test_errors_come_over_the_wire_as_they_were(node: Node) -> None:
    with pytest.raises(PvcError) as caught:
        node.provisioner.BuildImage(build("../etc"))
    assert (caught.value.reason_name, caught.value.field) == ("INVALID_FIELD", "image_id")
    with pytest.raises(PvcError) as caught:
        node.provisioner.BuildImage(build(recipe_text="name ="))
    assert (caught.value.reason_name, caught.value.field) == ("INVALID_CONTENT", "recipe_text")
    request = api.ImportImageRequest(image_id="x", file="files/n1." + "0" * 26, pool="pools/local")
    with pytest.raises(PvcError) as caught:
        node.provisioner.ImportImage(request)
    assert (caught.value.reason_name, caught.value.field) == ("DANGLING_REFERENCE", "file")
    assert node.store.snapshot().find(Image, "images/x") is None


def test_a_cancelled_upload_stops_and_leaves_nothing(node: Node, tmp_path: Path) -> None:
    """The cancel comes while the built image is on its way to the storage service."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(8 << 20)
    asked = threading.Event()

    def on_bytes(sent: int) -> None:
        asked.set()
        if sent > 2 << 20:
            raise PvcError(reason_pb2.REASON_CANCELLED, "enough")

    neighbours = GrpcNeighbours(node.peers, node.store)
    with large.open("rb") as file, pytest.raises(PvcError, match="enough"):
        neighbours.upload(file, 8 << 20, "large", on_bytes, NODE)
    assert asked.is_set()
    assert list((tmp_path / "files").iterdir()) == []


def test_images_are_watched(node: Node) -> None:
    stub = node.provisioner
    changes = stub.WatchImages(api.WatchImagesRequest())
    stub.BuildImage(build())
    states = []
    for change in changes:
        if change.HasField("image"):
            states.append(change.image.status.state)
        if states and states[-1] == ImageStatus.STATE_READY:
            break
    changes.cancel()
    assert states[0] == ImageStatus.STATE_CREATING
    volume = node.store.snapshot().find(storage_pb2.Volume, "pools/local/volumes/image-debian")
    assert volume is not None and volume.spec.sealed
