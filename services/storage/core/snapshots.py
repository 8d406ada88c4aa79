"""What requests about snapshots mean: each a pure function from state and request to a Mutation.

Their operations have the volume as target, so that what works on one volume is done one after the
other. A snapshot's row is written when it is taken; until then it is the operation that stands for
it.
"""

from __future__ import annotations

from typing import Any

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import refuse
from services.state.store import Snapshot
from services.storage.core import layout, usage
from services.storage.core.accept import (
    Volume,
    accepted,
    already_exists,
    found_snapshot,
    usable_pool,
    worker_of,
    writable_volume,
)

SNAPSHOTS_MAX = 256
"""Of one volume: each makes opening the image and deleting snapshots slower."""


def create_snapshot(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, WRONG_STATE, NOT_SUPPORTED, ALREADY_EXISTS, BUSY."""
    volume = _volume(snapshot, request.parent, "parent")
    name = f"{volume.name}/snapshots/{layout.checked_id(request.snapshot_id, 'snapshot_id')}"
    if snapshot.find(storage_pb2.Snapshot, name) is not None:
        raise already_exists(name, "snapshot_id")
    if volume.spec.format != layout.QCOW2:
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            f"{volume.name} is kept as raw, which has no snapshots: make a qcow2 volume from it",
            "parent",
        )
    if sum(1 for _ in snapshot.rows(storage_pb2.Snapshot, volume.name)) >= SNAPSHOTS_MAX:
        refuse(
            reason_pb2.REASON_NOT_SUPPORTED,
            f"{volume.name} has {SNAPSHOTS_MAX} snapshots, the most there may be: delete some",
            "parent",
        )
    return accepted(
        call,
        request,
        "CreateSnapshot",
        volume.name,
        worker_of(snapshot, name, call),
        f"take {name}",
    )


def delete_snapshot(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY."""
    found = found_snapshot(snapshot, request.name)
    rows.check_etag(found, request.etag)
    volume = _volume(snapshot, layout.volume_of(found.name), "name")
    says = f"remove {found.name}"
    return accepted(
        call, request, "DeleteSnapshot", volume.name, worker_of(snapshot, volume.name, call), says
    )


def rollback_snapshot(snapshot: Snapshot, request: Any, call: Call) -> Mutation:
    """Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE, BUSY, IN_USE."""
    found = found_snapshot(snapshot, request.name)
    rows.check_etag(found, request.etag)
    volume = _volume(snapshot, layout.volume_of(found.name), "name")
    usage.check_closed(snapshot, volume.name, "shut it down first, then roll back")
    says = f"put {volume.name} back to {found.name}"
    return accepted(
        call, request, "RollbackSnapshot", volume.name, worker_of(snapshot, volume.name, call), says
    )


def _volume(snapshot: Snapshot, name: str, field: str) -> Volume:
    usable_pool(snapshot, layout.pool_of(name), field)
    volume = writable_volume(snapshot, name, field)
    usage.check_not_busy(snapshot, volume.name)
    return volume
