"""A server of the mesh: services behind their edge, health, reflection, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from pvc.core.v1 import reason_pb2
from services.mesh.clock import Clock
from services.mesh.edge import DEADLINE_S, Edge
from services.mesh.errors import PvcError
from services.mesh.membership import Members
from services.mesh.parts import AddToServer

GRACE_S = 10.0
"""How long calls may go on after the server began to end."""
WIRE_BYTES_MAX = 8 * 1024 * 1024
"""What is read off the wire at all; smaller messages are refused in words, see `validate`."""
OPTIONS = (
    ("grpc.max_receive_message_length", WIRE_BYTES_MAX),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # Two servers on one port would share its calls without a word.
    ("grpc.so_reuseport", 0),
    # Dead peers are found out within half a minute, also on quiet streams.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Callers ask every 2.5 s whether it is there; see `channel`.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
)

log = logging.getLogger("pvc.server")


class Server:
    """Answers for some services. Make and use it inside the event loop that is to run it."""

    def __init__(
        self,
        servicers: Iterable[tuple[AddToServer, object]],
        clock: Clock,
        deadline_s: float = DEADLINE_S,
        members: Members | None = None,
    ) -> None:
        """members: whose certificates are let in where it listens with TLS; None: all that the
        cluster's authority signed."""
        self._server = grpc.aio.server(options=OPTIONS)
        self._edge = Edge(clock, deadline_s, members)
        self._members = members
        self._forget: Callable[[], None] = lambda: None
        self._health = health.aio.HealthServicer()
        self._sockets: list[Path] = []
        self._ending: asyncio.Task[None] | None = None
        self.services: list[str] = []
        """Full names of what it answers for."""
        for add, servicer in servicers:
            add(servicer, self)  # type: ignore[arg-type]
        names = tuple(self.services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self)
        mirror = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME))
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(mirror, self)

    def add_registered_method_handlers(self, service: str, methods: Any) -> None:
        """For the generated code: takes a service in, its methods behind the edge."""
        wrapped = {
            name: self._edge.wrapped(f"/{service}/{name}", method)
            for name, method in methods.items()
        }
        handler = grpc.method_handlers_generic_handler(service, wrapped)
        self._server.add_generic_rpc_handlers((handler,))
        self.services.append(service)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """For the generated code, which offers the same methods twice; see above."""

    def listen_unix(self, path: Path) -> str:
        """Listens on a socket that only this user can reach; returns its address."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = f"unix:{path}"
        self._bound(address, lambda: self._server.add_insecure_port(address))
        path.chmod(0o600)
        self._sockets.append(path)
        return address

    def listen_tls(self, address: str, credentials: grpc.ServerCredentials) -> str:
        """Listens on host:port, port 0 for any free one; returns the address with its port."""
        port = self._bound(address, lambda: self._server.add_secure_port(address, credentials))
        return f"{address.rpartition(':')[0]}:{port}"

    @staticmethod
    def _bound(address: str, bind: Any) -> int:
        try:
            port = int(bind())
        except RuntimeError as error:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONFIG,
                f"cannot listen on {address} ({error}): is it in use, or not this machine's?",
            ) from error
        return port

    async def start(self) -> None:
        """Begins to answer."""
        if self._members is not None:
            answering, look = asyncio.get_running_loop(), self._edge.look_again

            def changed() -> None:
                answering.call_soon_threadsafe(look)

            self._forget = self._members.on_change(changed)
        await self._server.start()
        for service in ("", *self.services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float = GRACE_S) -> None:
        """Ends: takes no new calls, ends watches, lets other calls finish within the grace time.

        May be called again; all callers wait for the one end.
        """
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(grace_s))
        await asyncio.shield(self._ending)

    async def _end(self, grace_s: float) -> None:
        self._forget()
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.create_task(self._server.stop(grace_s))
        self._edge.drain()
        await stopping
        for path in self._sockets:
            path.unlink(missing_ok=True)
