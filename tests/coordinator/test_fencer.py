"""The fencer: every means, its absence, its misbehaviour, and a node that comes back meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import event_pb2, reason_pb2
from services.coordinator.fencer import written_on
from services.coordinator.runner import (
    DEADLINE_S,
    HANGING_MAX,
    Answer,
    Failure,
    Line,
    ThreadRunner,
)
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.state.store import Put
from tests.coordinator.fencing import Cluster, ManualClock
from tests.state.places import eventually


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_a_watchdog_proves_it_when_its_time_is_over(cluster: Cluster) -> None:
    cluster.lose(armed=True)
    cluster.go_on()
    assert cluster.proof() == ("", "")
    assert "gone for 4.1 s" in cluster.attempts()["WATCHDOG"].why
    cluster.gone_s = 4.1
    cluster.go_on()
    assert cluster.proof() == ("WATCHDOG", "session of n2")
    proof = cluster.node().decision.proof
    assert proof.given_by == "coordinator n1" and proof.time.seconds == 1000
    (event,) = cluster.store.snapshot().rows(event_pb2.Event)
    assert event.message == "node n2 is dead" and "/dev/w" in event.why


def test_without_any_means_there_is_no_proof_and_the_reasons_are_told(cluster: Cluster) -> None:
    cluster.lose()
    cluster.gone_s = 1e6
    cluster.go_on(60)
    assert cluster.proof() == ("", "")
    told = cluster.attempts()
    assert set(told) == {"WATCHDOG", "POWER", "STORAGE"} and all(
        x.impossible for x in told.values()
    )


def test_power_proves_it_once_it_is_off(cluster: Cluster) -> None:
    controller = cluster.control()
    cluster.lose()
    cluster.go_on(2)
    assert cluster.proof() == ("POWER", "session of n2")
    assert controller.told == ["off", "status", "status"] and not controller.on


@pytest.mark.parametrize("on", [True, False])
def test_whether_it_was_on_is_asked_where_its_agent_ended_in_order(
    cluster: Cluster, on: bool
) -> None:
    """One that was off before the command was switched off on purpose."""
    controller = cluster.control(on=on)
    cluster.lose()
    node = cluster.node()
    node.status.restarting = True
    cluster.store.commit([Put(node)])
    cluster.go_on(3)
    assert cluster.proof() == ("POWER", "session of n2")
    assert controller.told == ["status", "off", "status", "status"]
    assert cluster.node().decision.proof.was_on is on


def test_what_was_said_before_the_first_command_counts(cluster: Cluster) -> None:
    """Later on it is off because of the command."""
    controller = cluster.control(lying=True)
    cluster.lose()
    node = cluster.node()
    node.status.restarting = True
    cluster.store.commit([Put(node)])
    cluster.go_on(8)
    assert cluster.proof() == ("", "") and controller.told.count("off") >= 1
    controller.lying = False
    cluster.go_on(30)
    assert cluster.proof()[0] == "POWER" and cluster.node().decision.proof.was_on


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"dead": True}, "no answer within 3 s"),
        ({"refuses": True}, "refuses to switch the power off"),
        ({"lying": True}, "still says that it is on"),
        ({"slow_s": 9.0}, "no answer within 3 s"),
    ],
)
def test_a_controller_that_fails_is_asked_again_for_ever(
    cluster: Cluster, how: dict[str, Any], why: str
) -> None:
    controller = cluster.control(**how)
    cluster.lose()
    cluster.go_on(120)
    told = cluster.attempts()["POWER"]
    assert cluster.proof() == ("", "") and why in told.why and not told.impossible
    assert 5 <= told.tries <= 15
    for name in ("dead", "refuses", "lying"):
        setattr(controller, name, False)
    controller.slow_s = 0.0
    cluster.go_on(25)
    assert cluster.proof()[0] == "POWER"


def test_a_wrong_password_is_told(cluster: Cluster) -> None:
    cluster.control().password = "another"
    cluster.lose()
    cluster.go_on(5)
    assert "refuses the user or the password" in cluster.attempts()["POWER"].why


def test_a_controller_that_was_never_seen_to_be_right_is_not_even_asked(cluster: Cluster) -> None:
    """It might be another machine's, and that would be switched off."""
    controller = cluster.control(trusted=False, stuck=True)
    cluster.lose()
    cluster.go_on(60)
    assert cluster.proof() == ("", "") and controller.told == []
    assert cluster.attempts()["POWER"].impossible


def test_a_hanging_controller_holds_up_nobody(cluster: Cluster) -> None:
    cluster.control("n2")
    cluster.control("n3")
    cluster.runner.hangs.add("nodes/n2 power")
    cluster.lose("n2", armed=True)
    cluster.lose("n3")
    cluster.go_on(2)
    assert cluster.proof("n3")[0] == "POWER"
    cluster.go_on(200)
    told = cluster.attempts("n2")["POWER"]
    assert told.tries == HANGING_MAX and f"no answer within {DEADLINE_S:g} s" in told.why
    assert cluster.runner.started.count("nodes/n2 power") == HANGING_MAX, "no thread after thread"
    cluster.gone_s = 5.0
    cluster.go_on()
    assert cluster.proof("n2")[0] == "WATCHDOG"


