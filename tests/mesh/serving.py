"""A real server in a thread, with two small services on contracts of PVC."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_service_pb2 as vm_api
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh import rows
from services.mesh.clock import SystemClock
from services.mesh.desk import Call, Context, Desk, Mutation
from services.mesh.errors import PvcError, not_found
from services.mesh.identity import Files, create_cluster
from services.mesh.membership import Members
from services.mesh.server import Server
from services.state.store import Put, Snapshot, Store

T = TypeVar("T")
CLOCK = SystemClock()


class Nodes(api_grpc.NodeServiceServicer):
    """Nodes from the store, and some whose names say what goes wrong."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.calls = 0
        self.callers = list[str]()
        self.away = 0
        """So many calls are refused before one is answered."""
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.cancelled = threading.Event()

    async def GetNode(self, request: api.GetNodeRequest, context: Context) -> cluster_pb2.Node:
        self.calls += 1
        self.callers.append(dict(context.invocation_metadata()).get("pvc-caller", ""))
        if self.calls <= self.away:
            raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "not now")
        match request.name:
            case "nodes/crash":
                raise KeyError("secret thing")
            case "nodes/long":
                text = "no node fits: " + "ü…" * 20_000
                raise PvcError(reason_pb2.REASON_NO_NODE_FITS, text, field="name")
            case "nodes/slow":
                await self._slow()
        return await self.desk.get(cluster_pb2.Node, request, context)

    async def _slow(self) -> None:
        self.begun.set()
        try:
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ListNodes(self, request: Any, context: Context) -> api.ListNodesResponse:
        return await self.desk.list(cluster_pb2.Node, request, api.ListNodesResponse, context)

    async def WatchNodes(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchNodesResponse]:
        changes = self.desk.watch(cluster_pb2.Node, request, api.WatchNodesResponse, context)
        try:
            async with aclosing(changes):  # type: ignore[type-var]
                async for change in changes:
                    yield change
        finally:
            self.cancelled.set()


class Pools(storage_grpc.StorageServiceServicer):
    """Descriptions of pools can be changed; of all else nothing is there."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.planned = 0

    async def GetPool(self, request: Any, context: Context) -> storage_pb2.Pool:
        return await self.desk.get(storage_pb2.Pool, request, context)

    async def UploadFile(self, requests: Any, context: Context) -> storage_api.FileInfo:
        size = 0
        async for request in requests:
            size += len(request.data)
        return storage_api.FileInfo(name="files/a", size_bytes=size)

    async def UpdatePool(self, request: Any, context: Context) -> storage_pb2.Pool:
        return await self.desk.mutate(request, storage_pb2.Pool, self.plan, context)

    def plan(
        self, snapshot: Snapshot, request: storage_api.UpdatePoolRequest, call: Call
    ) -> Mutation:
        self.planned += 1
        pool = snapshot.find(storage_pb2.Pool, request.pool.name)
        if pool is None:
            raise not_found(request.pool.name, "pool.name")
        rows.check_etag(pool, request.pool.meta.etag, "pool.meta.etag")
        after = rows.copied(pool)
        after.spec.description = f"{request.pool.spec.description} by {call.caller}"
        return Mutation((Put(after),), after)


class Consoles(vm_grpc.VmServiceServicer):
    """Consoles that say what is typed."""

    async def AttachConsole(
        self, requests: Any, context: Context
    ) -> AsyncIterator[vm_api.AttachConsoleResponse]:
        async for request in requests:
            yield vm_api.AttachConsoleResponse(data=request.data.upper())


class Host:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.event_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.event_loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.event_loop).result(timeout_s)

    def begin(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.event_loop)

    def close(self) -> None:
        self.event_loop.call_soon_threadsafe(self.event_loop.stop)
        self._thread.join(60)


class Served:
    """A running server with its services."""

    def __init__(
        self, host: Host, store: Store, listen: Callable[[Server], str], deadline_s: float
    ) -> None:
        desk = Desk(store, CLOCK, "nodes/n1")
        self.host, self.nodes, self.pools = host, Nodes(desk), Pools(desk)

        async def start() -> tuple[Server, str]:
            servicers = (
                (api_grpc.add_NodeServiceServicer_to_server, self.nodes),
                (storage_grpc.add_StorageServiceServicer_to_server, self.pools),
                (vm_grpc.add_VmServiceServicer_to_server, Consoles()),
            )
            server = Server(servicers, CLOCK, deadline_s, Members(store))
            address = listen(server)
            await server.start()
            return server, address

        self.server, self.address = host.do(start())


@contextmanager
def served(
    store: Store, listen: Callable[[Server], str], deadline_s: float = 30.0
) -> Iterator[Served]:
    """A server for as long as the context lasts."""
    host = Host()
    one = Served(host, store, listen, deadline_s)
    try:
        yield one
    finally:
        one.nodes.go_on.set()
        host.do(one.server.drain(2.0))
        host.close()


def on_socket(folder: Path) -> Callable[[Server], str]:
    return lambda server: server.listen_unix(folder / "mesh.sock")


def on_tls(files: Files) -> Callable[[Server], str]:
    credentials = files.server_credentials(CLOCK.now())
    return lambda server: server.listen_tls("127.0.0.1:0", credentials)


def cluster(folder: Path, node: str = "n1", name: str = "test") -> Files:
    return create_cluster(folder, name, node, ["127.0.0.1"], CLOCK.now())


def at(text: str) -> Timestamp:
    moment = Timestamp()
    moment.FromJsonString(text)
    return moment
