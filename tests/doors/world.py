"""A small cluster in this process: the state in memory, services on a port of their own, and the
real
gateway before them with all its doors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
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
from services.gateway.door import Door
from services.gateway.doors import Doors, Settings
from services.gateway.limits import Bounds, Limits
from services.gateway.main import build as build_gateway
from services.mesh.clock import SystemClock
from services.mesh.desk import Desk
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import ANY_VERSION, Put, Store
from tests.doors.servicers import Provisioner, Storage, Vms

T = TypeVar("T")
ORIGIN = "https://console.example.org"
"""Of which web pages may call."""
ROLES = {"ann": options_pb2.ROLE_VIEWER, "bob": options_pb2.ROLE_OPERATOR, "eve": 3}


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

    def __init__(
        self,
        folder: Path,
        work_s: float,
        bounds: Bounds,
        store: Store | None = None,
        door_store: Store | None = None,
        secrets: Mapping[str, str] | None = None,
        strict: bool = False,
    ) -> None:
        """store: the services' own; door_store: the gateway's, when it is a process of its own.
        secrets: those of tokens that are there already. strict: see the gateway's build."""
        self.store: Store = store or MemoryStore()
        self.door_store = door_store or self.store
        self.clock = SystemClock()
        self.socket = folder / "pvc.sock"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.secrets = dict(secrets or {})
        if not secrets:
            self.secrets = {name: self._token(name, role) for name, role in ROLES.items()}
        self.bounds, self.strict = bounds, strict
        self.run(self._start(work_s))

    def run(self, work: Awaitable[T], timeout_s: float = 60) -> T:
        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(timeout_s)

    async def _start(self, work_s: float) -> None:
        desk = Desk(self.store, self.clock, "nodes/n1")
        self.vms, self.storage = Vms(desk, work_s), Storage(desk)
        self.provisioner = Provisioner(desk, self.vms)
        self.peers = OnePeer(f"unix:{self.socket.parent}/inner.sock")
        self.settings = Settings(
            "127.0.0.1:0",
            "127.0.0.1:0",
            str(self.socket),
            bounds=self.bounds,
            allowed_origins=(ORIGIN,),
        )
        self.gateway = gateway = build_gateway(
            self.settings,
            self.door_store,
            self.clock,
            self.peers,
            node="nodes/n1",
            cluster_name="test",
            version="2.0",
            journal=self.socket.parent / "audit.journal",
            strict=self.strict,
        )
        for loop in gateway.loops:
            loop.start()
        coordinator = build_coordinator(self.store, self.clock, "nodes/n1", "test")
        (door,) = gateway.doors
        assert isinstance(door, Doors)
        self.doors = door
        self.inner = Server(
            [
                *coordinator.servicers,
                *gateway.servicers,
                (vm_grpc.add_VmServiceServicer_to_server, self.vms),
                (storage_grpc.add_StorageServiceServicer_to_server, self.storage),
                (provision_grpc.add_ProvisionerServiceServicer_to_server, self.provisioner),
            ],
            self.clock,
        )
        self.inner.listen_unix(self.socket.parent / "inner.sock")
        await self.inner.start()
        await self.doors.start()

    def _token(self, name: str, role: Any, **fields: Any) -> str:
        secret = make_secret(name, self.clock.new_id())
        row = token_pb2.Token(name=f"tokens/{name}", role=role, **fields)
        row.secret_hash = secret_hash(secret)
        row.meta.etag = ANY_VERSION
        self.store.commit([Put(row)])
        return secret

    add_token = _token

    @contextmanager
    def held(self) -> Iterator[None]:
        """Operations that are begun stay at their first stage meanwhile."""
        self.vms.may_go_on.clear()
        try:
            yield
        finally:
            self.vms.may_go_on.set()

    def reopen(self) -> None:
        """Closes the doors with everybody inside, and opens them again where they were."""

        async def again() -> None:
            where = replace(
                self.settings, grpc_address=self.grpc_address, rest_address=self.rest_url[7:]
            )
            await self.doors.stop(0)
            door = Door(
                self.door_store, self.clock, self.peers, Limits(self.bounds),
                self.doors._door._recorder, self.doors._door._uses, "nodes/n1",
            )  # fmt: skip
            self.doors = Doors(where, door)
            await self.doors.start()

        self.run(again())

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.doors.grpc_port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.doors.rest_port}"

    def close(self) -> None:
        async def end() -> None:
            await self.doors.stop(0.2)
            await self.inner.drain(0.2)

        self.run(end())
        for loop in self.gateway.loops:
            loop.stop(60)
        for close in self.gateway.close:
            close()
        self.store.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)


@contextmanager
def world_in(
    folder: Path,
    work_s: float = 0.02,
    store: Store | None = None,
    door_store: Store | None = None,
    secrets: Mapping[str, str] | None = None,
    strict: bool = False,
    **bounds: float,
) -> Iterator[World]:
    """bounds: of Bounds."""
    usual: dict[str, Any] = {"tries_per_s": 1000.0, "requests_per_s": 0, **bounds}
    world = World(folder, work_s, Bounds(**usual), store, door_store, secrets, strict)
    try:
        yield world
    finally:
        world.close()
