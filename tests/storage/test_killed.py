"""A whole storage service is killed at random moments of real work, and started again: nothing
accepted is lost, nothing half done is left.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.coordinator.v1 import coordinator_service_pb2, coordinator_service_pb2_grpc
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.errors import PvcError
from services.mesh.rows import FINAL
from services.state.sqlite import SqliteStore
from services.storage.core.layout import RAW
from tests.storage.test_real import users
from tests.storage.worlds import MIB, create, name

pytestmark = pytest.mark.real

READY = storage_pb2.VolumeStatus.STATE_READY
Operation = operation_pb2.Operation


@contextlib.contextmanager
def node(folder: Path, finish: bool = False) -> Iterator[grpc.Channel]:
    """A service; killed when the block ends, or left to finish its operations first."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.node", str(folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        with grpc.insecure_channel(f"unix:{folder}/socket") as channel:
            yield channel
        if finish:
            process.terminate()
            process.wait(120)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def state(folder: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(folder / "state.db")
    try:
        yield store
    finally:
        store.close()


def upload(stub: Any, data: bytes) -> str:
    pieces = [data[at : at + MIB] for at in range(0, len(data), MIB)]
    messages = [
        api.UploadFileRequest(size_bytes=len(data)),
        *(api.UploadFileRequest(data=piece) for piece in pieces),
    ]
    return str(stub.UploadFile(iter(messages), timeout=120).name)


def settle(channel: grpc.Channel) -> None:
    """Waits until every operation has ended."""
    operations = coordinator_service_pb2_grpc.OperationServiceStub(channel)
    for _ in range(2400):
        request = coordinator_service_pb2.ListOperationsRequest(page_size=1000)
        found = operations.ListOperations(request, timeout=60).operations
        if all(row.state in FINAL for row in found):
            return
        threading.Event().wait(0.05)
    raise AssertionError(found)


def some_work(stub: Any, chance: random.Random, round_: int, file: str) -> list[str]:
    """Requests of all kinds; the operations that were accepted."""
    snapshot = api.CreateSnapshotRequest(parent=name("a"), snapshot_id=f"s{round_}")
    requests = [
        (stub.CreateVolume, create(f"copy{round_}", 0, source_volume=name("base"))),
        (stub.CreateVolume, create(f"raw{round_}", 0, source_volume=name("base"), format=RAW)),
        (stub.CreateVolume, create(f"empty{round_}")),
        (
            stub.ImportVolume,
            api.ImportVolumeRequest(
                parent="pools/local", volume_id=f"in{round_}", file=file, source_format=RAW
            ),
        ),
        (stub.CreateSnapshot, snapshot),
        (stub.ExportVolume, api.ExportVolumeRequest(name=name("base"), format=RAW)),
        (
            stub.RenameVolume,
            api.RenameVolumeRequest(name=name(f"m{round_}"), new_volume_id=f"m{round_ + 1}"),
        ),
    ]
    chance.shuffle(requests)
    return [method(request, timeout=60).name for method, request in requests]


def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(20)
    accepted: list[str] = []
    with node(tmp_path) as channel:
        stub = api_grpc.StorageServiceStub(channel)
        file = upload(stub, chance.randbytes(48 * MIB))
        stub.ImportVolume(
            api.ImportVolumeRequest(parent="pools/local", volume_id="base", file=file)
        )
        stub.CreateVolume(create("a"))
        stub.CreateVolume(create("m0"))
        settle(channel)
    for round_ in itertools.takewhile(lambda n: n < 3 or not is_cut(tmp_path), range(30)):
        with node(tmp_path) as channel:
            settle(channel)
            accepted += some_work(api_grpc.StorageServiceStub(channel), chance, round_, file)
            threading.Event().wait(chance.uniform(0, 0.2 * round_))
    with node(tmp_path, finish=True):
        pass
    with state(tmp_path) as store:
        check(store, tmp_path, accepted)


def is_cut(folder: Path) -> bool:
    """Work was under way when the service was killed."""
    with state(folder) as store:
        found = store.snapshot().rows(Operation)
        return any(row.attempts and row.state not in FINAL for row in found)


def check(store: SqliteStore, folder: Path, accepted: list[str]) -> None:
    snapshot = store.snapshot()
    rows = {row.name: row for row in snapshot.rows(Operation)}
    for operation in accepted:
        assert operation in rows, "nothing accepted is lost"
    for row in rows.values():
        error = PvcError.from_status(row.error).message if row.HasField("error") else ""
        assert row.state in FINAL, row
        assert row.state == Operation.STATE_SUCCEEDED, (row.method, error)
    volumes = list(snapshot.rows(storage_pb2.Volume))
    assert all(volume.status.state == READY for volume in volumes)
    files = sorted((folder / "pool/volumes").iterdir())
    assert sorted(volume.status.path for volume in volumes) == [str(path) for path in files]
    assert not list((folder / "pool/tmp").iterdir())
    assert not [path for path in files if users(path)], "no process of ours is left"
    kept = {path.suffix for path in (folder / "files").iterdir()}
    assert kept == {".data", ".json"}
    exports = [row for row in rows.values() if row.method.endswith("ExportVolume")]
    assert len(list((folder / "files").glob("*.json"))) == 1 + len(exports)
    assert max(row.attempts for row in rows.values()) > 1, "something was cut"