def test_storage_proves_it_when_all_of_it_confirms(cluster: Cluster) -> None:
    cluster.lose()
    node = cluster.node()
    node.status.storage_clients.append("10.0.0.2:0/7")
    cluster.store.commit([Put(node)])
    cluster.storage.confirms = False
    cluster.go_on(5)
    assert cluster.proof() == ("", "")
    assert "not all of the storage" in cluster.attempts()["STORAGE"].why
    cluster.storage.confirms = True
    cluster.go_on(15)
    assert cluster.proof()[0] == "STORAGE" and cluster.storage.fenced == {"10.0.0.2:0/7"}


def test_storage_that_does_not_answer_is_asked_again(cluster: Cluster) -> None:
    cluster.lose()
    node = cluster.node()
    node.status.storage_clients.append("c")
    cluster.store.commit([Put(node)])
    cluster.storage.failure = PvcError(reason_pb2.REASON_STORAGE_FAILED, "no monitor answers")
    cluster.go_on(5)
    assert cluster.attempts()["STORAGE"].why == "no monitor answers"


def test_a_volume_that_cannot_be_fenced_makes_it_impossible(cluster: Cluster) -> None:
    cluster.lose()
    web = vm_pb2.Vm(name="vms/web")
    web.decision.node = "nodes/n2"
    web.spec.disks.add(id="d", volume="pools/p/volumes/v")
    coming = vm_pb2.Vm(name="vms/coming")
    coming.decision.node, coming.decision.migration.target = "nodes/n3", "nodes/n2"
    coming.spec.disks.add(id="d", volume="pools/p/volumes/w")
    cluster.store.commit([Put(web), Put(coming)])
    assert written_on(cluster.store.snapshot(), cluster.node()) == [
        "pools/p/volumes/v",
        "pools/p/volumes/w",
    ]
    cluster.storage.uncovered = {"pools/p/volumes/w": "w is in a directory"}
    cluster.go_on()
    told = cluster.attempts()["STORAGE"]
    assert told.impossible and told.why == "w is in a directory"


def test_a_node_that_came_back_is_not_proven_dead(cluster: Cluster) -> None:
    """The row changed after the fencer read it: the proof is of no use any more."""
    cluster.lose(armed=True)
    cluster.gone_s = 10.0
    before = cluster.store.snapshot()
    node = cluster.node()
    node.status.session = "a new one"
    cluster.store.commit([Put(node)])
    late = cluster.store.snapshot
    cluster.store.snapshot = lambda: before  # type: ignore[method-assign]
    cluster.go_on()
    cluster.store.snapshot = late  # type: ignore[method-assign]
    assert cluster.proof() == ("", "")
    cluster.go_on()
    assert cluster.proof() == ("", ""), "and no longer pursued"


def test_a_node_that_holds_its_lease_again_is_left_alone(cluster: Cluster) -> None:
    controller = cluster.control()
    cluster.lose(armed=True)
    agent = cluster.store.acquire("nodes/n2", "nodes/n2")
    cluster.gone_s = 10.0
    cluster.go_on(5)
    assert agent is not None and cluster.proof() == ("", "") and controller.told == []


def test_only_the_leader_fences(cluster: Cluster) -> None:
    controller = cluster.control()
    cluster.lose(armed=True)
    cluster.gone_s = 10.0
    lease, cluster.lease = cluster.lease, None
    cluster.go_on(5)
    assert cluster.proof() == ("", "") and controller.told == []
    cluster.lease = lease
    cluster.store.lose_session()
    with pytest.raises(PvcError) as error:
        cluster.go_on()
    assert error.value.reason == reason_pb2.REASON_NOT_LEADER
    assert cluster.proof() == ("", "")


def test_attempts_are_not_written_all_the_time(cluster: Cluster) -> None:
    cluster.control(refuses=True)
    cluster.lose(armed=True)
    before = cluster.store.snapshot().revision
    cluster.go_on(120, every=0.25)
    assert cluster.store.snapshot().revision - before <= 14


def test_a_second_death_needs_its_own_proof(cluster: Cluster) -> None:
    cluster.lose(armed=True)
    cluster.gone_s = 10.0
    cluster.go_on()
    node = cluster.node()
    node.status.session = node.decision.lost_session = "the next"
    cluster.store.commit([Put(node)])
    cluster.go_on()
    assert cluster.proof() == ("WATCHDOG", "session of n2")
    assert cluster.attempts()["WATCHDOG"].impossible


def test_threads_carry_what_comes_of_a_call() -> None:
    woken = threading.Event()
    line = Line(ThreadRunner(woken.set), SystemClock(), "n2 power")
    line.begin(lambda: 7)
    assert woken.wait(60)
    eventually(lambda: line.outcome() == Answer(7))
    line.begin(lambda: 1 / 0)
    failures: list[object] = []
    eventually(lambda: failures.append(found) or True if (found := line.outcome()) else False)
    assert failures == [Failure("ZeroDivisionError: division by zero")]


def test_a_call_that_hangs_is_not_waited_for() -> None:
    clock, end = ManualClock(), threading.Event()
    line = Line(ThreadRunner(), clock, "n2 power")
    for _ in range(HANGING_MAX):
        line.begin(lambda: end.wait(600))
        assert line.outcome() is None and not line.free
        clock.seconds += DEADLINE_S
        assert isinstance(line.outcome(), Failure)
    assert not line.free, "the old ones still hang"
    end.set()
    eventually(lambda: line.free)
