"""The life of a node: every state and every move between them, and what brings it about."""

from __future__ import annotations

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core import nodes
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideNode
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world

QUIET = "node n7 online 100\nnode n8 online 100\nnode n9 online 100\n"
"""Others, so that one missing node is not most of them."""


def decided(before: World) -> cluster_pb2.Node | None:
    """What becomes of n1; None when nothing does."""
    steps = [step for step in decide(at(5), before) if isinstance(step, DecideNode)]
    return next((step.node for step in steps if step.node.name == "nodes/n1"), None)


def judged(text: str) -> cluster_pb2.Node | None:
    return decided(world(QUIET + text))


MOVES = {
    "NEW → JOINING": "node n1 new-gone 100 session=",
    "NEW → ONLINE": "node n1 new 100",
    "NEW → UNKNOWN": "node n1 new-gone 100",
    "JOINING → ONLINE": "node n1 joined 100",
    "ONLINE → DRAINING": "node n1 online 100 drained",
    "DRAINING → DRAINED": "node n1 draining 100",
    "DRAINED → DRAINING": "node n1 drained 100\nvm a | node=n1 | RUNNING",
    "ONLINE → UNKNOWN": "node n1 silent 100",
    "DRAINING → UNKNOWN": "node n1 draining-gone 100",
    "ONLINE → MAINTENANCE": "cluster maintenance\nnode n1 silent 100",
    "DRAINING → MAINTENANCE": "cluster maintenance\nnode n1 draining-gone 100",
    "DRAINED → MAINTENANCE": "node n1 drained-gone 100",
    "MAINTENANCE → UNKNOWN": "node n1 maintenance 100\nvm a | node=n1 | RUNNING",
    "UNKNOWN → FENCING": "node n1 unknown 100 gone=1",
    "FENCING → UNKNOWN": "cluster disarmed\nnode n1 fencing 100 gone=1",
    "UNKNOWN → FENCED": "node n1 unknown 100 proof=n1-1",
    "FENCING → FENCED": "node n1 fencing 100 proof=n1-1",
    "UNKNOWN → ONLINE": "node n1 back 100",
    "UNKNOWN → DRAINED": "node n1 back 100 drained",
    "UNKNOWN → DRAINING": "node n1 back 100 drained\nvm a | node=n1 | RUNNING",
    "FENCING → ONLINE": "node n1 fencing-back 100 session=n1-2",
    "FENCING → DRAINED": "node n1 fencing-back 100 session=n1-2 drained",
    "FENCING → DRAINING": "node n1 fencing-back 100 session=n1-2 drained\nvm a | node=n1 | RUNNING",
    "FENCED → ONLINE": "node n1 fenced-back 100 session=n1-2 knows=1",
    "FENCED → DRAINED": "node n1 fenced-back 100 session=n1-2 knows=1 drained",
    "FENCED → DRAINING": "node n1 fenced-back 100 session=n1-2 knows=1 drained\n"
    "vm a | node=n1 | RUNNING",
    "MAINTENANCE → ONLINE": "node n1 maintenance-back 100",
    "MAINTENANCE → DRAINED": "node n1 maintenance-back 100 drained",
    "MAINTENANCE → DRAINING": "node n1 maintenance-back 100 drained\nvm a | node=n1 | RUNNING",
    "JOINING → LEAVING": "node n1 joining 100 leaving",
    "DRAINED → LEAVING": "node n1 drained 100 leaving",
    "MAINTENANCE → LEAVING": "node n1 maintenance 100 leaving",
    "FENCED → LEAVING": "node n1 fenced 100 leaving",
}


def undrained(state: str) -> World:
    """A drained node that is to be ready again."""
    there = world(QUIET + f"node n1 {state} 100")
    there.nodes["nodes/n1"].spec.drained = False
    return there


@pytest.mark.parametrize("move", MOVES)
def test_every_move_of_a_node(move: str) -> None:
    before = world(QUIET + MOVES[move])
    after = decided(before)
    assert after is not None
    labels = [nodes.label(x.decision.state) for x in (before.nodes["nodes/n1"], after)]
    assert " → ".join(labels) == move


def test_a_drained_node_is_made_ready() -> None:
    for state in ("draining", "drained"):
        after = decided(undrained(state))
        assert after is not None and after.decision.state == cluster_pb2.NODE_STATE_ONLINE


def test_the_table_has_no_other_moves() -> None:
    tested = {tuple(move.split(" → ")) for move in MOVES}
    tested |= {("DRAINING", "ONLINE"), ("DRAINED", "ONLINE")}
    assert tested == {(nodes.label(a), nodes.label(b)) for a, b in nodes.TRANSITIONS}


def test_every_state_has_words() -> None:
    assert set(nodes.STATES) == set(cluster_pb2.NodeState.values())


