"""What every store does with a commit's changes before it writes: checks them, makes them rows.

Pure; it neither writes nor knows where rows are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2, store_pb2
from services.mesh.errors import PvcError
from services.state.schema import (
    COLLECTIONS,
    TYPES,
    collection_of,
    from_stored,
    is_of_newer_build,
    schema_of,
    to_stored,
)
from services.state.store import ANY_VERSION, Change, Conflict, Delete, Put, Snapshot

COMMIT_BYTES_MAX = 448 * 1024
"""Largest commit, as stored; see ROW_BYTES_MAX."""

_ROW_OVERHEAD_BYTES = 64

StoredRows = Mapping[str, store_pb2.StoredRow | None]
"""Name → the row as a commit leaves it, None where it is deleted."""


def name_of(change: Change) -> str:
    """The row that a change is about."""
    resource: Any = change.value if isinstance(change, Put) else change
    return str(resource.name)


def stored_rows(before: Snapshot, changes: Sequence[Change], revision: int) -> StoredRows:
    """What a commit of these changes writes as `revision`; empty when that is nothing at all.

    Raises Conflict naming the first row that is not at the version that its change wants, and
    PvcError TOO_LARGE. Naming a row twice, or storing it where it does not belong, is a mistake in
    the caller.
    """
    names = [name_of(change) for change in changes]
    assert len(set(names)) == len(names), f"a commit names a row twice: {sorted(names)}"
    rows: dict[str, store_pb2.StoredRow | None] = {}
    schemas = common_schemas(before)
    for change in changes:
        name, there = name_of(change), before.named(name_of(change))
        _check_version(change, there)
        if isinstance(change, Put):
            collection = COLLECTIONS[type(change.value)]
            assert collection == collection_of(name), f"misplaced: {name}"
            rows[name] = to_stored(change.value, revision, schemas.get(collection))
        elif there is not None:
            rows[name] = None
    _check_size(rows)
    return rows


def common_schemas(snapshot: Snapshot) -> Mapping[str, int]:
    """Collection → the newest schema that every node of the cluster reads, for those in which this
    build writes a newer one. A node that has told nothing yet will say when it comes."""
    newer = {path: own for path in TYPES if (own := schema_of(path)) > 1}
    if not newer:
        return {}
    nodes = [node.status for node in snapshot.rows(cluster_pb2.Node) if node.HasField("status")]
    common = {
        path: min((node.schemas.get(path, 1) for node in nodes), default=own)
        for path, own in newer.items()
    }
    return {path: schema for path, schema in common.items() if schema < newer[path]}


def loaded(rows: StoredRows) -> dict[str, Message | None]:
    """The rows as readers get them: never the messages that the writer handed in. Kinds of rows
    that only a newer build knows are left out."""
    return {
        name: row and from_stored(name, row)
        for name, row in rows.items()
        if not is_of_newer_build(name)
    }


def _check_version(change: Change, there: Any) -> None:
    resource: Any = change.value.meta if isinstance(change, Put) else change  # type: ignore[attr-defined]
    is_now = there.meta.etag if there is not None else ""
    if resource.etag not in (ANY_VERSION, is_now):
        raise Conflict(name_of(change))
    assert resource.etag or not isinstance(change, Delete), "deleting what must not be there"


def _check_size(rows: StoredRows) -> None:
    size = sum(len(name) + _ROW_OVERHEAD_BYTES + (row.ByteSize() if row else 0)
               for name, row in rows.items())  # fmt: skip
    if size > COMMIT_BYTES_MAX:
        raise PvcError(
            reason_pb2.REASON_TOO_LARGE,
            f"the change of {len(rows)} rows takes {size} bytes; at most {COMMIT_BYTES_MAX} can be "
            "written at once: change less at a time",
        )
