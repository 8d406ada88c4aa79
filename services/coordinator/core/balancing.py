"""Carries out a balancing that was asked for, or that the cluster wants by itself: a few moves at a
time, planned anew as the cluster changes, never more than were planned at first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core import migration
from services.coordinator.core.balance import plan_balance
from services.coordinator.core.capacity import slot_short
from services.coordinator.core.methods import BALANCE, DRAIN, READY, REMOVE, SERVICE
from services.coordinator.core.migration import LIVE
from services.coordinator.core.plan import DecideCluster, DecideVm, Step, Unjudged
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.world import DRAINING, FENCING, UNKNOWN, short
from services.mesh import rows
from services.mesh.errors import PvcError
from services.mesh.rows import THIS_CLUSTER

Operation = operation_pb2.Operation
PERIOD_S = 300
"""How often the cluster looks by itself whether it should be balanced."""
MOVING = frozenset({BALANCE, DRAIN, READY, REMOVE})
RESTLESS = frozenset({UNKNOWN, FENCING, DRAINING})
"""States of nodes in which VMs are about to move anyway."""
AT_ONCE = 8
"""Moves that are planned for one round."""


def judge_balancing(round: Round) -> Iterator[Step | Unjudged]:
    """The next moves of a balancing, or its end; and one of the cluster's own, where it is due."""
    if round.world.cluster is not None:
        yield from guarded(round.world.cluster, partial(_by_itself, round, round.world.cluster))
    for operation in round.operations.values():
        if operation.method == BALANCE and operation.name not in round.taken:
            yield from guarded(operation, partial(_judged, round, operation))


def _judged(round: Round, operation: Operation) -> Iterator[Step]:
    if operation.state == Operation.STATE_PENDING:
        yield _taken_up(round, operation)
    else:
        yield from _carried_on(round, operation)


def request_of(operation: Operation) -> api.BalanceClusterRequest:
    """What was asked for."""
    request = api.BalanceClusterRequest()
    operation.request.Unpack(request)
    return request


def _by_itself(round: Round, cluster: cluster_pb2.ClusterIdentity) -> Iterator[Step]:
    """Not while anything moves, or a node's fate is open: that changes what is even."""
    spec = round.world.spec
    if not spec.auto_balance or spec.maintenance:
        return
    if round.now.seconds - cluster.balance_time.seconds < PERIOD_S:
        return
    going_on = any(x.method in MOVING for x in round.operations.values())
    restless = any(x.decision.state in RESTLESS for x in round.world.nodes.values())
    if going_on or restless or round.load.moving:
        return
    after = rows.copied(cluster)
    after.balance_time.CopyFrom(round.now)
    plan = plan_balance(round.now, round.world, round.load, max_moves=1)
    new = _own(round) if plan.moves else None
    yield DecideCluster(after, f"balancing was looked at: spread {plan.spread_before:.1f} %", new)


def _own(round: Round) -> Operation:
    operation = Operation(
        method=BALANCE,
        target=THIS_CLUSTER,
        service=SERVICE,
        caller="the cluster itself",
        state=Operation.STATE_PENDING,
    )
    operation.meta.generation = 1
    operation.meta.create_time.CopyFrom(round.now)
    operation.meta.update_time.CopyFrom(round.now)
    operation.request.Pack(api.BalanceClusterRequest())
    return operation


def _taken_up(round: Round, operation: Operation) -> Step:
    request = request_of(operation)
    plan = plan_balance(round.now, round.world, round.load, request.selector, request.max_moves)
    after = rows.enter_operation(operation, Operation.STATE_RUNNING, round.now)
    after.parts = len(plan.moves)
    line = f"{len(plan.moves)} moves: spread {plan.spread_before:.1f} → {plan.spread_after:.1f} %"
    rows.log_line(after, line, round.now)
    after.stage = line
    return round.write(after, "it begins")


def _carried_on(round: Round, operation: Operation) -> Iterator[Step]:
    moving = [vm for vm in round.lively if vm.decision.migration.operation == operation.name]
    left = operation.parts - operation.parts_begun
    if operation.cancel_requested or left <= 0:
        yield from _ending(round, operation, moving)
        return
    request = request_of(operation)
    plan = plan_balance(round.now, round.world, round.load, request.selector, min(left, AT_ONCE))
    if not plan.moves and not moving:
        yield from _ending(round, operation, moving)
        return
    for move in plan.moves:
        vm = round.world.vms[move.vm]
        free = vm.name not in round.taken
        if free and not slot_short(round.world, round.load, move.source, move.target):
            yield _begun(round, operation, vm, move)
            return  # the operation is written once a round; the next one goes on
    yield from _told(round, operation, moving)


def _begun(round: Round, operation: Operation, vm: vm_pb2.Vm, move: api.BalanceMove) -> Step:
    why = f"balancing: {move.why}"
    after = migration.begun(round.now, vm, move.target, LIVE, operation.name, why)
    told = rows.copied(operation)
    told.parts_begun += 1
    told.percent = max(told.percent, 95 * told.parts_begun // max(told.parts, 1))
    what = f"begins to move {short(move.source)} → {short(move.target)}"
    return round.take(vm, DecideVm(after, what, why, also=(told,)))


def _told(round: Round, operation: Operation, moving: list[vm_pb2.Vm]) -> Iterator[Step]:
    after = rows.copied(operation)
    after.stage = f"{operation.parts_begun} of {operation.parts} moves begun"
    if moving:
        after.stage += f"; {', '.join(short(vm.name) for vm in moving)} on the way"
    if after != operation:
        yield round.write(after, "progress")


def _ending(round: Round, operation: Operation, moving: list[vm_pb2.Vm]) -> Iterator[Step]:
    """Ends once what it had begun has ended. The result tells how even the nodes are now."""
    if moving:
        yield from _told(round, operation, moving)
        return
    after = rows.copied(operation)
    if operation.cancel_requested:
        error = PvcError(reason_pb2.REASON_CANCELLED, "what has moved stays where it is")
        ended = rows.enter_operation(after, Operation.STATE_CANCELLED, round.now, error=error)
    else:
        request = request_of(operation)
        plan = plan_balance(round.now, round.world, round.load, request.selector, 1)
        now = api.BalancePlan(
            spread_before=plan.spread_before, spread_after=plan.spread_before, limits=plan.limits
        )
        after.stage = f"the spread is {plan.spread_before:.1f} %"
        rows.log_line(after, after.stage, round.now)
        ended = rows.enter_operation(after, Operation.STATE_SUCCEEDED, round.now, result=now)
    yield round.write(ended, "it is over")
