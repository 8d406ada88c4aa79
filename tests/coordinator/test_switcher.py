"""What switches fenced machines on: that it asks first, writes what came of it, and goes on from
what another leader began."""

from __future__ import annotations

from typing import Any

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, reason_pb2
from services.coordinator.core.power_on import ASKS_MAX, BOOT_S, FIRST_PAUSE_S
from services.coordinator.runner import DEADLINE_S
from services.mesh.errors import PvcError
from services.state.store import Put
from tests.coordinator.fencing import Cluster


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.gone_s = 20.0
    return made


def events(cluster: Cluster) -> list[str]:
    return [event.message for event in cluster.store.snapshot().rows(event_pb2.Event)]


def test_a_machine_that_is_off_is_switched_on(cluster: Cluster) -> None:
    controller = cluster.control(on=False)
    cluster.want_on()
    record = cluster.switch(5)
    assert controller.on and controller.told == ["status", "on", "status"]
    assert record.answered == record.tries == 1
    assert record.why == "its controller switched it on, and says so: it is waited for"
    assert (record.session, record.due.seconds) == ("session of n2", 20 + BOOT_S)
    assert cluster.node().decision.lost_for.seconds == 20
    assert events(cluster) == ["node n2 has power"]
    cluster.switch(60)
    assert len(controller.told) == 3, "it is asked no more"


def test_a_machine_that_is_on_is_left_alone(cluster: Cluster) -> None:
    """Its watchdog reset it, or another leader was quicker."""
    controller = cluster.control()
    cluster.want_on(tries=3)
    record = cluster.switch(5)
    assert controller.told == ["status"] and record.answered == 3
    assert record.why == "its controller says that it is on: it is waited for"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"dead": True}, "no answer within 3 s"),
        ({"refuses": True}, "it refuses to switch the power on"),
        ({"slow_s": 9.0}, "no answer within 3 s"),
        ({"lying": True}, "took the command to switch it on, and still says that it is off 9 s"),
        ({"stuck": True}, "took the command to switch it on, and still says that it is off 9 s"),
    ],
)
def test_what_a_bad_controller_says_is_written(
    cluster: Cluster, how: dict[str, Any], why: str
) -> None:
    controller = cluster.control(on=False, **how)
    cluster.want_on()
    record = cluster.switch(2 * ASKS_MAX)
    assert record.answered == 1 and why in record.why
    assert record.due.seconds == 20 + FIRST_PAUSE_S
    assert events(cluster) == ["node n2 could not be switched on"]
    assert controller.on is bool(how.get("stuck"))


def test_one_that_hangs_holds_up_nobody(cluster: Cluster) -> None:
    cluster.control(on=False)
    other = cluster.control("n3", on=False)
    cluster.runner.hangs.add("nodes/n2 switch")
    cluster.want_on()
    cluster.want_on("n3")
    cluster.switch(3)
    assert other.on and cluster.node().decision.power_on.answered == 0
    record = cluster.switch(DEADLINE_S)
    assert record.answered == 1 and f"no answer within {DEADLINE_S:g} s" in record.why


@pytest.mark.parametrize("why", ["not trusted", "by its present settings", "the same controller"])
def test_a_controller_that_may_be_anothers_is_not_touched(cluster: Cluster, why: str) -> None:
    """It would switch another machine on."""
    controller = cluster.control(trusted=why != "not trusted", on=False)
    node = cluster.node()
    match why:
        case "not trusted":
            node.decision.controller.settings = "those"
            node.decision.controller.why = "it says off"
        case "by its present settings":
            node.decision.controller.settings = "others"
        case _:
            cluster.control("n3")
            twin = cluster.node("n3")
            twin.spec.power_control.address = node.spec.power_control.address
            cluster.store.commit([Put(twin)])
    cluster.store.commit([Put(node)])
    cluster.want_on()
    record = cluster.switch(5)
    assert controller.told == [] and record.answered == 1 and not controller.on


def _back(cluster: Cluster) -> None:
    assert cluster.store.acquire("nodes/n2", "nodes/n2") is not None


def _ended(cluster: Cluster) -> None:
    node = cluster.node()
    node.decision.power_on.ended = True
    cluster.store.commit([Put(node)])


def _fencing(cluster: Cluster) -> None:
    node = cluster.node()
    node.decision.state = cluster_pb2.NODE_STATE_FENCING
    cluster.store.commit([Put(node)])


@pytest.mark.parametrize("change", [_back, _ended, _fencing])
def test_nothing_is_done_about_a_node_of_which_it_is_not_wanted_any_more(
    cluster: Cluster, change: Any
) -> None:
    controller = cluster.control(on=False)
    cluster.want_on()
    cluster.switch()
    assert controller.told == ["status"]
    change(cluster)
    cluster.switch(20)
    assert controller.told == ["status"] and not controller.on


def test_only_the_leader_does_it(cluster: Cluster) -> None:
    controller = cluster.control(on=False)
    cluster.want_on()
    lease, cluster.lease = cluster.lease, None
    cluster.switch(5)
    assert controller.told == []
    cluster.lease = lease
    cluster.store.lose_session()
    with pytest.raises(PvcError) as error:
        cluster.switch(5)
    assert error.value.reason == reason_pb2.REASON_NOT_LEADER
    assert cluster.node().decision.power_on.answered == 0


def test_the_next_leader_makes_the_same_try_again(cluster: Cluster) -> None:
    """The first one died between its command and what it would have written."""
    controller = cluster.control(on=False)
    cluster.want_on()
    cluster.switch(0.5)
    assert controller.on and cluster.node().decision.power_on.answered == 0
    lease, cluster.lease = cluster.lease, None
    cluster.switch()  # what it knew is gone, as with its process
    cluster.lease = lease
    record = cluster.switch(5)
    assert record.answered == record.tries == 1
    assert controller.told == ["status", "on", "status"], "switched on once"


def test_a_row_that_changed_meanwhile_is_looked_at_again(cluster: Cluster) -> None:
    cluster.control(on=True)
    cluster.want_on()
    before = cluster.store.snapshot()
    node = cluster.node()
    node.spec.description = "somebody wrote"
    cluster.store.commit([Put(node)])
    late = cluster.store.snapshot
    cluster.store.snapshot = lambda: before  # type: ignore[method-assign]
    cluster.switch(1)
    cluster.store.snapshot = late  # type: ignore[method-assign]
    assert cluster.node().decision.power_on.answered == 0
    assert cluster.switch(2).answered == 1
