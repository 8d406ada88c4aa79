"""Three whole nodes in this process over one state: each with all its services, doors and agents,
on a loopback address of its own and with a certificate of the cluster, so that what goes from node
to node goes over TLS as it would between machines. One folder is the same on all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from pvc.network.v1 import network_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client import Cluster
from services.mesh import identity
from services.mesh.config import parse
from services.state.memory import MemoryCluster, MemoryStore
from services.storage.core.pools import new_pool
from services.storage.drivers.fake import FakeFolder
from tests.contract.whole import MIB, ROLES, STARTING_S, Thread, Whole
from tests.ports import free_block

NODES = ("n1", "n2", "n3")
SHARED, SHARED_PATH = "pools/shared", "/shared"
SERVICES = 6
"""Each listens on a port of its own, from the first one on."""


class Node(Whole):
    """One of them."""

    def __init__(
        self, folder: Path, cluster: MemoryCluster, number: int, port: int, secrets: dict[str, str]
    ) -> None:
        """port: the first of its services'. secrets: those of tokens that are there already."""
        self._known = secrets
        name = NODES[number]
        super().__init__(folder / name, MemoryStore(cluster), name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = (
            f'[node]\nname = "{name}"\nstate_dir = "{self.folder}/state"\n'
            f'run_dir = "{self.folder}/run"\n'
            f'[mesh]\nlisten = "127.0.0.{number + 11}"\nfirst_port = {port}\n'
        )
        self.config = parse(text, "pvc")

    def tokens(self) -> dict[str, str]:
        """See Whole: the same for all."""
        return self._known or {name: self.add_token(name, role) for name, role in ROLES.items()}

    def join(self, first: Node) -> None:
        """A certificate of the cluster."""
        authority = identity.Files(first.config.tls_dir).pair("ca")
        name = self.node.removeprefix("nodes/")
        addresses = [self.config.mesh.listen]
        files = identity.Files(self.config.tls_dir)
        files.write("node", identity.new_node(authority, name, addresses, datetime.now(UTC)))
        (files.folder / "ca.crt").write_bytes(authority.certificate_pem)


class Three:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self.cluster = MemoryCluster()
        self.nodes: dict[str, Node] = {}
        secrets: dict[str, str] = {}
        shared, port = FakeFolder(), free_block(SERVICES)
        for number, name in enumerate(NODES):
            node = self.nodes[name] = Node(folder, self.cluster, number, port, secrets)
            secrets = node.secrets
            node.disks.folders[SHARED_PATH] = shared
        first = self.nodes["n1"]
        first.first_rows()
        for name in NODES[1:]:
            self.nodes[name].join(first)
        self.threads = {name: Thread(node) for name, node in self.nodes.items()}

    def __getitem__(self, node: str) -> Node:
        return self.nodes[node]

    def client(self, node: str) -> Cluster:
        """A client at the door of a node."""
        return self.nodes[node].client()

    def find(self, kind: Any, name: str) -> Any:
        """A row, or None."""
        return self.nodes["n1"].store.snapshot().find(kind, name)

    def rows(self, kind: Any) -> list[Any]:
        return list(self.nodes["n1"].store.snapshot().rows(kind))

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + STARTING_S
        while not condition():
            assert time.monotonic() < end, f"no sign of {what}"
            time.sleep(0.005)

    def is_up(self) -> bool:
        """All nodes are online, and have their own pools and the network."""
        nodes = [row.decision.state for row in self.rows(cluster_pb2.Node)]
        pools = {row.name: row.status.state for row in self.rows(storage_pb2.Pool)}
        network = self.find(network_pb2.Network, "networks/default")
        ready = set(pools) == {"pools/local", "pools/local-n2", "pools/local-n3"}
        return (
            nodes == [cluster_pb2.NODE_STATE_ONLINE] * 3
            and ready
            and all(pools.values())
            and len(network.status.nodes) == 3
        )

    def kill(self, node: str) -> None:
        """The node's processes end, and with them its sessions."""
        self.threads[node].stop()
        self.nodes[node].store.close()


@contextmanager
def three_running(folder: Path) -> Iterator[Three]:
    """Three nodes that are up, with a pool that all of them share."""
    three = Three(folder)
    with ExitStack() as stack:
        for name in NODES:
            three.threads[name].start()
            stack.callback(three.threads[name].stop)
        three.wait(three.is_up, "three nodes")
        spec = new_pool(SHARED, SHARED_PATH, "", meta_pb2.Meta(), MIB).spec
        with three.client("n2") as cluster:
            cluster.pools.create("shared", spec).result(20)
        three.wait(lambda: len(three.find(storage_pb2.Pool, SHARED).status.nodes) == 3, "parts")
        yield three
    for name, thread in three.threads.items():
        assert not thread.failed, (name, thread.failed)
