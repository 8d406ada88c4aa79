"""What keeps a node from being fenced, one brake a test."""

from __future__ import annotations

from dataclasses import replace

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.fence import BRAKES
from services.coordinator.core.plan import DecideNode
from services.coordinator.core.world import Outage
from tests.coordinator.worlds import at, world

FENCING = cluster_pb2.NODE_STATE_FENCING


def online(count: int) -> str:
    return "".join(f"node o{number} online 100\n" for number in range(count))


def fenced(text: str) -> dict[str, str]:
    """Node → "" when it is being fenced now, else why not."""
    found = {}
    for step in decide(at(5), world(text)):
        assert isinstance(step, DecideNode)
        state, why = step.node.decision.state, step.node.decision.why
        found[step.node.name.removeprefix("nodes/")] = "" if state == FENCING else why
    return found


def test_there_are_six_brakes() -> None:
    names = [brake.__name__ for brake in BRAKES]
    assert names == [
        "in_maintenance",
        "disarmed",
        "restarting",
        "most_look_dead",
        "just_back",
        "too_many",
    ]


def test_maintenance() -> None:
    why = fenced("cluster maintenance\nnode n1 unknown 100 gone=9\n" + online(3))["n1"]
    assert why == "its session ended; it is not fenced: the cluster is in maintenance"


def test_disarmed() -> None:
    why = fenced("cluster disarmed\nnode n1 unknown 100 gone=9\n" + online(3))["n1"]
    assert why.endswith("high availability is disarmed")


def test_a_node_that_said_that_it_restarts_gets_its_time() -> None:
    text = "node n1 unknown 100 restarting gone={}\n" + online(3)
    assert "has 60 s for that" in fenced(text.format(59))["n1"]
    assert fenced(text.format(60))["n1"] == ""
    assert fenced("cluster restart_grace_s=5\n" + text.format(5))["n1"] == ""


def test_most_look_dead() -> None:
    three = "".join(f"node n{number} unknown 100 gone=9\n" for number in range(3))
    why = fenced("cluster fence_max_percent=100\n" + three + online(2))
    assert set(why) == {"n0", "n1", "n2"}
    assert all("3 of 5 nodes look dead" in text for text in why.values())
    half = fenced("cluster fence_max_percent=100\n" + three + online(3))
    assert set(half.values()) == {""}, "half of them are not most"


def judged(gone_s: float, outage: Outage) -> cluster_pb2.NodeDecision:
    late = world(f"node n1 unknown 100 gone={gone_s} known={gone_s}\n" + online(3))
    (step,) = decide(at(5), replace(late, outage=outage))
    assert isinstance(step, DecideNode)
    return step.node.decision


def test_after_most_were_gone_the_others_get_their_time() -> None:
    """The power of all failed, and one takes longer to start."""
    assert "it has 60 s for that too" in judged(70, Outage(began_s=70, ended_s=59)).why
    assert judged(70, Outage(began_s=70, ended_s=60)).state == FENCING


def test_a_node_that_was_gone_before_gets_none() -> None:
    """It is dead, and then another one was away for a moment."""
    assert judged(15, Outage(began_s=10, ended_s=9)).state == FENCING
    assert judged(12, Outage(began_s=10, ended_s=9)).state != FENCING


def test_one_always_may_and_not_more_than_a_third_at_once() -> None:
    three = "".join(f"node n{number} unknown 100 gone=9\n" for number in range(3))
    why = fenced(three + online(4))
    assert why["n0"] == why["n1"] == "" and "more than 34 %" in why["n2"]
    assert fenced("node n1 unknown 100 gone=9\nnode n2 online 100")["n1"] == ""


def test_those_that_were_fenced_a_short_time_ago_count() -> None:
    text = "node n1 unknown 100 gone=9\nnode n2 fenced 100 gone={}\n" + online(3)
    assert "1 of 5 nodes are being fenced" in fenced(text.format(299))["n1"]
    assert fenced(text.format(300))["n1"] == ""


def test_what_is_being_fenced_stops_when_a_brake_holds() -> None:
    why = fenced("cluster maintenance\nnode n1 fencing 100 gone=9\n" + online(3))["n1"]
    assert why.endswith("the cluster is in maintenance")


def test_nodes_that_are_away_on_purpose_are_not_missing() -> None:
    away = "node m1 maintenance 100 drained\nnode m2 maintenance 100 drained\nnode j joining 100\n"
    assert fenced(away + "node n1 unknown 100 gone=9\n" + online(2)) == {"n1": ""}


def test_it_is_waited_for_a_moment_first() -> None:
    text = "node n1 unknown 100 gone={}\n" + online(3)
    assert fenced(text.format(0.49)) == {}
    assert fenced(text.format(0.5)) == {"n1": ""}
    assert fenced("cluster fence_delay_ms=2000\n" + text.format(1.9)) == {}


def test_a_proof_goes_before_all_brakes() -> None:
    there = world("cluster maintenance\nnode n1 unknown 100 gone=9 proof=n1-1\n" + online(3))
    (step,) = decide(at(5), there)
    assert isinstance(step, DecideNode)
    assert step.node.decision.state == cluster_pb2.NODE_STATE_FENCED


def test_a_single_machine_is_never_fenced() -> None:
    there = world("node n1 unknown 100 gone=900")
    (step,) = decide(at(5), replace(there))
    assert isinstance(step, DecideNode) and step.node.decision.state != FENCING
