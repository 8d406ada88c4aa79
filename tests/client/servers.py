"""A server that answers as a test has it, for what PVC's own do not do when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from pvc_client import AsyncCluster, Cluster, contract

THREADS = 8


class Scripted(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves the methods of the script: name → what answers, as a servicer's method does. `asked`
    are their names and requests so far, but for streams."""

    def __init__(self, script: Mapping[str, Callable[..., Any]]) -> None:
        self._script = script
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.asked: list[tuple[str, Any]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, _, name = details.method.rpartition("/")
        if name not in self._script:
            return None
        method = METHODS[details.method]
        kinds = {True: "stream", False: "unary"}
        kind = (
            f"{kinds[method.client_streaming]}_{kinds[method.server_streaming]}_rpc_method_handler"
        )
        handler: grpc.RpcMethodHandler = getattr(grpc, kind)(
            self._noted(name), method.request.FromString, lambda answer: answer.SerializeToString()
        )
        return handler

    def _noted(self, name: str) -> Callable[..., Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            self.asked.append((name, request))
            return self._script[name](request, context)

        return answer

    def stop(self) -> None:
        """Ends all calls, and takes none any more."""
        self._server.stop(0).wait()

    def cluster(self, **named: Any) -> Cluster:
        """A blocking client."""
        return Cluster(self.address, **named)

    def run(self, program: Callable[[AsyncCluster], Awaitable[Any]]) -> Any:
        """What the program gives that is run with an asyncio client."""

        async def connected() -> Any:
            async with AsyncCluster(self.address) as cluster:
                return await program(cluster)

        return asyncio.run(connected())

    def __enter__(self) -> Scripted:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


METHODS = {
    method.path: method
    for service in contract.SERVICES
    for method in (service[name] for name in service)
}


def refused(
    context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, retry_after_s: float = 0
) -> None:
    """Answers as PVC refuses."""
    status = status_pb2.Status(code=code.value[0], message=f"refused: {reason}")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="pvc"))
    if retry_after_s:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(retry_after_s * 1000))
        status.details.add().Pack(retry)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, status.message)
