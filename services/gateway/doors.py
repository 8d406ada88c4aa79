"""The doors themselves: gRPC and REST on their addresses, and the root-only socket. Opens and
closes them in the process's event loop; who may come in is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pvc.core.v1 import reason_pb2
from services.gateway import reflection
from services.gateway.certificate import DoorCertificate
from services.gateway.door import Door
from services.gateway.incoming import BODY_BYTES_MAX
from services.gateway.limits import Bounds
from services.gateway.patience import Patient
from services.gateway.proxy import Proxy
from services.gateway.rest import Rest
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.gateway")

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
STREAMS_MAX = 1000
PING_MS, PING_TIMEOUT_MS = 20_000, 10_000
"""A caller whose machine went without a word is forgotten, and its streams with it."""
PINGED_MS = 2_000
"""How often callers may ask whether the door is still there."""
SILENT_MS = 120_000
"""The same through REST: what was sent and nobody has taken for so long, nobody will."""
HANDSHAKE_MS = 10_000
"""How long a gRPC caller may take to begin to speak it."""
IDLE_MS = 600_000
"""How long a gRPC connection without a call stays open; callers open it again without a word."""
KEEP_ALIVE_S = 30
"""How long a REST connection that nobody uses stays open."""
OPENING_S = 10.0
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the doors are. An empty address or path: there is no such door."""

    grpc_address: str = "127.0.0.1:7371"
    rest_address: str = "127.0.0.1:7370"
    socket: str = "/run/pvc/pvc.sock"
    """Whoever may open it is an admin; it is made for root alone."""
    certificate: str = ""
    """PEM files. Without them the doors speak plainly, and only on loopback addresses."""
    key: str = ""
    bounds: Bounds = field(default_factory=Bounds)
    """What callers may ask for at most."""
    allowed_origins: tuple[str, ...] = ()
    """Of which web pages may call REST; "*" for all."""

    @property
    def tls(self) -> bool:
        """Whether the doors speak TLS."""
        return bool(self.certificate)


class Doors:
    """All doors of one node. The ports that were really taken are in grpc_port and rest_port."""

    def __init__(self, settings: Settings, door: Door) -> None:
        """Raises INVALID_CONFIG for plain text beyond this machine, or half a certificate."""
        check(settings)
        self._settings = settings
        self._door = door
        self._servers: list[grpc.aio.Server] = []
        files = Path(settings.certificate), Path(settings.key)
        now = door.clock.now
        self._certificate = DoorCertificate(*files, now) if settings.tls else None
        self._rest = _QuietServer(self._uvicorn_config())
        self._rest_task: asyncio.Task[None] | None = None
        self.grpc_port = 0
        self.rest_port = 0

    async def start(self) -> None:
        """Opens them. Raises INVALID_CONFIG when an address cannot be had."""
        if self._certificate is not None:
            self._certificate.check()
        self._door.open()
        if self._settings.socket:
            await self._open_socket(Path(self._settings.socket))
        if self._settings.grpc_address:
            await self._open_grpc(self._settings.grpc_address)
        if self._settings.rest_address:
            await self._open_rest(self._settings.rest_address)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Lets nobody new in, ends streams, gives other calls some time, closes."""
        self._door.drain()
        self._rest.should_exit = True
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        if self._rest_task is not None:
            await self._rest_task
        if self._settings.socket:
            Path(self._settings.socket).unlink(missing_ok=True)

    async def _open_socket(self, path: Path) -> None:
        server = self._server(local=True)
        with private_socket(path) as address:
            _bound(server.add_insecure_port, address)
            await server.start()
        log.info("gateway: gRPC on unix:%s for root", path)

    async def _open_grpc(self, address: str) -> None:
        server = self._server(local=False)
        servicer = health.aio.HealthServicer()
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers(reflection.handlers())
        if self._certificate is not None:
            credentials = self._certificate.grpc_credentials()
            self.grpc_port = _bound(server.add_secure_port, address, credentials)
        else:
            self.grpc_port = _bound(server.add_insecure_port, address)
        await server.start()
        log.info("gateway: gRPC on %s%s", address, ", TLS" if self._settings.tls else "")

    async def _open_rest(self, address: str) -> None:
        config = self._rest.config
        config.load()
        if self._certificate is not None:
            assert config.ssl is not None
            self._certificate.keep_fresh(config.ssl)
        listener = listening(address)
        self.rest_port = listener.getsockname()[1]
        self._rest_task = asyncio.create_task(self._rest.serve(sockets=[listener]))
        async with asyncio.timeout(OPENING_S):
            while not self._rest.started and not self._rest_task.done():
                await asyncio.sleep(0.01)
        log.info("gateway: REST on %s%s", address, ", TLS" if self._settings.tls else "")

    def _server(self, *, local: bool) -> grpc.aio.Server:
        options: tuple[tuple[str, int], ...] = (
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.so_reuseport", 0),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.keepalive_time_ms", PING_MS),
            ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", PINGED_MS),
        )
        if not local:
            options += (
                ("grpc.max_allowed_incoming_connections", self._settings.bounds.connections),
            )
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((Proxy(self._door, local=local),))
        self._servers.append(server)
        return server

    def _uvicorn_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            Rest(self._door, self._settings.allowed_origins).app,
            http=Patient,
            log_config=None,
            log_level=logging.ERROR,  # what callers do wrong is told to them, not to the log
            access_log=False,
            server_header=False,
            headers=[("x-content-type-options", "nosniff")],
            proxy_headers=False,  # the audit log has who really called
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=BODY_BYTES_MAX,
            limit_concurrency=self._settings.bounds.connections + 1,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(GRACE_S),
            ssl_certfile=self._settings.certificate or None,
            ssl_keyfile=self._settings.key or None,
        )


@contextlib.contextmanager
def private_socket(path: Path) -> Iterator[str]:
    """The gRPC address to bind within the block, in a folder that is closed to others; at the end
    the socket, with its mode, is moved to its path, in the place of an old one.

    So it is never open to others, not even for a moment. A umask would do that too, but it is every
    thread's: folders that others make meanwhile would be shut to guests and servers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".{path.stem}"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    bound = folder / "s"
    try:
        yield f"unix:{bound}"
        bound.chmod(0o600)
        bound.replace(path)
    finally:
        bound.unlink(missing_ok=True)
        folder.rmdir()


class _QuietServer(uvicorn.Server):
    """A uvicorn that leaves the process's signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def check(settings: Settings) -> None:
    """Raises INVALID_CONFIG for what would be unsafe."""
    if bool(settings.certificate) != bool(settings.key):
        raise _invalid("certificate and key of the gateway come together: give both or none")
    for address in (settings.grpc_address, settings.rest_address):
        if address and not settings.tls and not is_loopback(address):
            raise _invalid(
                f"the gateway would speak plainly on {address}, and tokens with it; "
                "give it a certificate and key, or a loopback address"
            )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listening(address: str) -> socket.socket:
    """A socket that listens on host:port. Raises INVALID_CONFIG when it cannot be had."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=512)
    except (OSError, ValueError, OverflowError) as error:
        raise _invalid(f"the gateway cannot listen on {address}: {error}") from None
    # Answers leave in two writes; without this the second waits for the first one's receipt, 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_MS // 4000)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS)
    return listener


def _bound(add: object, address: str, *credentials: object) -> int:
    assert callable(add)
    try:
        return int(add(address, *credentials))
    except RuntimeError as error:
        raise _invalid(f"the gateway cannot listen on {address}: {error}") from None


def _invalid(problem: str) -> PvcError:
    return PvcError(reason_pb2.REASON_INVALID_CONFIG, problem)
