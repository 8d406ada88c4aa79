"""The life of a node: its states, the moves between them, and what brings them about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.fence import Brakes, progress, proven, waited_s
from services.coordinator.core.limits import limits_of
from services.coordinator.core.plan import ERROR, INFO, WARNING, DecideNode
from services.coordinator.core.power_on import came_back, fenced_at
from services.coordinator.core.rounds import Round
from services.coordinator.core.world import (
    DRAINED,
    DRAINING,
    FENCED,
    FENCING,
    JOINING,
    LEAVING,
    MAINTENANCE,
    NEW,
    ONLINE,
    UNKNOWN,
    WORKING,
    World,
)
from services.mesh.rows import copied

Node = cluster_pb2.Node
State: TypeAlias = cluster_pb2.NodeState.ValueType

STATES: Mapping[State, str] = {
    NEW: "has told of itself and was not looked at yet",
    JOINING: "was added, and its machine has never come",
    ONLINE: "holds its session: its agents work and see the state",
    UNKNOWN: "holds no session: its VMs may or may not run, so nobody may start them elsewhere",
    FENCING: "is being proven dead",
    FENCED: "was proven dead: its VMs are started elsewhere",
    DRAINING: "works, and its VMs are leaving it",
    DRAINED: "works, and no VM runs on it",
    MAINTENANCE: "holds no session, on purpose",
    LEAVING: "is being taken out of the cluster",
}

_AWAY = (UNKNOWN, FENCING, FENCED, MAINTENANCE)
TRANSITIONS = frozenset(
    {
        (NEW, JOINING),
        (NEW, ONLINE),
        (NEW, UNKNOWN),
        (JOINING, ONLINE),
        (ONLINE, DRAINING),
        (DRAINING, DRAINED),
        (DRAINING, ONLINE),
        (DRAINED, ONLINE),
        (DRAINED, DRAINING),
        (ONLINE, UNKNOWN),
        (DRAINING, UNKNOWN),
        (ONLINE, MAINTENANCE),
        (DRAINING, MAINTENANCE),
        (DRAINED, MAINTENANCE),
        (MAINTENANCE, UNKNOWN),
        (UNKNOWN, FENCING),
        (FENCING, UNKNOWN),
        (UNKNOWN, FENCED),
        (FENCING, FENCED),
        *product(_AWAY, WORKING),
        *((state, LEAVING) for state in (JOINING, DRAINED, MAINTENANCE, FENCED)),
    }
)

SEVERITIES = {UNKNOWN: WARNING, FENCING: WARNING, FENCED: ERROR}
RESTLESS_S = 120.0
REFRESH_S = 2.0
REFRESH_SHARE = 0.1
"""How long a node is gone is written again when it grew by this share, and by REFRESH_S at least:
a node that is gone for days is not worth a write every two seconds."""


def judge_nodes(round: Round) -> Iterator[DecideNode]:
    """The next move of each node that has one."""
    brakes = Brakes(round.world)
    for node in round.world.nodes.values():
        if (step := _judge(round, brakes, node)) is not None:
            yield step


def is_restless(world: World) -> bool:
    """Time alone brings something about with a node, and soon: one is missing since not long."""
    missed = (n for n in world.nodes.values() if n.decision.state in (UNKNOWN, FENCING))
    return any(world.gone_s.get(node.name, 0.0) < RESTLESS_S for node in missed)


def enter(node: Node, state: State, why: str, now: Timestamp) -> DecideNode:
    """The only way a node changes its state."""
    before = node.decision.state
    assert (before, state) in TRANSITIONS, f"{node.name}: {label(before)} → {label(state)}"
    after = copied(node)
    after.decision.state = state
    after.decision.why = why
    after.decision.state_time.CopyFrom(now)
    what = f"{label(before)} → {label(state)}"
    return DecideNode(after, what, why, SEVERITIES.get(state, INFO))


def label(state: State) -> str:
    """A state as people read it."""
    name = cluster_pb2.NodeState.Name(state).removeprefix("NODE_STATE_")
    return "NEW" if name == "UNSPECIFIED" else name


def _judge(round: Round, brakes: Brakes, node: Node) -> DecideNode | None:
    state, present = node.decision.state, node.name in round.world.present
    if node.spec.leaving and (state, LEAVING) in TRANSITIONS and round.is_free(node.name):
        return enter(node, LEAVING, "it was removed from the cluster", round.now)
    match state:
        case cluster_pb2.NODE_STATE_UNSPECIFIED | cluster_pb2.NODE_STATE_JOINING:
            return _expected(round, node)
        case cluster_pb2.NODE_STATE_UNKNOWN | cluster_pb2.NODE_STATE_FENCING:
            return _missed(round, brakes, node)
        case cluster_pb2.NODE_STATE_FENCED:
            return _dead(round, node) if present else None
        case cluster_pb2.NODE_STATE_MAINTENANCE:
            return _resting(round, node)
        case state if state in WORKING:
            return _drains(round, node) if present else _left(round, node)
        case _:
            return None


def _expected(round: Round, node: Node) -> DecideNode | None:
    """Never seen yet. One that never had a session is not lost."""
    if node.name in round.world.present:
        return enter(node, ONLINE, "it holds its session", round.now)
    if node.decision.state == JOINING:
        return None
    if not node.status.session:
        return enter(node, JOINING, "its machine has not come yet", round.now)
    return _lost(round, node, "its session ended before anybody looked at it")


def _drains(round: Round, node: Node) -> DecideNode | None:
    """It works: whether it may carry VMs is the administrator's to say."""
    drained = node.spec.drained
    match node.decision.state, drained, drained and round.is_free(node.name):
        case cluster_pb2.NODE_STATE_ONLINE, True, _:
            return enter(node, DRAINING, "it is to be drained", round.now)
        case cluster_pb2.NODE_STATE_DRAINING, True, True:
            return enter(node, DRAINED, "no VM runs on it any more", round.now)
        case cluster_pb2.NODE_STATE_DRAINED, True, False:
            return enter(node, DRAINING, "a VM runs on it after all", round.now)
        case ((cluster_pb2.NODE_STATE_DRAINING | cluster_pb2.NODE_STATE_DRAINED), False, _):
            return enter(node, ONLINE, "it may carry VMs again", round.now)
        case _:
            return None


