"""What requests about nodes and the cluster have in common: what they are about, which fields they
take over, the operation and the event that they leave. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import operation_pb2, reason_pb2
from services.coordinator.core.methods import SERVICE, method
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import nearest, not_found, refuse, shown
from services.mesh.masks import take
from services.state.store import Change, Put, Snapshot

Node = cluster_pb2.Node
Operation = operation_pb2.Operation


def the_node(snapshot: Snapshot, name: str, etag: str = "", field: str = "name") -> Node:
    """The node. Raises NOT_FOUND, ETAG_MISMATCH."""
    node = snapshot.find(Node, name)
    if node is None:
        raise not_found(name, field)
    rows.check_etag(node, etag, "etag" if field == "name" else "node.meta.etag")
    return node


def staying(snapshot: Snapshot, request: Any) -> Node:
    """The node of a request that has `name` and `etag`. Raises NOT_FOUND, ETAG_MISMATCH, or
    WRONG_STATE while it is being removed."""
    node = the_node(snapshot, request.name, request.etag)
    if node.spec.leaving:
        refuse(reason_pb2.REASON_WRONG_STATE, f"{node.name} is leaving the cluster", "name")
    return node


def state_of(node: Node) -> str:
    """Its state as people read it."""
    return cluster_pb2.NodeState.Name(node.decision.state).removeprefix("NODE_STATE_")


def going_on(snapshot: Snapshot, node: str) -> list[Operation]:
    """Operations on a node that have not ended."""
    return [row for row in rows.unfinished(snapshot, node) if row.service == SERVICE]


def changed(row: Any, call: Call) -> Any:
    """A copy of a row whose spec is about to change."""
    after = rows.copied(row)
    after.meta.generation += 1
    after.meta.update_time.CopyFrom(call.now)
    return after


def told(call: Call, subject: str, what: str, why: str = "", operation: str = "") -> Put:
    """The event of a request."""
    return rows.event(
        call.new_id(), call.now, subject, what, why, cause=call.caller, operation=operation
    )


def accepted(
    call: Call, request: Any, name: str, node: Node, what: str, changes: Sequence[Change]
) -> Mutation:
    """An operation of the coordinator on a node, which the leader carries out; its event; changes
    that go with it."""
    operation = rows.new_operation(
        call, request, method=method("NodeService", name), target=node.name, service=SERVICE
    )
    if request.validate_only:
        operation.name, operation.stage = "", f"would be accepted: {what}"
    rows.log_line(operation, what, call.now)
    event = told(call, node.name, what, operation=operation.name)
    return Mutation((*changes, Put(operation), event), operation)


def paths_of(mask: Sequence[str], wanted: Message, changeable: Sequence[str]) -> list[str]:
    """The fields to take over: those of the mask, or those that are set when it is empty.

    changeable: what may be named, with all that is inside it; "*" and "spec" name them all. Raises
    INVALID_FIELD.
    """
    if not mask:
        return [path for path in changeable if _is_set(wanted, path)]
    found: list[str] = []
    for path in mask:
        if path in ("*", "spec"):
            found += [one for one in changeable if path == "*" or one.startswith("spec.")]
            continue
        top = next((one for one in changeable if path == one or path.startswith(f"{one}.")), "")
        if not top or not _exists(wanted, path):
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{shown(path)} cannot be changed{nearest(path, changeable)}",
                "update_mask",
            )
        found.append(path)
    return list(dict.fromkeys(found))


def taken_over(row: Any, wanted: Message, paths: Sequence[str], call: Call) -> Any:
    """A copy of the row with those fields as they are wanted; the row itself if that changes
    nothing."""
    after = rows.copied(row)
    for path in paths:
        take(wanted, after, path)
    if after == row:
        return row
    after.meta.generation += 1
    after.meta.update_time.CopyFrom(call.now)
    return after


def _is_set(message: Any, path: str) -> bool:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    field, value = message.DESCRIPTOR.fields_by_name[last], getattr(message, last)
    if field.is_repeated:
        return len(value) > 0
    return bool(message.HasField(last) if field.has_presence else value)


def _exists(message: Message, path: str) -> bool:
    kind: Any = message.DESCRIPTOR
    for name in path.split("."):
        field = None if kind is None else kind.fields_by_name.get(name)
        if field is None:
            return False
        kind = None if field.is_repeated else field.message_type
    return True
