"""The first node of a cluster, as far as others see it when they join: its coordinator, its
gateway, its doors over TLS, its certificates. The state is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from services.coordinator.main import build as coordinator
from services.coordinator.settings import Membership
from services.gateway.doors import Doors, Settings
from services.gateway.limits import Bounds
from services.gateway.main import build as gateway
from services.mesh import identity, rows
from services.mesh.channel import Peers
from services.mesh.clock import SystemClock
from services.mesh.desk import Call
from services.mesh.enrolment import make_cluster_key
from services.mesh.rows import THIS_CLUSTER
from services.mesh.server import Server
from services.pvcd.init import first_node
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.mesh.serving import Host

NODE = "nodes/n1"
CLUSTER = "home"


class SetClock(SystemClock):
    """The machine's clock, set forward as told."""

    ahead_s = 0

    def now(self) -> Timestamp:
        now = super().now()
        return Timestamp(seconds=now.seconds + self.ahead_s, nanos=now.nanos)


class FirstNode:
    """See the module."""

    def __init__(self, folder: Path, **membership: Any) -> None:
        self.folder, self.clock, self.store = folder, SetClock(), MemoryStore()
        self.tls = folder / "tls"
        identity.create_cluster(self.tls, CLUSTER, "n1", ["127.0.0.1"], self.clock.now())
        make_cluster_key(self.tls)
        self._rows()
        known = {"state_hosts": ("10.0.0.1:2181",), "state_session_timeout_s": 7} | membership
        self.membership = Membership(CLUSTER, self.tls, **known)
        self.host = Host()
        self.host.do(self._start())
        self._tell_door()

    def _rows(self) -> None:
        call = Call(self.clock.now(), "test", NODE, self.clock.new_id)
        identity_row = cluster_pb2.ClusterIdentity(
            name=THIS_CLUSTER, meta=rows.new_meta(call), display_name=CLUSTER
        )
        self.store.commit([Put(first_node(call, "127.0.0.1")), Put(identity_row)])
        self.store.acquire(NODE, NODE)

    async def _start(self) -> None:
        socket = self.folder / "inner.sock"
        peers = Peers(NODE, {"coordinator": f"unix:{socket}"}, self.store)
        pair = str(self.tls / "node.crt"), str(self.tls / "node.key")
        settings = Settings(
            "127.0.0.1:0", "", str(self.folder / "pvc.sock"), *pair, Bounds(tries_per_s=1000.0)
        )
        doors = gateway(
            settings, self.store, self.clock, peers, node=NODE, cluster_name=CLUSTER, version="2"
        )
        parts = coordinator(self.store, self.clock, NODE, CLUSTER, self.membership)
        self.server = Server([*parts.servicers, *doors.servicers], self.clock)
        self.server.listen_unix(socket)
        credentials = identity.Files(self.tls).server_credentials(self.clock.now())
        self.mesh = self.server.listen_tls("127.0.0.1:0", credentials)
        await self.server.start()
        (door,) = doors.doors
        assert isinstance(door, Doors)
        self.doors = door
        await door.start()

    def _tell_door(self) -> None:
        row = rows.copied(self.node(NODE))
        row.status.services.add(service="door", address=self.door)
        row.status.services.add(service="coordinator", address=self.mesh)
        row.decision.state = cluster_pb2.NODE_STATE_ONLINE
        self.store.commit([Put(row)])

    @property
    def door(self) -> str:
        return f"127.0.0.1:{self.doors.grpc_port}"

    def node(self, name: str) -> cluster_pb2.Node:
        row = self.store.snapshot().find(cluster_pb2.Node, name)
        assert row is not None
        return row

    def client(self) -> Cluster:
        return Cluster(f"unix:{self.folder}/pvc.sock")

    def close(self) -> None:
        self.host.do(self.doors.stop(0))
        self.host.do(self.server.drain(0))
        self.host.close()


@contextmanager
def first_node_in(folder: Path, **membership: Any) -> Iterator[FirstNode]:
    """It runs for as long as the context lasts."""
    one = FirstNode(folder, **membership)
    try:
        yield one
    finally:
        one.close()
