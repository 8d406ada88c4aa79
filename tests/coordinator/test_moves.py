"""Moves of single VMs: asked for, waited for, followed to every end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import moves
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import DecideVm, Plan, Unjudged
from services.coordinator.core.world import World
from services.mesh.errors import PvcError
from tests.coordinator.moving import applied, settled, told, world
from tests.coordinator.worlds import at

Operation = operation_pb2.Operation

TWO = """
    node n1 online 4096
    node n2 online 4096
"""
RUNS = "vm web power=RUNNING asked=1 | node=n1 power=RUNNING"
MOVES = f"{RUNS} to=n2 by=1"
ASKED = "op 1 MigrateVm vms/web node=nodes/n2"


def only_vm(plan: Plan) -> DecideVm:
    (step,) = plan
    assert isinstance(step, DecideVm), step
    return step


def ended(step: DecideVm) -> Operation:
    (operation,) = step.also
    return operation


def reason_of(operation: Operation) -> str:
    return PvcError.from_status(operation.error).reason_name


def test_a_request_becomes_a_migration_in_one_commit() -> None:
    plan = decide(at(7), world(f"{TWO}\n{RUNS} | RUNNING\n{ASKED}"))
    decision = only_vm(plan).vm.decision
    assert (decision.node, decision.migration.target) == ("nodes/n1", "nodes/n2")
    assert decision.migration.method == vm_pb2.MIGRATION_METHOD_LIVE
    assert (decision.migration.id, decision.migration.operation) == ("1.web.1", "operations/1")
    assert decision.migration.time == at(7)
    assert told(plan) == [
        "vms/web begins to move n1 → n2 (ann asked for it)",
        "operations/1 RUNNING: moving to n2",
    ]


def test_without_a_node_the_best_other_one_is_taken() -> None:
    plan = decide(at(0), world(f"""
        node n1 online 99999
        node n2 online 2048
        node n3 online 4096
        {RUNS} | RUNNING
        op 1 MigrateVm vms/web
    """))  # fmt: skip
    assert only_vm(plan).vm.decision.migration.target == "nodes/n3"


def test_moved_makes_the_target_its_node_and_ends_the_operation() -> None:
    plan = decide(at(3), world(f"""{TWO}
        {MOVES} since=1 | RUNNING phase=MOVED pause=45
        {ASKED} RUNNING
    """))  # fmt: skip
    step = only_vm(plan)
    decision = step.vm.decision
    assert decision.node == "nodes/n2" and not decision.HasField("migration")
    assert decision.last_move == "migrated n1 → n2 in 2.0 s, pause 45 ms"
    assert decision.home == "nodes/n1"
    operation = ended(step)
    result = vm_pb2.Vm()
    assert operation.state == Operation.STATE_SUCCEEDED and operation.percent == 100
    assert operation.result.Unpack(result) and result.decision.node == "nodes/n2"


@pytest.mark.parametrize(
    ("asked", "home", "after"),
    [
        ("MigrateVm", "", "nodes/n1"),
        ("MigrateVm", "n3", "nodes/n3"),
        ("MigrateVm", "n2", ""),
        ("MoveVm", "", ""),
        ("MoveVm", "n3", ""),
        ("UnmigrateVm", "n2", ""),
    ],
)
def test_where_it_belongs_after_a_move(asked: str, home: str, after: str) -> None:
    plan = decide(at(3), world(f"""{TWO}
        {MOVES} home={home} | RUNNING phase=MOVED
        op 1 {asked} vms/web RUNNING
    """))  # fmt: skip
    assert only_vm(plan).vm.decision.home == after


def test_failed_leaves_it_and_says_why() -> None:
    plan = decide(at(3), world(f"""{TWO}
        {MOVES} | RUNNING phase=FAILED told=cut
        {ASKED} RUNNING
    """))  # fmt: skip
    step = only_vm(plan)
    assert step.vm.decision.node == "nodes/n1" and not step.vm.decision.HasField("migration")
    assert step.vm.decision.last_move == "did not move n1 → n2: cut"
    assert step.vm.decision.move_not_before.seconds > 3
    assert ended(step).state == Operation.STATE_FAILED
    assert reason_of(ended(step)) == "MIGRATION_FAILED"
    assert ended(step).error.message == "vms/web was not moved: cut; it goes on on n1"


def test_a_status_of_an_earlier_migration_says_nothing() -> None:
    old = world(f"""{TWO}
        {MOVES} | RUNNING phase=MOVED | READY
        {ASKED} RUNNING
    """)
    old.vms["vms/web"].status.migration.id = "another"
    old.vms["vms/web"].arrival.id = "another"
    assert told(decide(at(3), old)) == ["operations/1 RUNNING: n2 looks whether it can take it"]


def test_all_reasons_of_the_target_end_it() -> None:
    plan = decide(at(3), world(f"""{TWO}
        {MOVES} | RUNNING phase=PREPARING | REFUSED no_bridge no_memory
        {ASKED} RUNNING
    """))  # fmt: skip
    assert ended(only_vm(plan)).error.message == (
        "vms/web was not moved: n2 cannot take it: no bridge. no memory; it goes on on n1"
    )


def test_a_target_that_says_nothing_is_not_waited_for_for_ever() -> None:
    silent = world(f"{TWO}\n{MOVES} since=100 | RUNNING\n{ASKED} RUNNING")
    assert all(not isinstance(step, DecideVm) for step in decide(at(219), silent))
    assert "did not say within 120 s" in only_vm(decide(at(220), silent)).why


def test_a_source_that_does_not_begin_is_not_waited_for_for_ever() -> None:
    text = f"{TWO}\n{MOVES} since=100 | RUNNING phase={{}} left=1 of=2 | READY\n{ASKED} RUNNING"
    waiting = world(text.format("PREPARING"))
    assert not any(isinstance(step, DecideVm) for step in decide(at(339), waiting))
    assert "n1 did not begin within 240 s" in only_vm(decide(at(340), waiting)).why
    copying = decide(at(9999), world(text.format("COPYING")))
    assert not any(isinstance(step, DecideVm) for step in copying), "it takes as long as it takes"


def test_progress_is_told_and_percent_never_goes_back() -> None:
    half = world(f"""{TWO}
        {MOVES} | RUNNING phase=COPYING left=64 of=128 told=copying
        {ASKED} RUNNING
    """)
    (line,) = told(decide(at(3), half))
    assert line == "operations/1 RUNNING: copying memory: 64 of 128 MiB to go"
    half = settled(3, half)
    (operation,) = half.operations
    assert operation.percent == 52 and operation.log[-1].text == "copying"
    half.vms["vms/web"].status.migration.remaining_bytes = 96 << 20
    (operation,) = settled(4, half).operations
    assert operation.percent == 52 and "96 of 128" in operation.stage
    assert len(operation.log) == 1, "the same line is not said twice"


@pytest.mark.parametrize("phase", ["", "phase=PREPARING"])
def test_cancelled_before_copying_it_is_over_at_once(phase: str) -> None:
    plan = decide(at(3), world(f"{TWO}\n{MOVES} | RUNNING {phase}\n{ASKED} RUNNING cancel"))
    assert not only_vm(plan).vm.decision.HasField("migration")
    assert ended(only_vm(plan)).state == Operation.STATE_CANCELLED


def test_cancelled_while_copying_the_agents_have_the_last_word() -> None:
    text = f"{TWO}\n{MOVES} {{}} | RUNNING phase={{}}\n{ASKED} RUNNING cancel"
    asked = only_vm(decide(at(3), world(text.format("", "COPYING"))))
    assert asked.vm.decision.migration.cancel and asked.vm.decision.node == "nodes/n1"
    told_so = world(text.format("cancel", "COPYING"))
    assert not any(isinstance(step, DecideVm) for step in decide(at(4), told_so))
    failed = ended(only_vm(decide(at(5), world(text.format("cancel", "FAILED")))))
    assert failed.state == Operation.STATE_CANCELLED and reason_of(failed) == "CANCELLED"
    moved = only_vm(decide(at(5), world(text.format("cancel", "MOVED"))))
    assert moved.vm.decision.node == "nodes/n2"
    assert ended(moved).state == Operation.STATE_SUCCEEDED, "it was quicker"


@pytest.mark.parametrize("state", ["unknown", "fencing", "fenced"])
def test_a_target_that_is_lost_ends_or_stops_it(state: str) -> None:
    text = f"node n1 online 4096\nnode n2 {state} 4096\n{MOVES} | RUNNING {{}}\n{ASKED} RUNNING"
    before = only_vm(decide(at(3), world(text.format("phase=PREPARING"))))
    assert "n2 is not online any more" in before.why
    assert not before.vm.decision.HasField("migration")
    copying = only_vm(decide(at(3), world(text.format("phase=COPYING"))))
    assert copying.vm.decision.migration.cancel
    moved = only_vm(decide(at(3), world(text.format("phase=MOVED"))))
    assert moved.vm.decision.node == "nodes/n2", "it is there, whatever became of the node since"


DEAD = "node n1 fenced 4096\nnode n2 online 4096\nnode n3 online 9999"


@pytest.mark.parametrize(
    "seen",
    ["", "phase=PREPARING", "phase=COPYING | GONE", "phase=PREPARING | REFUSED no_bridge"],
)
def test_a_source_that_died_before_it_got_anywhere_is_recovered(seen: str) -> None:
    dead = world(f"{DEAD}\n{MOVES} | RUNNING {seen}\n{ASKED} RUNNING")
    step = only_vm(decide(at(3), dead))
    assert step.vm.decision.node == "nodes/n1" and not step.vm.decision.HasField("migration")
    assert reason_of(ended(step)) == "INTERRUPTED"
    assert settled(3, dead).vms["vms/web"].decision.node == "nodes/n3"


def test_a_source_that_died_while_copying_is_not_recovered_before_the_target_has_spoken() -> None:
    text = f"{DEAD}\n{MOVES} {{}} | RUNNING phase=COPYING | {{}}\n{ASKED} RUNNING"
    first = only_vm(decide(at(3), world(text.format("", "READY"))))
    assert first.vm.decision.migration.cancel and first.vm.decision.node == "nodes/n1"
    waiting = settled(3, world(text.format("cancel", "READY")))
    assert waiting.vms["vms/web"].decision.node == "nodes/n1"
    there = only_vm(decide(at(3), world(text.format("cancel", "RUNNING"))))
    assert there.vm.decision.node == "nodes/n2" and not there.vm.decision.HasField("migration")
    assert ended(there).state == Operation.STATE_SUCCEEDED


def test_both_died_and_it_is_recovered_on_a_third() -> None:
    both = DEAD.replace("n2 online", "n2 fenced")
    now = world(f"{both}\n{MOVES} cancel | RUNNING phase=COPYING\n{ASKED} RUNNING")
    assert settled(3, now).vms["vms/web"].decision.node == "nodes/n3"


def test_a_target_that_is_only_unknown_is_waited_for() -> None:
    lost = DEAD.replace("n2 online", "n2 unknown")
    now = world(f"{lost}\n{MOVES} cancel | RUNNING phase=COPYING\n{ASKED} RUNNING")
    assert settled(3, now).vms["vms/web"].decision.node == "nodes/n1"


def test_a_dead_source_that_is_back_has_the_word() -> None:
    back = world(f"{DEAD}\n{MOVES} | RUNNING phase=COPYING\n{ASKED} RUNNING")
    back = replace(back, present=back.present | {"nodes/n1"})
    assert not any(isinstance(step, DecideVm) for step in decide(at(3), back))


def test_a_migration_that_the_recovery_ended_ends_its_operation() -> None:
    plan = decide(at(3), world(f"""{TWO}
        vm web power=RUNNING asked=1 | node=n2 power=RUNNING | RUNNING
        {ASKED} RUNNING
    """))  # fmt: skip
    (step,) = plan
    assert step.reason == reason_pb2.REASON_INTERRUPTED  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("vm", "why"),
    [
        (f"{RUNS} | STARTING", "it is STARTING; wait until it runs or is off"),
        (
            "vm web how=NONE power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING",
            "its spec.migration.method says that it stays where it is",
        ),
        (
            "vm web power=RUNNING asked=1 memory=9999 vcpus=9 | node=n1 power=RUNNING | RUNNING",
            "n2 has 4 processors, fewer than the 9 it needs; "
            "n2 has 4096 MiB free of the 9999 MiB it needs",
        ),
    ],
)
def test_all_that_is_in_the_way_is_said_at_once(vm: str, why: str) -> None:
    asked = world(f"{TWO}\n{vm}\n{ASKED}")
    if "STARTING" in vm:
        assert told(decide(at(3), asked)) == [
            "operations/1 PENDING: waits until it is no longer STARTING"
        ]
    else:
        assert told(decide(at(3), asked)) == [f"operations/1 fails (vms/web cannot move: {why})"]


def test_the_next_move_waits_until_the_node_has_looked_at_it() -> None:
    plan = decide(at(3), world(f"{TWO}\n{RUNS} | RUNNING at=n2\n{ASKED}"))
    assert told(plan) == ["operations/1 PENDING: waits until n1 has looked at it"]


def test_what_a_live_migration_needs_of_the_target() -> None:
    plan = decide(at(3), world(f"""
        node n1 online 4096
        node n2 online 4096 deaf accelerator=tcg
        {RUNS} | RUNNING
        {ASKED}
    """))  # fmt: skip
    assert told(plan) == [
        "operations/1 fails (vms/web cannot move: n2 has a hypervisor that takes no VMs from "
        "others; n2 runs its VMs by tcg, n1 by kvm)"
    ]


def test_a_vm_that_is_off_only_gets_another_node() -> None:
    plan = decide(at(3), world(f"""
        node n1 unknown 4096
        node n2 online 4096 deaf
        vm web | node=n1 | STOPPED
        {ASKED}
    """))  # fmt: skip
    step = only_vm(plan)
    assert (step.vm.decision.node, step.vm.decision.home) == ("nodes/n2", "nodes/n1")
    assert not step.vm.decision.HasField("migration")
    assert ended(step).state == Operation.STATE_SUCCEEDED


def queue(count: int) -> World:
    vms = [f"vm v{n} power=RUNNING asked=1 | node=n1 power=RUNNING | RUNNING" for n in range(count)]
    asked = [f"op {n} MigrateVm vms/v{n} node=nodes/n2" for n in range(count)]
    return world("\n".join([TWO, *vms, *asked]))


def moving(now: World) -> set[str]:
    return {vm.name for vm in now.vms.values() if vm.decision.HasField("migration")}


def test_no_more_than_the_limit_of_a_node_at_a_time() -> None:
    waiting = settled(0, queue(4))
    assert moving(waiting) == {"vms/v0", "vms/v1"}
    assert [x.stage for x in waiting.operations][2:] == [
        "waits for a free slot: n1 takes part in 2 of 2 migrations"
    ] * 2
    seen = waiting.vms["vms/v0"].status.migration
    seen.id, seen.phase = "0.v0.1", vm_pb2.MigrationStatus.PHASE_MOVED
    assert moving(settled(5, waiting)) == {"vms/v1", "vms/v2"}


def test_no_more_than_the_limit_of_the_cluster_at_a_time() -> None:
    asked = queue(4)
    spec = cluster_pb2.ClusterSpec(migrations_per_node=9, migrations_per_cluster=3)
    assert len(moving(settled(0, replace(asked, spec=spec)))) == 3


def test_one_that_waits_can_be_cancelled() -> None:
    waiting = settled(0, queue(3))
    waiting.operations[2].cancel_requested = True
    assert told(decide(at(1), waiting)) == ["operations/2 CANCELLED: vms/v2 had not begun to move"]


def test_memory_is_taken_on_both_sides_while_it_moves() -> None:
    plan = decide(at(0), world("""
        node n1 online 1000
        node n2 online 1000
        vm web memory=600 power=RUNNING asked=1 | node=n1 power=RUNNING to=n2 | RUNNING
        vm new memory=600 power=RUNNING asked=1 | asked=0
    """))  # fmt: skip
    assert [line for line in told(plan) if "vms/new" in line] == [
        "vms/new no node fits (n1 has 400 MiB free of the 600 MiB it needs; "
        "n2 has 400 MiB free of the 600 MiB it needs)"
    ]


def test_by_shutdown_it_is_off_at_the_source_before_it_starts_at_the_target() -> None:
    now = world(f"{TWO}\n{RUNS} | RUNNING\n{ASKED} method=SHUTDOWN")
    now = settled(1, now)
    vm = now.vms["vms/web"]
    assert vm.decision.power == vm_pb2.POWER_STATE_SHUT_DOWN and vm.decision.node == "nodes/n1"
    vm.status.state = vm_pb2.VM_STATE_STOPPED
    now = settled(3, now)
    vm = now.vms["vms/web"]
    assert (vm.decision.node, vm.decision.power) == ("nodes/n2", vm_pb2.POWER_STATE_RUNNING)
    assert now.operations[0].stage == "starting on n2", "it is not done before it runs"
    vm.status.state, vm.status.node = vm_pb2.VM_STATE_RUNNING, "nodes/n2"
    assert told(decide(at(9), now)) == ["operations/1 SUCCEEDED: starting on n2"]


def test_by_shutdown_a_wish_meanwhile_wins() -> None:
    now = settled(1, world(f"{TWO}\n{RUNS} | RUNNING\n{ASKED} method=SHUTDOWN"))
    vm = now.vms["vms/web"]
    vm.spec.power, vm.spec.power_request = vm_pb2.POWER_STATE_OFF, 2
    vm.status.state = vm_pb2.VM_STATE_STOPPED
    now = settled(3, now)
    assert now.vms["vms/web"].decision.power == vm_pb2.POWER_STATE_OFF
    assert not now.operations, "the operation has ended"


def test_by_shutdown_cancelled_it_is_to_run_again() -> None:
    now = settled(1, world(f"{TWO}\n{RUNS} | RUNNING\n{ASKED} method=SHUTDOWN"))
    now.operations[0].cancel_requested = True
    step = only_vm(decide(at(2), now))
    assert step.vm.decision.power == vm_pb2.POWER_STATE_RUNNING
    assert step.vm.decision.node == "nodes/n1"
    assert ended(step).state == Operation.STATE_CANCELLED


def test_a_vm_that_is_to_be_off_does_not_go_on_moving() -> None:
    now = world(f"{TWO}\n{MOVES} | RUNNING phase=COPYING\n{ASKED} RUNNING")
    now.vms["vms/web"].spec.power = vm_pb2.POWER_STATE_OFF
    now.vms["vms/web"].spec.power_request = 2
    now = settled(2, now)
    decision = now.vms["vms/web"].decision
    assert decision.power == vm_pb2.POWER_STATE_OFF and decision.migration.cancel
    now.vms["vms/web"].status.migration.phase = vm_pb2.MigrationStatus.PHASE_FAILED
    assert reason_of(ended(only_vm(decide(at(3), now)))) == "SUPERSEDED"


def test_a_plan_of_moves_may_be_cut_anywhere() -> None:
    whole = {(vm.name, vm.decision.migration.target) for vm in settled(0, queue(4)).vms.values()}
    for cut in range(1, 5):
        now = queue(4)
        for _ in range(32):
            now = applied(now, decide(at(0), now)[:cut])
        assert {(x.name, x.decision.migration.target) for x in now.vms.values()} == whole


def test_a_move_that_the_rules_fail_on_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = moves.route_of

    def failing(*asked: Any) -> Any:
        assert asked[2].name != "vms/v0", "a rule that does not hold"
        return good(*asked)

    monkeypatch.setattr(moves, "route_of", failing)
    plan = decide(at(0), queue(2))
    assert [type(step) for step in plan] == [Unjudged, DecideVm]
