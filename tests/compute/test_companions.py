"""What a VM's spec may say of other VMs and of nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as api
from services.compute.core import edits
from services.mesh.errors import PvcError
from services.state.store import Delete
from tests.compute.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for name, after in (("db", ()), ("app", ("vms/db",)), ("web", ("vms/app", "vms/db"))):
        made(world, name, ha=vm_pb2.HaSpec(start_after=after))
    return world


def made(world: World, name: str, **spec: Any) -> None:
    """A VM that has nothing but what is said."""
    vm = vm_pb2.Vm(spec=vm_pb2.VmSpec(**spec))
    world.ask(edits.create, api.CreateVmRequest(vm_id=name, vm=vm))


def refused(plan: Callable[[], Any]) -> tuple[str, str, str]:
    """(reason, field, message) of the refusal."""
    with pytest.raises(PvcError) as caught:
        plan()
    return caught.value.reason_name, caught.value.field, caught.value.message


def starts_after(world: World, name: str, *others: str) -> Any:
    vm = vm_pb2.Vm(name=f"vms/{name}")
    vm.spec.ha.start_after[:] = others
    mask = {"paths": ["spec.ha.start_after"]}
    return world.ask(edits.update, api.UpdateVmRequest(vm=vm, update_mask=mask))


def test_defaults_are_filled_in_and_what_was_said_stays(world: World) -> None:
    spec = world.vm("db").spec
    assert (spec.ha.policy, spec.ha.priority) == (vm_pb2.NODE_FAILURE_POLICY_RESTART, 500)
    assert (spec.ha.start_after_timeout_s, spec.ha.max_tries) == (300, 3)
    assert spec.placement == vm_pb2.PlacementSpec(selector=vm_pb2.NODE_SELECTOR_MEM, balance=True)
    live = vm_pb2.MigrationSpec(method=vm_pb2.MIGRATION_METHOD_LIVE, max_downtime_ms=500)
    assert spec.migration == live
    placement = vm_pb2.PlacementSpec(selector=vm_pb2.NODE_SELECTOR_LOAD, balance=False)
    made(world, "own", placement=placement)
    assert world.vm("own").spec.placement == placement


@pytest.mark.parametrize(
    ("spec", "reason", "field"),
    [
        ({"ha": {"start_after": ["vms/db", "vms/none"]}}, "DANGLING_REFERENCE",
         "ha.start_after[1]"),
        ({"ha": {"start_after": ["vms/new"]}}, "INVALID_FIELD", "ha.start_after[0]"),
        ({"placement": {"nodes": ["nodes/none"]}}, "DANGLING_REFERENCE", "placement.nodes[0]"),
    ],
)  # fmt: skip
def test_what_is_not_there_cannot_be_named(
    spec: dict[str, Any], reason: str, field: str, world: World
) -> None:
    told = refused(lambda: made(world, "new", **spec))
    assert told[:2] == (reason, f"vm.spec.{field}")


def test_vms_do_not_wait_for_each_other(world: World) -> None:
    reason, field, message = refused(lambda: starts_after(world, "db", "vms/web"))
    assert (reason, field) == ("INVALID_FIELD", "vm.spec.ha.start_after")
    assert "vms/db waits for vms/web waits for vms/db: none of them would ever start" in message
    reason, _, message = refused(lambda: starts_after(world, "db", "vms/app"))
    assert reason == "INVALID_FIELD" and "vms/db waits for vms/app waits for vms/db" in message


def test_what_is_gone_since_is_no_reason_to_refuse_another_change(world: World) -> None:
    world.store.commit([Delete("vms/db", "*")])
    vm = vm_pb2.Vm(name="vms/app")
    vm.spec.ha.priority = 900
    request = api.UpdateVmRequest(vm=vm, update_mask={"paths": ["spec.ha.priority"]})
    world.ask(edits.update, request)
    assert world.vm("app").spec.ha.priority == 900


def test_those_that_wait_follow_a_new_name(world: World) -> None:
    world.ask(edits.rename, api.RenameVmRequest(name="vms/db", new_vm_id="base"))
    assert list(world.vm("web").spec.ha.start_after) == ["vms/app", "vms/base"]
    assert list(world.vm("app").spec.ha.start_after) == ["vms/base"]
