"""Where a VM may and should be: every filter, every score, and the room that is kept."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import health
from services.coordinator.core.capacity import Load, load_of
from services.coordinator.core.decide import decide
from services.coordinator.core.place import judge, place, why_none
from services.coordinator.core.plan import DecideVm, FailOperation
from services.coordinator.core.reserve import room_of, start_refused
from services.coordinator.core.world import World
from tests.coordinator.moving import world
from tests.coordinator.worlds import at

NEW = "vm new power=RUNNING asked=1"
THREE = """
    node n1 online 4096
    node n2 online 4096
    node n3 online 4096
"""


def placed(text: str, name: str = "vms/new") -> str:
    asked = world(text)
    return place(asked, asked.vms[name], load_of(asked))[0].removeprefix("nodes/")


def refusal(asked: World, name: str = "vms/new", node: str = "nodes/n1") -> str:
    verdict = judge(asked, asked.vms[name], asked.nodes[node], load_of(asked))
    return " and ".join(verdict.reasons) if not verdict.fits else ""


def runs(name: str, spec: str = "", node: str = "n1") -> str:
    return f"vm {name} {spec} power=RUNNING asked=1 | node={node} power=RUNNING | RUNNING"


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("online", ""),
        ("unknown", "is not online"),
        ("joining", "has not joined yet"),
        ("fencing", "is being fenced"),
        ("fenced", "was fenced"),
        ("draining", "is being drained"),
        ("drained", "is drained"),
        ("maintenance", "is in maintenance"),
        ("leaving", "is leaving the cluster"),
    ],
)
def test_only_nodes_that_are_online_take_vms(state: str, why: str) -> None:
    assert refusal(world(f"node n1 {state} 4096\n{NEW}")) == why


def test_a_node_that_is_to_be_drained_or_to_leave_takes_none_any_more() -> None:
    assert refusal(world(f"node n1 online 4096 drained\n{NEW}")) == "is to be drained"
    asked = world(f"node n1 online 4096\n{NEW}")
    asked.nodes["nodes/n1"].spec.leaving = True
    assert refusal(asked) == "is to leave the cluster"


def test_the_only_nodes_that_it_may_be_on() -> None:
    assert placed(f"{THREE}\n{NEW} on=n2") == "n2"
    assert refusal(world(f"{THREE}\n{NEW} on=n2,n3")) == (
        "is none of n2, n3, the only nodes that it may be on"
    )


@pytest.mark.parametrize(
    ("rule", "tags", "why"),
    [
        ("node:ssd!", "hdd", "lacks the tag ssd"),
        ("node:ssd!", "ssd", ""),
        ("node:-old!", "old", "has the tag old"),
        ("node:-old!", "ssd", ""),
        ("node:ssd", "hdd", ""),
    ],
)
def test_musts_about_tags_of_nodes(rule: str, tags: str, why: str) -> None:
    assert refusal(world(f"node n1 online 4096 tags={tags}\n{NEW} rules={rule}")) == why


def test_wishes_about_nodes_outweigh_free_memory() -> None:
    nodes = "node n1 online 9999\nnode n2 online 1024 tags=ssd"
    assert placed(f"{nodes}\n{NEW}") == "n1"
    assert placed(f"{nodes}\n{NEW} rules=node:ssd") == "n2"
    assert (
        placed(f"node n1 online 9999 tags=old\nnode n2 online 1024\n{NEW} rules=node:-old") == "n2"
    )


def test_apart_is_a_must_for_both() -> None:
    text = f"{THREE}\n{runs('db1', 'tags=db rules=apart:db!')}\n{{}}"
    both = world(text.format(f"{NEW} tags=db rules=apart:db!"))
    assert refusal(both) == "has db1 with the tag db, to be apart from"
    newcomer = world(text.format(f"{NEW} tags=db"))
    assert refusal(newcomer) == "has db1, to be apart from VMs with the tag db"
    assert refusal(world(text.format(f"{NEW} tags=web"))) == ""
    assert refusal(both, "vms/db1") == "", "it is no company to itself"


def test_together_goes_where_the_other_is() -> None:
    text = f"{THREE}\n{runs('db', 'tags=db', 'n3')}\n{NEW} rules=with:db!"
    assert placed(text) == "n3"
    assert refusal(world(text)) == "has no VM with the tag db to be together with; n3 has"
    assert placed(f"{THREE}\n{NEW} rules=with:db!") == "n1", "nobody is there to be with"


def test_together_binds_the_other_too() -> None:
    text = f"{THREE}\n{runs('web', 'rules=with:db!', 'n2')}\n{NEW} tags=db"
    assert placed(text) == "n2"
    assert refusal(world(text)) == "is not n2, where web must be together with it"
    assert placed(f"{text}\n{runs('db2', 'tags=db', 'n2')}") == "n1", "it has company already"


def test_a_node_that_loses_its_vms_binds_nobody() -> None:
    text = (
        f"node n1 draining 4096\nnode n2 online 4096\n{runs('db', 'tags=db')}\n{NEW} rules=with:db!"
    )
    assert placed(text) == "n2"
    moving = "vm db tags=db power=RUNNING asked=1 | node=n1 power=RUNNING to=n3 | RUNNING"
    assert placed(f"{THREE}\n{moving}\n{NEW} rules=with:db!") == "n3", "where it will be"


def test_wishes_about_vms() -> None:
    there = f"{THREE}\n{runs('db', 'tags=db', 'n2')}"
    assert placed(f"{there}\n{NEW} rules=with:db") == "n2"
    assert placed(f"{there}\n{NEW} memory=4000 rules=with:db") == "n1", "a wish, no must"
    assert placed(f"node n1 online 999\nnode n2 online 9999\n{runs('db', 'tags=db', 'n2')}\n"
                  f"{NEW} rules=apart:db") == "n1"  # fmt: skip


def test_most_vms_of_a_node() -> None:
    asked = world(f"node n1 online 4096 max=1\n{runs('a')}\n{NEW}")
    assert refusal(asked) == "has its 1 VMs already"
    assert refusal(asked, "vms/a") == "", "one that is there counts once"


def test_what_is_shared_must_work_there() -> None:
    asked = world(f"{THREE}\n{NEW} volumes=root nets=lan")
    asked = replace(asked, not_ready={
        "pools/p": {"nodes/n1": "it is not mounted"}, "networks/lan": {"nodes/n2": "no bridge"},
    })  # fmt: skip
    assert refusal(asked) == "cannot use pools/p: it is not mounted"
    assert refusal(asked, node="nodes/n2") == "cannot use networks/lan: no bridge"
    assert place(asked, asked.vms["vms/new"], load_of(asked))[0] == "nodes/n3"


@pytest.mark.parametrize(
    ("selector", "best"),
    [("MEM", "n1"), ("MEMPROV", "n2"), ("LOAD", "n3"), ("VCPUS", "n4"), ("VMS", "n5")],
)
def test_the_selector_says_what_makes_a_node_better(selector: str, best: str) -> None:
    nodes = {
        "n1": "online 5000 load=400 available=4900",
        "n2": "online 16000 load=400 available=2000",
        "n3": "online 5000 load=1 available=2000",
        "n4": "online 5000 load=400 available=2000",
        "n5": "online 5000 load=400 available=2000",
    }
    lines = [f"node {name} {facts}" for name, facts in nodes.items()]
    lines += [runs(f"a{n}", "vcpus=3 memory=64", f"n{n}") for n in (1, 2, 3, 5)]
    lines += [runs(f"b{n}", "vcpus=3 memory=64", f"n{n}") for n in (1, 2, 3)]
    lines += [runs(f"c{n}", "vcpus=1 memory=64", "n4") for n in range(3)]
    assert placed("\n".join([*lines, f"{NEW} by={selector}"])) == best


def test_what_was_placed_since_counts_against_what_a_node_told() -> None:
    asked = world("""
        node n1 online 4000 available=3000
        node n2 online 4000 available=2900
        vm a memory=500 by=MEM power=RUNNING asked=1
        vm b memory=500 by=MEM power=RUNNING asked=1
    """)
    load, homes = load_of(asked), []
    for vm in asked.vms.values():
        vm.decision.node, _ = place(asked, vm, load)
        vm.decision.power = vm_pb2.POWER_STATE_RUNNING
        load.count(vm, 1)
        homes.append(vm.decision.node)
    assert homes == ["nodes/n1", "nodes/n2"]


def test_a_count_taken_back_leaves_nothing() -> None:
    asked = world(f"{THREE}\n{runs('a', 'tags=x rules=apart:y!,with:z! memory=100')}")
    load = load_of(asked)
    load.count(asked.vms["vms/a"], -1)
    empty = load_of(replace(asked, vms={}))
    empty.seats["nodes/n1"].told_mib = 100
    assert (load.seats, load.moving) == (empty.seats, 0)
    assert not load.anchors.get("x") and not load.followers.get("z")


def test_many_nodes_with_one_reason_are_told_together() -> None:
    asked = world("\n".join([*(f"node n{n} unknown 100" for n in range(9)), NEW]))
    _, verdicts = place(asked, asked.vms["vms/new"], load_of(asked))
    assert why_none(verdicts).startswith("n0, n1, n2 and 6 more: each is not online and has")


# --- The room that is kept.


def full(reserve: int, *vms: str) -> World:
    asked = world("\n".join([THREE.replace("4096", "1000"), *vms, f"{NEW} memory=300"]))
    return replace(asked, spec=cluster_pb2.ClusterSpec(reserve_nodes=reserve))


def test_a_start_that_takes_the_room_of_others_is_refused() -> None:
    tight = full(1, *(runs(f"v{n}", "memory=600", f"n{n}") for n in (1, 2, 3)))
    load = load_of(tight)
    assert room_of(load, 1).reserved_mib == 1000 and room_of(load, 1).free_mib == 200
    assert "its 300 MiB would take room that is kept" in start_refused(
        tight, load, tight.vms["vms/new"]
    )
    roomy = full(1, runs("v1", "memory=600"))
    assert start_refused(roomy, load_of(roomy), roomy.vms["vms/new"]) == ""


def test_a_start_that_is_asked_for_waits_for_the_room_and_says_so() -> None:
    tight = full(1, *(runs(f"v{n}", "memory=600", f"n{n}") for n in (1, 2, 3)))
    asked = operation_pb2.Operation(name="operations/1", target="vms/new", power_request=1)
    tight.vms["vms/new"].decision.power_request = 0
    plan = decide(at(0), replace(tight, operations=(asked,)))
    decided, failed = plan
    assert isinstance(decided, DecideVm) and not decided.vm.decision.node
    assert isinstance(failed, FailOperation)
    assert failed.reason == reason_pb2.REASON_NO_NODE_FITS and "is kept for" in failed.why
    del tight.vms["vms/v1"]  # type: ignore[attr-defined]
    (placed,) = decide(at(1), tight)
    assert isinstance(placed, DecideVm) and placed.vm.decision.node == "nodes/n1"


def test_a_recovery_is_not_held_back_by_it() -> None:
    tight = full(1, *(runs(f"v{n}", "memory=300", f"n{n}") for n in (1, 2, 3)))
    tight.nodes["nodes/n3"].decision.state = cluster_pb2.NODE_STATE_FENCED
    tight.nodes["nodes/n3"].decision.fences = 1
    tight = replace(tight, present=frozenset({"nodes/n1", "nodes/n2"}))
    moved = [step.vm for step in decide(at(0), tight) if isinstance(step, DecideVm)]
    assert [vm.decision.node for vm in moved if vm.name == "vms/v3"] == ["nodes/n1"]


def test_without_the_promise_nothing_is_kept() -> None:
    tight = full(0, *(runs(f"v{n}", "memory=900", f"n{n}") for n in (1, 2, 3)))
    assert start_refused(tight, load_of(tight), tight.vms["vms/new"]) == ""


def test_vms_that_are_not_restarted_need_no_room() -> None:
    vms = [runs(f"v{n}", "memory=600 ha=STOP", f"n{n}") for n in (1, 2, 3)]
    kept = full(1, *vms)
    assert room_of(load_of(kept), 1).free_mib == 800


def test_a_failed_node_leaves_less_room_than_none() -> None:
    vms = [runs(f"v{n}", "memory=600", f"n{n}") for n in (1, 2, 3)]
    dead = full(1, *vms)
    dead.nodes["nodes/n3"].decision.state = cluster_pb2.NODE_STATE_FENCED
    assert room_of(load_of(dead), 1).free_mib < 0


# --- Speed.


def big(nodes: int, vms: int) -> tuple[World, Load]:
    racks = [f"node n{n} online {vms // nodes * 1000 + 9000} tags=r{n % 5}" for n in range(nodes)]
    there = [runs(f"v{n}", f"tags=t{n % 50} memory=1000", f"n{n % nodes}") for n in range(vms)]
    asked = world("\n".join([*racks, *there, f"{NEW} memory=1000 tags=t1 rules=apart:t2!,node:r1"]))
    return asked, load_of(asked)


def test_a_placement_takes_longer_with_more_nodes_and_not_with_more_vms() -> None:
    """With rules, which are the slowest. See bench for figures."""
    few = calls_of_a_placement(100, 500)
    assert few < 6000
    assert calls_of_a_placement(100, 2000) < 1.1 * few
    assert calls_of_a_placement(200, 500) < 2.1 * few


def calls_of_a_placement(nodes: int, vms: int) -> int:
    """Of functions: a time that is the same on every machine."""
    asked, load = big(nodes, vms)
    calls: Counter[str] = Counter()
    sys.setprofile(lambda _frame, event, _argument: calls.update([event]))
    try:
        node = place(asked, asked.vms["vms/new"], load)[0]
    finally:
        sys.setprofile(None)
    assert node
    return calls["call"] + calls["c_call"]


def test_the_room_is_told_of_the_cluster() -> None:
    tight = full(1, *(runs(f"v{n}", "memory=700", f"n{n}") for n in (1, 2, 3)))
    cluster = cluster_pb2.Cluster(spec=tight.spec)
    health.count_room(cluster, load_of(tight))
    assert (cluster.memory_reserved_mib, cluster.memory_free_mib) == (1000, -100)
    assert [text for _, text in health.no_room(cluster)] == [
        "100 MiB of memory are missing to restart the VMs of 1 failed nodes (reserve_nodes)"
    ]
