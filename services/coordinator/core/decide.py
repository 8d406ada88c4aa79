"""The one function that decides: world and time in, plan out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.balancing import judge_balancing
from services.coordinator.core.drain import judge_drains
from services.coordinator.core.heirs import judge_orphans
from services.coordinator.core.leaving import judge_leaving
from services.coordinator.core.leftovers import judge_leftovers
from services.coordinator.core.moves import judge_moves
from services.coordinator.core.nodes import judge_nodes
from services.coordinator.core.plan import DecideNode, DecideVm, Plan, Step, Unjudged
from services.coordinator.core.power_on import judge_power_on
from services.coordinator.core.recover import recover
from services.coordinator.core.rounds import Round
from services.coordinator.core.vms import autostart, judge_vm
from services.coordinator.core.world import World, is_working

Rule = Callable[[Round], Iterable[Step | Unjudged]]


def decide(now: Timestamp, world: World) -> Plan:
    """Everything to be written now, in this order; may be cut after any step. Write it and ask
    again until it is empty. While nodes move nothing else is decided: all else depends on them."""
    round = Round(now, world)
    if nodes := tuple(judge_nodes(round)):
        return nodes
    return tuple(step for rule in RULES for step in rule(round))


def _started(round: Round) -> Iterator[Step | Unjudged]:
    """Autostart, once for every start of a machine: the node's row is written last and says that
    it was done."""
    for node in round.world.nodes.values():
        if is_working(round.world, node.name) and node.status.boot_id != node.decision.boot_id:
            yield from _after_boot(round, node)


def _after_boot(round: Round, node: cluster_pb2.Node) -> Iterator[Step | Unjudged]:
    for vm in round.residents.get(node.name, ()) if node.decision.boot_id else ():
        if (step := autostart(round, vm, node)) is not None:
            yield round.take(vm, step)
    after = cluster_pb2.Node()
    after.CopyFrom(node)
    after.decision.boot_id = node.status.boot_id
    yield DecideNode(after, "started", "its machine has a new boot id")


def _each_vm(round: Round) -> Iterator[Step | Unjudged]:
    for vm in round.lively:
        if vm.name not in round.taken:
            for step in _judged(round, vm):
                yield round.take(vm, step) if isinstance(step, DecideVm) else step


def _judged(round: Round, vm: vm_pb2.Vm) -> Iterable[Step | Unjudged]:
    """One VM that the rules cannot cope with must not keep the others from being decided on."""
    try:
        return list(judge_vm(round, vm))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return [Unjudged(vm, error)]


RULES: tuple[Rule, ...] = (
    _started,
    recover,
    judge_moves,
    judge_drains,
    judge_balancing,
    judge_leaving,
    _each_vm,
    judge_leftovers,
    judge_orphans,
    judge_power_on,
)
"""What is looked at, in this order. A row that one of them changes is left alone by those after it
(Round.taken)."""
