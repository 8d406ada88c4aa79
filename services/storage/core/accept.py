"""What all requests for long work have in common: the operation that is accepted, and the rows it
is about. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh import rows
from services.mesh.desk import Call, Mutation
from services.mesh.errors import PvcError, not_found, refuse
from services.state.store import Change, Put, Snapshot
from services.storage.core.layout import pool_of, volume_of
from services.storage.core.sharing import worker

Pool = storage_pb2.Pool
Volume = storage_pb2.Volume
VolumeStatus = storage_pb2.VolumeStatus
PoolStatus = storage_pb2.PoolStatus

SERVICE = "storage"
PREFIX = "pvc.storage.v1.StorageService/"


def accepted(
    call: Call, request: Any, verb: str, target: str, node: str, says: str,
    changes: Sequence[Change] = (),
) -> Mutation:  # fmt: skip
    """The mutation that accepts long work.

    verb: "CreateVolume"; says: what will be done, for its log. A dry run is answered with an
    operation that has no name, as there is none to be found.
    """
    operation = rows.new_operation(
        call, request, method=f"{PREFIX}{verb}", target=target, service=SERVICE, node=node
    )
    rows.log_line(operation, says, call.now)
    answer = operation
    if request.validate_only:
        answer = rows.copied(operation)
        answer.name = ""
        answer.stage = f"would be accepted: {says}"
    return Mutation((*changes, Put(operation)), answer)


def usable_pool(snapshot: Snapshot, name: str, field: str = "parent") -> Pool:
    """The pool to make a volume in.

    Raises NOT_FOUND, WRONG_STATE. One that was never seen yet passes.
    """
    pool = snapshot.find(Pool, name)
    if pool is None:
        raise not_found(name, field)
    if pool.meta.HasField("delete_time"):
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is being deleted", field)
    if pool.status.state == PoolStatus.STATE_FAILED:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{name} cannot be used: {pool.status.why}; mend that first",
            field,
        )
    return pool


def ready_volume(snapshot: Snapshot, name: str, field: str = "name", etag: str = "") -> Volume:
    """The volume, which must be READY. Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE."""
    volume = found_volume(snapshot, name, field, etag)
    if volume.status.state != VolumeStatus.STATE_READY:
        state = VolumeStatus.State.Name(volume.status.state).removeprefix("STATE_")
        why = f" ({volume.status.why})" if volume.status.why else ""
        next_step = {
            VolumeStatus.STATE_CREATING: "wait until it is made",
            VolumeStatus.STATE_FAILED: "mend the cause, or delete it",
        }.get(volume.status.state, "use another one")
        refuse(reason_pb2.REASON_WRONG_STATE, f"{name} is {state}{why}: {next_step}", field)
    return volume


def found_volume(snapshot: Snapshot, name: str, field: str = "name", etag: str = "") -> Volume:
    """The volume. Raises NOT_FOUND, ETAG_MISMATCH."""
    volume = snapshot.find(Volume, name)
    if volume is None:
        raise not_found(name, field)
    rows.check_etag(volume, etag)
    return volume


def writable_volume(snapshot: Snapshot, name: str, field: str = "name", etag: str = "") -> Volume:
    """The volume, which must be READY and not sealed.

    Raises NOT_FOUND, ETAG_MISMATCH, WRONG_STATE.
    """
    volume = ready_volume(snapshot, name, field, etag)
    if volume.spec.sealed:
        refuse(
            reason_pb2.REASON_WRONG_STATE,
            f"{name} is sealed: nobody writes it any more; make a volume from it and change that",
            field,
        )
    return volume


def found_snapshot(snapshot: Snapshot, name: str, field: str = "name") -> storage_pb2.Snapshot:
    """The snapshot of a volume. Raises NOT_FOUND."""
    found = snapshot.find(storage_pb2.Snapshot, name)
    if found is None:
        raise not_found(name, field)
    return found


def node_of(snapshot: Snapshot, name: str) -> str:
    """The only node that can reach a volume, from its pool; "" when any can, or none."""
    pool = snapshot.find(Pool, pool_of(volume_of(name)))
    return pool.spec.node if pool is not None else ""


def worker_of(snapshot: Snapshot, name: str, call: Call) -> str:
    """The node that works on a volume."""
    return worker(snapshot, snapshot.find(Pool, pool_of(volume_of(name))), call.node)


def changed(volume: Volume, now: Timestamp) -> Volume:
    """A copy whose spec is about to change."""
    after = rows.copied(volume)
    after.meta.generation += 1
    after.meta.update_time.CopyFrom(now)
    return after


def already_exists(name: str, field: str) -> PvcError:
    """Something of that name exists."""
    return PvcError(
        reason_pb2.REASON_ALREADY_EXISTS, f"{name} exists; choose another id", field=field
    )


def packed(message: Message) -> Message:
    """A message fit for a result: without its etag, which is out of date by the time it is read."""
    after: Any = rows.copied(message)
    after.meta.etag = ""
    return after  # type: ignore[no-any-return]