def _left(round: Round, node: Node) -> DecideNode:
    """It worked, and its session ended."""
    if node.decision.state == DRAINED:
        return enter(node, MAINTENANCE, "its session ended; it was drained", round.now)
    if round.world.spec.maintenance:
        why = "its session ended while the cluster is in maintenance"
        return enter(node, MAINTENANCE, why, round.now)
    return _lost(round, node, "its session ended")


def _resting(round: Round, node: Node) -> DecideNode | None:
    """Away on purpose. When the purpose is gone, a node with no VMs to lose is waited for all the
    same: nothing depends on what became of it."""
    if node.name in round.world.present:
        return _back(round, node, "it is back")
    if round.world.spec.maintenance or round.is_free(node.name):
        return None
    return _lost(round, node, "it is not back, and there is no reason any more to be away")


def _lost(round: Round, node: Node, why: str) -> DecideNode:
    step = enter(node, UNKNOWN, why, round.now)
    _count_from_now(step.node, round.world)
    return step


def _count_from_now(after: Node, world: World) -> None:
    """Remembers which session ended, and how long that has been known."""
    after.decision.lost_session = after.status.session
    after.decision.ClearField("attempts")
    _note_gone(after, world)


def _note_gone(after: Node, world: World) -> None:
    after.decision.lost_for.FromMilliseconds(int(world.gone_s.get(after.name, 0.0) * 1000))


def _missed(round: Round, brakes: Brakes, node: Node) -> DecideNode | None:
    """It was lost, and nothing is proven yet, or a moment ago."""
    fencing = node.decision.state == FENCING
    if proven(node):
        return _fenced(round, node)
    if node.name in round.world.present:
        return _back(round, node, "it holds its session again")
    if node.status.session != node.decision.lost_session:
        return _lost_again(round, node)
    world = round.world
    if world.gone_s.get(node.name, 0.0) < limits_of(world.spec).fence_delay_ms / 1000:
        return None
    held = brakes.holding(node)
    why = f"its session ended; it is not fenced: {held}" if held else progress(node)
    if fencing is not bool(held):
        return _waits(world, node, why)
    step = enter(node, UNKNOWN if fencing else FENCING, why, round.now)
    step.node.decision.ClearField("attempts")
    return step


def _lost_again(round: Round, node: Node) -> DecideNode:
    """It came back and went again before anybody saw it: what was counted is of no use."""
    why = "it came back, and its session ended again"
    if node.decision.state == FENCING:
        return _lost(round, node, why)
    after = copied(node)
    after.decision.why = why
    _count_from_now(after, round.world)
    return DecideNode(after, "lost again", why, WARNING)


def _waits(world: World, node: Node, why: str) -> DecideNode | None:
    """Still away: writes how long, and why nothing happens; tells of it only when that changed."""
    after = copied(node)
    after.decision.why = why
    gone_s, known_s = world.gone_s.get(node.name, 0.0), waited_s(node)
    if gone_s - known_s >= max(REFRESH_S, REFRESH_SHARE * known_s):
        _note_gone(after, world)
    if after == node:
        return None
    what = "is waited for" if why != node.decision.why else ""
    return DecideNode(after, what, why, WARNING)


def _fenced(round: Round, node: Node) -> DecideNode:
    proof = node.decision.proof
    step = enter(node, FENCED, f"proven dead: {proof.text}", round.now)
    step.node.decision.fences += 1
    fenced_at(step.node, round.now)
    step.node.decision.ClearField("attempts")
    return step


def _dead(round: Round, node: Node) -> DecideNode | None:
    """It was fenced, and its machine is back."""
    decision = node.decision
    knows = node.status.fences_seen == decision.fences
    if knows and node.status.session != decision.lost_session:
        return _back(round, node, "it is back, and has ended what was started elsewhere")
    why = "it is back, and looks through its VMs"
    if decision.why == why:
        return None
    after = copied(node)
    after.decision.why = why
    return DecideNode(after, "is back", why)


def _back(round: Round, node: Node, why: str) -> DecideNode:
    state = ONLINE
    if node.spec.drained:
        state = DRAINED if round.is_free(node.name) else DRAINING
    step = enter(node, state, why, round.now)
    for name in ("lost_session", "lost_for", "attempts"):
        step.node.decision.ClearField(name)
    if step.node.decision.HasField("power_on"):
        came_back(step.node)
    return step
