"""The agent where things meet: rounds that overlap, many requests at once, VMs that come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.compute.consoles import Logs
from services.compute.core import edits, requests
from services.compute.drivers import console_log
from services.compute.drivers.hypervisor import OffReason
from services.compute.main import forget_all
from services.mesh.errors import PvcError
from services.state.store import Put
from tests.compute.world import NODE, POOL, World

Operation = operation_pb2.Operation
SUCCEEDED = Operation.STATE_SUCCEEDED


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def eventually(fact: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.002)


def state(world: World, name: str = "web") -> str:
    return vm_pb2.VmState.Name(world.vm(name).status.state).removeprefix("VM_STATE_")


def test_a_list_that_a_start_overtook_makes_no_crash(tmp_path: Path) -> None:
    """The domains were listed while it was off; by now its row says that it runs."""
    world = World(tmp_path, parallel=2)
    world.create()
    world.coordinator.step()
    world.hypervisor.blocked["web"] = threading.Event()
    world.agent.step()
    eventually(lambda: state(world) == "STARTING")
    listed = world.hypervisor.domains

    def late() -> Any:
        seen = listed()
        world.hypervisor.blocked["web"].set()
        eventually(world.agent.idle)
        return seen

    world.hypervisor.domains = late  # type: ignore[method-assign]
    world.agent.look_again()
    world.agent.step()
    world.hypervisor.domains = listed  # type: ignore[method-assign]
    eventually(world.agent.idle)
    world.agent.step()
    eventually(world.agent.idle)
    assert state(world) == "RUNNING" and world.vm().status.crashes == 0
    world.agent.stop()


def test_a_row_stays_for_a_deletion_that_came_during_the_round(world: World) -> None:
    """It was placed and never looked at yet: nothing but the operation keeps the row."""
    world.create(start=False)
    world.coordinator.step()
    tend = world.agent._tend

    def late(*arguments: Any) -> bool:
        world.agent._tend = tend  # type: ignore[method-assign]
        world.ask(edits.delete, api.DeleteVmRequest(name="vms/web", delete_volumes=True))
        return tend(*arguments)

    world.agent._tend = late  # type: ignore[method-assign]
    world.agent.look_again()
    world.agent.step()
    assert world.vm().meta.HasField("delete_time")


def test_any_number_of_requests_that_waited_is_ended(world: World) -> None:
    """More than fit into one commit: each carries the VM as its result."""
    world.running(description="x" * 1024, tags=[f"{n:063}" for n in range(64)])
    operations = []
    for number in range(120):
        update = api.UpdateVmRequest(vm=vm_pb2.Vm(name="vms/web"))
        update.vm.spec.description = f"{number} " + "x" * 1000
        operations.append(world.ask(edits.update, update))
    world.settle()
    assert all(world.operation(one.name).state == SUCCEEDED for one in operations)


def test_nothing_is_remembered_of_vms_that_are_gone(world: World) -> None:
    world.running()
    world.hypervisor.script("web").hangs.add("shutdown")
    world.verb(requests.SHUTDOWN)
    world.settle()
    world.hypervisor.script("web").hangs.clear()
    world.ask(edits.delete, api.DeleteVmRequest(name="vms/web", force=True))
    world.later(10)
    world.agent.look_again()
    world.agent.step()
    memory = world.agent.memory
    assert not (memory._runs or memory._nudged or memory._trouble or memory._warned)


def started_by_its_machine(world: World, **spec: Any) -> None:
    """It runs, and the last that was asked for was to be off."""
    world.running(autostart=vm_pb2.AUTOSTART_ALWAYS, **spec)
    world.verb(requests.STOP)
    world.settle()
    world.clock.seconds += 100
    world.machine = type(world.machine)(4, 8192, "6.1", "boot-2", world.clock.now())
    world.restart()
    world.settle()
    assert state(world) == "RUNNING"
    world.clock.seconds += 10


def test_what_its_machine_started_is_as_good_as_what_somebody_started(world: World) -> None:
    started_by_its_machine(world)
    operation = world.ask(requests.reboot, api.RebootVmRequest(name="vms/web"))
    world.settle()
    assert world.operation(operation.name).state == SUCCEEDED
    world.verb(requests.PAUSE)
    world.settle()
    assert state(world) == "PAUSED"


def test_what_its_machine_started_shows_that_it_crashed(world: World) -> None:
    started_by_its_machine(world, crash_policy=vm_pb2.CrashPolicy(max_restarts=1, delay_s=1))
    for _ in range(2):
        world.hypervisor.end("web", OffReason.CRASHED)
        world.settle()
        world.later(5)
    assert state(world) == "CRASHED" and "given up" in world.vm().decision.why
    world.verb(requests.STOP)
    world.settle()
    assert state(world) == "STOPPED"


def test_taking_pvc_off_leaves_no_domain(world: World) -> None:
    world.running()
    forget_all(world.hypervisor)
    assert not world.hypervisor.names()


def test_a_log_that_cannot_be_put_aside_does_not_keep_the_others_from_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.running("a")
    second = api.CreateVmRequest(vm_id="b")
    second.vm.spec.disks.add(id="root", volume=f"{POOL}/volumes/data")
    world.ask(edits.create, second)
    tried: list[str] = []

    def rotate(path: Path, *limits: int) -> bool:
        tried.append(path.name)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(console_log, "rotate", rotate)
    vm = world.vm("b")
    vm.status.node = NODE
    world.store.commit([Put(vm)])
    with pytest.raises(OSError, match="No space"):
        Logs(world.store, world.settings, dict).step()
    assert tried == ["a.log", "b.log"]


def test_a_log_of_a_vm_that_is_gone_is_removed_unless_its_domain_is_there(world: World) -> None:
    world.running("a")
    logs = [world.settings.console_log(name) for name in ("a", "gone", "kept")]
    logs[0].parent.mkdir(parents=True, exist_ok=True)
    for path in (*logs, logs[1].with_name("gone.log.1"), logs[2].with_name("kept.log.2")):
        path.write_text("hello")
    Logs(world.store, world.settings, lambda: {"a", "kept"}).step()
    left = {path.name for path in logs[0].parent.iterdir()}
    assert left == {"a.log", "kept.log", "kept.log.2"}


def test_logs_are_put_aside_though_the_hypervisor_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.running("a")
    gone = world.settings.console_log("gone")
    gone.parent.mkdir(parents=True, exist_ok=True)
    gone.write_text("hello")
    tried: list[str] = []
    monkeypatch.setattr(console_log, "rotate", lambda path, *limits: tried.append(path.name))

    def away() -> set[str]:
        raise PvcError(reason_pb2.REASON_UNREACHABLE, "libvirtd does not answer")

    with pytest.raises(PvcError, match="does not answer"):
        Logs(world.store, world.settings, away).step()
    assert tried == ["a.log"] and gone.exists()


def test_what_an_operation_gives_can_be_changed_at_once(world: World) -> None:
    world.create()
    operation = world.verb(requests.START)
    world.settle()
    told = vm_pb2.Vm()
    assert world.operation(operation.name).result.Unpack(told)
    assert told.status.state == vm_pb2.VM_STATE_RUNNING
    if told.meta.etag != world.vm().meta.etag:
        assert told.status != world.vm().status, "nothing but its etag is another"
