"""A node that was fenced comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers.hypervisor import Power
from services.compute.standing import Standing
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Delete, Put
from tests.compute.world import NODE, World


def fence(world: World, fences: int, state: cluster_pb2.NodeState.ValueType) -> None:
    """What the coordinator writes."""
    row = rows.copied(world.state.find(cluster_pb2.Node, NODE) or cluster_pb2.Node(name=NODE))
    row.decision.fences, row.decision.state = fences, state
    world.store.commit([Put(row)])


def step(world: World) -> None:
    world.agent.look_again()
    world.agent.step()


def seen(world: World) -> int:
    row = world.state.find(cluster_pb2.Node, NODE)
    assert row is not None
    return row.status.fences_seen


def recovered(world: World, name: str) -> None:
    """The VM was given to another node meanwhile."""
    row = rows.copied(world.vm(name))
    row.decision.node = "nodes/n2"
    world.store.commit([Put(row)])


def test_it_ends_what_it_is_not_to_run_and_then_says_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.running("web")
    recovered(world, "web")
    fence(world, 1, cluster_pb2.NODE_STATE_FENCED)
    step(world)
    assert "web" not in world.hypervisor.domains() and seen(world) == 1
    assert world.vm("web").status.state == vm_pb2.VM_STATE_RUNNING, "not its row to write any more"


def test_what_is_still_its_own_goes_on(tmp_path: Path) -> None:
    """A VM whose volumes nobody else can open stays on the node that was fenced."""
    world = World(tmp_path)
    world.running("web")
    fence(world, 1, cluster_pb2.NODE_STATE_FENCED)
    step(world)
    assert world.hypervisor.domains()["web"].power is Power.RUNNING and seen(world) == 1


def test_what_cannot_be_ended_is_not_called_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.running("web")
    recovered(world, "web")
    fence(world, 1, cluster_pb2.NODE_STATE_FENCED)

    def fails(vm: str) -> None:
        raise PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, f"{vm} is stuck")

    with monkeypatch.context() as broken:
        broken.setattr(world.hypervisor, "destroy", fails)
        with pytest.raises(PvcError):
            step(world)
    assert seen(world) == 0 and "web" in world.hypervisor.domains()
    step(world)
    assert seen(world) == 1 and "web" not in world.hypervisor.domains()


def test_it_starts_nothing_before_the_cluster_has_taken_it_in(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.create("web", start=False)
    world.settle()
    row = rows.copied(world.vm("web"))
    row.decision.node, row.decision.power = NODE, vm_pb2.POWER_STATE_RUNNING
    world.store.commit([Put(row)])
    fence(world, 1, cluster_pb2.NODE_STATE_FENCED)
    for _ in range(3):
        step(world)
    assert seen(world) == 1
    running = [d for d in world.hypervisor.domains().values() if d.power is not Power.OFF]
    assert running == []
    fence(world, 1, cluster_pb2.NODE_STATE_ONLINE)
    for _ in range(3):
        step(world)
    running = [d for d in world.hypervisor.domains().values() if d.power is not Power.OFF]
    assert [domain.vm for domain in running] == ["web"]


@pytest.mark.parametrize("runs", [True, False])
def test_of_what_no_vm_stands_behind_only_what_runs_is_left(tmp_path: Path, runs: bool) -> None:
    world = World(tmp_path)
    world.running("web")
    row = world.vm("web")
    fence(world, 1, cluster_pb2.NODE_STATE_FENCED)
    world.store.commit([Delete(row.name, row.meta.etag)])
    if not runs:
        world.hypervisor.destroy("web")
    step(world)
    assert ("web" in world.hypervisor.domains()) is runs and seen(world) == 1


def test_what_is_told_of_fences_stays_in_the_row(tmp_path: Path) -> None:
    """The agent makes its status anew in every round."""
    world = World(tmp_path)
    standing = Standing(world.store, NODE)
    lease = world.store.acquire(NODE, NODE)
    assert lease is not None and standing.take_in(lease, 3)
    step(world)
    world.restart()
    world.settle()
    assert seen(world) == 3
