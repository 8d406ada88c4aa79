"""Another node's services as a process of their own, to be killed, or stopped as by a cut network:
what runs there is the mesh's real server before the services that the doors are tried on.

Run as `python -m tests.routing.far FOLDER` it serves until it is ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as vm_api
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.coordinator.main import build as coordinator
from services.mesh import identity
from services.mesh.clock import SystemClock
from services.mesh.desk import Desk
from services.mesh.server import Server
from services.state.sqlite import SqliteStore
from services.state.store import ANY_VERSION, Put
from tests.doors.servicers import Storage, Vms
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
VM = "vms/far"
OPERATION = "operations/0000"
"""One that never ends."""
FILE = "files/n2.big"
FILE_BYTES = 64 << 20
STARTING_S = 60.0


class Endless(Vms):
    """A guest that writes a line to its console every now and then, and a slow disk behind it."""

    async def ReadConsoleLog(self, request: Any, context: Any) -> Any:
        for number in range(100_000):
            yield vm_api.ReadConsoleLogResponse(data=f"line {number}\n".encode())
            await asyncio.sleep(0.05)


class SlowDisk(Storage):
    """Files that are long in coming."""

    async def DownloadFile(self, request: Any, context: Any) -> Any:
        for _ in range(FILE_BYTES // 65536):
            yield storage_api.DownloadFileResponse(data=bytes(65536))
            await asyncio.sleep(0.01)


async def serve(folder: Path) -> None:
    store, clock = SqliteStore(folder / "far.db"), SystemClock()
    there: Any = {"etag": ANY_VERSION}
    waits = operation_pb2.Operation(name=OPERATION, meta=there, state="STATE_PENDING")
    store.commit([Put(vm_pb2.Vm(name=VM, meta=there)), Put(waits)])
    desk = Desk(store, clock, "nodes/n2")
    server = Server(
        [
            *coordinator(store, clock, "nodes/n2", "test").servicers,
            (vm_grpc.add_VmServiceServicer_to_server, Endless(desk, 0.0)),
            (storage_grpc.add_StorageServiceServicer_to_server, SlowDisk(desk)),
        ],
        clock,
    )
    credentials = identity.Files(folder / "n2").server_credentials(clock.now())
    server.listen_tls((folder / "address").read_text(), credentials)
    await server.start()
    (folder / "up").touch()
    await asyncio.Event().wait()


class Far:
    """The process, as a test has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        (folder / "address").write_text(self.address)
        identity.create_cluster(folder / "n1", "test", "n1", ["127.0.0.1"], SystemClock().now())
        authority = identity.Files(folder / "n1").pair("ca")
        files = identity.Files(folder / "n2")
        files.write("node", identity.new_node(authority, "n2", ["127.0.0.1"], datetime.now(UTC)))
        (files.folder / "ca.crt").write_bytes(authority.certificate_pem)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it serves; what it had stored is there."""
        up = self.folder / "up"
        up.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.routing.far", str(self.folder)]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment)
        end = time.monotonic() + STARTING_S
        while not up.exists():
            assert self._process.poll() is None and time.monotonic() < end, "it does not come up"
            time.sleep(0.01)

    def send(self, signal_: signal.Signals) -> None:
        """SIGKILL: its machine is up and says that nobody listens. SIGSTOP: nothing is heard."""
        assert self._process is not None
        self._process.send_signal(signal_)

    def end(self) -> None:
        """Gone, however it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
