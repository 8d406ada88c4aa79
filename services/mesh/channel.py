"""The way to the other services of the mesh: where they are, and channels to them.

Channels are made once for each address and kept. What fails comes out as PvcError, except from
`channel`, which is for passing statuses on as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.mesh import identity
from services.mesh.calls import AioCalls, BlockingCalls, Revision
from services.mesh.config import Config
from services.mesh.errors import PvcError
from services.state.store import Store

C = TypeVar("C")
_Key = tuple[str, str, str, int]
"""Kind of channel, address, who must answer there, and which of our certificates it shows."""

PING_MS, PING_TIMEOUT_MS = 2_500, 3_500
"""While a call goes on, the other side shows so often, within so long, that it is there."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A node that is cut off sends no word of it: whoever waits for it finds out within seconds.
    ("grpc.keepalive_time_ms", PING_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # In truth how long a connection may take to be made, which is 20 s otherwise.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # A service that was restarted is found again within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def peers_of(config: Config, store: Store, now: Timestamp) -> Peers:
    """The peers of a node with this configuration; its certificate is used if it has one."""
    credentials = None
    if config.mesh.listen:
        credentials = identity.Files(config.tls_dir).channel_credentials(now)
    return Peers(config.node_name, config.addresses(), store, credentials)


class Peers:
    """The services of the mesh, as one node reaches them."""

    def __init__(
        self,
        node: str,
        own: Mapping[str, str],
        store: Store,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """node: "nodes/n1". own: service → address of those on this node. credentials: this
        node's certificate, for all addresses but unix sockets."""
        self._node = node
        self._own = dict(own)
        self._store = store
        self._credentials = credentials
        self._lock = threading.Lock()
        self._issue = 0
        self._kept: dict[_Key, Any] = {}
        self.revision = Revision(lambda: store.snapshot().revision)
        """What calls through here have seen; also at least what this process's store shows."""

    def channel(self, service: str, node: str = "") -> grpc.aio.Channel:
        """A channel to a service ("compute") on a certain node ("nodes/n1") or on any, of the
        running event loop, with nothing between. Raises UNREACHABLE when none is known."""
        address, name = self._found(service, node)
        return self._keep("channel", address, name, lambda: self._aio(address, name, ()))

    def calls(self, service: str, node: str = "") -> grpc.aio.Channel:
        """As `channel`, for handlers: calls have deadlines and revisions, and raise PvcError."""
        address, name = self._found(service, node)
        rules = AioCalls(self.revision, self._caller)
        return self._keep("calls", address, name, lambda: self._aio(address, name, (rules,)))

    def blocking(self, service: str, node: str = "") -> grpc.Channel:
        """As `calls`, for threads."""
        address, name = self._found(service, node)
        rules = BlockingCalls(self.revision, self._caller)

        def make() -> grpc.Channel:
            return grpc.intercept_channel(self._sync(address, name), rules)

        return self._keep("blocking", address, name, make)

    def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """Channels are made with this certificate from now on. Those of before are kept for whoever
        uses them still: the node's certificate is renewed once or twice a year."""
        with self._lock:
            self._credentials = credentials
            self._issue += 1

    async def close(self) -> None:
        """Closes all channels."""
        with self._lock:
            kept, self._kept = self._kept, {}
        for (kind, *_), channel in kept.items():
            if kind == "blocking":
                channel.close()
            else:
                await channel.close()

    @property
    def _caller(self) -> str:
        return f"node {self._node.removeprefix('nodes/')}"

    def _keep(self, kind: str, address: str, name: str, make: Callable[[], C]) -> C:
        with self._lock:
            key = (kind, address, name, self._issue)
            if key not in self._kept:
                self._kept[key] = make()
            kept: C = self._kept[key]
            return kept

    def _found(self, service: str, node: str) -> tuple[str, str]:
        """The address of a service, and the name of the node that must answer there."""
        if node in ("", self._node) and service in self._own:
            return self._own[service], self._node.removeprefix("nodes/")
        snapshot = self._store.snapshot()
        for row in snapshot.rows(cluster_pb2.Node):
            if node not in ("", row.name) or row.name == self._node:
                continue
            if not node and row.decision.state != cluster_pb2.NODE_STATE_ONLINE:
                continue
            for one in row.status.services:
                if one.service == service and not one.address.startswith("unix:"):
                    return one.address, row.name.removeprefix("nodes/")
        where = f"on {node}" if node else "on any node that is online"
        raise PvcError(
            reason_pb2.REASON_UNREACHABLE,
            f"no {service} service is known {where}: is it running and has it joined the cluster?",
        )

    def _aio(self, address: str, name: str, rules: tuple[Any, ...]) -> grpc.aio.Channel:
        if address.startswith("unix:"):
            return grpc.aio.insecure_channel(address, options=OPTIONS, interceptors=rules)
        options = (*OPTIONS, ("grpc.ssl_target_name_override", name))
        credentials = self._certified(address)
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=rules)

    def _sync(self, address: str, name: str) -> grpc.Channel:
        if address.startswith("unix:"):
            return grpc.insecure_channel(address, options=OPTIONS)
        # Whoever answers there must hold the certificate of that very node.
        options = (*OPTIONS, ("grpc.ssl_target_name_override", name))
        return grpc.secure_channel(address, self._certified(address), options=options)

    def _certified(self, address: str) -> grpc.ChannelCredentials:
        if self._credentials is None:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONFIG,
                f"{address} is reached with a certificate of the cluster only, and this process "
                "was given none",
            )
        return self._credentials
