"""About a VM that is not lively no rule has anything to say; of those that are, none is left
out."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.leftovers import judge_leftovers
from services.coordinator.core.lively import is_lively
from services.coordinator.core.moves import judge_moves
from services.coordinator.core.rounds import Round
from services.coordinator.core.vms import judge_vm
from services.coordinator.core.world import ONLINE, World
from services.state.table import Table

NODES = st.sampled_from(["", "nodes/n1", "nodes/n2", "nodes/gone"])
POWERS = st.sampled_from(vm_pb2.PowerState.values())
STATES = st.sampled_from(vm_pb2.VmState.values())
FEW = st.integers(0, 2)


@st.composite
def vms(draw: st.DrawFn) -> vm_pb2.Vm:
    """Anything that a row can say, likely to be at rest."""
    vm = vm_pb2.Vm(name="vms/web")
    vm.spec.power, vm.spec.power_request = draw(POWERS), draw(FEW)
    decision, status = vm.decision, vm.status
    decision.node, decision.power, decision.power_request = draw(NODES), draw(POWERS), draw(FEW)
    status.node, status.state, status.power_request = draw(NODES), draw(STATES), draw(FEW)
    status.guest_shutdown = draw(st.booleans())
    status.crashes, decision.crashes_seen = draw(FEW), draw(FEW)
    if draw(FEW) == 0:
        decision.restarts, decision.recoveries = draw(FEW), draw(FEW)
        decision.waits_for.extend(draw(st.lists(st.just("vms/db"), max_size=1)))
    if draw(FEW) == 0:
        decision.not_before.seconds = draw(FEW)
    if draw(st.integers(0, 5)) == 0:
        decision.migration.target = "nodes/n2"
    if draw(st.integers(0, 5)) == 0:
        vm.meta.delete_time.seconds = 1
    if draw(st.integers(0, 5)) == 0:
        decision.left_volumes.add(volume="pools/a/volumes/old")
    return vm


def round_of(vm: vm_pb2.Vm, other: bool) -> Round:
    node = cluster_pb2.Node(name="nodes/n1")
    node.decision.state = ONLINE
    rows = {vm.name: vm}
    world = World(
        nodes={node.name: node}, vms=Table(rows) if other else rows, present=frozenset({node.name})
    )
    return Round(Timestamp(seconds=10_000), world)


@given(vms(), st.booleans())
def test_nothing_is_decided_about_a_vm_that_is_not_lively(vm: vm_pb2.Vm, table: bool) -> None:
    round = round_of(vm, table)
    assert round.lively == ((vm,) if is_lively(vm) else ())
    if not is_lively(vm):
        assert list(judge_vm(round, vm)) == []
        assert [*judge_moves(round), *judge_leftovers(round)] == []
        assert not vm.decision.HasField("migration") and not vm.decision.left_volumes


@given(vms(), st.booleans())
def test_every_vm_is_counted_where_it_lives_and_where_it_may_run(
    vm: vm_pb2.Vm, table: bool
) -> None:
    round = round_of(vm, table)
    assert dict(round.residents) == {vm.decision.node: (vm,)}
    if vm.status.state == vm_pb2.VM_STATE_RUNNING and vm.status.node:
        assert not round.is_free(vm.status.node)
    if vm.decision.migration.target:
        assert not round.is_free(vm.decision.migration.target)


def test_a_vm_at_rest_is_not_lively() -> None:
    vm = vm_pb2.Vm(name="vms/web")
    vm.decision.node = vm.status.node = "nodes/n1"
    vm.decision.power = vm_pb2.POWER_STATE_RUNNING
    vm.status.state = vm_pb2.VM_STATE_RUNNING
    assert not is_lively(vm)
    vm.spec.power_request = 1
    assert is_lively(vm)
