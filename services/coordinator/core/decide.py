"""The one function that decides: world and time in, plan out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.balancing import judge_balancing
from services.coordinator.core.drain import judge_drains
from services.coordinator.core.moves import judge_moves
from services.coordinator.core.nodes import judge_node
from services.coordinator.core.place import Load, load_of
from services.coordinator.core.plan import DecideNode, DecideVm, Plan, Step, Unjudged
from services.coordinator.core.rounds import round_of
from services.coordinator.core.vms import autostart, judge_vm
from services.coordinator.core.world import World, is_online


def decide(now: Timestamp, world: World) -> Plan:
    """Everything to be written now, in this order; may be cut after any step. Write it and ask
    again until it is empty."""
    steps: list[Step | Unjudged] = []
    for node in world.nodes.values():
        if (move := judge_node(now, world, node)) is not None:
            steps.append(move)
        elif is_online(node) and node.status.boot_id != node.decision.boot_id:
            steps += _after_boot(world, node)
    load = load_of(world)
    moves = round_of(now, world, load, (s.vm.name for s in steps if isinstance(s, DecideVm)))
    steps += judge_moves(moves)
    steps += judge_drains(moves)
    steps += judge_balancing(moves)
    decided = moves.taken
    for vm in world.vms.values():
        if vm.name in decided:
            continue
        for step in _judged(now, world, vm, load):
            steps.append(step)
            if isinstance(step, DecideVm):
                load.count(vm, -1)
                load.count(step.vm, 1)
    return tuple(steps)


def _judged(now: Timestamp, world: World, vm: vm_pb2.Vm, load: Load) -> Sequence[Step | Unjudged]:
    """One VM that the rules cannot cope with must not keep the others from being decided on."""
    try:
        return list(judge_vm(now, world, vm, load))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return [Unjudged(vm, error)]


def _after_boot(world: World, node: cluster_pb2.Node) -> Iterable[Step]:
    """Autostart, once for every start of the machine: the node's row is written last and says that
    it was done."""
    if node.decision.boot_id:
        for vm in world.vms.values():
            if vm.decision.node == node.name and (step := autostart(vm, node)) is not None:
                yield step
    after = cluster_pb2.Node()
    after.CopyFrom(node)
    after.decision.boot_id = node.status.boot_id
    yield DecideNode(after, "started", "its machine has a new boot id")
