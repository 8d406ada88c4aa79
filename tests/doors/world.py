"""A small cluster in this process: the state in memory, services on a port of their own, and the
real
gateway before them with all its doors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc

from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.core.v1 import options_pb2
from pvc.gateway.v1 import token_pb2
from pvc.provisioner.v1 import provisioner_service_pb2_grpc as provision_grpc
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.coordinator.main import build as build_coordinator
from services.gateway.access import make_secret, secret_hash
from services.gateway.doors import Doors, Settings
from services.gateway.main import build as build_gateway
from services.mesh.clock import SystemClock
from services.mesh.desk import Desk
from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.doors.servicers import Provisioner, Storage, Vms

T = TypeVar("T")
ROLES = {"ann": options_pb2.ROLE_VIEWER, "bob": options_pb2.ROLE_OPERATOR, "eve": 3}


class ErrorsOut(grpc.aio.ServerInterceptor):
    """Turns what the services raise into statuses."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            inner = getattr(handler, kind)
            if inner is not None:
                wrap = streamed if kind.endswith("stream") else single
                return handler._replace(**{kind: wrap(inner)})
        return handler


def single(inner: Any) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await inner(request, context)
        except PvcError as error:
            await abort(context, error)

    return answer


def streamed(inner: Any) -> Any:
    async def answers(request: Any, context: Any) -> Any:
        try:
            async for one in inner(request, context):
                yield one
        except PvcError as error:
            await abort(context, error)

    return answers


async def abort(context: Any, error: PvcError) -> None:
    details = (("grpc-status-details-bin", error.to_status().SerializeToString()),)
    await context.abort(error.grpc_code, error.message, details)


class OnePeer:
    """All services are at one address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[tuple[str, str]] = []
        self._channel: grpc.aio.Channel | None = None

    def channel(self, service: str, node: str = "") -> grpc.aio.Channel:
        self.asked.append((service, node))
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address)
        return self._channel


class World:
    """What a test can reach. Everything asynchronous runs in a loop of its own thread."""

    def __init__(self, folder: Path, work_s: float) -> None:
        self.store = MemoryStore()
        self.clock = SystemClock()
        self.socket = folder / "pvc.sock"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.secrets = {name: self._token(name, role) for name, role in ROLES.items()}
        self.run(self._start(work_s))

    def run(self, work: Awaitable[T], timeout_s: float = 20) -> T:
        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(timeout_s)

    async def _start(self, work_s: float) -> None:
        desk = Desk(self.store, self.clock, "nodes/n1")
        self.vms, self.storage = Vms(desk, work_s), Storage(desk)
        self.provisioner = Provisioner(desk, self.vms)
        self.inner = grpc.aio.server(interceptors=[ErrorsOut()])
        port = self.inner.add_insecure_port("127.0.0.1:0")
        self.peers = OnePeer(f"127.0.0.1:{port}")
        gateway = build_gateway(
            Settings("127.0.0.1:0", "127.0.0.1:0", str(self.socket)),
            self.store,
            self.clock,
            self.peers,
            node="nodes/n1",
            cluster_name="test",
            version="2.0",
        )
        coordinator = build_coordinator(self.store, self.clock, "nodes/n1", "test")
        for add, servicer in (*coordinator.servicers, *gateway.servicers):
            add(servicer, self.inner)
        vm_grpc.add_VmServiceServicer_to_server(self.vms, self.inner)
        storage_grpc.add_StorageServiceServicer_to_server(self.storage, self.inner)
        provision_grpc.add_ProvisionerServiceServicer_to_server(self.provisioner, self.inner)
        await self.inner.start()
        (doors,) = gateway.doors
        assert isinstance(doors, Doors)
        self.doors = doors
        await self.doors.start()

    def _token(self, name: str, role: Any, **fields: Any) -> str:
        secret = make_secret(name, self.clock.new_id())
        row = token_pb2.Token(name=f"tokens/{name}", role=role, **fields)
        row.secret_hash = secret_hash(secret)
        row.meta.etag = ""
        self.store.commit([Put(row)])
        return secret

    add_token = _token

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.doors.grpc_port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.doors.rest_port}"

    def close(self) -> None:
        async def end() -> None:
            await self.doors.stop(0.2)
            await self.inner.stop(0.2)

        self.run(end())
        self.store.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


@contextmanager
def world_in(folder: Path, work_s: float = 0.02) -> Iterator[World]:
    world = World(folder, work_s)
    try:
        yield world
    finally:
        world.close()
