"""What proves a death, one rule each."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.proofs import (
    ASKS_MAX,
    Holds,
    Impossible,
    PowerTry,
    Waits,
    attempt,
    by_watchdog,
    pause_after,
    power_barred,
    same_controller,
    settings_of,
)


def lost(**watchdog: object) -> cluster_pb2.Node:
    """A node that lost the session s1, with its watchdog armed for that."""
    node = cluster_pb2.Node(name="nodes/n2")
    node.decision.lost_session = "s1"
    given = {"armed": True, "session": "s1", "timeout": Duration(seconds=3), **watchdog}
    node.status.watchdog.CopyFrom(cluster_pb2.WatchdogStatus(**given))  # type: ignore[arg-type]
    return node


def controlled(**check: object) -> cluster_pb2.Node:
    node = cluster_pb2.Node(name="nodes/n2")
    node.spec.power_control.address = "https://bmc2"
    given = {"trusted": True, "settings": "now", **check}
    node.decision.controller.CopyFrom(cluster_pb2.ControllerCheck(**given))  # type: ignore[arg-type]
    return node


@pytest.mark.parametrize("gone_s", [0.0, 3.0, 4.05])
def test_a_watchdog_takes_its_time(gone_s: float) -> None:
    verdict = by_watchdog(lost(), gone_s)
    assert verdict == Waits("waiting until its session has been gone for 4.1 s")


def test_a_watchdog_proves_it_after_its_time_and_some() -> None:
    verdict = by_watchdog(lost(device="/dev/watchdog"), 4.07)
    assert isinstance(verdict, Holds) and "/dev/watchdog" in verdict.text


@pytest.mark.parametrize(
    ("watchdog", "why"),
    [
        ({"armed": False}, "no watchdog that was armed"),
        ({"timeout": Duration()}, "no watchdog that was armed"),
        ({"session": "s0"}, "not armed for the session that it lost"),
        ({"session": ""}, "not armed for the session that it lost"),
    ],
)
def test_a_watchdog_of_anything_else_proves_nothing(watchdog: dict[str, object], why: str) -> None:
    verdict = by_watchdog(lost(**watchdog), 1e6)
    assert isinstance(verdict, Impossible) and why in verdict.why


def test_without_a_lost_session_there_is_nothing_to_prove() -> None:
    node = lost(session="")
    node.decision.lost_session = ""
    assert isinstance(by_watchdog(node, 1e6), Waits)


def test_power_is_off_when_it_is_said_twice_in_a_row() -> None:
    once = PowerTry().after_command().after_answer(on=False)
    assert isinstance(once, PowerTry)
    back = once.after_answer(on=True)
    assert isinstance(back, PowerTry) and back.offs == 0
    again = back.after_answer(on=False)
    assert isinstance(again, PowerTry)
    assert isinstance(again.after_answer(on=False), Holds)


def test_an_answer_before_the_command_is_none() -> None:
    with pytest.raises(AssertionError):
        PowerTry().after_answer(on=False)


def test_a_controller_that_does_nothing_is_told() -> None:
    step: object = PowerTry().after_command()
    for _ in range(ASKS_MAX):
        assert isinstance(step, PowerTry)
        step = step.after_answer(on=True)
    assert isinstance(step, Waits) and "still says that it is on" in step.why


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (cluster_pb2.Node(), "has no controller"),
        (controlled(trusted=False, why="it was off"), "not trusted: it was off"),
        (controlled(settings="then"), "not asked by its present settings"),
        (controlled(settings=""), "not asked by its present settings"),
    ],
)
def test_only_a_controller_that_was_seen_to_be_right_is_believed(
    node: cluster_pb2.Node, why: str
) -> None:
    barred = power_barred(node, "now")
    assert barred is not None and why in barred.why


def test_a_trusted_controller_is_believed() -> None:
    assert power_barred(controlled(), "now") is None
    twin = power_barred(controlled(), "now", "nodes/n3")
    assert twin is not None and "nodes/n3" in twin.why


def test_settings_change_with_everything_but_the_password_itself() -> None:
    control = cluster_pb2.PowerControl(address="a", user="u", system="1")
    first = settings_of(control, b"sealed")
    assert settings_of(control, b"sealed anew") != first
    given = cluster_pb2.PowerControl(address="a", user="u", system="1", password="secret")
    assert settings_of(given, b"sealed") == first
    for change in ({"address": "b"}, {"user": "v"}, {"system": "2"}, {"certificate": "c"}):
        other = cluster_pb2.PowerControl()
        other.CopyFrom(control)
        other.MergeFrom(cluster_pb2.PowerControl(**change))
        assert settings_of(other, b"sealed") != first


def test_two_systems_of_one_controller_are_two_machines() -> None:
    one, other = controlled(), controlled()
    other.name = "nodes/n3"
    assert same_controller(one, [one, other]) == "nodes/n3"
    other.spec.power_control.system = "2"
    assert same_controller(one, [one, other]) == ""
    assert same_controller(one, [one, cluster_pb2.Node(name="nodes/n4")]) == ""


def test_tries_come_later_and_later_but_never_end() -> None:
    pauses = [pause_after(tries) for tries in range(1, 10)]
    assert pauses[:5] == [1, 2, 4, 8, 15] and pause_after(10**9) == 15


def test_an_attempt_tells_what_stands_in_the_way() -> None:
    shown = attempt(cluster_pb2.PROOF_MEANS_POWER, 3, Impossible("no controller"))
    assert (shown.tries, shown.why, shown.impossible) == (3, "no controller", True)
    assert not attempt(cluster_pb2.PROOF_MEANS_POWER, 3, Waits("not yet")).impossible
