"""Balancing: few moves, none that breaks a rule, and an end."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2
from services.coordinator.core.balance import plan_balance, scale_of
from services.coordinator.core.capacity import Load, load_of
from services.coordinator.core.decide import decide
from services.coordinator.core.place import judge
from services.coordinator.core.plan import DecideCluster
from services.coordinator.core.world import World
from services.coordinator.loop import Coordinator
from services.mesh.clock import SystemClock
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put
from tests.coordinator.moving import applied, settled, told, world
from tests.coordinator.worlds import at

Operation = operation_pb2.Operation

THREE = """
    node n1 online 1000
    node n2 online 1000
    node n3 online 1000
"""


def vm(name: str, spec: str = "", node: str = "n1") -> str:
    return f"vm {name} {spec} power=RUNNING asked=1 | node={node} power=RUNNING | RUNNING"


def moves(plan: api.BalancePlan) -> list[str]:
    return [f"{x.vm[4:]} {x.source[6:]}→{x.target[6:]}" for x in plan.moves]


def planned(text: str, **options: int) -> api.BalancePlan:
    asked = world(text)
    return plan_balance(at(100), asked, load_of(asked), **options)  # type: ignore[arg-type]


def test_even_nodes_are_left_alone() -> None:
    plan = planned("\n".join([THREE, vm("a", "memory=100", "n1"), vm("b", "memory=200", "n2")]))
    assert not plan.moves and plan.spread_before == plan.spread_after == 20.0


def test_as_few_moves_as_do() -> None:
    vms = [vm(f"v{n}", "memory=100") for n in range(6)]
    plan = planned("\n".join([THREE, *vms]))
    assert moves(plan) == ["v0 n1→n2", "v1 n1→n3", "v2 n1→n2"]
    assert (plan.spread_before, plan.spread_after) == (60.0, 20.0), "within the threshold"
    assert plan.moves[0].why == "n1 60 → 50 %, n2 0 → 10 %"


def test_one_large_vm_is_moved_rather_than_many_small_ones() -> None:
    vms = [vm("big", "memory=300"), *(vm(f"s{n}", "memory=50") for n in range(6))]
    plan = planned("\n".join([THREE.replace("node n3 online 1000", ""), *vms]))
    assert moves(plan) == ["big n1→n2"]


def test_no_more_than_asked_for() -> None:
    vms = [vm(f"v{n}", "memory=100") for n in range(6)]
    plan = planned("\n".join([THREE, *vms]), max_moves=1)
    assert len(plan.moves) == 1
    assert list(plan.limits) == ["no more than 1 moves were asked for"]


@pytest.mark.parametrize(
    ("spec", "limit"),
    [
        ("balance=off", "1 VMs of n1 are not to be balanced (spec.placement.balance): a"),
        ("how=NONE", "1 VMs of n1 do not move while they run (spec.migration.method): a"),
        ("how=SHUTDOWN", "1 VMs of n1 do not move while they run (spec.migration.method): a"),
        ("volumes=v", "1 VMs of n1 have volumes that no other node can open: a"),
        ("on=n1", "vm a of n1: n3 is none of n1, the only nodes that it may be on"),
    ],
)
def test_what_it_may_not_move_is_told(spec: str, limit: str) -> None:
    asked = world("\n".join([THREE, vm("a", f"memory=300 {spec}"), vm("b", "memory=600")]))
    asked = replace(asked, volume_nodes={"pools/p/volumes/v": "nodes/n1"})
    plan = plan_balance(at(0), asked, load_of(asked))
    assert moves(plan) == ["b n1→n2"] or not plan.moves
    asked = world("\n".join([THREE, vm("a", f"memory=400 {spec}"), vm("b", "memory=1")]))
    asked = replace(asked, volume_nodes={"pools/p/volumes/v": "nodes/n1"})
    assert limit in plan_balance(at(0), asked, load_of(asked)).limits


def test_a_wish_is_not_given_up_for_it() -> None:
    text = THREE.replace("n1 online 1000", "n1 online 1000 tags=ssd")
    vms = [vm(f"v{n}", "memory=100 rules=node:ssd") for n in range(6)]
    plan = planned("\n".join([text, *vms]))
    assert not plan.moves
    assert "vm v0 of n1: n3 meets fewer of its wishes" in plan.limits


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (vm_pb2.NODE_SELECTOR_VMS, 3),
        (vm_pb2.NODE_SELECTOR_VCPUS, 2),
        (vm_pb2.NODE_SELECTOR_MEM, 1),
        (vm_pb2.NODE_SELECTOR_LOAD, 2),
    ],
)
def test_selectors_measure_different_things(selector: int, expected: int) -> None:
    text = """
        node n1 online 1000 load=400 available=200
        node n2 online 1000 load=0 available=900
    """
    vms = [vm("a", "memory=300 vcpus=2"), *(vm(f"s{n}", "memory=10") for n in range(5))]
    plan = planned("\n".join([text, *vms]), selector=selector)
    assert len(plan.moves) == expected and plan.spread_after < plan.spread_before


def test_what_moves_already_counts_as_moved() -> None:
    text = "\n".join(
        [THREE.replace("node n3 online 1000", ""), *(vm(x, "memory=300") for x in "a")]
    )
    on_the_way = vm("b", "memory=300").replace("| node=n1", "| node=n1 to=n2")
    plan = planned("\n".join([text, on_the_way]))
    assert not plan.moves and plan.spread_before == 0.0


def random_world(seed: int) -> World:
    chance = random.Random(seed)
    nodes = [
        f"node n{n} {'online' if chance.random() < 0.8 else 'draining'} "
        f"{chance.choice([2000, 4000, 8000])} tags={chance.choice(['ssd', 'hdd'])} "
        f"max={chance.choice([0, 0, 6])}"
        for n in range(chance.randint(2, 6))
    ]
    rules = ["", "", "", "rules=node:ssd!", "rules=apart:a!", "rules=with:b!", "rules=node:-hdd",
             "rules=apart:b", "balance=off", "how=NONE", "on=n0,n1"]  # fmt: skip
    vms = [
        vm(
            f"v{n}",
            f"memory={chance.choice([100, 250, 700])} tags={chance.choice('abc')} "
            f"vcpus={chance.randint(1, 3)} {chance.choice(rules)}",
            f"n{min(int(chance.expovariate(1.2)), len(nodes) - 1)}",
        )
        for n in range(chance.randint(1, 24))
    ]
    return world("\n".join([*nodes, *vms]))


def seats(load: Load) -> list[tuple[int, int, int, int]]:
    return [(s.taken_mib, s.vcpus, s.vms, s.moving) for s in load.seats.values()]


@pytest.mark.parametrize("selector", [0, vm_pb2.NODE_SELECTOR_VMS, vm_pb2.NODE_SELECTOR_VCPUS])
def test_it_never_breaks_a_rule_and_never_makes_it_worse(selector: int) -> None:
    made = 0
    for seed in range(60):
        before = random_world(seed)
        load = load_of(before)
        was = seats(load)
        plan = plan_balance(at(9), before, load, selector)  # type: ignore[arg-type]
        assert seats(load) == was, "the load is given back as it was"
        assert plan.spread_after <= plan.spread_before
        assert len({x.vm for x in plan.moves}) == len(plan.moves), "no VM moves twice"
        vms = dict(before.vms)
        for step in plan.moves:
            now = replace(before, vms=vms)
            row = vm_pb2.Vm()
            row.CopyFrom(vms[step.vm])
            assert row.decision.node == step.source
            verdict = judge(now, row, before.nodes[step.target], load_of(now))
            assert verdict.fits, f"seed {seed}: {step.vm} {verdict.reasons}"
            row.decision.node = step.target
            vms[step.vm] = row
            made += 1
        spread = scale_of(load_of(replace(before, vms=vms)), selector).spread
        assert spread == pytest.approx(plan.spread_after, abs=0.1)
        again = plan_balance(at(9), replace(before, vms=vms), load_of(replace(before, vms=vms)))
        assert len(again.moves) < 40
    assert made > 50, "the worlds are worth balancing"


# --- Carried out.

BALANCE = "op 1 BalanceCluster clusters/this"


def arrived(now: World) -> None:
    for row in now.vms.values():
        if row.decision.HasField("migration"):
            row.status.migration.id = row.decision.migration.id
            row.status.migration.phase = vm_pb2.MigrationStatus.PHASE_MOVED


def test_it_is_carried_out_within_the_limits_and_tells_how_even_it_is() -> None:
    vms = [vm(f"v{n}", "memory=100") for n in range(6)]
    now = settled(0, world("\n".join([THREE, *vms, BALANCE])))
    (operation,) = now.operations
    assert (operation.parts, operation.parts_begun) == (3, 2)
    assert operation.log[0].text == "3 moves: spread 60.0 → 20.0 %"
    arrived(now)
    now = settled(5, now)
    assert now.operations[0].parts_begun == 3
    arrived(now)
    plan = decide(at(9), now)
    while now.operations:
        plan = decide(at(9), now)
        now = applied(now, plan)
    assert told(plan) == ["operations/1 SUCCEEDED: the spread is 20.0 %"]
    assert sorted(x.decision.node for x in now.vms.values()) == [
        "nodes/n1", "nodes/n1", "nodes/n1", "nodes/n2", "nodes/n2", "nodes/n3"
    ]  # fmt: skip
    assert not any(x.decision.home for x in now.vms.values()), "they are at home where they are"


def test_nothing_to_do_is_a_success() -> None:
    now = settled(0, world("\n".join([THREE, vm("a", "memory=100"), BALANCE])))
    assert not now.operations


def test_cancelled_it_begins_no_more() -> None:
    now = settled(
        0, world("\n".join([THREE, *(vm(f"v{n}", "memory=100") for n in range(6)), BALANCE]))
    )
    now.operations[0].cancel_requested = True
    now = settled(1, now)
    assert not now.operations and not any(
        x.decision.HasField("migration") for x in now.vms.values()
    )


def test_the_threshold_is_a_setting() -> None:
    asked = world("\n".join([THREE, vm("a", "memory=100"), vm("b", "memory=50")]))
    spec = cluster_pb2.ClusterSpec(balance_threshold_percent=10)
    plan = plan_balance(at(0), replace(asked, spec=spec), load_of(asked))
    assert moves(plan) == ["a n1→n2"]


# --- By itself.


def uneven(text: str = "", **spec: bool) -> World:
    vms = [vm(f"v{n}", "memory=100") for n in range(6)]
    settings = cluster_pb2.ClusterSpec(auto_balance=True)
    settings.MergeFrom(cluster_pb2.ClusterSpec(**spec))
    row = cluster_pb2.ClusterIdentity(name="clusters/this", spec=settings)
    row.balance_time.seconds = 1000
    return replace(world("\n".join([THREE, *vms, text])), spec=settings, cluster=row)


def test_by_itself_it_begins_an_operation_every_few_minutes() -> None:
    assert decide(at(1299), uneven()) == ()
    (step,) = decide(at(1300), uneven())
    assert isinstance(step, DecideCluster) and step.cluster.balance_time == at(1300)
    assert step.new is not None and step.new.caller == "the cluster itself"


def test_by_itself_it_does_nothing_where_all_is_even_but_note_that_it_looked() -> None:
    even = uneven()
    (step,) = decide(at(1300), replace(even, vms={}))
    assert isinstance(step, DecideCluster) and step.new is None
    assert step.why == "balancing was looked at: spread 0.0 %"


@pytest.mark.parametrize("spec", [{"auto_balance": False}, {"maintenance": True}])
def test_by_itself_only_when_it_is_wanted(spec: dict[str, bool]) -> None:
    quiet = uneven()
    for name, value in spec.items():
        setattr(quiet.spec, name, value)
    assert decide(at(9999), quiet) == ()


@pytest.mark.parametrize(
    "text",
    [
        "node n4 fencing 9999",
        "node n4 draining 9999",
        "op 1 BalanceCluster clusters/this RUNNING parts=1 begun=1",
    ],
)
def test_by_itself_not_while_vms_move_anyway(text: str) -> None:
    plan = decide(at(9999), uneven(text))
    assert not any(isinstance(step, DecideCluster) for step in plan)


def test_the_operation_of_the_clusters_own_is_carried_out_like_any_other() -> None:
    store = MemoryStore(MemoryCluster())
    before = uneven()
    for node in before.nodes.values():
        store.commit([Put(node)])
        assert store.acquire(node.name, node.name)
    for row in before.vms.values():
        row.meta.etag = ""
        store.commit([Put(row)])
    assert before.cluster is not None
    store.commit([Put(before.cluster)])
    Coordinator(store, SystemClock(), "nodes/n1").step()
    (operation,) = store.snapshot().rows(Operation)
    assert operation.name.startswith("operations/") and operation.parts_begun == 2
