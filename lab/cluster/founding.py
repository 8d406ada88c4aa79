"""Makes one cluster of the lab's nodes, with the commands that an administrator uses, and waits
until all of it works. May be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lab.cluster import inside, orders
from lab.cluster.site import CONFIG, SHARED, Lab, LabError, Node
from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1.storage_pb2 import DirectoryPool, PoolSpec
from pvc_client import Cluster
from pvc_client.errors import PvcError
from services.mesh.identity import Files, new_node

ONLINE_TIMEOUT_S = 60.0
POOL_TIMEOUT_S = 30.0
_LOOK_S = 0.1


def found(lab: Lab, say: Callable[[str], None]) -> None:
    """A cluster of all nodes. Raises LabError."""
    first, *others = lab.nodes
    if not lab.complete.exists():
        inside.run(first, ["pvc", "cluster", "init", "--yes", "--config", CONFIG])
        say(f"{first.name}: pvc cluster init")
        orders.services(first, "start")
        for node in others:
            join(first, node)
            orders.services(node, "start")
            say(f"{node.name} has joined")
    say(wait_online(lab))
    if not lab.complete.exists():
        with client(first) as cluster:
            make_pools(cluster, others)
        lab.complete.touch()
        say(f"pools: shared, local on {first.name}, local-NODE on the others")


def join(first: Node, node: Node) -> None:
    """Makes a node one of the cluster's: gives it a certificate of its own."""
    authority = Files(first.state / "tls").pair("ca")
    certified = new_node(authority, node.name, [node.address], datetime.now(UTC))
    files = Files(node.state / "tls")
    files.write("node", certified)
    (files.folder / "ca.crt").write_bytes(authority.certificate_pem)


def make_pools(cluster: Cluster, others: Sequence[Node]) -> None:
    """One that all nodes share, and one on the own disk of each; the first node's was made with
    the cluster."""
    there = {row.name for row in cluster.pools.list()}
    wanted = {f"local-{node.name}": _own_pool(node) for node in others}
    wanted["shared"] = PoolSpec(directory=DirectoryPool(path=f"{SHARED}/pool"), shared=True)
    begun = [
        cluster.pools.create(name, spec)
        for name, spec in wanted.items()
        if f"pools/{name}" not in there
    ]
    for pending in begun:
        pending.result(POOL_TIMEOUT_S)


def _own_pool(node: Node) -> PoolSpec:
    directory = DirectoryPool(path="/var/lib/pvc/pools/local")
    return PoolSpec(directory=directory, node=f"nodes/{node.name}")


def client(node: Node) -> Cluster:
    """The released client, at the door for root of a node."""
    return Cluster(f"unix:{node.socket}")


def wait_online(lab: Lab, timeout_s: float = ONLINE_TIMEOUT_S) -> str:
    """Until one leads and all nodes are online; a sentence about it. Raises LabError."""
    end, seen = time.monotonic() + timeout_s, "no answer yet"
    with client(lab.nodes[0]) as cluster:
        while time.monotonic() < end:
            try:
                status, states = cluster.status(), states_of(lab, cluster)
                seen = ", ".join(f"{name} {state}" for name, state in sorted(states.items()))
                online = [name for name, state in states.items() if state == "ONLINE"]
                if status.leader and len(online) == lab.size:
                    return f"{seen}; {status.leader.removeprefix('nodes/')} leads"
            except PvcError as error:
                seen = error.message
            time.sleep(_LOOK_S)
    raise LabError(f"not all nodes are online after {timeout_s:g} s: {seen}; see lab/pvc-lab logs")


def states_of(lab: Lab, cluster: Cluster) -> dict[str, str]:
    """Node → its state. What is still said of the time before its last boot does not count."""
    return {node.name: _state(node, row) for node in lab.nodes for row in _rows(cluster, node)}


def _rows(cluster: Cluster, node: Node) -> list[cluster_pb2.Node]:
    return [row for row in cluster.nodes.list() if row.name == f"nodes/{node.name}"]


def _state(node: Node, row: cluster_pb2.Node) -> str:
    if node.boot_id not in (row.status.boot_id, ""):
        return "BOOTING"
    return cluster_pb2.NodeState.Name(row.decision.state).removeprefix("NODE_STATE_")
