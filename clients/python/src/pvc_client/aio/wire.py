"""The one place where the asyncio client touches grpc, threads and time; ../wire.py has the same
names for programs that block.

Knows no method and no error of PVC's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar

import grpc
import grpc.aio

from pvc_client.addresses import channel_options
from pvc_client.contract import Method

P = ParamSpec("P")
T = TypeVar("T")
Metadata = Iterable[Any] | None
RpcError = grpc.RpcError
Interrupted = asyncio.CancelledError
"""How a caller is told to stop in the middle."""
sleep = asyncio.sleep


def open_channel(
    address: str, *, plain: bool, roots: bytes | None, alone: bool
) -> grpc.aio.Channel:
    """A channel of the running event loop, which connects when it is first used."""
    options = channel_options(alone=alone)
    if plain:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots), options)


async def close_channel(channel: grpc.aio.Channel) -> None:
    """Ends it and all calls on it."""
    await channel.close()


async def ask(
    channel: grpc.aio.Channel, method: Method, request: Any, timeout_s: float | None, metadata: Any
) -> tuple[Any, Metadata]:
    """One answer to one request, and the metadata at its end. Raises RpcError."""
    multi: Any = channel.unary_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    call = multi(request, timeout=timeout_s, metadata=metadata)
    return await call, await call.trailing_metadata()


async def send(
    channel: grpc.aio.Channel, method: Method, requests: AsyncIterator[Any], metadata: Any
) -> tuple[Any, Metadata]:
    """One answer to many requests. Raises RpcError, and what the requests raise."""
    multi: Any = channel.stream_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    call = multi(metadata=metadata)
    try:
        await _send_all(call, requests)
    except BaseException:
        call.cancel()
        raise
    return await call, await call.trailing_metadata()


async def _send_all(call: Any, requests: AsyncIterator[Any]) -> None:
    """Sends many messages, unless the other side ends the call before; how it ended, its status
    tells. Raises what the requests raise."""
    with suppress(grpc.RpcError):
        await call.wait_for_connection()
        async for request in requests:
            if not await _sent(call, request):
                return
        await call.done_writing()


async def _sent(call: Any, request: Any) -> bool:
    """Sends one message of many; False when the other side has ended the call.

    Past the call's own `write`, which would put "Internal error from Core" in the place of the
    other side's words.
    """
    if call.done():
        return False
    try:
        await call._cython_call.send_serialized_message(request.SerializeToString())
    except grpc.aio.InternalError:
        return False
    return True


class Stream:
    """The answers of one call as they come. Cancel it from any task."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        method: Method,
        request: Any,
        timeout_s: float | None,
        metadata: Any,
    ) -> None:
        kind: Any = channel.stream_stream if method.client_streaming else channel.unary_stream
        call = kind(method.path, method.request.SerializeToString, method.response.FromString)
        if method.client_streaming:
            self._call = call(timeout=timeout_s, metadata=metadata)
            sender = asyncio.create_task(_send_all(self._call, request))
            self._call.add_done_callback(lambda _: sender.cancel())
        else:
            self._call = call(request, timeout=timeout_s, metadata=metadata)
        self._answers = aiter(self._call)
        self._cancelled = False

    async def next(self) -> Any:
        """The next answer. Raises StopAsyncIteration at the end, also after cancel, and
        RpcError."""
        try:
            return await anext(self._answers)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._cancelled and not (task and task.cancelling()):
                raise StopAsyncIteration from None
            raise
        except grpc.RpcError:
            if self._cancelled:
                raise StopAsyncIteration from None
            raise

    def cancel(self) -> None:
        """Ends the call; whoever waits in `next` sees the end."""
        self._cancelled = True
        self._call.cancel()


class Queue(Generic[T]):
    """What one side puts in and the other takes out, in this order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        """Does not wait."""
        self._queue.put_nowait(item)

    async def get(self) -> T:
        """Waits until there is something."""
        return await self._queue.get()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does what blocks where it keeps nobody from working."""
    return await asyncio.to_thread(work, *args, **kwargs)
