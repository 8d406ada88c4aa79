"""A storage service as a process of its own, with its state in SQLite, for tests that kill it.

SIGTERM ends it when all its operations have ended.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from pvc.coordinator.v1 import coordinator_service_pb2_grpc
from pvc.core.v1.operation_pb2 import Operation
from services.coordinator.operation_service import OperationService
from services.mesh.channel import Peers
from services.mesh.clock import SystemClock
from services.mesh.desk import Desk
from services.mesh.rows import FINAL
from services.mesh.server import Server
from services.state.sqlite import SqliteStore
from services.state.store import Put
from services.storage.core.accept import Pool
from services.storage.drivers.directory import DirectoryDriver
from services.storage.main import DEFAULT_POOL, StorageSettings, build, default_pool

MIB = 1 << 20


async def main(folder: Path) -> None:
    clock = SystemClock()
    store = SqliteStore(folder / "state.db")
    settings = StorageSettings(
        "nodes/n1", folder, str(folder / "pool"), MIB, files_reserve_bytes=MIB
    )
    if store.snapshot().find(Pool, DEFAULT_POOL) is None:
        store.commit([Put(default_pool(settings, clock))])
    parts = build(settings, store, clock, Peers("nodes/n1", {}, store), DirectoryDriver())
    operations = (
        coordinator_service_pb2_grpc.add_OperationServiceServicer_to_server,
        OperationService(Desk(store, clock, "nodes/n1")),
    )
    server = Server((*parts.servicers, operations), clock)
    (folder / "socket").unlink(missing_ok=True)
    server.listen_unix(folder / "socket")
    await server.start()
    for loop in parts.loops:
        store.on_change(loop.wake)
        loop.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    while any(row.state not in FINAL for row in store.snapshot().rows(Operation)):
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
