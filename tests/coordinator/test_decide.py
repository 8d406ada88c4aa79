"""What the coordinator decides, one rule a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.place import load_of, place, why_none
from services.coordinator.core.plan import DecideNode, DecideVm, FailOperation, Plan
from services.coordinator.core.world import World
from tests.coordinator.worlds import applied, at, told, world


def only(plan: Plan) -> DecideVm:
    (step,) = plan
    assert isinstance(step, DecideVm)
    return step


def test_nothing_to_do_in_a_settled_world() -> None:
    settled = world("""
        node n1 online 4096
        vm web power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm old | node=n1 | STOPPED
    """)
    assert decide(at(100), settled) == ()


def test_a_started_vm_is_placed_where_most_memory_is_free() -> None:
    plan = decide(at(0), world("""
        node n1 online 1024
        node n2 online 4096
        vm web power=RUNNING asked=1 | asked=0
    """))  # fmt: skip
    assert only(plan).vm.decision.node == "nodes/n2"
    assert only(plan).vm.decision.power == vm_pb2.POWER_STATE_RUNNING
    assert only(plan).vm.decision.power_request == 1
    assert "free memory" in only(plan).why


def test_two_placements_in_one_round_know_of_each_other() -> None:
    plan = decide(at(0), world("""
        node n1 online 1000
        node n2 online 1000
        vm a memory=800 power=RUNNING asked=1 | asked=0
        vm b memory=800 power=RUNNING asked=1 | asked=0
    """))  # fmt: skip
    homes = {step.vm.decision.node for step in plan if isinstance(step, DecideVm)}
    assert homes == {"nodes/n1", "nodes/n2"}


def test_a_vm_that_fits_nowhere_says_why_and_fails_what_waits() -> None:
    tight = world("""
        node n1 online 256
        node n2 drained 9000
        vm web memory=512 power=RUNNING asked=3 | asked=2
    """)
    waiting = operation_pb2.Operation(name="operations/1", target="vms/web", power_request=3)
    tight = replace(tight, operations=(waiting,))
    plan = decide(at(0), tight)
    assert told(plan)[0].startswith(
        "vms/web no node fits (n1 has 256 MiB free of the 512 MiB it needs; n2 is "
    )
    assert isinstance(plan[1], FailOperation) and plan[1].operation == waiting
    assert decide(at(1), applied(tight, plan)) == ()


def test_a_request_waits_for_a_node_that_went_away_a_moment_ago() -> None:
    away = world("""
        cluster restart_grace_s=60
        node n1 unknown 9000 restarting gone=29
        vm web power=RUNNING asked=3 | asked=2
    """)  # fmt: skip
    waiting = operation_pb2.Operation(name="operations/1", target="vms/web", power_request=3)
    away = replace(away, operations=(waiting,))
    for _ in range(3):
        away = applied(away, decide(at(0), away))
    assert away.operations == (waiting,)
    late = replace(away, gone_s={"nodes/n1": 31})
    assert any(isinstance(step, FailOperation) for step in decide(at(0), late))


def test_it_starts_by_itself_once_a_node_fits() -> None:
    plan = decide(at(0), world("""
        node n1 online 4096
        vm web memory=512 power=RUNNING asked=3 | asked=2
    """))  # fmt: skip
    assert only(plan).vm.decision.power_request == 3


def test_a_vm_takes_all_that_it_may_grow_to() -> None:
    tight = world("""
        node n1 online 1000
        vm web memory=512 power=RUNNING asked=1 | asked=0
    """)
    tight.vms["vms/web"].spec.memory.max_memory_mib = 2048
    assert told(decide(at(0), tight)) == [
        "vms/web no node fits (n1 has 1000 MiB free of the 2048 MiB it needs)"
    ]


def test_a_vm_at_home_stays_there() -> None:
    plan = decide(at(0), world("""
        node n1 online 1024
        node n2 online 9000
        vm web memory=512 power=RUNNING asked=2 | node=n1 asked=1 | STOPPED
    """))  # fmt: skip
    assert only(plan).vm.decision.node == "nodes/n1"


def test_a_running_vm_is_never_moved_by_a_request() -> None:
    plan = decide(at(0), world("""
        node n1 unknown 64
        node n2 online 9000
        vm web memory=512 power=OFF asked=2 | node=n1 power=RUNNING asked=1 | RUNNING
    """))  # fmt: skip
    assert only(plan).vm.decision.node == "nodes/n1"
    assert only(plan).vm.decision.power == vm_pb2.POWER_STATE_OFF


def test_a_vm_that_is_off_moves_when_home_is_full() -> None:
    plan = decide(at(0), world("""
        node n1 online 600
        node n2 online 4096
        vm big memory=500 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm web memory=512 power=RUNNING asked=2 | node=n1 asked=1 | STOPPED
    """))  # fmt: skip
    assert only(plan).what == "n1 → n2"


def test_a_volume_binds_a_vm_to_its_node() -> None:
    bound = world("""
        node n1 online 600
        node n2 online 4096
        vm web volumes=root power=RUNNING asked=1 | asked=0
    """)
    bound = replace(bound, volume_nodes={"pools/p/volumes/root": "nodes/n1"})
    assert only(decide(at(0), bound)).vm.decision.node == "nodes/n1"


def test_verdicts_explain_every_node() -> None:
    asked = world("""
        node n1 online 100
        node n2 online 4096
        vm web model=Zen power=RUNNING asked=1 vcpus=8
    """)
    asked.nodes["nodes/n2"].status.cpu_models.append("Nehalem")
    home, verdicts = place(asked, asked.vms["vms/web"], load_of(asked))
    assert home == ""
    assert why_none(verdicts) == (
        "n1 has 4 processors, fewer than the 8 it needs and has 100 MiB free of the 512 MiB it "
        "needs; n2 cannot give its guests the CPU model Zen and has 4 processors, fewer than the 8 "
        "it needs"
    )


def test_a_crash_is_tried_again_later_and_later() -> None:
    now, delays = 1000, []
    sick = world("""
        node n1 online 4096
        vm web tries=3 delay=2 power=RUNNING asked=1 | node=n1 power=RUNNING | CRASHED crashes=1
    """)
    for crash in range(2, 5):
        plan = decide(at(now), sick)
        delays.append(only(plan).vm.decision.not_before.seconds - now)
        assert only(plan).vm.decision.power == vm_pb2.POWER_STATE_RUNNING
        sick = applied(sick, plan)
        assert decide(at(now), sick) == ()
        sick.vms["vms/web"].status.crashes = crash
    assert delays == [2, 4, 8]
    assert only(decide(at(now), sick)).vm.decision.power == vm_pb2.POWER_STATE_OFF
    assert "given up after 3 restarts" in only(decide(at(now), sick)).why


def test_a_crash_is_left_when_asked_to() -> None:
    plan = decide(at(0), world("""
        node n1 online 4096
        vm web crash=LEAVE power=RUNNING asked=1 | node=n1 power=RUNNING | CRASHED crashes=1
    """))  # fmt: skip
    assert only(plan).vm.decision.power == vm_pb2.POWER_STATE_OFF


def test_calm_forgets_the_restarts() -> None:
    calm = world("""
        node n1 online 4096
        vm web power=RUNNING asked=1 | node=n1 power=RUNNING restarts=3 | RUNNING since=100
    """)
    assert decide(at(699), calm) == ()
    assert only(decide(at(700), calm)).vm.decision.restarts == 0


def test_starting_again_forgets_the_crashes() -> None:
    plan = decide(at(0), world("""
        node n1 online 4096
        vm web power=RUNNING asked=2 | node=n1 asked=1 restarts=5 crashes=5 | CRASHED crashes=6
    """))  # fmt: skip
    after = only(plan).vm.decision
    assert (after.power, after.restarts, after.crashes_seen) == (vm_pb2.POWER_STATE_RUNNING, 0, 6)


def test_a_crashed_vm_is_started_where_there_is_room_by_now() -> None:
    plan = decide(at(0), world("""
        node n1 online 1024
        node n2 online 4096
        vm big memory=1000 power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm web power=RUNNING asked=2 | node=n1 asked=1 restarts=5 crashes=6 | CRASHED crashes=6
    """))  # fmt: skip
    assert only(plan).vm.decision.node == "nodes/n2"


def test_what_may_run_after_all_is_not_started_elsewhere() -> None:
    plan = decide(at(0), world("""
        node n1 unknown 1024
        node n2 online 4096
        vm web power=RUNNING asked=2 | node=n1 asked=1 | FAILED crashes=6
    """))  # fmt: skip
    assert only(plan).vm.decision.node == "nodes/n1"


def test_a_guest_that_shut_itself_down_stays_off() -> None:
    text = """
        node n1 online 4096
        vm web power=RUNNING asked=1 | node=n1 power=RUNNING | STOPPED guest-shutdown asked={}
    """
    assert only(decide(at(0), world(text.format(1)))).vm.decision.power == vm_pb2.POWER_STATE_OFF
    assert decide(at(0), world(text.format(0))) == (), "an old shutdown says nothing of a new start"


@pytest.mark.parametrize(
    ("policy", "power", "after"),
    [
        ("LAST_STATE", "RUNNING", None),
        ("LAST_STATE", "OFF", None),
        ("ALWAYS", "OFF", vm_pb2.POWER_STATE_RUNNING),
        ("NEVER", "RUNNING", vm_pb2.POWER_STATE_OFF),
        ("NEVER", "OFF", None),
    ],
)
def test_autostart_once_after_a_boot(policy: str, power: str, after: int | None) -> None:
    booted = world(f"""
        node n1 online 4096 boot=b2 seen=b1
        vm web auto={policy} power={power} asked=1 | node=n1 power={power} | STOPPED
    """)
    plan = decide(at(0), booted)
    switched = [step.vm.decision.power for step in plan if isinstance(step, DecideVm)]
    assert switched == ([after] if after is not None else [])
    assert isinstance(plan[-1], DecideNode), "the boot is ticked off last, so that a cut repeats it"
    assert decide(at(0), applied(booted, plan)) == ()


def test_a_first_start_is_no_reboot() -> None:
    plan = decide(at(0), world("""
        node n1 online 4096 boot=b1 seen=
        vm web auto=ALWAYS | node=n1 | STOPPED
    """))  # fmt: skip
    assert [type(step) for step in plan] == [DecideNode]


def test_a_deleted_vm_is_stopped_by_its_node_or_forgotten() -> None:
    plan = decide(at(0), world("""
        node n1 online 4096
        vm a deleted power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING
        vm b deleted power=RUNNING asked=1 | asked=0
    """))  # fmt: skip
    assert told(plan) == [
        "vms/a should be OFF (it is being deleted)",
        "vms/b forgotten (it was deleted before any node had it)",
    ]


def test_a_plan_may_be_cut_anywhere() -> None:
    start = world("""
        node n1 new 4096
        node n2 online 4096 boot=b2 seen=b1
        vm a power=RUNNING asked=1 | asked=0
        vm b auto=ALWAYS | node=n2 | STOPPED
        vm c power=RUNNING asked=1 | node=n2 power=RUNNING | CRASHED crashes=1
        vm d deleted power=RUNNING asked=1 | asked=0
    """)
    whole = settled(start, None)
    for cut in range(1, 8):
        assert told_world(settled(start, cut)) == told_world(whole)


def settled(now: World, cut: int | None) -> World:
    """The world once there is nothing left to decide, if every plan is cut after so many steps."""
    for _ in range(32):
        plan = decide(at(50), now)
        if not plan:
            return now
        now = applied(now, plan[:cut])
    raise AssertionError("it never settles")


def told_world(now: World) -> list[str]:
    return [f"{vm.name} {vm.decision.power} {vm.decision.restarts}" for vm in now.vms.values()] + [
        f"{node.name} {node.decision.state} {node.decision.boot_id}" for node in now.nodes.values()
    ]
