"""What the compute service asks of the storage service: a few verbs that return when the work is
done.

`StorageVolumes` asks over gRPC and waits for the operations in this process's own mirror of the
state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc

from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Snapshot, Store

T = TypeVar("T")
Operation = operation_pb2.Operation

Channel = Callable[[str], grpc.Channel]
"""Node ("nodes/n1") → a channel to its storage service, for calls that wait and raise PvcError."""

ANSWER_S = 30.0
BUSY_S = 300.0
"""How long other work on a volume is waited for."""
WORK_S = 6 * 3600.0
"""The longest copy that is waited for."""


class VolumeService(Protocol):
    """The verbs. request_id makes a repeated request the same one. All raise PvcError with the
    storage's own words."""

    def copy(self, source: str, volume: str, request_id: str) -> None:
        """Makes `volume` as an independent copy of `source`."""
        ...

    def delete(self, volume: str, request_id: str) -> None:
        """Removes a volume with its snapshots; nothing if it is gone already."""
        ...

    def snapshot(self, volume: str, snapshot_id: str, request_id: str) -> bool:
        """Takes a snapshot; True if the guest's file systems were frozen for it."""
        ...

    def delete_snapshot(self, snapshot: str, request_id: str) -> None:
        """Removes a snapshot; nothing if it is gone already."""
        ...

    def rollback(self, snapshot: str, request_id: str) -> None:
        """Puts the snapshot's volume back to what it was."""
        ...


class StorageVolumes:
    """See VolumeService."""

    def __init__(self, store: Store, clock: Clock, channel: Channel) -> None:
        self._store = store
        self._clock = clock
        self._channel = channel

    def copy(self, source: str, volume: str, request_id: str) -> None:
        """See VolumeService."""
        pool, _, volume_id = volume.partition("/volumes/")
        there = self._store.snapshot().find(storage_pb2.Volume, source)
        request = api.CreateVolumeRequest(parent=pool, volume_id=volume_id, request_id=request_id)
        request.volume.spec.source_volume = source
        if there is not None:
            request.volume.spec.format = there.spec.format
        self._done("CreateVolume", volume, request)

    def delete(self, volume: str, request_id: str) -> None:
        """See VolumeService."""
        request = api.DeleteVolumeRequest(name=volume, force=True, request_id=request_id)
        self._unless_gone(lambda: self._done("DeleteVolume", volume, request))

    def snapshot(self, volume: str, snapshot_id: str, request_id: str) -> bool:
        """See VolumeService."""
        request = api.CreateSnapshotRequest(
            parent=volume, snapshot_id=snapshot_id, quiesce=True, request_id=request_id
        )
        taken = storage_pb2.Snapshot()
        self._done("CreateSnapshot", volume, request).result.Unpack(taken)
        return taken.quiesced

    def delete_snapshot(self, snapshot: str, request_id: str) -> None:
        """See VolumeService."""
        request = api.DeleteSnapshotRequest(name=snapshot, request_id=request_id)
        self._unless_gone(lambda: self._done("DeleteSnapshot", snapshot, request))

    def rollback(self, snapshot: str, request_id: str) -> None:
        """See VolumeService."""
        request = api.RollbackSnapshotRequest(name=snapshot, request_id=request_id)
        self._done("RollbackSnapshot", snapshot, request)

    def _done(self, verb: str, resource: str, request: Any) -> Operation:
        """Asks, and returns the operation once it succeeded. Raises what it failed with."""
        asked = self._asked(verb, resource, request)

        def ended(snapshot: Snapshot) -> Operation | None:
            found = snapshot.find(Operation, asked.name)
            return found if found is not None and found.state in rows.FINAL else None

        operation = wait_for(self._store, self._clock, ended, WORK_S, f"{verb} of {resource}")
        if operation.state != Operation.STATE_SUCCEEDED:
            raise PvcError.from_status(operation.error)
        return operation

    def _asked(self, verb: str, resource: str, request: Any) -> Operation:
        """Asks once no other work is done on the volume: that may be what this same operation
        asked for before its worker died, and what there is can be told only when it has ended."""
        pool = self._store.snapshot().find(storage_pb2.Pool, "/".join(resource.split("/")[:2]))
        stub = api_grpc.StorageServiceStub(self._channel(pool.spec.node if pool else ""))
        end = self._clock.monotonic() + BUSY_S
        while True:
            snapshot = self._store.snapshot()
            late = self._clock.monotonic() > end
            if late or not is_worked_on(snapshot, volume_of(resource)):
                try:
                    answer: Operation = getattr(stub, verb)(request, timeout=ANSWER_S)
                    return answer
                except PvcError as error:
                    if late or error.reason != reason_pb2.REASON_BUSY:
                        raise
            await_change(self._store, snapshot)

    @staticmethod
    def _unless_gone(verb: Callable[[], object]) -> None:
        try:
            verb()
        except PvcError as error:
            if error.reason != reason_pb2.REASON_NOT_FOUND:
                raise


def wait_for(
    store: Store,
    clock: Clock,
    look: Callable[[Snapshot], T | None],
    timeout_s: float,
    what: str,
    check: Callable[[], None] = lambda: None,
) -> T:
    """What `look` finds in the state, as soon as it finds it. check: raises when waiting is to end.
    Raises DEADLINE."""
    end = clock.monotonic() + timeout_s
    while True:
        snapshot = store.snapshot()
        found = look(snapshot)
        if found is not None:
            return found
        check()
        if clock.monotonic() > end:
            raise PvcError(reason_pb2.REASON_DEADLINE, f"{what}: not done within {timeout_s:g} s")
        await_change(store, snapshot)


def await_change(store: Store, snapshot: Snapshot) -> None:
    """Returns when the state is newer than the snapshot, or after a second."""
    watch = store.watch(snapshot.revision)
    try:
        watch.next(1.0)
    finally:
        watch.close()


def is_worked_on(snapshot: Snapshot, volume: str) -> bool:
    """An operation of the storage service on the volume or on its snapshots is under way."""
    return any(
        volume_of(operation.target) == volume for operation in rows.unfinished(snapshot, "storage")
    )


def volume_of(resource: str) -> str:
    """The volume that a name is or lies in."""
    return resource.partition("/snapshots/")[0]
