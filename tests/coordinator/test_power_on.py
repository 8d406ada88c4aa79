"""When a fenced node is switched on again, and what keeps it off; one rule each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core import power_on
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideNode
from services.coordinator.core.power_on import (
    BOOT_S,
    FENCES_WITHIN_S,
    FIRST_PAUSE_S,
    TRIES_MAX,
    Done,
    SwitchTry,
    answered,
    is_under_way,
    pause_after,
)
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world

Node = cluster_pb2.Node
Change = Callable[[Node], object]
NOW = 1_000_000.0
FENCED = "node n1 fenced 4096 gone=10 proof=n1-1\nnode n2 online 4096\n"
WEB = "vm web power=RUNNING | node=n1 power=RUNNING | RUNNING"


def fenced(*changes: Change, text: str = FENCED) -> World:
    """n1 was fenced by its controller, which works."""
    there = world(text)
    node = there.nodes["nodes/n1"]
    node.spec.power_control.protocol = cluster_pb2.PowerControl.PROTOCOL_REDFISH
    node.spec.power_control.address = "https://bmc1"
    node.decision.controller.trusted = True
    for change in changes:
        change(node)
    return there


def settled(now: World, seconds: float = NOW) -> World:
    """The world once nothing more is decided."""
    for _ in range(8):
        plan = decide(at(seconds), now)
        if not plan:
            return now
        now = applied(now, plan)
    raise AssertionError(told(plan))


def record(there: World) -> cluster_pb2.PowerOn:
    return there.nodes["nodes/n1"].decision.power_on


def gone(there: World, seconds: float) -> World:
    return replace(there, gone_s={"nodes/n1": seconds})


def after_try(there: World, on: bool) -> World:
    """Something came of the try that is under way."""
    node = there.nodes["nodes/n1"]
    assert is_under_way(node)
    after = answered(node, Done("so it was", on), there.gone_s[node.name])
    return replace(there, nodes={**there.nodes, node.name: after})


def test_it_is_tried_once_its_vms_are_seen_to() -> None:
    first = fenced(text=FENCED + WEB)
    plan = decide(at(NOW), first)
    assert [line.split(" (")[0] for line in told(plan)] == ["vms/web n1 → n2"], "the VMs go first"
    (step,) = decide(at(NOW), applied(first, plan))
    assert isinstance(step, DecideNode) and step.what == "is to be switched on"
    assert step.node.decision.power_on.tries == 1 and is_under_way(step.node)
    assert step.node.decision.lost_for.seconds == 10, "who leads next knows how long it is gone"


def test_vms_that_no_other_node_can_have_do_not_keep_it_off() -> None:
    """They are what it is wanted for."""
    there = fenced(text="node n1 fenced 4096 gone=10 proof=n1-1\nnode n2 online 100\n" + WEB)
    assert record(settled(there)).tries == 1


def test_one_try_at_a_time_and_later_and_later() -> None:
    now = settled(fenced())
    assert settled(gone(now, 5000)) == gone(now, 5000), "nothing has come of the first one yet"
    at_s = 10.0
    for tries in range(1, TRIES_MAX):
        now = after_try(now, on=False)
        at_s += pause_after(tries)
        assert record(settled(gone(now, at_s - 0.1))).tries == tries
        now = settled(gone(now, at_s))
        assert record(now).tries == tries + 1
    assert 2 * 3600 < at_s < 3 * 3600


def test_a_machine_that_is_on_gets_its_time_to_boot() -> None:
    now = after_try(settled(fenced()), on=True)
    assert record(settled(gone(now, 10 + BOOT_S - 1))).tries == 1
    assert record(settled(gone(now, 10 + BOOT_S))).tries == 2


def test_a_leader_that_knows_less_goes_on_from_what_is_stored() -> None:
    """Not from the beginning: the tries are counted in the store."""
    now = after_try(settled(fenced()), on=False)
    now = settled(gone(now, 0.0))
    assert record(now).tries == 1
    assert record(settled(gone(now, 10 + FIRST_PAUSE_S))).tries == 2


def test_one_that_came_and_went_again_waits_the_pause_out_once_more() -> None:
    now = after_try(settled(gone(fenced(), 4000)), on=False)
    node = now.nodes["nodes/n1"]
    node.status.session = "n1-2"
    assert record(settled(gone(now, FIRST_PAUSE_S - 1))).tries == 1
    now = settled(gone(now, FIRST_PAUSE_S))
    assert record(now).tries == 2
    assert now.nodes["nodes/n1"].decision.lost_for.seconds == 4000, "that is about the other one"


def test_it_ends_after_so_many_tries_and_says_how_to_go_on() -> None:
    now = settled(fenced())
    for _ in range(TRIES_MAX - 1):
        now = settled(gone(after_try(now, on=False), now.gone_s["nodes/n1"] + 4000))
    assert record(now).tries == TRIES_MAX and not record(now).ended
    now = after_try(now, on=False)
    assert not record(settled(now)).ended, "the last one has its time too"
    now = settled(gone(now, now.gone_s["nodes/n1"] + 4000))
    assert record(now).ended
    assert record(now).why == (
        f"{TRIES_MAX} tries did not bring it back (the last: so it was): pvc node ready n1"
    )
    assert settled(gone(now, 1e6)) == gone(now, 1e6)


def _admin(node: Node) -> None:
    node.decision.proof.means = cluster_pb2.PROOF_MEANS_ADMIN


def _in_order(node: Node) -> None:
    node.status.restarting = True


def _drained(node: Node) -> None:
    node.spec.drained = True


def _leaving(node: Node) -> None:
    node.spec.leaving = True


def _untrusted(node: Node) -> None:
    node.decision.controller.trusted, node.decision.controller.why = False, "it says off"


HOLDS: dict[str, tuple[Change, str]] = {
    "an administrator was there": (_admin, "an administrator confirmed its death"),
    "switched off on purpose": (_in_order, "its agent had ended in order"),
    "was to be drained": (_drained, "it was to be drained"),
    "its controller may be another's": (_untrusted, "its controller is not trusted: it says off"),
}


@pytest.mark.parametrize("case", HOLDS)
def test_what_keeps_it_off(case: str) -> None:
    change, why = HOLDS[case]
    there = fenced(change)
    (step,) = decide(at(NOW), there)
    assert isinstance(step, DecideNode) and step.what == "stays off" and why in step.why
    now = settled(there)
    assert record(now).why.startswith(why) and record(now).tries == 0
    assert settled(gone(now, 1e6)) == gone(now, 1e6), "it is told once"


def test_one_that_is_to_leave_is_not_switched_on() -> None:
    text = FENCED + "vm web power=RUNNING | node=n1 to=n2 power=RUNNING | RUNNING"
    plan = decide(at(NOW), fenced(_leaving, text=text))
    assert "it is being removed" in " ".join(told(plan)) and not _tried(plan)


def _tried(plan: object) -> bool:
    return "is to be switched on" in " ".join(told(plan))  # type: ignore[arg-type]


def test_a_reboot_that_took_too_long_is_not_on_purpose() -> None:
    """Its controller said that it was on: what switched it off was the leader."""

    def was_on(node: Node) -> None:
        _in_order(node)
        node.decision.proof.was_on = True

    assert record(settled(fenced(was_on))).tries == 1

    def by_storage(node: Node) -> None:
        was_on(node)
        node.decision.proof.means = cluster_pb2.PROOF_MEANS_STORAGE

    assert record(settled(fenced(by_storage))).tries == 0, "nobody asked its controller"


def test_a_watchdog_as_proof_will_do() -> None:
    def by_watchdog(node: Node) -> None:
        node.decision.proof.means = cluster_pb2.PROOF_MEANS_WATCHDOG

    assert record(settled(fenced(by_watchdog))).tries == 1


def test_two_with_the_same_controller_are_left_alone() -> None:
    there = fenced()
    there.nodes["nodes/n2"].spec.power_control.address = "https://bmc1"
    now = settled(there)
    assert record(now).tries == 0 and "nodes/n2 has the same controller" in record(now).why


@pytest.mark.parametrize("text", [FENCED.replace("fenced", state) for state in (
    "online", "unknown", "fencing", "fenced-back", "maintenance", "drained")])  # fmt: skip
def test_only_a_fenced_node_that_is_away_is(text: str) -> None:
    assert not _tried(decide(at(NOW), fenced(text=text)))


def test_one_without_a_controller_is_not_spoken_of() -> None:
    there = fenced(lambda node: node.spec.ClearField("power_control"))
    assert decide(at(NOW), there) == ()


def test_the_cluster_can_be_told_not_to() -> None:
    there = fenced()
    there.spec.power_on_after_fence = False
    now = settled(there)
    assert record(now).why == "power_on_after_fence is off" and not record(now).ended
    now.spec.power_on_after_fence = True
    assert record(settled(now)).tries == 1, "and to do it after all"


def test_not_while_high_availability_is_disarmed() -> None:
    there = fenced()
    there.spec.ha_disarmed = True
    now = settled(there)
    assert record(now).why == "high availability is disarmed"
    now.spec.ha_disarmed = False
    assert record(settled(now)).tries == 1


def test_maintenance_ends_it_until_somebody_asks() -> None:
    there = fenced()
    there.spec.maintenance = True
    now = settled(there)
    assert record(now).ended and record(now).why.endswith("pvc node ready n1")
    now.spec.maintenance = False
    assert settled(now) == now, "whoever worked there may still have a hand in it"
    now.nodes["nodes/n1"].spec.ready_request += 1
    assert record(settled(now)).tries == 1


def died(now: World, seconds: float, tries: int = 0) -> World:
    """n1, which was back, is fenced at that time."""
    node = now.nodes["nodes/n1"]
    if node.decision.state == cluster_pb2.NODE_STATE_FENCED:
        after = Node()
        after.CopyFrom(node)
        power_on.came_back(after)
    else:
        after = node
    power_on.fenced_at(after, Timestamp(seconds=int(seconds)))
    return replace(now, nodes={**now.nodes, node.name: after})


def test_one_that_dies_again_and_again_stays_off() -> None:
    now = fenced()
    for hours, on in ((0, True), (10, True), (23, False)):
        now = settled(died(now, NOW + hours * 3600), NOW + hours * 3600)
        assert (record(now).tries == 1) is on
    assert record(now).ended and record(now).why == (
        "it was fenced 3 times within 24 hours: look what is wrong with it, then switch it on "
        "again with: pvc node ready n1"
    )
    assert settled(now, NOW + 10 * FENCES_WITHIN_S) == now, "it does not come on by itself"
    now.nodes["nodes/n1"].spec.ready_request += 1
    now = settled(now, NOW + 24 * 3600)
    assert record(now).tries == 1
    now = settled(died(now, NOW + 25 * 3600), NOW + 25 * 3600)
    assert record(now).tries == 1, "what was before is not held against it"


def test_one_that_dies_now_and_then_is_switched_on_for_ever() -> None:
    now = fenced()
    for day in range(20):
        now = settled(died(now, NOW + day * 13 * 3600), NOW + day * 13 * 3600)
        assert record(now).tries == 1
    assert len(now.nodes["nodes/n1"].decision.fence_times) == power_on.FENCES_MAX


def test_it_was_mended_and_made_ready_while_it_worked() -> None:
    now = fenced()
    for hours in (0, 1):
        now = settled(died(now, NOW + hours * 3600), NOW + hours * 3600)
    now.nodes["nodes/n1"].spec.ready_request += 1
    node = now.nodes["nodes/n1"]
    node.decision.state = cluster_pb2.NODE_STATE_ONLINE
    node = died(now, NOW + 7200).nodes["nodes/n1"]
    assert [x.seconds for x in node.decision.fence_times] == [NOW + 7200]


def test_a_fence_and_a_return_are_counted_by_the_states() -> None:
    now = world("node n1 fencing 4096 gone=9 proof=n1-1\nnode n2 online 4096\nnode n3 online 4096")
    now.nodes["nodes/n1"].spec.power_control.address = "https://bmc1"
    now.nodes["nodes/n1"].decision.controller.trusted = True
    now = settled(now)
    node = now.nodes["nodes/n1"]
    assert node.decision.state == cluster_pb2.NODE_STATE_FENCED
    assert [x.seconds for x in node.decision.fence_times] == [NOW] and record(now).tries == 1
    node.status.session, node.status.fences_seen = "n1-2", node.decision.fences
    now = settled(replace(now, present=now.present | {node.name}, gone_s={}))
    node = now.nodes["nodes/n1"]
    assert node.decision.state == cluster_pb2.NODE_STATE_ONLINE
    assert record(now) == cluster_pb2.PowerOn() and len(node.decision.fence_times) == 1


# --- One try.


def test_one_that_is_on_is_left_alone() -> None:
    match SwitchTry().after_answer(on=True):
        case Done(why, on):
            assert on and "says that it is on" in why
        case other:
            raise AssertionError(other)


def test_one_that_is_off_is_switched_on_and_asked_until_it_is() -> None:
    step = SwitchTry().after_answer(on=False)
    assert isinstance(step, SwitchTry) and step.seen_off and not step.commanded
    step = step.after_command()
    for _ in range(power_on.ASKS_MAX - 1):
        step = step.after_answer(on=False)
        assert isinstance(step, SwitchTry)
    assert step.after_answer(on=True) == Done(
        "its controller switched it on, and says so: it is waited for", on=True
    )
    match step.after_answer(on=False):
        case Done(why, on):
            assert not on and "still says that it is off 9 s later" in why
        case other:
            raise AssertionError(other)
