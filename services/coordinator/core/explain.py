"""Why a VM is where it is, why it does not run, and what placement thinks of every node now: in
sentences, the most important first."""

from __future__ import annotations

from collections.abc import Iterator

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from services.coordinator.core.capacity import Load
from services.coordinator.core.migration import ONLY_WHEN_OFF, status_of
from services.coordinator.core.place import judge_all
from services.coordinator.core.routes import usual_method
from services.coordinator.core.world import ONLINE, WANT_MEMORY, World, short

ENOUGH = frozenset({vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_PAUSED})


def explain(world: World, load: Load, vm: vm_pb2.Vm) -> api.ExplainVmResponse:
    """`load` is as it was afterwards."""
    return api.ExplainVmResponse(
        node=vm.decision.node,
        reasons=[
            *_not_running(world, vm),
            *_moving(world, vm),
            *_placed(vm),
            *_away(vm),
            *_bound(vm),
        ],
        verdicts=judge_all(world, vm, load),
    )


def _not_running(world: World, vm: vm_pb2.Vm) -> Iterator[str]:
    """What stands between the wish and the VM."""
    decision, status = vm.decision, vm.status
    node = world.nodes.get(decision.node)
    if vm.meta.HasField("delete_time"):
        yield "it is being deleted"
    elif vm.spec.power_request != decision.power_request:
        why = decision.why or "no coordinator has looked yet"
        yield f"what was asked for is not decided: {why}"
    elif decision.waits_for:
        yield f"it waits for {', '.join(map(short, decision.waits_for))} before it starts"
    elif decision.power not in WANT_MEMORY:
        if vm.spec.power in WANT_MEMORY:
            yield f"it does not run, though that was asked for: {decision.why}"
    elif status.state not in ENOUGH:
        state = vm_pb2.VmState.Name(status.state).removeprefix("VM_STATE_")
        yield f"it is to run and is {state}: {status.why or decision.why or 'nothing says why'}"
    if node is not None and node.decision.state != ONLINE:
        state = cluster_pb2.NodeState.Name(node.decision.state).removeprefix("NODE_STATE_")
        yield f"its node {short(node.name)} is {state}: {node.decision.why}"


def _moving(world: World, vm: vm_pb2.Vm) -> Iterator[str]:
    if not vm.decision.HasField("migration"):
        return
    migration = vm.decision.migration
    phase = vm_pb2.MigrationStatus.Phase.Name(status_of(vm).phase).removeprefix("PHASE_")
    stage = "" if phase == "UNSPECIFIED" else f", {phase.lower()}"
    by = f" ({migration.operation})" if migration.operation else ""
    yield f"it is moving to {short(migration.target)}{stage}: {migration.why}{by}"


def _placed(vm: vm_pb2.Vm) -> Iterator[str]:
    if not vm.decision.node:
        return
    chosen = [v for v in vm.decision.verdicts if v.fits and v.node == vm.decision.node]
    node = short(vm.decision.node)
    if chosen:
        yield f"{node} was the best node for it then: {', '.join(chosen[0].reasons)}"
    elif vm.decision.why:
        yield f"it is on {node}: {vm.decision.why}"
    if vm.decision.last_move:
        yield f"its last move: {vm.decision.last_move}"


def _away(vm: vm_pb2.Vm) -> Iterator[str]:
    if vm.decision.home:
        yield (
            f"it belongs to {short(vm.decision.home)} and had to leave it for a while; "
            f"'pvc vm unmigrate {short(vm.name)}' brings it back"
        )


def _bound(vm: vm_pb2.Vm) -> Iterator[str]:
    if (method := usual_method(vm)) in ONLY_WHEN_OFF:
        yield f"it does not move while it runs: {ONLY_WHEN_OFF[method]}"
    if vm.spec.placement.HasField("balance") and not vm.spec.placement.balance:
        yield "balancing leaves it alone (spec.placement.balance)"
