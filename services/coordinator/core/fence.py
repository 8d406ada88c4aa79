"""Whether a node may be fenced now, and whether its death is proven: the brakes, each with a
sentence, and the proof. Pure; the proofs themselves are fetched by services.coordinator.fencer."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.limits import limits_of
from services.coordinator.core.world import (
    DRAINED,
    FENCED,
    FENCING,
    JOINING,
    LEAVING,
    MAINTENANCE,
    NEW,
    World,
)

Node = cluster_pb2.Node

EXPECTED_AWAY = frozenset({NEW, JOINING, MAINTENANCE, LEAVING, DRAINED})
"""States of nodes whose absence says nothing."""
AT_ONCE_S = 300.0
"""Nodes that were fenced within this time count as fenced at once."""

TOGETHER_S = 2.0
"""Sessions that are lost for one reason end within this time."""

MEANS = {
    cluster_pb2.PROOF_MEANS_POWER: "power",
    cluster_pb2.PROOF_MEANS_STORAGE: "storage",
    cluster_pb2.PROOF_MEANS_WATCHDOG: "watchdog",
    cluster_pb2.PROOF_MEANS_ADMIN: "administrator",
}


class Brakes:
    """What keeps nodes from being fenced, counted once for a round. Nodes that `holding` lets go
    count for those that are asked about after them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.limits = limits_of(world.spec)
        self.begun = sum(map(self._is_fenced_now, world.nodes.values()))
        """Nodes being fenced, or fenced a short time ago."""
        self.missing, self.whole = missing_of(world.nodes.values(), world.present)

    def holding(self, node: Node) -> str:
        """What keeps this node from being fenced, one sentence; "" when nothing does."""
        for brake in BRAKES:
            if why := brake(self, node):
                return why
        self.begun += node.decision.state != FENCING
        return ""

    def _is_fenced_now(self, node: Node) -> bool:
        if node.decision.state == FENCING:
            return True
        recent = self.world.gone_s.get(node.name, 0.0) < AT_ONCE_S
        return node.decision.state == FENCED and recent and node.name not in self.world.present


def missing_of(nodes: Iterable[Node], present: Container[str]) -> tuple[int, int]:
    """How many nodes should be there and are not, of how many that should."""
    away = [node.name not in present for node in nodes if _is_expected(node, present)]
    return sum(away), len(away)


def _is_expected(node: Node, present: Container[str]) -> bool:
    return node.name in present or node.decision.state not in EXPECTED_AWAY


def in_maintenance(brakes: Brakes, node: Node) -> str:
    """Somebody works on the cluster."""
    return "the cluster is in maintenance" if brakes.world.spec.maintenance else ""


def disarmed(brakes: Brakes, node: Node) -> str:
    """Somebody switched it off."""
    return "high availability is disarmed" if brakes.world.spec.ha_disarmed else ""


def restarting(brakes: Brakes, node: Node) -> str:
    """Its agent ended on purpose, and means to come back."""
    grace_s = brakes.limits.restart_grace_s
    if not node.status.restarting or brakes.world.gone_s.get(node.name, 0.0) >= grace_s:
        return ""
    return f"its agent said that it restarts, and has {grace_s} s for that"


def most_look_dead(brakes: Brakes, node: Node) -> str:
    """When most are gone, it is more likely that this side is."""
    if not are_most(brakes.missing, brakes.whole):
        return ""
    return (
        f"{brakes.missing} of {brakes.whole} nodes look dead, and when most do, it is rather the "
        "network or the state store that failed"
    )


def just_back(brakes: Brakes, node: Node) -> str:
    """It went with most of the others, and those are back: the power, the network or the state
    store failed as a whole, and not all need the same time to start."""
    outage, grace_s = brakes.world.outage, brakes.limits.restart_grace_s
    if outage is None or outage.ended_s >= grace_s:
        return ""
    if brakes.world.gone_s.get(node.name, 0.0) > outage.began_s + TOGETHER_S:
        return ""
    return f"it went with most of the others, which are back; it has {grace_s} s for that too"


def too_many(brakes: Brakes, node: Node) -> str:
    """One always may; more only up to a share of all."""
    percent = brakes.limits.fence_max_percent
    most = max(brakes.whole * percent // 100, 1)
    if node.decision.state == FENCING or brakes.begun < most:
        return ""
    return (
        f"{brakes.begun} of {brakes.whole} nodes are being fenced or were a short time ago, and "
        f"more than {percent} % must not be at once"
    )


BRAKES: tuple[Callable[[Brakes, Node], str], ...] = (
    in_maintenance,
    disarmed,
    restarting,
    most_look_dead,
    just_back,
    too_many,
)


def are_most(missing: int, whole: int) -> bool:
    """More than half."""
    return 2 * missing > whole


def proven(node: Node) -> bool:
    """There is a proof for the very session that was lost."""
    proof, lost = node.decision.proof, node.decision.lost_session
    return proof.means != cluster_pb2.PROOF_MEANS_UNSPECIFIED and proof.session == lost != ""


def waited_s(node: Node) -> float:
    """How long the node is gone at least, as it is stored."""
    lost_for = node.decision.lost_for
    return float(lost_for.seconds) + lost_for.nanos / 1e9


def progress(node: Node) -> str:
    """How the proofs are coming along, one sentence."""
    attempts = node.decision.attempts
    if not attempts:
        return "its session ended; its death is being proven"
    told = "; ".join(f"{MEANS.get(x.means, 'none')}: {x.why}" for x in attempts if x.why)
    if all(attempt.impossible for attempt in attempts):
        name = node.name.removeprefix("nodes/")
        told += f"; only an administrator can say that it is dead: pvc node confirm-dead {name}"
    return f"its death is not proven yet: {told}" if told else "its death is being proven"
