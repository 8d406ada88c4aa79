"""The lab's network: a switch with a port for each node and one for their controllers, all inside
network namespaces. Nothing in it can reach the machine's own network."""

from __future__ import annotations

import json
from pathlib import Path

from lab.cluster.commands import ip_lines, run
from lab.cluster.site import CONTROLLERS, MTU, OUTSIDE, PREFIX_LENGTH, Lab, Node

NAMED = Path("/run/netns")
BRIDGE = "br0"


def make_switch(lab: Lab) -> None:
    """The switch, the world beyond it and the place of the controllers; none may be there."""
    run(["ip", "netns", "add", lab.switch])
    run(["ip", "netns", "add", lab.controllers])
    ip_lines(
        lab.switch,
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0",
            f"link set {BRIDGE} mtu {MTU} up",
            f"addr add {OUTSIDE}/{PREFIX_LENGTH} dev {BRIDGE}",
            f"link add bmc mtu {MTU} type veth peer name eth0 netns {lab.controllers}",
            f"link set bmc master {BRIDGE} up",
        ],
    )
    ip_lines(lab.controllers, _own_side(CONTROLLERS))


def plug_in(node: Node) -> None:
    """A fresh network namespace for a node that is switched on, with eth0 at the switch."""
    unplug(node)
    run(["ip", "netns", "add", node.namespace])
    ip_lines(
        node.lab.switch,
        [
            f"link add {node.port} mtu {MTU} type veth peer name eth0 netns {node.namespace}",
            f"link set {node.port} master {BRIDGE}",
            f"link set {node.port} {'down' if node.cut_mark.exists() else 'up'}",
        ],
    )
    ip_lines(node.namespace, [*_own_side(node.address), f"route add default via {OUTSIDE}"])


def unplug(node: Node) -> None:
    """Removes a node's network namespace with all that is in it. The cable goes first: the kernel
    takes its time with a namespace, and a dead node must not answer meanwhile."""
    if node.port in _links(node.lab.switch):
        run(["ip", "-n", node.lab.switch, "link", "delete", node.port])
    remove_namespace(node.namespace)


def cut(node: Node) -> None:
    """Takes the link of its port down, also for when it is switched on again."""
    node.cut_mark.touch()
    _set_port(node, "down")


def heal(node: Node) -> None:
    """Takes the link of its port up again."""
    node.cut_mark.unlink(missing_ok=True)
    _set_port(node, "up")


def remove_namespace(name: str) -> None:
    """If it is there."""
    if (NAMED / name).exists():
        run(["ip", "netns", "delete", name])


def left_over(lab: Lab) -> tuple[str, ...]:
    """The network namespaces of the lab that are there."""
    ours = {lab.switch, lab.controllers, *(node.namespace for node in lab.nodes)}
    return tuple(sorted(path.name for path in NAMED.glob("*") if path.name in ours))


def _links(namespace: str) -> set[str]:
    if not (NAMED / namespace).exists():
        return set()
    return {row["ifname"] for row in json.loads(run(["ip", "-j", "-n", namespace, "link"]))}


def _set_port(node: Node, state: str) -> None:
    if (NAMED / node.namespace).exists():
        run(["ip", "-n", node.lab.switch, "link", "set", node.port, state])


def _own_side(address: str) -> list[str]:
    return [
        "link set lo up",
        f"link set eth0 mtu {MTU} up",
        f"addr add {address}/{PREFIX_LENGTH} dev eth0",
    ]
