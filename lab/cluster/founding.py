"""Makes one cluster of the lab's nodes, with the commands that an administrator uses, and waits
until all of it works. May be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from lab.cluster import inside, orders
from lab.cluster.site import CONFIG, Lab, LabError, Node
from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster
from pvc_client.errors import PvcError
from services.mesh.identity import Files, new_node

ONLINE_TIMEOUT_S = 60.0
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
        lab.complete.touch()
    say(wait_online(lab))


def join(first: Node, node: Node) -> None:
    """Makes a node one of the cluster's: gives it a certificate of its own."""
    authority = Files(first.state / "tls").pair("ca")
    certified = new_node(authority, node.name, [node.address], datetime.now(UTC))
    files = Files(node.state / "tls")
    files.write("node", certified)
    (files.folder / "ca.crt").write_bytes(authority.certificate_pem)


def client(node: Node) -> Cluster:
    """The released client, at the door for root of a node."""
    return Cluster(f"unix:{node.socket}")


def wait_online(lab: Lab, timeout_s: float = ONLINE_TIMEOUT_S) -> str:
    """Until one leads and all nodes are online; a sentence about it. Raises LabError."""
    end, seen = time.monotonic() + timeout_s, "no answer yet"
    with client(lab.nodes[0]) as cluster:
        while time.monotonic() < end:
            try:
                status, states = cluster.status(), _states(cluster)
                seen = ", ".join(f"{name} {state}" for name, state in sorted(states.items()))
                online = [name for name, state in states.items() if state == "ONLINE"]
                if status.leader and len(online) == lab.size:
                    return f"{seen}; {status.leader.removeprefix('nodes/')} leads"
            except PvcError as error:
                seen = error.message
            time.sleep(_LOOK_S)
    raise LabError(f"not all nodes are online after {timeout_s:g} s: {seen}; see lab/pvc-lab logs")


def _states(cluster: Cluster) -> dict[str, str]:
    return {
        row.name.removeprefix("nodes/"): cluster_pb2.NodeState.Name(
            row.decision.state
        ).removeprefix("NODE_STATE_")
        for row in cluster.nodes.list()
    }
