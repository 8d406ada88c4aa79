"""What is written down of a call: who, from where, what, how it ended. Pure but for the line in the
log. Of a request only names are taken.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import meta_pb2, operation_pb2, reason_pb2
from pvc.gateway.v1 import audit_pb2
from services.gateway.access import Caller
from services.gateway.methods import Method
from services.gateway.rates import address_of
from services.mesh.errors import PvcError
from services.mesh.rows import copied

log = logging.getLogger("pvc.audit")

AuditEntry = audit_pb2.AuditEntry

MADE = ("vm", "volume", "pool", "network", "image", "token", "node", "snapshot")
"""Kinds of things whose id a request may bring along, as "vm_id"."""
CHANGED = ("vm", "pool", "network", "volume", "node", "token")
"""Fields of requests that hold the thing that is to be changed."""
SHOWN_MAX = 200
"""Characters of what a caller wrote in the log: it is written down before it is checked."""
KEPT_MAX = 500
REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "RATE_LIMITED", "AUDIT_FAILED")
"""The door's own reasons; no service gives them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from."""

    door: audit_pb2.AuditEntry.Door.ValueType
    peer: str
    """As gRPC or HTTP tell it: "ipv4:10.0.0.7:40312"; whatever for the socket."""
    node: str
    """The gateway's: "nodes/n1"."""


def entry_of(
    entry_id: str, now: Timestamp, caller: Caller, origin: Origin, method: Method, request: Any
) -> AuditEntry:
    """What is known of a call when it is let in, or turned away. request: None when it was not
    read."""
    local = origin.door == AuditEntry.DOOR_SOCKET
    return AuditEntry(
        name=f"auditEntries/{entry_id}",
        meta=meta_pb2.Meta(create_time=now),
        time=now,
        caller=caller.name,
        token=caller.token,
        role=caller.role,
        peer="" if local else address_of(origin.peer),
        door=origin.door,
        node=origin.node,
        method=method.path[1:],
        target=_cut(target_of(request), KEPT_MAX),
        request_id=_cut(getattr(request, "request_id", ""), KEPT_MAX),
        validate_only=getattr(request, "validate_only", False),
        count=1,
    )


def target_of(request: object) -> str:
    """The resources that a request is about, as far as it says so: "vms/web", "vms/web vms/new"."""
    return " ".join(dict.fromkeys(_targets(request)))


def _targets(request: object) -> Iterator[str]:
    if name := getattr(request, "name", ""):
        yield name
    parent = getattr(request, "parent", "")
    for kind in MADE:
        if made := getattr(request, f"{kind}_id", ""):
            yield f"{parent}/{kind}s/{made}" if parent else f"{kind}s/{made}"
    for kind in CHANGED:
        if name := getattr(getattr(request, kind, None), "name", ""):
            yield str(name)


def ended(
    begun: AuditEntry, duration_s: float, error: PvcError | None, *, left: bool
) -> AuditEntry:
    """The entry of a call that has ended. error: what the caller was told; left: the caller did not
    wait."""
    entry = copied(begun)
    entry.duration.FromNanoseconds(int(duration_s * 1e9) // 1000 * 1000)
    if error is not None:
        entry.reason = error.reason_name
        entry.message = _cut(error.message, KEPT_MAX)
        refused = entry.reason in REFUSALS
        entry.outcome = AuditEntry.OUTCOME_REFUSED if refused else AuditEntry.OUTCOME_FAILED
    elif left:
        entry.outcome = AuditEntry.OUTCOME_CANCELLED
    else:
        entry.outcome = AuditEntry.OUTCOME_SUCCEEDED
    return entry


def operation_in(method: Method, answer: bytes) -> str:
    """The operation that an answer is, or "": there is none for a dry run."""
    if method.response is not operation_pb2.Operation:
        return ""
    return operation_pb2.Operation.FromString(answer).name


def reason_of(code_name: str) -> reason_pb2.Reason.ValueType:
    """The reason that a bare status code comes nearest to."""
    known = {"UNAVAILABLE": "UNREACHABLE", "DEADLINE_EXCEEDED": "DEADLINE"}
    name = f"REASON_{known.get(code_name, code_name)}"
    there = name in reason_pb2.Reason.DESCRIPTOR.values_by_name
    return reason_pb2.Reason.Value(name) if there else reason_pb2.REASON_INTERNAL


def write(entry: AuditEntry) -> None:
    """Logs the call. Strings from outside are quoted, so that a line stays one line."""
    outcome = AuditEntry.Outcome.Name(entry.outcome).removeprefix("OUTCOME_")
    log.info(
        "%s from %s: %s %s request_id=%s %s %.3fs%s",
        json.dumps(entry.caller),
        entry.peer or "socket",
        entry.method.rpartition(".")[2],
        _shown(entry.target),
        _shown(entry.request_id),
        entry.reason or {"SUCCEEDED": "OK"}.get(outcome, outcome),
        entry.duration.ToMicroseconds() / 1e6,
        f" {entry.count} times" if entry.count > 1 else "",
    )


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
