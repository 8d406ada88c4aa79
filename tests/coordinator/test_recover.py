"""What becomes of the VMs of a dead node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideVm
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world

RUN = "power=RUNNING | node=n1 power=RUNNING | RUNNING"
TWO = "node n1 fenced 4096\nnode n2 online 4096\n"


def decided(before: World) -> dict[str, vm_pb2.VmDecision]:
    steps = [step for step in decide(at(5), before) if isinstance(step, DecideVm)]
    return {step.vm.name.removeprefix("vms/"): step.vm.decision for step in steps}


def settled(now: World) -> World:
    """The world once there is nothing left to decide."""
    for _ in range(16):
        plan = decide(at(5), now)
        if not plan:
            return now
        now = applied(now, plan)
    raise AssertionError(told(plan))


def test_it_is_started_on_another_node() -> None:
    after = decided(world(TWO + f"vm web {RUN}"))["web"]
    assert (after.node, after.home) == ("nodes/n2", "nodes/n1")
    assert after.power == vm_pb2.POWER_STATE_RUNNING
    assert (after.recoveries, after.fence_seen) == (1, 0)
    assert after.why.startswith("n1 is dead; free memory")


def test_nothing_is_moved_without_a_proof() -> None:
    for state in ("silent", "unknown", "fencing", "maintenance"):
        text = f"node n1 {state} 4096 gone=60 known=60\nnode n2 online 4096\nnode n3 online 4096\n"
        now = world(text + f"vm web {RUN}")
        for _ in range(4):
            assert "web" not in decided(now), state
            now = applied(now, decide(at(5), now))


def test_one_that_is_back_keeps_its_vms() -> None:
    """It may never have lost them; they are its own again when it has taken in what happened."""
    text = f"node n1 fenced-back 4096 session=n1-2\nnode n2 online 4096\nvm web {RUN}"
    assert decided(settled(world(text))) == {}
    assert settled(world(text)).vms["vms/web"].decision.node == "nodes/n1"


def test_the_important_ones_get_the_room() -> None:
    now = world("node n1 fenced 4096\nnode n2 online 1000\n"
        f"vm a memory=600 priority=100 {RUN}\nvm b memory=600 priority=900 {RUN}\n"
        f"vm c memory=300 {RUN}")  # fmt: skip
    names = [step.vm.name for step in decide(at(5), now) if isinstance(step, DecideVm)]
    assert names == ["vms/b", "vms/c", "vms/a"]
    after = decided(now)
    assert (after["a"].node, after["b"].node, after["c"].node) == (
        "nodes/n1",
        "nodes/n2",
        "nodes/n2",
    )
    assert after["a"].why.startswith("waits for room: n1 is dead, and ")


def test_what_waits_for_others_keeps_its_room() -> None:
    now = settled(world("node n1 fenced 4096\nnode n2 online 1000\nnode n3 online 600\n"
        f"vm web memory=800 priority=900 after=db {RUN}\nvm db memory=500 {RUN}\n"
        "vm x memory=400 power=RUNNING asked=1 | asked=0"))  # fmt: skip
    assert now.vms["vms/web"].decision.node == "nodes/n2"
    assert now.vms["vms/web"].decision.waits_for
    assert now.vms["vms/x"].decision.node == ""


def test_what_waits_for_room_is_told_once_and_started_later() -> None:
    now = settled(world("node n1 fenced 4096\nnode n2 online 100\nvm web " + RUN))
    now.nodes["nodes/n2"].status.memory_for_vms_mib = 200
    assert decide(at(6), now) == ()
    now.nodes["nodes/n2"].status.memory_for_vms_mib = 2000
    assert decided(now)["web"].node == "nodes/n2"


@pytest.mark.parametrize("held", ["", "cluster maintenance\n", "cluster disarmed\n"])
def test_what_waits_for_room_and_is_asked_for_has_one_why(held: str) -> None:
    """Its death says why it does not run, and so does its request: the first alone is told."""
    asked = "power=RUNNING asked=2 | node=n1 power=RUNNING asked=1 | RUNNING"
    now = settled(world(f"{held}node n1 fenced 4096\nnode n2 online 100\nvm web {asked}"))
    why = now.vms["vms/web"].decision.why
    assert why.startswith("not started elsewhere: " if held else "waits for room: ")


def test_what_waits_for_room_stays_at_home_when_that_is_back() -> None:
    now = settled(world("node n1 fenced 4096\nnode n2 online 100\nvm web " + RUN))
    back = world("node n1 online 4096 fences=1\nnode n2 online 4096")
    assert decided(replace(now, nodes=back.nodes, present=back.present)) == {}


def test_all_of_one_shape_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from services.coordinator.core import recover

    asked: list[str] = []
    place = recover.place
    monkeypatch.setattr(
        recover, "place", lambda w, vm, load: asked.append(vm.name) or place(w, vm, load)
    )
    many = "".join(f"vm v{n} {RUN}\n" for n in range(9))
    decide(at(5), world("node n1 fenced 4096\nnode n2 online 100\n" + many))
    assert len(asked) == 1


def test_a_vm_that_is_to_stop_is_off() -> None:
    after = settled(world(TWO + f"vm web policy=STOP {RUN}")).vms["vms/web"].decision
    assert after.power == vm_pb2.POWER_STATE_OFF
    assert after.node == "nodes/n2", "where an agent lives that says that it is off"
    assert after.why == "n1 is dead, and its policy is to stop"


def test_a_vm_that_ignores_it_stays() -> None:
    now = settled(world(TWO + f"vm web policy=IGNORE {RUN}"))
    after = now.vms["vms/web"].decision
    assert (after.node, after.power) == ("nodes/n1", vm_pb2.POWER_STATE_RUNNING)
    assert after.fence_seen == 1 and "ignore" in after.why


def test_somebody_may_start_it_elsewhere_all_the_same() -> None:
    now = settled(world(TWO + f"vm web policy=IGNORE {RUN}"))
    now.vms["vms/web"].spec.power_request = 7
    assert decided(now)["web"].node == "nodes/n2"


def test_a_vm_that_was_off_is_left_alone() -> None:
    assert decided(world(TWO + "vm web | node=n1 | STOPPED")) == {}


def test_a_vm_that_was_shutting_down_is_off() -> None:
    now = world(TWO + "vm web power=SHUT_DOWN | node=n1 power=SHUT_DOWN | STOPPING")
    after = decided(now)["web"]
    assert (after.node, after.power) == ("nodes/n2", vm_pb2.POWER_STATE_OFF)


def test_a_guest_that_shut_itself_down_is_not_started_again() -> None:
    text = "vm web power=RUNNING asked=1 | node=n1 power=RUNNING | STOPPED guest-shutdown asked=1"
    assert decided(world(TWO + text))["web"].power == vm_pb2.POWER_STATE_OFF


def test_crashes_on_the_dead_node_do_not_keep_it_from_starting_on_another() -> None:
    text = "vm web power=RUNNING | node=n1 power=RUNNING crashes=1 | CRASHED crashes=3"
    now = settled(world(TWO + text))
    after = now.vms["vms/web"].decision
    assert (after.node, after.crashes_seen, after.restarts) == ("nodes/n2", 3, 0)


def test_what_the_dead_node_said_last_is_not_said_of_the_new_one() -> None:
    """It ran for hours there; here it was started a moment ago."""
    now = settled(world(TWO + f"vm web {RUN} since=1"))
    assert now.vms["vms/web"].decision.recoveries == 1
    assert decide(at(9999), now) == ()


def test_a_vm_that_was_being_deleted_goes_on_being_so_elsewhere() -> None:
    after = decided(world(TWO + f"vm web deleted {RUN}"))["web"]
    assert (after.node, after.power) == ("nodes/n2", vm_pb2.POWER_STATE_OFF)


@pytest.mark.parametrize("word", ["maintenance", "disarmed"])
def test_nothing_is_restarted_while_that_is_switched_off(word: str) -> None:
    now = world(f"cluster {word}\n{TWO}vm web {RUN}")
    after = decided(now)["web"]
    assert after.node == "nodes/n1" and after.why.startswith("not started elsewhere: ")
    now = settled(now)
    assert decided(replace(now, spec=world("").spec))["web"].node == "nodes/n2"


def test_a_volume_that_only_the_dead_node_has_keeps_it_there() -> None:
    now = world(TWO + f"vm web volumes=root {RUN}")
    now = replace(now, volume_nodes={"pools/p/volumes/root": "nodes/n1"})
    assert "cannot open pools/p/volumes/root" in decided(now)["web"].why
    assert settled(now).vms["vms/web"].decision.node == "nodes/n1"


def test_the_next_death_is_another_one() -> None:
    """Whatever the number of the fences that the VM has seen on other nodes."""
    text = f"node n1 fenced 4096 fences=3\nnode n2 online 4096 fences=2\nvm web {RUN}"
    now = settled(world(text))
    dead = world("node n2 fenced 4096 fences=3\nnode n3 online 4096")
    now = replace(now, nodes={**now.nodes, **dead.nodes}, present=dead.present)
    assert decided(now)["web"].node == "nodes/n3"


def test_one_that_was_given_to_a_node_as_it_died_is_recovered() -> None:
    text = "node n1 fencing 4096 gone=5 known=5\nnode n2 online 4096\nnode n3 online 100\n"
    never = world(text + "vm web power=RUNNING | node=n1 power=RUNNING | STOPPED")
    assert decided(settled_nodes(never))["web"].node == "nodes/n2"
    unseen = world(text + "vm web power=RUNNING | node=n1 power=RUNNING")
    assert decided(settled_nodes(unseen))["web"].node == "nodes/n2"
    stale = world(text + "vm web power=RUNNING | node=n1 power=RUNNING | STOPPED by=n3")
    assert "web" not in decided(settled_nodes(stale)), "the word of another node is no proof"


def settled_nodes(now: World) -> World:
    return applied(now, decide(at(5), now))


def failed(extra: str = "") -> World:
    return world(f"""
        node n1 fenced 4096
        node n2 online 4096
        node n3 online 2048
        vm web elsewhere=2 delay=4 {extra} power=RUNNING | node=n2 power=RUNNING recoveries=1 | \
        FAILED crashes=1
    """)


def test_what_does_not_start_there_is_tried_on_another_one() -> None:
    now = applied(failed(), decide(at(5), failed()))
    waiting = now.vms["vms/web"].decision
    assert (waiting.node, waiting.power) == ("nodes/n2", vm_pb2.POWER_STATE_OFF)
    assert "it is tried on another node in 4 s" in waiting.why
    assert decide(at(5), now) == (), "it may run there all the same, until its agent says no"
    now.vms["vms/web"].status.state = vm_pb2.VM_STATE_STOPPED
    after = decided(now)["web"]
    assert (after.node, after.power) == ("nodes/n3", vm_pb2.POWER_STATE_RUNNING)
    assert (after.recoveries, after.not_before.seconds) == (2, 9)


def test_not_more_often_than_it_says() -> None:
    now = failed()
    now.vms["vms/web"].decision.recoveries = 2
    after = decided(now)["web"]
    assert after.power == vm_pb2.POWER_STATE_RUNNING and "restart 1 of 5" in after.why


def test_without_another_node_it_is_tried_where_it_is() -> None:
    now = replace(failed(), nodes={k: v for k, v in failed().nodes.items() if k != "nodes/n3"})
    assert "restart 1 of 5" in decided(now)["web"].why


def test_a_calm_run_forgets_the_tries() -> None:
    calm = world("""
        node n1 online 4096
        vm web power=RUNNING | node=n1 power=RUNNING recoveries=2 | RUNNING since=100
    """)
    (step,) = decide(at(700), calm)
    assert isinstance(step, DecideVm) and step.vm.decision.recoveries == 0
