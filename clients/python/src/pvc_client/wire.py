"""The one place where the blocking client touches grpc, threads and time. aio/wire.py has the same
names for asyncio; everything above the two is one source.

Knows no method and no error of PVC's.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar

import grpc

from pvc_client.addresses import channel_options
from pvc_client.contract import Method

P = ParamSpec("P")
T = TypeVar("T")
Metadata = Iterable[Any] | None
RpcError = grpc.RpcError
Interrupted = KeyboardInterrupt
"""How a caller is told to stop in the middle."""
sleep = time.sleep


def open_channel(address: str, *, plain: bool, roots: bytes | None, alone: bool) -> grpc.Channel:
    """A channel, which connects when it is first used."""
    options = channel_options(alone=alone)
    if plain:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options)


def close_channel(channel: grpc.Channel) -> None:
    """Ends it and all calls on it."""
    channel.close()


def ask(
    channel: grpc.Channel, method: Method, request: Any, timeout_s: float | None, metadata: Any
) -> tuple[Any, Metadata]:
    """One answer to one request, and the metadata at its end. Raises RpcError."""
    call = channel.unary_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    answer, ended = call.with_call(request, timeout=timeout_s, metadata=metadata)
    return answer, ended.trailing_metadata()


def send(
    channel: grpc.Channel, method: Method, requests: Iterator[Any], metadata: Any
) -> tuple[Any, Metadata]:
    """One answer to many requests. Raises RpcError, and what the requests raise."""
    call = channel.stream_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    failed: list[BaseException] = []

    def kept() -> Iterator[Any]:
        try:
            yield from requests
        except BaseException as error:  # grpc would only log it
            failed.append(error)
            raise

    try:
        answer, ended = call.with_call(kept(), metadata=metadata)
    except grpc.RpcError:
        if failed:
            raise failed[0] from None
        raise
    return answer, ended.trailing_metadata()


class Stream:
    """The answers of one call as they come. Cancel it from any thread."""

    def __init__(
        self,
        channel: grpc.Channel,
        method: Method,
        request: Any,
        timeout_s: float | None,
        metadata: Any,
    ) -> None:
        kind = channel.stream_stream if method.client_streaming else channel.unary_stream
        call: Any = kind(method.path, method.request.SerializeToString, method.response.FromString)
        self._call = call(request, timeout=timeout_s, metadata=metadata)
        self._cancelled = False

    def next(self) -> Any:
        """The next answer. Raises StopIteration at the end, also after cancel, and RpcError."""
        try:
            return next(self._call)
        except grpc.RpcError:
            if self._cancelled:
                raise StopIteration from None
            raise

    def cancel(self) -> None:
        """Ends the call; whoever waits in `next` sees the end."""
        self._cancelled = True
        self._call.cancel()


class Queue(Generic[T]):
    """What one side puts in and the other takes out, in this order."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[T] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        """Does not wait."""
        self._queue.put(item)

    def get(self) -> T:
        """Waits until there is something."""
        return self._queue.get()


def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does what blocks; nobody is kept from working by that here."""
    return work(*args, **kwargs)