@pytest.mark.parametrize(
    "node",
    [
        "online 100",
        "joining 100",
        "drained 100",
        "unknown 100 gone=0.4",
        "fencing 100 gone=1 known=1",
        "fenced 100",
        "maintenance 100 drained",
        "maintenance 100",
        "leaving 100",
        "draining 100\nvm a power=RUNNING | node=n1 power=RUNNING | RUNNING",
        "draining 100\nvm a power=RUNNING | node=n7 to=n1 power=RUNNING | RUNNING",
        "draining 100\nvm a power=RUNNING | node=n7 power=RUNNING | RUNNING by=n1",
    ],
)
def test_nothing_happens_to_a_node(node: str) -> None:
    text = f"node n1 {node}"
    after = judged(text)
    before = world(text).nodes["nodes/n1"]
    assert after is None or after.decision.why != before.decision.why
    assert after is None or after.decision.state == before.decision.state
    assert decided(applied(world(QUIET + text), decide(at(5), world(QUIET + text)))) is None


def test_a_node_without_a_session_ever_is_not_lost() -> None:
    assert judged("node n1 joining 100") is None


def test_what_is_lost_is_remembered() -> None:
    after = judged("node n1 silent 100 session=abc gone=0.25")
    assert after is not None and after.decision.lost_session == "abc"
    assert after.decision.lost_for.nanos == 250_000_000


def test_a_node_that_came_and_went_unseen_is_counted_anew() -> None:
    for state in ("unknown", "fencing"):
        after = judged(f"node n1 {state} 100 session=n1-2 lost=n1-1 gone=0 known=60 proof=n1-0")
        assert after is not None and after.decision.state == cluster_pb2.NODE_STATE_UNKNOWN
        assert (after.decision.lost_session, after.decision.lost_for.seconds) == ("n1-2", 0)


def test_how_long_it_is_gone_is_written_now_and_then() -> None:
    """Every two seconds at first; later when it grew by a tenth."""
    for gone, known, written in ((3, 2, False), (4, 2, True), (105, 100, False), (111, 100, True)):
        after = judged(f"cluster disarmed\nnode n1 unknown 100 gone={gone} known={known}")
        assert after is not None
        assert after.decision.lost_for.seconds == (gone if written else known)


def test_that_is_nothing_to_tell_of() -> None:
    text = QUIET + "node n1 fencing 100 gone=9 known=5"
    there = world(text)
    there.nodes["nodes/n1"].decision.why = "its session ended; its death is being proven"
    (step,) = decide(at(5), there)
    assert isinstance(step, DecideNode) and step.what == ""


def test_a_proof_of_another_session_proves_nothing() -> None:
    after = judged("node n1 fencing 100 gone=1 proof=n1-0")
    assert after is None or after.decision.state == cluster_pb2.NODE_STATE_FENCING


def test_a_proof_counts_the_fences_and_is_kept() -> None:
    after = judged("node n1 fencing 100 fences=4 proof=n1-1")
    assert after is not None and after.decision.fences == 5
    assert after.decision.proof.session == "n1-1"
    assert "its controller says" in after.decision.why


@pytest.mark.parametrize("node", ["session=n1-2 knows=0", "session=n1-1 knows=1"])
def test_a_fenced_node_carries_nothing_before_it_knows(node: str) -> None:
    after = judged(f"node n1 fenced-back 100 {node}")
    assert after is not None and after.decision.state == cluster_pb2.NODE_STATE_FENCED
    assert after.decision.why == "it is back, and looks through its VMs"


def test_what_was_lost_is_forgotten_when_it_is_back() -> None:
    after = judged("node n1 fencing-back 100 session=n1-2 gone=3")
    assert after is not None and not after.decision.lost_session
    assert not after.decision.HasField("lost_for") and not after.decision.attempts


def test_a_removed_node_stays_while_something_may_run_there() -> None:
    there = "node n1 drained 100 leaving\nvm a | node=n1 | RUNNING"
    after = judged(there)
    assert after is not None and after.decision.state == cluster_pb2.NODE_STATE_DRAINING


def test_it_tells_how_the_proofs_come_along() -> None:
    there = world(QUIET + "node n1 fencing 100 gone=3 known=3")
    attempts = there.nodes["nodes/n1"].decision.attempts
    attempts.add(means=cluster_pb2.PROOF_MEANS_POWER, why="the controller does not answer")
    attempts.add(means=cluster_pb2.PROOF_MEANS_WATCHDOG, why="it has none", impossible=True)
    assert told(decide(at(5), there)) == [
        "nodes/n1 is waited for (its death is not proven yet: power: the controller does not "
        "answer; watchdog: it has none)"
    ]
    attempts[0].impossible = True
    assert "pvc node confirm-dead n1" in told(decide(at(5), there))[0]


def test_the_word_of_a_past_arrival_does_not_keep_a_node_from_being_drained() -> None:
    """A target that died after READY, and whose move the source ended, never takes that back."""
    before = world(QUIET + "node n1 draining 100\nvm a | node=n7 | RUNNING")
    arrival = before.vms["vms/a"].arrival
    arrival.node, arrival.state = "nodes/n1", vm_pb2.VmArrival.STATE_READY
    after = decided(before)
    assert after is not None and after.decision.state == cluster_pb2.NODE_STATE_DRAINED
