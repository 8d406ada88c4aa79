"""A VM moves between two nodes while it runs: the agents of both, with hypervisors that do what
their scripts say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from services.compute.drivers.hypervisor import OffReason
from tests.compute.moving import Arrival, Pair, Phase

RUNNING = vm_pb2.VM_STATE_RUNNING
POST_COPY = {"migration": vm_pb2.MigrationSpec(allow_post_copy=True)}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def script(pair: Pair, **how: object) -> None:
    for key, value in how.items():
        setattr(pair.source.hypervisor.script("web"), key, value)


def copying(pair: Pair, seconds: float = 5) -> None:
    """It is being copied."""
    script(pair, copying_s=seconds)
    pair.move()
    pair.until(lambda: pair.wire.trips)
    pair.round()


def test_it_moves_and_nobody_says_anything_else(pair: Pair) -> None:
    started = pair.vm.status.start_time
    pair.states.clear()
    pair.move()
    pair.calm()
    pair.is_at("n2")
    assert pair.states == [("nodes/n1", RUNNING), ("nodes/n2", RUNNING)]
    assert pair.vm.status.start_time == started
    assert not pair.vm.HasField("arrival")
    assert pair.seen.phase == Phase.PHASE_MOVED and pair.seen.downtime_ms == 50
    assert "destroy web" not in pair.source.hypervisor.told


def test_back_and_forth(pair: Pair) -> None:
    for to in ("n2", "n1", "n2"):
        pair.move(to)
        pair.calm()
        pair.is_at(to)


def test_a_paused_vm_arrives_paused(pair: Pair) -> None:
    paused = vm_pb2.POWER_STATE_PAUSED
    pair.write("vms/web", lambda row: setattr(row.decision, "power", paused))
    pair.calm()
    pair.move()
    pair.calm()
    assert pair.vm.status.state == vm_pb2.VM_STATE_PAUSED and pair.vm.status.node == "nodes/n2"
    pair.write("vms/web", lambda row: setattr(row.decision, "power", vm_pb2.POWER_STATE_RUNNING))
    pair.calm()
    pair.is_at("n2")


def test_all_reasons_against_it_are_told_at_once(pair: Pair) -> None:
    pair.target.hypervisor.script("web").refuses = ("it has another processor",)

    def worse(row: object) -> None:
        row.status.nodes["n2"].ready = False  # type: ignore[attr-defined]
        row.status.nodes["n2"].why = "no bridge"  # type: ignore[attr-defined]

    pair.write("networks/default", worse)
    pair.write("pools/shared", worse)
    pair.move()
    pair.calm()
    pair.is_at("n1")
    assert list(pair.vm.arrival.reasons) == [
        "pools/shared/volumes/root cannot be opened here "
        "(pools/shared cannot be used on this node: no bridge)",
        "networks/default is not ready on this node (no bridge)",
        "it has another processor",
    ]
    assert pair.seen.phase == Phase.PHASE_FAILED
    assert all(reason in pair.seen.why for reason in pair.vm.arrival.reasons)


def test_a_node_that_cannot_be_asked(pair: Pair) -> None:
    pair.wire.cut.add("n1")
    pair.move()
    pair.calm()
    pair.is_at("n1")
    assert "cannot be asked" in pair.seen.why


def test_progress_is_told_once_a_second_at_most(pair: Pair) -> None:
    copying(pair, 10)
    before = pair.store.snapshot().revision
    for _ in range(16):
        pair.round()
    assert 2 <= pair.store.snapshot().revision - before <= 5
    assert 0 < pair.seen.remaining_bytes < pair.seen.total_bytes == 128 << 20
    assert pair.seen.remaining_bytes % (1 << 20) == 0
    pair.calm()
    pair.is_at("n2")


def test_a_longer_pause_helps(pair: Pair) -> None:
    script(pair, needs_downtime_ms=200)
    pair.move()
    pair.calm()
    pair.is_at("n2")
    told = [call for call in pair.source.hypervisor.told if "downtime" in call]
    assert told == ["set_downtime web 150", "set_downtime web 200"]


def test_a_slower_guest_helps(pair: Pair) -> None:
    script(pair, needs_throttle=True)
    pair.move()
    pair.calm()
    pair.is_at("n2")
    assert "throttle web" in pair.source.hypervisor.told


def test_post_copy_where_it_is_allowed(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **POST_COPY)
    script(pair, never_converges=True)
    pair.move()
    pair.calm()
    pair.is_at("n2")
    assert "start_post_copy web" in pair.source.hypervisor.told


def test_what_never_gets_ahead_is_given_up_with_figures(pair: Pair) -> None:
    script(pair, never_converges=True)
    pair.move()
    pair.calm()
    pair.is_at("n1")
    assert pair.seen.why.startswith("it does not get ahead: the guest writes 64.0 MiB/s")
    assert "start_post_copy web" not in pair.source.hypervisor.told


def test_what_is_given_up_is_aborted_until_it_ends(pair: Pair) -> None:
    script(pair, never_converges=True, unheard_aborts=2)
    pair.move()
    pair.calm()
    pair.is_at("n1")
    assert pair.source.hypervisor.told.count("abort_migration web") == 3
    assert pair.seen.why.startswith("it does not get ahead: the guest writes 64.0 MiB/s")


@pytest.mark.parametrize("rounds", range(6))
def test_cancelled_at_any_time(pair: Pair, rounds: int) -> None:
    script(pair, copying_s=60)
    pair.move()
    for _ in range(rounds):
        pair.round()
    pair.cancel()
    pair.calm()
    pair.is_at("n1")
    assert not pair.wire.trips and pair.seen.why == "it was cancelled"


def test_cancelled_too_late_it_has_moved(pair: Pair) -> None:
    copying(pair, 1)
    pair.clock.seconds += 2
    pair.wire.advance()
    pair.cancel()
    pair.calm()
    pair.is_at("n2")


@pytest.mark.parametrize("power", [vm_pb2.POWER_STATE_OFF, vm_pb2.POWER_STATE_SHUT_DOWN])
def test_it_is_switched_off_meanwhile(pair: Pair, power: vm_pb2.PowerState.ValueType) -> None:
    copying(pair)

    def off(row: vm_pb2.Vm) -> None:
        row.decision.power, row.decision.power_request = power, 2

    pair.write("vms/web", off)
    pair.calm()
    assert pair.runs_on() == [] and pair.vm.status.state == vm_pb2.VM_STATE_STOPPED
    assert pair.vm.status.node == "nodes/n1" and pair.vm.status.power_request == 2
    assert pair.seen.phase == Phase.PHASE_FAILED


def test_deleted_meanwhile(pair: Pair) -> None:
    copying(pair)
    pair.write("vms/web", lambda row: row.meta.delete_time.FromSeconds(2000))
    pair.until(lambda: pair.store.snapshot().find(vm_pb2.Vm, "vms/web") is None)
    assert all(side.hypervisor.names() == set() for side in pair.sides)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (OffReason.CRASHED, vm_pb2.VM_STATE_CRASHED),
        (OffReason.SHUT_DOWN, vm_pb2.VM_STATE_STOPPED),
    ],
)
def test_it_ends_by_itself_meanwhile(pair: Pair, reason: OffReason, state: int) -> None:
    copying(pair)
    pair.source.hypervisor.end("web", reason)
    pair.until(lambda: pair.vm.status.state != RUNNING)
    assert pair.vm.status.state == state and pair.vm.status.node == "nodes/n1"
    assert pair.runs_on() == []


def test_what_came_in_dies(pair: Pair) -> None:
    copying(pair)
    pair.target.hypervisor.end("web", OffReason.CRASHED)
    pair.calm()
    pair.is_at("n1")
    assert "closed the connection" in pair.seen.why


def test_the_network_between_them_is_cut(pair: Pair) -> None:
    copying(pair)
    pair.wire.cut.add("n2")
    pair.calm()
    pair.is_at("n1")


def test_it_crashes_on_the_target_before_that_has_taken_over(pair: Pair) -> None:
    copying(pair, 1)
    pair.target.up = False
    pair.until(lambda: pair.vm.decision.node == "nodes/n2")
    pair.target.hypervisor.end("web", OffReason.CRASHED)
    pair.target.up = True
    pair.until(lambda: pair.vm.status.node == "nodes/n2")
    assert pair.vm.status.state == vm_pb2.VM_STATE_CRASHED and pair.vm.status.crashes == 1


# --- Interrupted in the middle of the switch-over.


@pytest.mark.parametrize("here", [True, False], ids=["came-in", "vanished"])
def test_interrupted_it_goes_on_where_it_was(pair: Pair, here: bool) -> None:
    copying(pair)
    pair.source.hypervisor.interrupt("web")
    if not here:
        pair.target.hypervisor.vanish("web")
    pair.calm()
    pair.is_at("n1")
    assert pair.seen.phase == Phase.PHASE_FAILED


def test_interrupted_but_it_runs_there(pair: Pair) -> None:
    copying(pair)
    pair.source.hypervisor.interrupt("web")
    pair.target.hypervisor.resume("web")
    pair.calm()
    pair.is_at("n2")
    assert "resume web" not in pair.source.hypervisor.told


def test_nothing_goes_on_while_the_target_is_silent(pair: Pair) -> None:
    copying(pair)
    pair.source.hypervisor.interrupt("web")
    pair.target.stop()
    for _ in range(200):
        pair.round()
    assert pair.runs_on() == [] and pair.seen.unclear
    pair.fence(pair.target)
    pair.calm()
    assert pair.runs_on() == ["n1"] and pair.vm.status.state == RUNNING


def test_post_copy_that_breaks_off_is_never_taken_back(tmp_path: Path) -> None:
    pair = Pair(tmp_path, **POST_COPY)
    script(pair, never_converges=True, post_copy_s=60)
    pair.move()
    pair.until(lambda: pair.seen.post_copy)
    pair.source.hypervisor.interrupt("web")
    pair.target.hypervisor.vanish("web")
    pair.until(lambda: pair.seen.phase == Phase.PHASE_FAILED)
    assert pair.vm.status.state == vm_pb2.VM_STATE_CRASHED
    assert "resume web" not in pair.source.hypervisor.told


# --- A node dies.


def test_the_source_dies_before_it_was_over(pair: Pair) -> None:
    copying(pair)
    pair.fence(pair.source)
    pair.calm()
    assert pair.runs_on() == ["n2"] and pair.vm.status.node == "nodes/n2"
    assert pair.vm.status.state == RUNNING and pair.vm.status.crashes == 0


def test_the_source_dies_when_it_was_over(pair: Pair) -> None:
    copying(pair, 1)
    pair.source.up = False
    pair.until(lambda: pair.vm.arrival.state == Arrival.STATE_RUNNING)
    run = pair.target.hypervisor.domains()["web"].run
    pair.fence(pair.source)
    pair.calm()
    assert pair.runs_on() == ["n2"] and pair.vm.status.state == RUNNING
    assert pair.target.hypervisor.domains()["web"].run == run


def test_the_target_dies(pair: Pair) -> None:
    copying(pair)
    pair.fence(pair.target)
    pair.cancel()
    pair.calm()
    assert pair.runs_on() == ["n1"] and pair.vm.status.state == RUNNING


def test_a_fenced_source_that_comes_back_ends_what_it_had(pair: Pair) -> None:
    copying(pair)
    pair.fence(pair.source)
    pair.calm()
    pair.source.start()
    pair.calm()
    pair.is_at("n2")


def test_a_stopped_vm_changes_its_node(pair: Pair) -> None:
    def off(row: vm_pb2.Vm) -> None:
        row.decision.power, row.decision.power_request = vm_pb2.POWER_STATE_OFF, 2

    pair.write("vms/web", off)
    pair.calm()
    pair.states.clear()
    pair.write("vms/web", lambda row: setattr(row.decision, "node", "nodes/n2"))
    pair.calm()
    assert pair.vm.status.node == "nodes/n2" and pair.runs_on() == []
    assert "web" not in pair.source.hypervisor.names()
    assert {state for _, state in pair.states} == {vm_pb2.VM_STATE_STOPPED}
    pair.write("vms/web", lambda row: setattr(row.decision, "power", vm_pb2.POWER_STATE_RUNNING))
    pair.calm()
    pair.is_at("n2")


def test_nobody_says_that_it_is_off_while_the_target_is_away(pair: Pair) -> None:
    copying(pair, 1)
    pair.target.up = False
    pair.until(lambda: pair.vm.decision.node == "nodes/n2")
    pair.states.clear()
    for _ in range(40):
        pair.round()
    assert "web" not in pair.source.hypervisor.names()
    assert pair.vm.status.state == RUNNING and pair.vm.status.node == "nodes/n1"
    pair.target.up = True
    pair.calm()
    pair.is_at("n2")
    assert pair.states == [("nodes/n1", RUNNING), ("nodes/n2", RUNNING)]
