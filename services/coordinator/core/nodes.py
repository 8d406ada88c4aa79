"""The life of a node: its states, the moves between them, and what brings them about."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.plan import INFO, WARNING, DecideNode
from services.coordinator.core.world import ONLINE, UNKNOWN, World

NEW = cluster_pb2.NODE_STATE_UNSPECIFIED

STATES = {
    NEW: "has told of itself and was not looked at yet",
    ONLINE: "holds its session: its agents work and see the state",
    UNKNOWN: "holds no session: its VMs may or may not run, so nobody may start them elsewhere",
}

TRANSITIONS = frozenset({(NEW, ONLINE), (NEW, UNKNOWN), (ONLINE, UNKNOWN), (UNKNOWN, ONLINE)})


def enter(
    node: cluster_pb2.Node, state: cluster_pb2.NodeState.ValueType, why: str, now: Timestamp
) -> DecideNode:
    """The only way a node changes its state."""
    before = node.decision.state
    assert (before, state) in TRANSITIONS, f"{node.name}: {before} → {state}"
    after = cluster_pb2.Node()
    after.CopyFrom(node)
    after.decision.state = state
    after.decision.why = why
    after.decision.state_time.CopyFrom(now)
    severity = WARNING if state == UNKNOWN else INFO
    return DecideNode(after, f"{_label(before)} → {_label(state)}", why, severity)


def judge_node(now: Timestamp, world: World, node: cluster_pb2.Node) -> DecideNode | None:
    """The next move of a node, if there is one."""
    match node.decision.state, node.name in world.present:
        case ((cluster_pb2.NODE_STATE_UNSPECIFIED | cluster_pb2.NODE_STATE_UNKNOWN), True):
            return enter(node, ONLINE, "it holds its session", now)
        case ((cluster_pb2.NODE_STATE_UNSPECIFIED | cluster_pb2.NODE_STATE_ONLINE), False):
            return enter(node, UNKNOWN, "its session ended", now)
        case _:
            return None


def _label(state: cluster_pb2.NodeState.ValueType) -> str:
    name = cluster_pb2.NodeState.Name(state).removeprefix("NODE_STATE_")
    return "NEW" if name == "UNSPECIFIED" else name
