"""A VM that migrates when a node dies: every combination of what became of both nodes and of what
they said last. Whatever it is, the VM never runs twice, and never is nowhere for ever."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideVm
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world

PHASES = ("", "PREPARING", "COPYING", "MOVED", "FAILED")
ARRIVALS = ("", "READY", "REFUSED", "RUNNING", "GONE")
TARGETS = ("online", "unknown", "fencing", "fenced", "fenced-back")
CANCELS = ("", "cancel")
ALL = list(product(PHASES, ARRIVALS, CANCELS))


def moving(source: str, target: str, phase: str, arrival: str, more: str) -> World:
    """web goes from n1 to n2; n3 has room for it."""
    lines = [
        f"node n1 {source} 4096 {'session=n1-2' if source == 'fenced-back' else ''}",
        f"node n2 {target} 4096 {'session=n2-2' if target == 'fenced-back' else ''}",
        "node n3 online 9000\nnode n4 online 1\nnode n5 online 1",
        f"vm web power=RUNNING asked=1 | node=n1 power=RUNNING to=n2 {more} | RUNNING"
        f" | {phase} | {arrival}",
    ]
    return world("\n".join(lines))


def settled(now: World) -> World:
    for _ in range(16):
        plan = decide(at(5), now)
        if not plan:
            return now
        now = applied(now, plan)
    raise AssertionError(told(plan))


def home(now: World) -> str:
    """Where it is, and "…" behind it while it still migrates."""
    decision = settled(now).vms["vms/web"].decision
    goes_on = "…" if decision.HasField("migration") else ""
    return decision.node.removeprefix("nodes/") + goes_on


def not_there(phase: str, arrival: str) -> bool:
    """It cannot come to run on the target any more: the target says so, or the source never began,
    or says that it failed."""
    return arrival in ("GONE", "REFUSED") or phase in ("", "PREPARING", "FAILED")


@pytest.mark.parametrize(("phase", "arrival", "cancel"), ALL)
def test_the_source_died(phase: str, arrival: str, cancel: str) -> None:
    for target in TARGETS:
        found = home(moving("fenced", target, phase, arrival, cancel))
        there = phase == "MOVED" or arrival == "RUNNING"
        if there:
            wanted = "n3" if target == "fenced" else "n2"
        elif not_there(phase, arrival) or target == "fenced":
            wanted = "n3"
        else:
            wanted = "n1…"
        assert found == wanted, target


@pytest.mark.parametrize(("phase", "arrival", "cancel"), ALL)
def test_the_source_is_away_and_nothing_is_proven(phase: str, arrival: str, cancel: str) -> None:
    """It may run there: it goes nowhere but where its own node said that it went."""
    for source, target in product(("unknown", "fencing", "fenced-back"), TARGETS):
        if source == "fenced-back" and phase == "MOVED":
            continue  # waits until its node has looked
        found = home(moving(source, target, phase, arrival, cancel))
        if phase == "MOVED":
            assert found == ("n3" if target == "fenced" else "n2"), (source, target)
        else:
            assert found in ("n1", "n1…"), (source, target)


@pytest.mark.parametrize(("phase", "arrival", "cancel"), ALL)
def test_the_target_died_or_is_away(phase: str, arrival: str, cancel: str) -> None:
    """Its source has the word, and is told to stop while it copies."""
    for target in ("unknown", "fencing", "fenced", "fenced-back"):
        now = moving("online", target, phase, arrival, cancel)
        found = home(now)
        if phase == "MOVED":
            assert found == ("n3" if target == "fenced" else "n2"), target
        elif phase == "COPYING":
            assert found == "n1…", target
            assert settled(now).vms["vms/web"].decision.migration.cancel
        else:
            assert found == "n1", target


def test_it_is_recovered_from_the_target_when_that_dies_later() -> None:
    there = settled(moving("fenced", "unknown", "COPYING", "RUNNING", "cancel"))
    assert there.vms["vms/web"].decision.node == "nodes/n2"
    dead = moving("fenced", "fenced", "", "", "").nodes["nodes/n2"]
    later = replace(there, nodes={**there.nodes, "nodes/n2": dead})
    assert home(later) == "n3"


def test_the_target_said_no_more_than_that_it_lets_it_in() -> None:
    """READY, and the source was copying: it may have come to run since."""
    now = moving("fenced", "online", "COPYING", "READY", "")
    (step,) = decide(at(5), now)
    assert isinstance(step, DecideVm) and step.vm.decision.migration.cancel
    now = applied(now, (step,))
    assert decide(at(6), now) == ()
    now.vms["vms/web"].arrival.state = vm_pb2.VmArrival.STATE_GONE
    assert home(now) == "n3"


@pytest.mark.parametrize("seen", ["STOPPING", "STOPPED", "RUNNING"])
def test_one_that_was_shut_down_to_be_moved_runs_again(seen: str) -> None:
    text = "node n1 fenced 4096\nnode n2 {} 4096\nnode n3 online 9000\nnode n4 online 1\n"
    vm = f"vm web power=RUNNING asked=1 | node=n1 power=SHUT_DOWN to=n2 method=SHUTDOWN | {seen}"
    for target in ("online", "unknown", "fenced"):
        after = settled(world(text.format(target) + vm)).vms["vms/web"].decision
        assert (after.node, after.power) == ("nodes/n3", vm_pb2.POWER_STATE_RUNNING), target


def test_one_that_was_asked_to_stop_meanwhile_stays_off() -> None:
    now = moving("fenced", "online", "PREPARING", "READY", "")
    now.vms["vms/web"].spec.power = vm_pb2.POWER_STATE_OFF
    now.vms["vms/web"].spec.power_request = 2
    after = settled(now).vms["vms/web"].decision
    assert after.power == vm_pb2.POWER_STATE_OFF and not after.HasField("migration")
