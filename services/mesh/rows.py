"""Making and changing rows: the parts of a resource that look the same everywhere.

Pure: times, ids and callers are arguments.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import event_pb2, meta_pb2, operation_pb2, reason_pb2
from services.mesh.desk import Call
from services.mesh.errors import PvcError
from services.state.store import Put, Snapshot
from services.state.table import Index

R = TypeVar("R", bound=Message)

LOG_LINES_KEPT = 100

THIS_CLUSTER = "clusters/this"
"""The row of the cluster itself."""

FINAL = frozenset(
    {
        operation_pb2.Operation.STATE_SUCCEEDED,
        operation_pb2.Operation.STATE_FAILED,
        operation_pb2.Operation.STATE_CANCELLED,
    }
)
"""States in which an operation has ended."""

OPEN = Index(
    operation_pb2.Operation, lambda x: () if x.state in FINAL else ("", x.service, x.target)
)


def unfinished(snapshot: Snapshot, of: str = "") -> tuple[operation_pb2.Operation, ...]:
    """The operations that have not ended, oldest first; with `of` those of a service ("storage") or
    about a resource. There are few, among all that ended today. The same object as long as they
    are the same."""
    return snapshot.having(OPEN, of)


def copied(row: R) -> R:
    """A copy that may be changed."""
    other = type(row)()
    other.CopyFrom(row)
    return other


def new_meta(call: Call, labels: Any = None) -> meta_pb2.Meta:
    """The Meta of a resource that is being made."""
    meta = meta_pb2.Meta(
        uid=call.new_id(), generation=1, create_time=call.now, update_time=call.now
    )
    meta.labels.update(labels or {})
    return meta


def check_etag(row: Any, etag: str, field: str = "etag") -> None:
    """Raises ETAG_MISMATCH unless `etag` is empty or the row's."""
    if etag and etag != row.meta.etag:
        raise PvcError(
            reason_pb2.REASON_ETAG_MISMATCH,
            f"{row.name} changed since you read it (its etag is {row.meta.etag}, not {etag}); "
            "read it again",
            field=field,
        )


def new_operation(
    call: Call,
    request: Message,
    *,
    method: str,
    target: str,
    service: str,
    node: str = "",
    **fields: Any,
) -> operation_pb2.Operation:
    """An accepted operation. method: "pvc.compute.v1.VmService/StartVm"; fields: generation…"""
    operation = operation_pb2.Operation(
        name=f"operations/{call.new_id()}",
        meta=new_meta(call),
        method=method,
        target=target,
        service=service,
        node=node,
        caller=call.caller,
        state=operation_pb2.Operation.STATE_PENDING,
        **fields,
    )
    operation.request.Pack(request)
    return operation


def enter_operation(
    operation: operation_pb2.Operation,
    state: operation_pb2.Operation.State.ValueType,
    now: Timestamp,
    *,
    error: PvcError | None = None,
    result: Message | None = None,
) -> operation_pb2.Operation:
    """A copy in another state: the only way to change it, and final ones never do."""
    assert operation.state not in FINAL, f"{operation.name} has ended"
    after = copied(operation)
    after.state = state
    if state == operation_pb2.Operation.STATE_RUNNING and not after.HasField("start_time"):
        after.start_time.CopyFrom(now)
    if state in FINAL:
        after.end_time.CopyFrom(now)
    if state == operation_pb2.Operation.STATE_SUCCEEDED:
        after.percent = 100
    if error is not None:
        after.error.CopyFrom(error.to_status())
    if result is not None:
        after.result.Pack(result)
    return after


def log_line(operation: operation_pb2.Operation, text: str, now: Timestamp) -> None:
    """Adds a line to a copy's log, dropping the oldest beyond the limit."""
    operation.log.add(time=now, text=text)
    if len(operation.log) > LOG_LINES_KEPT:
        del operation.log[0]


def event(
    event_id: str,
    now: Timestamp,
    subject: str,
    message: str,
    why: str = "",
    *,
    cause: str,
    severity: event_pb2.Event.Severity.ValueType = event_pb2.Event.SEVERITY_INFO,
    operation: str = "",
) -> Put:
    """The change that writes an event."""
    return Put(
        event_pb2.Event(
            name=f"events/{event_id}",
            meta=meta_pb2.Meta(create_time=now),
            time=now,
            severity=severity,
            subject=subject,
            message=message[:2048],
            why=why[:2048],
            cause=cause,
            operation=operation,
        )
    )
