"""How the fake misbehaves when told to; that it behaves otherwise, test_hypervisor proves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.core.v1 import reason_pb2
from services.compute.drivers.domain_xml import domain_xml
from services.compute.drivers.fake import FakeHypervisor
from services.compute.drivers.hypervisor import Guest, OffReason, Power
from services.mesh.errors import PvcError
from tests.drivers.vms import node, small_vm


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def fake(time: Time) -> FakeHypervisor:
    fake = FakeHypervisor(time)
    fake.define(domain_xml(small_vm("web"), node(Path("/pool"))))
    return fake


def refused(fake: FakeHypervisor, verb: str) -> reason_pb2.Reason.ValueType:
    with pytest.raises(PvcError) as caught:
        getattr(fake, verb)("web")
    return caught.value.reason


def test_starts_that_fail_a_few_times(fake: FakeHypervisor) -> None:
    fake.script("web").start_fails = "no more memory"
    fake.script("web").start_fails_times = 2
    for _ in range(2):
        assert refused(fake, "start") == reason_pb2.REASON_HYPERVISOR_FAILED
        assert fake.domains()["web"].off_reason is OffReason.START_FAILED
    fake.start("web")
    assert fake.domains()["web"].power is Power.RUNNING


def test_verbs_that_hang_do_nothing_until_let_go(fake: FakeHypervisor) -> None:
    fake.script("web").hangs.add("start")
    assert refused(fake, "start") == reason_pb2.REASON_DEADLINE
    assert fake.domains()["web"].power is Power.OFF
    fake.script("web").hangs.clear()
    fake.start("web")


def test_verbs_whose_answer_is_lost_are_done(fake: FakeHypervisor) -> None:
    fake.script("web").works_late.add("start")
    assert refused(fake, "start") == reason_pb2.REASON_DEADLINE
    assert fake.domains()["web"].power is Power.RUNNING


def test_a_shutdown_takes_its_time(fake: FakeHypervisor, time: Time) -> None:
    fake.script("web").shutdown_takes_s = 10
    fake.start("web")
    fake.shutdown("web")
    time.now = 9.9
    assert fake.domains()["web"].power is Power.RUNNING
    time.now = 10.0
    assert fake.domains()["web"].off_reason is OffReason.SHUT_DOWN


def test_a_guest_that_ignores_the_button(fake: FakeHypervisor) -> None:
    fake.script("web").ignores_acpi = True
    fake.start("web")
    fake.shutdown("web")
    assert fake.domains()["web"].power is Power.RUNNING


def test_lost_events(fake: FakeHypervisor) -> None:
    woken: list[bool] = []
    fake.on_event(lambda: woken.append(True))
    fake.start("web")
    assert woken
    woken.clear()
    fake.script("web").loses_events = True
    fake.crash("web")
    assert not woken
    assert fake.domains()["web"].off_reason is OffReason.CRASHED


def test_a_domain_vanishes(fake: FakeHypervisor) -> None:
    fake.vanish("web")
    assert fake.domains() == {}
    assert refused(fake, "start") == reason_pb2.REASON_NOT_FOUND


def test_a_guest_that_shuts_itself_down(fake: FakeHypervisor) -> None:
    fake.start("web")
    fake.guest_shuts_down("web")
    assert fake.domains()["web"].off_reason is OffReason.SHUT_DOWN


def test_an_agent_that_answers(fake: FakeHypervisor) -> None:
    guest = Guest("web", "Debian", ("10.0.0.2/24",))
    fake.script("web").agent = guest
    assert fake.guest("web", 1) is None
    fake.start("web")
    assert fake.guest("web", 1) == guest


def test_the_same_calls_give_the_same_answers(time: Time) -> None:
    def story() -> str:
        fake = FakeHypervisor(time)
        for name in ("a", "b"):
            fake.define(domain_xml(small_vm(name), node(Path("/pool"))))
            fake.start(name)
        fake.crash("a")
        return repr(fake.domains())

    assert story() == story()


def test_storage_that_fails_stops_the_guest(fake: FakeHypervisor) -> None:
    fake.start("web")
    fake.storage_fails("web", "sda has no space")
    assert fake.domains()["web"].power is Power.PAUSED
    assert fake.domains()["web"].trouble == "sda has no space"
    fake.resume("web")
    assert fake.domains()["web"].trouble == ""
