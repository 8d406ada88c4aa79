"""VMs about which there may be something to decide, told from their rows alone: in a cluster at
rest hardly any. About all others no rule has anything to say, whatever else there is in the world,
but for those of what befalls their node."""

from __future__ import annotations

from pvc.compute.v1 import vm_pb2
from services.coordinator.core.residence import shut_itself_down
from services.coordinator.core.world import WANT_MEMORY
from services.state.table import Extract, Index


def is_lively(vm: vm_pb2.Vm) -> bool:
    """It moves, waits, is asked for something, is going, or has something behind it that time
    forgives."""
    decision = vm.decision
    return (
        not decision.node
        or vm.spec.power_request != decision.power_request
        or vm.meta.HasField("delete_time")
        or decision.HasField("migration")
        or bool(decision.waits_for or decision.left_volumes)
        or bool(decision.restarts or decision.recoveries)
        or vm.status.crashes > decision.crashes_seen
        or (decision.power in WANT_MEMORY and shut_itself_down(vm))
    )


def _places(vm: vm_pb2.Vm) -> set[str]:
    places = {vm.decision.node, vm.status.node, vm.arrival.node}
    return places | {vm.decision.migration.target} - {""}


LIVELY = Extract(vm_pb2.Vm, lambda vm: vm if is_lively(vm) else None)
RESIDENTS = Index(vm_pb2.Vm, lambda vm: (vm.decision.node,))
"""Node → VMs that were given to it."""
NEAR = Index(vm_pb2.Vm, _places)
"""Node → VMs that have anything to do with it."""
