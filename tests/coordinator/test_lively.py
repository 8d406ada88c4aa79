"""About a VM that is not lively no rule has anything to say; of those that are, none is left
out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.leftovers import judge_leftovers
from services.coordinator.core.lively import is_lively
from services.coordinator.core.moves import judge_moves
from services.coordinator.core.rounds import Round
from services.coordinator.core.vms import judge_vm
from services.coordinator.core.world import ONLINE, World
from services.state.table import Table

RUNNING, OFF = vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_OFF
STATES = {RUNNING: vm_pb2.VM_STATE_RUNNING, OFF: vm_pb2.VM_STATE_STOPPED}


def at_rest(power: vm_pb2.PowerState.ValueType) -> vm_pb2.Vm:
    """A VM of n1 that is as it is to be."""
    vm = vm_pb2.Vm(name="vms/web")
    vm.spec.power = vm.decision.power = power
    vm.decision.node = vm.status.node = "nodes/n1"
    vm.spec.power_request = vm.decision.power_request = vm.status.power_request = 1
    vm.status.state = STATES[power]
    return vm


def asked(vm: vm_pb2.Vm) -> None:
    vm.spec.power_request += 1


def homeless(vm: vm_pb2.Vm) -> None:
    vm.decision.node = ""


def elsewhere(vm: vm_pb2.Vm) -> None:
    vm.status.node = "nodes/n2"


def forsaken(vm: vm_pb2.Vm) -> None:
    vm.decision.node = vm.status.node = "nodes/gone"


def going(vm: vm_pb2.Vm) -> None:
    vm.meta.delete_time.seconds = 1


def moving(vm: vm_pb2.Vm) -> None:
    vm.decision.migration.target = "nodes/n2"


def waiting(vm: vm_pb2.Vm) -> None:
    vm.decision.waits_for.append("vms/db")


def crashed(vm: vm_pb2.Vm) -> None:
    vm.status.crashes, vm.status.state = 1, vm_pb2.VM_STATE_CRASHED


def tried(vm: vm_pb2.Vm) -> None:
    vm.decision.restarts = 1


def recovered(vm: vm_pb2.Vm) -> None:
    vm.decision.recoveries = 1


def put_off(vm: vm_pb2.Vm) -> None:
    vm.decision.not_before.seconds = 1


def shut_down(vm: vm_pb2.Vm) -> None:
    vm.status.guest_shutdown = True


def left(vm: vm_pb2.Vm) -> None:
    vm.decision.left_volumes.add(volume="pools/a/volumes/old")


DEEDS: tuple[Callable[[vm_pb2.Vm], None], ...] = (
    *(asked, homeless, elsewhere, forsaken, going, moving, waiting, crashed, tried, recovered),
    *(put_off, shut_down, left),
)


def stirred() -> Iterator[vm_pb2.Vm]:
    """At rest, but for one or two things."""
    for power in STATES:
        for first, second in product(DEEDS, DEEDS):
            vm = at_rest(power)
            first(vm)
            if second is not first:
                second(vm)
            yield vm


def round_of(vm: vm_pb2.Vm, other: bool) -> Round:
    node = cluster_pb2.Node(name="nodes/n1")
    node.decision.state = ONLINE
    rows = {vm.name: vm}
    world = World(
        nodes={node.name: node}, vms=Table(rows) if other else rows, present=frozenset({node.name})
    )
    return Round(Timestamp(seconds=10_000), world)


@pytest.mark.parametrize("table", [True, False])
def test_nothing_is_decided_about_a_vm_that_is_not_lively(table: bool) -> None:
    still = 0
    for vm in (at_rest(RUNNING), at_rest(OFF), *stirred()):
        round = round_of(vm, table)
        assert round.lively == ((vm,) if is_lively(vm) else ())
        if not is_lively(vm):
            still += 1
            assert list(judge_vm(round, vm)) == []
            assert [*judge_moves(round), *judge_leftovers(round)] == []
            assert not vm.decision.HasField("migration") and not vm.decision.left_volumes
    assert still > 10


@pytest.mark.parametrize("deed", (asked, homeless, going, moving, waiting, crashed, tried, left))
def test_one_thing_is_enough_to_be_looked_at(deed: Callable[[vm_pb2.Vm], None]) -> None:
    vm = at_rest(RUNNING)
    assert not is_lively(vm)
    deed(vm)
    assert is_lively(vm)


@pytest.mark.parametrize("table", [True, False])
def test_every_vm_is_counted_where_it_lives_and_where_it_may_run(table: bool) -> None:
    for vm in stirred():
        round = round_of(vm, table)
        assert dict(round.residents) == {vm.decision.node: (vm,)}
        if vm.status.state == vm_pb2.VM_STATE_RUNNING:
            assert not round.is_free(vm.status.node)
        if vm.decision.migration.target:
            assert not round.is_free(vm.decision.migration.target)
