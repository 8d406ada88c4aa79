"""Makes one cluster of the lab's nodes, with the commands that an administrator uses, and waits
until all of it works. May be repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.cluster import credentials, inside, orders
from lab.cluster.site import CONFIG, CONTROLLERS, SHARED, Lab, LabError, Node
from pvc.coordinator.v1 import cluster_pb2
from pvc.storage.v1.storage_pb2 import DirectoryPool, PoolSpec
from pvc_client import Cluster
from pvc_client.errors import PvcError

ONLINE_TIMEOUT_S = 120.0
POOL_TIMEOUT_S = 120.0
_LOOK_S = 0.1


def found(lab: Lab, say: Callable[[str], None]) -> None:
    """A cluster of all nodes. Raises LabError."""
    first, *others = lab.nodes
    if not lab.complete.exists():
        inside.run(first, ["pvc", "cluster", "init", "--yes", "--config", CONFIG])
        say(f"{first.name}: pvc cluster init")
        orders.services(first, "start")
        say(wait_online(first, [first]))
        with ThreadPoolExecutor(len(others)) as hands:
            for line in hands.map(lambda node: join(first, node), others):
                say(line)
    say(wait_online(first, lab.nodes))
    if not lab.complete.exists():
        with client(first) as cluster:
            make_pools(cluster, others)
            for node in lab.nodes:
                tell_controller(cluster, node)
        lab.complete.touch()
        say(f"pools: shared, local on {first.name}, local-NODE on the others")


def join(first: Node, node: Node) -> str:
    """Makes a node one of the cluster's, unless it is; what there is to say about it."""
    if (node.state / "tls" / "node.crt").exists():
        orders.services(node, "start")
        return f"{node.name} has joined before"
    with client(first) as cluster:
        token = cluster.nodes.add(node.name, node.address, coordinator=True).token
    inside.run(node, ["pvc", "cluster", "join", "--config", CONFIG], typed=f"{token}\n")
    orders.services(node, "start")
    return f"{first.name}: pvc node add {node.name}; {node.name}: pvc cluster join"


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


def tell_controller(cluster: Cluster, node: Node) -> None:
    """Tells the cluster how a node's power is switched: the second node's by IPMI, the others' by
    Redfish."""
    control = cluster_pb2.PowerControl(
        user=credentials.CONTROLLER_USER, password=credentials.controller_password(node.lab)
    )
    if node.number == 2:
        control.protocol = cluster_pb2.PowerControl.PROTOCOL_IPMI
        control.address = f"{CONTROLLERS}:{node.ipmi_port}"
    else:
        control.protocol = cluster_pb2.PowerControl.PROTOCOL_REDFISH
        control.address = f"https://{CONTROLLERS}:{node.redfish_port}"
        control.certificate = credentials.controller_authority(node.lab)
    row = cluster_pb2.Node(name=f"nodes/{node.name}")
    row.spec.power_control.CopyFrom(control)
    cluster.nodes.update(row, ["spec.power_control"])


def _own_pool(node: Node) -> PoolSpec:
    directory = DirectoryPool(path="/var/lib/pvc/pools/local")
    return PoolSpec(directory=directory, node=f"nodes/{node.name}")


def client(node: Node) -> Cluster:
    """The released client, at the door for root of a node."""
    return Cluster(f"unix:{node.socket}")


def wait_online(door: Node, nodes: Sequence[Node], timeout_s: float = ONLINE_TIMEOUT_S) -> str:
    """Until one leads and the nodes are online, as a node's door says; a sentence about it. Raises
    LabError.

    A node that boots for longer than its last session goes on is missed, and its controller
    switches it off like any other: it is switched on again, as an administrator would."""
    end, seen = time.monotonic() + timeout_s, "no answer yet"
    with client(door) as cluster:
        while time.monotonic() < end:
            try:
                status, states = cluster.status(), states_of(nodes, cluster)
                seen = ", ".join(f"{name} {state}" for name, state in sorted(states.items()))
                online = [name for name, state in states.items() if state == "ONLINE"]
                if status.leader and len(online) == len(nodes):
                    return f"{seen}; {status.leader.removeprefix('nodes/')} leads"
            except PvcError as error:
                seen = error.message
            orders.chassis(door.lab, "on", [node.name for node in nodes])
            time.sleep(_LOOK_S)
    raise LabError(f"not all nodes are online after {timeout_s:g} s: {seen}; see lab/pvc-lab logs")


def states_of(nodes: Sequence[Node], cluster: Cluster) -> dict[str, str]:
    """Node → its state. What is still said of the time before its last boot does not count."""
    rows = {row.name: row for row in cluster.nodes.list()}
    return {
        node.name: _state(node, rows[f"nodes/{node.name}"])
        for node in nodes
        if f"nodes/{node.name}" in rows
    }


def _state(node: Node, row: cluster_pb2.Node) -> str:
    if node.boot_id not in (row.status.boot_id, ""):
        return "BOOTING"
    return cluster_pb2.NodeState.Name(row.decision.state).removeprefix("NODE_STATE_")
