"""What the compute service asks of the storage service: once nothing else is done on the volume."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.compute import volumes
from services.compute.volumes import StorageVolumes
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.store import Put

Operation = operation_pb2.Operation
VOLUME = "pools/local/volumes/web-root"


class Storage:
    """Asked for anything on the volume while work is done on it, it refuses; else it is done."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.asked = 0

    def DeleteSnapshot(self, request: Any, timeout: float) -> Operation:
        self.asked += 1
        before = self.store.snapshot().find(Operation, "operations/before")
        if before is not None and before.state == Operation.STATE_RUNNING:
            raise PvcError(reason_pb2.REASON_BUSY, "operations/before works on it")
        done = operation("operations/after", Operation.STATE_SUCCEEDED)
        self.store.commit([Put(done)])
        return done


def operation(name: str, state: Operation.State.ValueType) -> Operation:
    return Operation(name=name, target=VOLUME, service="storage", state=state)


def test_work_on_the_volume_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    storage = Storage(store)
    monkeypatch.setattr(storage_grpc, "StorageServiceStub", lambda channel: storage)
    store.commit([Put(operation("operations/before", Operation.STATE_RUNNING))])
    asking = StorageVolumes(store, SystemClock(), lambda node: None)  # type: ignore[arg-type,return-value]
    thread = threading.Thread(
        target=lambda: asking.delete_snapshot(f"{VOLUME}/snapshots/one", "again-1")
    )
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and storage.asked == 0
    before = store.snapshot().find(Operation, "operations/before")
    assert before is not None
    ended = operation("operations/before", Operation.STATE_SUCCEEDED)
    ended.meta.CopyFrom(before.meta)
    store.commit([Put(ended)])
    thread.join(60)
    assert not thread.is_alive() and storage.asked == 1


def test_work_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setattr(storage_grpc, "StorageServiceStub", lambda channel: Storage(store))
    monkeypatch.setattr(volumes, "BUSY_S", 0.0)
    store.commit([Put(operation("operations/before", Operation.STATE_RUNNING))])
    asking = StorageVolumes(store, SystemClock(), lambda node: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(PvcError) as caught:
        asking.delete_snapshot(f"{VOLUME}/snapshots/one", "again-1")
    assert caught.value.reason == reason_pb2.REASON_BUSY
