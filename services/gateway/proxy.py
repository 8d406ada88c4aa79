"""gRPC from outside: takes every method of the API and passes it through the door, byte for byte,
in all four kinds of streaming. Errors pass back with their details.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from pvc.core.v1 import reason_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from services.gateway.door import UNEXPLAINED, Door, status_error
from services.gateway.methods import METHODS, Method
from services.gateway.visit import Visit
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.gateway")

DETAILS = "grpc-status-details-bin"
PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata: a library of gRPC that tries again waits for so long."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = Any
"""grpc.aio.ServicerContext; its generated type says less than it can."""


class Proxy(grpc.GenericRpcHandler):
    """Serves every method of METHODS. local: its callers came through the root-only socket."""

    def __init__(self, door: Door, *, local: bool) -> None:
        self._door = door
        self._local = local
        self._kind = AuditEntry.DOOR_SOCKET if local else AuditEntry.DOOR_GRPC

    def service(self, details: grpc.HandlerCallDetails) -> Handler | None:
        """What answers a call; None (unimplemented) for what is no method of the API."""
        method = METHODS.get(details.method)
        return None if method is None else self._handler(method)

    def _handler(self, method: Method) -> Handler:
        match method.client_streaming, method.server_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(self._one(method, _single))
            case False, True:
                return grpc.unary_stream_rpc_method_handler(self._many(method, _single))
            case True, False:
                return grpc.stream_unary_rpc_method_handler(self._one(method, _same))
            case _:
                return grpc.stream_stream_rpc_method_handler(self._many(method, _same))

    def _one(
        self, method: Method, requests: Callable[[Any], AsyncIterator[bytes]]
    ) -> Callable[[Any, Context], Awaitable[bytes]]:
        async def answer(request: Any, context: Context) -> bytes:
            answers = [one async for one in self._passed(method, requests(request), context)]
            return answers[0]

        return answer

    def _many(
        self, method: Method, requests: Callable[[Any], AsyncIterator[bytes]]
    ) -> Callable[[Any, Context], AsyncIterator[bytes]]:
        async def answers(request: Any, context: Context) -> AsyncIterator[bytes]:
            async for one in self._passed(method, requests(request), context):
                yield one

        return answers

    async def _passed(
        self, method: Method, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        visit = Visit(
            method,
            tuple(context.invocation_metadata() or ()),
            "socket" if self._local else context.peer(),
            door=self._kind,
            timeout_s=context.time_remaining(),
        )
        answers = self._door.visited(visit, requests)
        try:
            async for one in answers:
                yield one
            context.set_trailing_metadata(visit.trailing)
        except PvcError as error:
            await _abort(context, error)
        except grpc.aio.AioRpcError as error:
            await _pass_on(context, error, visit)
        except Exception:
            log.exception("%s failed in the gateway", method.short)
            problem = f"{method.short} failed in the gateway; its log says more"
            await _abort(context, PvcError(reason_pb2.REASON_INTERNAL, problem))


async def _abort(context: Context, error: PvcError) -> NoReturn:
    metadata: tuple[tuple[str, str | bytes], ...] = (
        (DETAILS, error.to_status().SerializeToString()),
    )
    if error.retry_after_s:
        metadata += ((PUSHBACK, str(math.ceil(error.retry_after_s * 1000))),)
    await context.abort(error.grpc_code, error.message, metadata)
    raise AssertionError("abort raises")


async def _pass_on(context: Context, error: grpc.aio.AioRpcError, visit: Visit) -> NoReturn:
    """The service's own error; or, when there was no service to have one, that."""
    explained = any(key == DETAILS for key, _ in visit.trailing)
    if not explained and error.code() in UNEXPLAINED:
        await _abort(context, status_error(error))
    await context.abort(error.code(), error.details() or "", visit.trailing)
    raise AssertionError("abort raises")


async def _single(request: bytes) -> AsyncIterator[bytes]:
    yield request


async def _same(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request
