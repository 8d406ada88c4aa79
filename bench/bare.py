"""A gRPC service with nothing in it, in a process of its own: what the library alone can do on this
machine. Run as `python -m bench.bare PORT`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

from bench.ground import spec_of
from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc


class Bare(api_grpc.VmServiceServicer):
    """Knows one VM by every name."""

    def __init__(self) -> None:
        self._vm = vm_pb2.Vm(name="vms/vm-0000", spec=spec_of("vm-0000", "root", "data"))

    async def GetVm(self, request: Any, context: Any) -> vm_pb2.Vm:
        """The VM."""
        return self._vm


async def serve(port: int) -> None:
    """Until it is killed."""
    server = grpc.aio.server()
    api_grpc.add_VmServiceServicer_to_server(Bare(), server)  # type: ignore[abstract]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
