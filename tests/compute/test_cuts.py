"""The agent's process dies at any call to the hypervisor or the store; a fresh one comes to the
same end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from services.compute.core import edits, requests
from services.compute.drivers.hypervisor import OffReason
from services.mesh import rows
from services.state.memory import MemoryStore
from tests.compute.fake_hypervisor import Cut
from tests.compute.world import POOL, Operation, World


class CutStore(MemoryStore):
    """A store whose process ends before or after one of its commits."""

    def __init__(self, world: World, at: int, after: bool) -> None:
        super().__init__(world.cluster)
        self.left = at
        self.after = after

    def commit(self, changes: Any, held_by: Any = None) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Cut
        revision = super().commit(changes, held_by)
        if self.left == 0:
            raise Cut
        return revision


def stopped(world: World) -> None:
    world.running()
    world.verb(requests.SHUTDOWN)


def attached(world: World) -> None:
    world.running()
    request = api.AttachDiskRequest(name="vms/web")
    request.disk.id, request.disk.volume = "data", f"{POOL}/volumes/data"
    world.ask(edits.attach_disk, request)


def rebooted(world: World) -> None:
    world.running()
    world.clock.seconds += 5
    world.ask(requests.reboot, api.RebootVmRequest(name="vms/web"))


def crashed(world: World) -> None:
    world.running()
    world.hypervisor.end("web", OffReason.CRASHED)


def deleted(world: World) -> None:
    world.running()
    world.ask(edits.delete, api.DeleteVmRequest(name="vms/web", force=True))


def created(world: World) -> None:
    world.create()


def paused(world: World) -> None:
    world.running()
    world.verb(requests.PAUSE)


def renamed(world: World) -> None:
    stopped(world)
    world.settle()
    world.ask(edits.rename, api.RenameVmRequest(name="vms/web", new_vm_id="shop"))
    world.verb(requests.START, "shop")


def arm_hypervisor(world: World, at: int) -> None:
    """The process ends instead of the n-th verb."""
    calls = iter(range(1, 1000))

    def die(call: str) -> None:
        if call != "domains" and next(calls) == at:
            raise Cut

    world.hypervisor.before = die


STORIES = [created, stopped, attached, rebooted, crashed, deleted, paused, renamed]


def end_of(world: World) -> Any:
    """What is the same however often the process died: rows without times, domains, operations."""
    vms = {}
    for vm in world.state.rows(vm_pb2.Vm):
        status = rows.copied(vm.status)
        for field in ("state_time", "start_time", "why"):
            status.ClearField(field)  # type: ignore[arg-type]
        vms[vm.name] = (status, vm.spec)
    domains = world.hypervisor.shape()
    open_operations = sorted(
        op.method
        for op in world.state.rows(Operation)
        if op.state not in rows.FINAL and not op.method.endswith("/DeleteVm")
    )
    failed = sorted(op.method for op in world.state.rows(Operation) if op.HasField("error"))
    return vms, domains, open_operations, failed


def calm(world: World) -> Any:
    world.settle()
    world.later(60)
    return end_of(world)


def run_cut(world: World, arm: Callable[[], None]) -> bool:
    """Goes on until the cut comes; False if it never came."""
    arm()
    try:
        for _ in range(40):
            world.coordinator.step()
            world.agent.step()
            world.clock.seconds += 1
    except Cut:
        return True
    return False


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_cut_at_every_call_to_the_hypervisor(
    tmp_path: Path, story: Callable[[World], None]
) -> None:
    straight = World(tmp_path / "straight")
    story(straight)
    wanted = calm(straight)
    for at in range(1, 200):
        world = World(tmp_path / str(at))
        story(world)
        if not run_cut(world, partial(arm_hypervisor, world, at)):
            assert at > 1
            return
        world.hypervisor.before = lambda call: None
        world.restart()
        assert calm(world) == wanted, f"cut at call {at}"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cut_at_every_commit(tmp_path: Path, story: Callable[[World], None], after: bool) -> None:
    straight = World(tmp_path / "straight")
    story(straight)
    wanted = calm(straight)
    for at in range(1, 50):
        world = World(tmp_path / str(at))
        story(world)
        store = CutStore(world, at, after)
        world.restart(store)
        if not run_cut(world, lambda: None):
            assert at > 1
            return
        store.lose_session()
        world.restart()
        assert calm(world) == wanted, f"cut at commit {at}"
