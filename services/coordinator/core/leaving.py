"""The last of a node that is taken out of the cluster: its row goes once nothing of it works any
more and no VM is on it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, secret_pb2
from pvc.gateway.v1 import gateway_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.joining import Join, joins_name
from services.coordinator.core.methods import REMOVE
from services.coordinator.core.node_edits import secret_name
from services.coordinator.core.plan import ForgetNode, Step, Unjudged
from services.coordinator.core.rounds import Round, guarded
from services.coordinator.core.rules import listed
from services.coordinator.core.world import LEAVING, short
from services.mesh import rows
from services.state.store import Delete, Snapshot

Node = cluster_pb2.Node
Operation = operation_pb2.Operation


def judge_leaving(round: Round) -> Iterator[Step | Unjudged]:
    """Forgets nodes that are gone, and ends what asked for it."""
    asked = {x.target: x for x in round.operations.values() if x.method == REMOVE}
    for name, operation in asked.items():
        if name not in round.world.nodes:
            done = rows.enter_operation(operation, Operation.STATE_SUCCEEDED, round.now)
            yield round.write(done, f"{name} has left the cluster")
    for node in round.world.nodes.values():
        if node.decision.state == LEAVING or node.name in asked:
            rule = partial(_leaves, round, node, asked.get(node.name))
            yield from guarded(node, rule)


def _leaves(round: Round, node: Node, operation: Operation | None) -> Iterator[Step]:
    why = _hindrance(round, node)
    if not why:
        also = () if operation is None else (_done(round, operation, node),)
        yield ForgetNode(node, "it was removed from the cluster", also)
    elif operation is not None and operation.stage != why:
        after = rows.copied(operation)
        if after.state == Operation.STATE_PENDING:
            after = rows.enter_operation(after, Operation.STATE_RUNNING, round.now)
        after.stage = why
        rows.log_line(after, why, round.now)
        yield round.write(after, "it cannot go yet")


def _hindrance(round: Round, node: Node) -> str:
    """What has to happen before the row may go."""
    name = short(node.name)
    if node.decision.state != LEAVING:
        state = cluster_pb2.NodeState.Name(node.decision.state).removeprefix("NODE_STATE_")
        return f"waits: {name} is {state}"
    vms = [
        vm.name
        for vm in round.world.vms.values()
        if node.name in (vm.decision.node, vm.decision.migration.target)
    ]
    if vms:
        return f"waits: {listed(vms)} belong to {name}; move or delete them"
    if node.name in round.world.present:
        return f"waits for the services on {name} to end: stop them there"
    return ""


def _done(round: Round, operation: Operation, node: Node) -> Operation:
    after = rows.copied(operation)
    after.stage = f"{short(node.name)} has left the cluster"
    rows.log_line(after, after.stage, round.now)
    return rows.enter_operation(after, Operation.STATE_SUCCEEDED, round.now)


def belongings(snapshot: Snapshot, node: str) -> list[Delete]:
    """What goes with a node: the pools on its own disks with all that they held, the password of
    its controller, its token, what its gateway told of itself."""
    pools = [pool for pool in snapshot.rows(storage_pb2.Pool) if pool.spec.node == node]
    gone: list[Any] = list(pools)
    for pool in pools:
        gone += snapshot.rows(storage_pb2.Volume, pool.name)
        gone += snapshot.rows(storage_pb2.Snapshot, pool.name)
    gateway = f"gateways/{short(node)}"
    its: tuple[tuple[type[Any], str], ...] = (
        (secret_pb2.Secret, secret_name(node)),
        (Join, joins_name(node)),
        (gateway_pb2.Gateway, gateway),
    )
    for kind, name in its:
        if (row := snapshot.find(kind, name)) is not None:
            gone.append(row)
    return [Delete(row.name, row.meta.etag) for row in gone]
