"""What becomes of work that a dead node had begun: another node goes on with it where one can,
else it fails with what remains. Pure.

A job may be cut anywhere and begun again, so that an heir needs no more than the operation. Work
that ends by converging has no worker: it follows its VM.
"""

from __future__ import annotations

from collections.abc import Iterator

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core.methods import vm_method
from services.coordinator.core.plan import FailOperation, Step
from services.coordinator.core.residence import is_dead
from services.coordinator.core.rounds import Round
from services.coordinator.core.world import World, is_working, short
from services.mesh import rows

Operation = operation_pb2.Operation

VM_JOBS = frozenset(
    vm_method(name)
    for name in (
        "DeleteVm",
        "CloneVm",
        "CreateVmSnapshot",
        "DeleteVmSnapshot",
        "RollbackVmSnapshot",
    )
)
"""Work on a VM and its volumes that any node can do which can open them."""
RESET = vm_method("ResetVm")


def judge_orphans(round: Round) -> Iterator[Step]:
    """A step for each operation whose node is dead."""
    for operation in round.world.operations:
        dead = operation.node and is_dead(round.world, operation.node)
        if dead and operation.name not in round.taken:
            yield from _inherited(round, operation)


def _inherited(round: Round, operation: Operation) -> Iterator[Step]:
    world = round.world
    match operation.service:
        case "storage":
            heir = _able(world, _pools(operation.target))
        case "network":
            heir = _able(world, ())
        case "compute" if operation.method in VM_JOBS:
            heir = _host(world, operation.target)
        case "compute" if operation.method != RESET:
            return  # it follows its VM
        case "coordinator":
            return
        case _:
            heir = ""
    if heir:
        yield round.write(_given(round, operation, heir), f"{short(operation.node)} is dead")
    elif not _is_owed(round, operation):
        yield FailOperation(operation, reason_pb2.REASON_INTERRUPTED, _what_remains(operation))


def _able(world: World, pools: tuple[str, ...]) -> str:
    """A node that works and can use all the pools, "" for none."""
    if not all(pool in world.shared_pools for pool in pools):
        return ""
    for name in world.nodes:
        away = any(name in world.not_ready.get(pool, ()) for pool in pools)
        if is_working(world, name) and not away:
            return name
    return ""


def _host(world: World, name: str) -> str:
    """Where the VM lives by now; for one that died with its node, whoever can open its volumes."""
    vm = world.vms.get(name)
    if vm is None:
        return _able(world, ())
    if is_working(world, vm.decision.node):
        return vm.decision.node
    volumes = [disk.volume for disk in vm.spec.disks if disk.volume]
    return _able(world, tuple(pool for volume in volumes for pool in _pools(volume)))


def _pools(name: str) -> tuple[str, ...]:
    """The pool of a volume, or the pool itself: pools/a/volumes/b → pools/a."""
    return ("/".join(name.split("/")[:2]),)


def _is_owed(round: Round, operation: Operation) -> bool:
    """Its VM waits to be recovered: what becomes of the work is decided once that is."""
    vm = round.world.vms.get(operation.target)
    if operation.method not in VM_JOBS or vm is None:
        return False
    node = round.world.nodes.get(vm.decision.node)
    wanted = vm.decision.power in (vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED)
    return wanted and node is not None and vm.decision.fence_seen != node.decision.fences


def _given(round: Round, operation: Operation, heir: str) -> Operation:
    after = rows.copied(operation)
    after.node, after.worker = heir, ""
    line = f"{short(operation.node)} is dead; {short(heir)} goes on with it"
    rows.log_line(after, line, round.now)
    return after


def _what_remains(operation: Operation) -> str:
    node = short(operation.node)
    return (
        f"{node} died while it worked on this, and no other node can go on with it: what it had "
        f"done of {operation.target} is there when {node} is back. Ask for it again then"
    )
