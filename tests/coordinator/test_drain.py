"""Nodes are emptied, and their VMs come back."""

from __future__ import annotations

from dataclasses import replace

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.plan import FailOperation
from services.coordinator.core.world import World
from tests.coordinator.moving import applied, settled, told, world
from tests.coordinator.worlds import at

Operation = operation_pb2.Operation

NODES = """
    node n1 draining 8192
    node n2 online 8192
    node n3 online 8192
"""
DRAIN = "op 1 DrainNode nodes/n1"


def vm(name: str, spec: str = "", node: str = "n1") -> str:
    return f"vm {name} {spec} power=RUNNING asked=1 | node={node} power=RUNNING | RUNNING"


def moving(now: World) -> list[str]:
    going = [vm for vm in now.vms.values() if vm.decision.HasField("migration")]
    return [f"{vm.name[4:]}→{vm.decision.migration.target[6:]}" for vm in going]


def arrive(now: World, name: str, phase: str = "MOVED") -> None:
    """What the agents of a migration that is over would have written."""
    row = now.vms[f"vms/{name}"]
    row.status.migration.id = row.decision.migration.id
    row.status.migration.phase = vm_pb2.MigrationStatus.Phase.Value(f"PHASE_{phase}")
    row.status.migration.why = "cut" if phase == "FAILED" else ""


def the_operation(now: World) -> Operation:
    (operation,) = now.operations
    return operation


def test_the_most_important_go_first_and_no_more_than_the_limit() -> None:
    vms = [vm("a", "priority=1"), vm("b", "priority=900"), vm("c", "priority=500")]
    now = settled(0, world("\n".join([NODES, *vms, DRAIN])))
    assert sorted(x[0] for x in moving(now)) == ["b", "c"]
    assert the_operation(now).stage == (
        "0 of 3 moved; b, c on the way; vm a: waits for a free slot: "
        "n1 takes part in 2 of 2 migrations"
    )
    arrive(now, "b")
    now = settled(5, now)
    assert sorted(x[0] for x in moving(now)) == ["a", "c"]
    assert now.vms["vms/b"].decision.home == "nodes/n1"
    assert the_operation(now).percent == 33
    assert "vm b migrated n1 → n2 in 5.0 s" in [line.text for line in the_operation(now).log]


def test_it_ends_once_the_node_is_drained() -> None:
    now = settled(0, world("\n".join([NODES, vm("a"), DRAIN])))
    arrive(now, "a")
    now = settled(1, now)
    assert now.operations, "its status says that it runs there"
    assert now.nodes["nodes/n1"].decision.state == cluster_pb2.NODE_STATE_DRAINING
    now.vms["vms/a"].status.node = "nodes/n2"
    plan = decide(at(2), now)
    assert told(plan) == ["nodes/n1 DRAINING → DRAINED (no VM runs on it any more)"]
    assert told(decide(at(2), applied(now, plan))) == ["operations/1 SUCCEEDED: n1 is empty"]


def test_what_is_off_and_bound_to_the_node_is_told_and_no_failure() -> None:
    now = world("\n".join([NODES, "vm off how=NONE | node=n1 | STOPPED", DRAIN]))
    now = settled(0, now)
    assert now.nodes["nodes/n1"].decision.state == cluster_pb2.NODE_STATE_DRAINED
    assert not now.operations
    again = world("\n".join([NODES, "vm off how=NONE | node=n1 | STOPPED", f"{DRAIN} RUNNING"]))
    again.nodes["nodes/n1"].decision.state = cluster_pb2.NODE_STATE_DRAINED
    assert told(decide(at(0), again)) == [
        "operations/1 SUCCEEDED: nothing runs on n1; off, and bound to it: off"
    ]


def test_what_is_off_moves_too_and_at_once() -> None:
    off = [f"vm o{n} | node=n1 | STOPPED" for n in range(5)]
    now = settled(0, world("\n".join([NODES, *off, DRAIN])))
    assert {x.decision.node for x in now.vms.values()} <= {"nodes/n2", "nodes/n3"}
    assert {x.decision.home for x in now.vms.values()} == {"nodes/n1"}


def test_one_that_cannot_move_does_not_hold_the_others_and_fails_it_in_the_end() -> None:
    now = settled(0, world("\n".join([NODES, vm("a"), vm("pinned", "how=NONE"), DRAIN])))
    assert [x[0] for x in moving(now)] == ["a"]
    assert "vm pinned: its spec.migration.method says" in the_operation(now).stage
    arrive(now, "a")
    for _ in range(3):
        plan = decide(at(5), now)
        if isinstance(plan[0], FailOperation):
            break
        now = applied(now, plan)
    (step,) = plan
    assert isinstance(step, FailOperation) and step.reason == reason_pb2.REASON_NO_NODE_FITS
    assert step.why == (
        "1 VMs left n1, but it is not empty, and takes no new VMs until it is ready again "
        "('pvc node ready n1'). Cannot move: vm pinned: its spec.migration.method says that it "
        "stays where it is"
    )


