"""The asyncio client seen as the blocking one: what one half must do, the other is tried on as it
is written."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pvc_client import AsyncCluster

CALL_S = 60.0


class Blocking:
    """An object of the asyncio client. What it gives is awaited in a loop of another thread."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._inner, self._loop = inner, loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.ismethod(found):
            return self._seen(found)
        return lambda *given, **named: self._seen(self._run(found, *given, **named))

    def _seen(self, value: Any) -> Any:
        ours = type(value).__module__.startswith("pvc_client.aio") or inspect.isasyncgen(value)
        return Blocking(value, self._loop) if ours else value

    def _run(self, verb: Any, *given: Any, **named: Any) -> Any:
        async def run() -> Any:
            result = verb(*given, **named)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_S)

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> Any:
        try:
            return self._run(self._inner.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None

    def __enter__(self) -> Blocking:
        self._run(self._inner.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(self._inner.__aexit__, *error)


@contextmanager
def blocking(*given: Any, **named: Any) -> Iterator[Any]:
    """An AsyncCluster, seen as a Cluster."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        with Blocking(AsyncCluster(*given, **named), loop) as cluster:
            yield cluster
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
