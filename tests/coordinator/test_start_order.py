"""Who waits for whom when VMs start by themselves."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideVm
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world

RUNS = "power=RUNNING | node={} power=RUNNING | RUNNING"
DEAD = "node n1 fenced 4096\nnode n2 online 4096\n"
BOOTED = "node n1 online 4096 boot=b2 seen=b1\nnode n2 online 4096\n"
OFF, RUNNING = vm_pb2.POWER_STATE_OFF, vm_pb2.POWER_STATE_RUNNING


def settled(seconds: float, now: World) -> World:
    for _ in range(16):
        plan = decide(at(seconds), now)
        if not plan:
            return now
        now = applied(now, plan)
    raise AssertionError(told(plan))


def decision(now: World, name: str) -> vm_pb2.VmDecision:
    return now.vms[f"vms/{name}"].decision


def starts(now: World, name: str, node: str) -> None:
    """What the agent writes."""
    now.vms[f"vms/{name}"].status.state = vm_pb2.VM_STATE_RUNNING
    now.vms[f"vms/{name}"].status.node = f"nodes/{node}"


def test_after_a_failure_it_waits_for_what_it_needs() -> None:
    text = f"{DEAD}vm db priority=1 {RUNS.format('n1')}\nvm web after=db {RUNS.format('n1')}"
    now = settled(100, world(text))
    waiting = decision(now, "web")
    assert (waiting.power, list(waiting.waits_for)) == (OFF, ["vms/db"])
    assert waiting.waits_until.seconds == 400 and waiting.why == "waits for db, for 300 s at most"
    assert decision(now, "db").node == "nodes/n2"
    starts(now, "db", "n2")
    after = decision(settled(101, now), "web")
    assert (after.power, after.node, list(after.waits_for)) == (RUNNING, "nodes/n2", [])
    assert after.why == "what it waited for runs"


def test_its_patience_ends() -> None:
    text = f"{DEAD}vm db policy=STOP {RUNS.format('n1')}\n"
    now = settled(100, world(f"{text}vm web after=db patience=30 {RUNS.format('n1')}"))
    assert decision(settled(129, now), "web").power == OFF
    after = decision(settled(130, now), "web")
    assert after.power == RUNNING and after.why == "it waited long enough for db"


def test_a_circle_is_broken_by_the_first_patience() -> None:
    text = f"vm a after=b patience=10 {RUNS.format('n1')}\nvm b after=a {RUNS.format('n1')}"
    now = settled(100, world(DEAD + text))
    assert {decision(now, name).power for name in "ab"} == {OFF}
    now = settled(110, now)
    assert (decision(now, "a").power, decision(now, "b").power) == (RUNNING, OFF)
    starts(now, "a", "n2")
    assert decision(settled(111, now), "b").power == RUNNING


def test_it_waits_for_nothing_that_is_not_there() -> None:
    text = f"vm old deleted | node=n2 | STOPPED\nvm web after=old,none {RUNS.format('n1')}"
    assert decision(settled(100, world(DEAD + text)), "web").power == RUNNING


def test_what_runs_on_a_node_that_is_away_does_not_count() -> None:
    text = f"node n3 unknown 4096\nvm db {RUNS.format('n3')}\nvm web after=db {RUNS.format('n1')}"
    assert list(decision(settled(100, world(DEAD + text)), "web").waits_for) == ["vms/db"]


def test_after_the_start_of_a_machine_too() -> None:
    """LAST_STATE: it is to run already, and its agent has not begun."""
    off = "power=RUNNING | node=n1 power=RUNNING | STOPPED"
    now = settled(100, world(f"{BOOTED}vm db {off}\nvm web after=db {off}"))
    assert (decision(now, "db").power, decision(now, "web").power) == (RUNNING, OFF)
    assert now.nodes["nodes/n1"].decision.boot_id == "b2"
    starts(now, "db", "n1")
    assert decision(settled(101, now), "web").power == RUNNING


def test_a_start_that_somebody_asks_for_does_not_wait() -> None:
    asked = world(f"{BOOTED}vm db | node=n2 | STOPPED\n"
        "vm web after=db power=RUNNING asked=2 | node=n1 asked=1 | STOPPED")  # fmt: skip
    assert decision(settled(100, asked), "web").power == RUNNING
    held = world(f"{BOOTED}vm db | node=n2 | STOPPED\nvm web after=db power=RUNNING asked=2 | "
        "node=n1 asked=1 waits-for=db waits-until=900 | STOPPED")  # fmt: skip
    after = decision(settled(100, held), "web")
    assert after.power == RUNNING and not after.waits_for


def test_what_is_left_to_wait_for_is_kept_up() -> None:
    text = f"vm a policy=STOP {RUNS.format('n1')}\nvm db {RUNS.format('n2')}\n"
    now = world(f"{DEAD}{text}vm web after=a,db power=RUNNING | node=n2 waits-for=a,db "
        "waits-until=900 | STOPPED")  # fmt: skip
    now = settled(100, now)
    assert list(decision(now, "web").waits_for) == ["vms/a"]


def test_when_its_own_node_cannot_take_it_any_more_it_starts_elsewhere() -> None:
    now = world("node n1 drained 4096\nnode n2 online 4096\n"
        "vm web power=RUNNING | node=n1 waits-for=gone waits-until=900 | STOPPED")  # fmt: skip
    (step,) = decide(at(100), now)
    assert isinstance(step, DecideVm) and step.vm.decision.node == "nodes/n2"