def test_shutdown_moves_what_cannot_move_live() -> None:
    text = "\n".join([NODES.replace("8192", "8192 deaf"), vm("a")])
    stuck = decide(at(0), world(f"{text}\n{DRAIN} RUNNING parts=1"))
    assert isinstance(stuck[0], FailOperation) and "takes no VMs from others" in stuck[0].why
    now = settled(0, world(f"{text}\n{DRAIN} shutdown=1"))
    assert now.vms["vms/a"].decision.migration.method == vm_pb2.MIGRATION_METHOD_SHUTDOWN


def test_a_failed_move_is_tried_again_later() -> None:
    now = settled(0, world("\n".join([NODES, vm("a"), DRAIN])))
    arrive(now, "a", "FAILED")
    now = settled(5, now)
    assert not moving(now) and now.operations, "it waits"
    assert "did not move n1 → n2: cut; it is tried again" in the_operation(now).stage
    assert moving(settled(70, now)) == ["a→n2"]


def test_another_node_is_asked_when_one_refused() -> None:
    now = settled(0, world("\n".join([NODES, vm("a"), DRAIN])))
    row = now.vms["vms/a"]
    row.arrival.id, row.arrival.node = row.decision.migration.id, "nodes/n2"
    row.arrival.state = vm_pb2.VmArrival.STATE_REFUSED
    row.arrival.reasons.append("no bridge br7")
    now = settled(5, now)
    assert "no bridge br7" in the_operation(now).stage
    assert moving(settled(70, now)) == ["a→n3"]


def test_a_node_that_may_be_back_is_waited_for() -> None:
    text = f"node n1 draining 8192\nnode n2 {{}} 8192\n{vm('a')}\n{DRAIN}"
    assert the_operation(settled(0, world(text.format("unknown")))).stage == (
        "0 of 1 moved; vm a: n2 is not online"
    )
    assert not settled(0, world(text.format("drained"))).operations, "it failed"


def test_a_drain_can_be_cancelled_and_what_moves_is_stopped_first() -> None:
    now = settled(0, world("\n".join([NODES, vm("a"), vm("b"), DRAIN])))
    for name in "ab":
        arrive(now, name, "COPYING")
    the_operation(now).cancel_requested = True
    now = settled(1, now)
    assert all(x.decision.migration.cancel for x in now.vms.values())
    assert the_operation(now).stage == "stops; a, b on the way"
    for name in "ab":
        arrive(now, name, "FAILED")
    now = settled(2, now)
    assert not now.operations and not moving(now)


def test_a_drain_of_a_node_that_died_or_is_wanted_again_ends() -> None:
    dead = decide(at(0), world(f"node n1 fenced 100 drained\n{DRAIN} RUNNING"))
    assert [step.reason for step in dead if isinstance(step, FailOperation)] == [
        reason_pb2.REASON_INTERRUPTED
    ]
    wanted = decide(at(0), world(f"node n1 online 100\n{DRAIN} RUNNING"))
    assert [step.reason for step in wanted if isinstance(step, FailOperation)] == [
        reason_pb2.REASON_SUPERSEDED
    ]


def test_a_pair_that_must_be_together_leaves_together() -> None:
    pair = [vm("a", "tags=p rules=with:p!"), vm("b", "tags=p rules=with:p!")]
    now = settled(0, world("\n".join([NODES, *pair, DRAIN])))
    assert len({x.partition("→")[2] for x in moving(now)}) == 1 and len(moving(now)) == 2


READY = "op 1 ReadyNode nodes/n1"
BACK = NODES.replace("draining", "online")


def away(name: str, home: str = "n1") -> str:
    return f"vm {name} power=RUNNING asked=1 | node=n2 power=RUNNING home={home} | RUNNING"


def test_a_ready_node_gets_its_own_vms_back() -> None:
    now = settled(0, world("\n".join([BACK, away("a"), away("b"), away("x", "n3"), READY])))
    assert sorted(moving(now)) == ["a→n1", "b→n1"]
    for name in "ab":
        arrive(now, name)
    now = settled(4, now)
    assert not now.operations
    assert [now.vms[f"vms/{x}"].decision.home for x in "abx"] == ["", "", "nodes/n3"]


def test_a_ready_node_leaves_them_when_asked_to() -> None:
    now = settled(0, world("\n".join([BACK, away("a"), f"{READY} leave_vms=1"])))
    assert not now.operations and not moving(now)


def test_what_cannot_come_back_is_told() -> None:
    tight = BACK.replace("n1 online 8192", "n1 online 100")
    plan = decide(at(0), world("\n".join([tight, away("a"), f"{READY} RUNNING parts=1"])))
    (step,) = plan
    assert isinstance(step, FailOperation)
    assert step.why.endswith("vm a: n1 has 100 MiB free of the 512 MiB it needs")


def test_a_node_that_is_not_there_yet_is_waited_for() -> None:
    absent = NODES.replace("n1 draining 8192", "n1 maintenance 8192")
    absent = "\n".join([absent, away("a"), READY])
    before = world(absent)
    before.nodes["nodes/n1"].spec.drained = False
    assert the_operation(settled(0, before)).stage.startswith("waits: n1 is MAINTENANCE")


def test_limits_hold_for_all_that_moves_together() -> None:
    spec = cluster_pb2.ClusterSpec(migrations_per_node=8, migrations_per_cluster=3)
    now = world("\n".join([NODES, *(vm(f"v{n}") for n in range(6)), DRAIN]))
    assert len(moving(settled(0, replace(now, spec=spec)))) == 3
