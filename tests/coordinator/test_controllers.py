"""The controllers of working nodes are asked in time, and only the right ones are believed."""

from __future__ import annotations

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, secret_pb2
from services.coordinator.controllers import CHECK_EVERY_S, RECHECK_S, Controllers, settings_in
from services.coordinator.core.node_edits import secret_name
from services.mesh.sealing import seal
from services.state.store import Delete, Put
from tests.coordinator.fencing import KEY, Cluster
from tests.state.places import refused


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def check(cluster: Cluster, seconds: float = 0.0) -> cluster_pb2.ControllerCheck:
    """Time passes, and the checks go round."""
    cluster.checks.step()
    for _ in range(int(seconds // 5)):
        cluster.clock.seconds += 5
        cluster.checks.step()
    cluster.checks.step()
    return cluster.node().decision.controller


def messages(cluster: Cluster) -> list[str]:
    return [x.message for x in cluster.store.snapshot().rows(event_pb2.Event)]


def test_one_that_says_on_of_a_working_node_is_trusted(cluster: Cluster) -> None:
    cluster.work()
    controller = cluster.control(trusted=False)
    found = check(cluster)
    assert found.trusted and found.why == "" and found.time.seconds == 1000
    assert found.settings == settings_in(cluster.store.snapshot(), cluster.node())
    assert controller.told == ["status"]
    assert messages(cluster) == ["node n2: the controller of its power is trusted"]


def test_it_is_asked_every_few_minutes_and_written_only_when_that_is_news(
    cluster: Cluster,
) -> None:
    cluster.work()
    controller = cluster.control(trusted=False)
    check(cluster)
    before = cluster.store.snapshot().revision
    check(cluster, CHECK_EVERY_S * 5)
    assert controller.told.count("status") == 6
    assert cluster.store.snapshot().revision == before
    check(cluster, 3600)
    assert cluster.store.snapshot().revision - before in (1, 2)


def test_one_that_says_off_of_a_working_node_is_not(cluster: Cluster) -> None:
    cluster.work()
    controller = cluster.control(stuck=True)
    assert check(cluster).trusted, "the node may have died this very moment"
    found = check(cluster, RECHECK_S)
    assert not found.trusted and "says that the power is off" in found.why
    controller.stuck = False
    assert check(cluster, CHECK_EVERY_S).trusted


def test_a_node_that_dies_meanwhile_does_not_cost_its_controller_the_trust(
    cluster: Cluster,
) -> None:
    agent = cluster.work()
    controller = cluster.control()
    controller.on = False
    check(cluster)
    agent.close()
    assert check(cluster, 60).trusted


def test_one_that_does_not_answer_keeps_its_trust_and_that_is_told(cluster: Cluster) -> None:
    cluster.work()
    controller = cluster.control(dead=True)
    found = check(cluster)
    assert found.trusted and "no answer" in found.why
    controller.dead = False
    assert check(cluster, CHECK_EVERY_S).why == ""


def test_one_that_never_answered_has_none(cluster: Cluster) -> None:
    cluster.work()
    cluster.control(trusted=False, dead=True)
    found = check(cluster)
    assert not found.trusted and "no answer" in found.why
    assert messages(cluster) == ["node n2: the controller of its power is not trusted"]


def test_other_settings_are_asked_at_once(cluster: Cluster) -> None:
    cluster.work()
    controller = cluster.control(trusted=False)
    before = check(cluster)
    name = secret_name("nodes/n2")
    there = cluster.store.snapshot().find(secret_pb2.Secret, name)
    assert there is not None
    row = secret_pb2.Secret(name=name, sealed=seal(KEY, name, b"wrong"))
    row.meta.etag = there.meta.etag
    cluster.store.commit([Put(row)])
    found = check(cluster, 5)
    assert not found.trusted and found.settings != before.settings
    assert "user or the password" in found.why and controller.told == ["status"]


def test_two_nodes_with_one_controller_have_none(cluster: Cluster) -> None:
    """Whichever it is, switching it off would prove the death of the other too."""
    cluster.work()
    cluster.control()
    twin = cluster.node("n3")
    twin.spec.power_control.CopyFrom(cluster.node().spec.power_control)
    cluster.store.commit([Put(twin)])
    found = check(cluster)
    assert not found.trusted and "nodes/n3 has the same" in found.why


def test_a_controller_that_is_taken_away_is_forgotten(cluster: Cluster) -> None:
    cluster.work()
    cluster.control()
    node = cluster.node()
    node.spec.ClearField("power_control")
    cluster.store.commit([Put(node)])
    check(cluster)
    assert not cluster.node().decision.HasField("controller")


def test_only_the_leader_asks(cluster: Cluster) -> None:
    cluster.work()
    controller = cluster.control(trusted=False)
    cluster.lease = None
    check(cluster, 600)
    assert controller.told == []


def test_a_password_that_cannot_be_opened_is_told(cluster: Cluster) -> None:
    cluster.work()
    cluster.control(trusted=False)
    name = secret_name("nodes/n2")
    row = secret_pb2.Secret(name=name, sealed=seal(bytes(32), name, b"secret"))
    row.meta.etag = "*"
    cluster.store.commit([Put(row)])
    assert "cannot be opened" in check(cluster).why


def test_a_controller_without_a_password_or_a_language(cluster: Cluster) -> None:
    controllers = Controllers({}, lambda: KEY)
    cluster.control()
    with refused("NOT_SUPPORTED") as error:
        controllers.is_on(cluster.store.snapshot(), cluster.node())
    assert "PROTOCOL_REDFISH" in error.value.message
    cluster.work()
    cluster.store.commit([Delete(secret_name("nodes/n2"), "*")])
    assert "user or the password" in check(cluster).why
