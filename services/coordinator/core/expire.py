"""Which rows have been kept long enough. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import event_pb2, operation_pb2
from pvc.gateway.v1 import audit_pb2
from services.coordinator.core.limits import DEFAULTS, Limits

OPERATIONS_KEPT_S = 24 * 3600
OPERATIONS_KEPT_MAX = 2_000
EVENTS_KEPT_S = 7 * 24 * 3600
EVENTS_KEPT_MAX = 10_000
DAY_S = 24 * 3600
REFUSALS_SHARE = 5
"""One of so many audit entries may be a refusal: whoever is refused all the time does not push out
what was done."""
REQUESTS_KEPT_S = 24 * 3600
REQUESTS_KEPT_MAX = 10_000
ROWS_AT_ONCE = 200
"""Rows that one round drops, so that no transaction grows large."""

Expiring = (
    operation_pb2.Operation | event_pb2.Event | operation_pb2.AnsweredRequest | audit_pb2.AuditEntry
)


def expired(
    now: Timestamp,
    operations: Iterable[operation_pb2.Operation],
    events: Iterable[event_pb2.Event],
    requests: Iterable[operation_pb2.AnsweredRequest],
    audited: Iterable[audit_pb2.AuditEntry],
    limits: Limits = DEFAULTS,
) -> Sequence[Expiring]:
    """The rows to drop now, at most ROWS_AT_ONCE. Operations, events and audit entries must come
    oldest first. limits: how much of the audit log is kept."""
    ended = [operation for operation in operations if operation.HasField("end_time")]
    told, answered = list(events), list(requests)
    drop: list[Expiring] = []
    drop += _surplus(ended, OPERATIONS_KEPT_MAX)
    drop += _surplus(told, EVENTS_KEPT_MAX)
    if len(answered) > REQUESTS_KEPT_MAX:
        # Their names are hashes, and do not come in the order of time.
        answered.sort(key=lambda x: x.meta.create_time.ToNanoseconds())
        drop += _surplus(answered, REQUESTS_KEPT_MAX)
    drop += _audited(now, list(audited), limits)
    drop += [x for x in ended if now.seconds - x.end_time.seconds > OPERATIONS_KEPT_S]
    drop += [x for x in told if now.seconds - x.time.seconds > EVENTS_KEPT_S]
    drop += [x for x in answered if now.seconds - x.meta.create_time.seconds > REQUESTS_KEPT_S]
    unique = {row.name: row for row in drop}
    return list(unique.values())[:ROWS_AT_ONCE]


def _audited(
    now: Timestamp, entries: Sequence[audit_pb2.AuditEntry], limits: Limits
) -> Sequence[audit_pb2.AuditEntry]:
    refused = [x for x in entries if x.outcome == audit_pb2.AuditEntry.OUTCOME_REFUSED]
    most = limits.audit_kept_entries
    surplus = {x.name for x in _surplus(refused, most // REFUSALS_SHARE)}
    others = [x for x in entries if x.name not in surplus]
    surplus |= {x.name for x in _surplus(others, most)}
    kept_s = limits.audit_kept_days * DAY_S
    return [x for x in entries if x.name in surplus or now.seconds - x.time.seconds > kept_s]


def _surplus(rows: Sequence[Expiring], limit: int) -> Sequence[Expiring]:
    return rows[: max(len(rows) - limit, 0)]
