"""The streams that are open at a gateway: they end when their callers may not go on, the moment a
token is changed, revoked or expires. Runs in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.gateway.visit import Visit
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.watches import woken_by
from services.state.store import Store

RECHECK_S = 5.0
"""All are asked so often anyway, should clocks have been set."""
DAY_S = 86_400.0
TOKENS = "tokens"


@dataclass(slots=True, eq=False)
class _Stream:
    visit: Visit
    call: Any
    timer: asyncio.TimerHandle | None = None
    """Rings when the caller's token expires."""


class Streams:
    """May be used before `open`; nobody is looked after until then."""

    def __init__(self, store: Store, clock: Clock, ask: Callable[[Visit], None]) -> None:
        """ask: finds out anew who a caller is and whether they may; raises PvcError."""
        self._store = store
        self._clock = clock
        self._ask = ask
        self._open: set[_Stream] = set()
        self._guard: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> None:
        """Begins to look after them. Within the event loop."""
        self._guard = asyncio.get_running_loop().create_task(self._look_after())

    def end(self) -> None:
        """Ends all; their callers resume elsewhere."""
        if self._guard is not None:
            self._guard.cancel()
        for stream in list(self._open):
            stream.call.cancel()

    @contextmanager
    def lasting(self, visit: Visit, call: Any) -> Iterator[None]:
        """Within the block the stream is open. When its caller may not go on, `call` is cancelled
        and visit.turned_out says why."""
        stream = _Stream(visit, call)
        self._open.add(stream)
        self._set_timer(stream)
        try:
            yield
        finally:
            self._open.discard(stream)
            if stream.timer is not None:
                stream.timer.cancel()

    def _set_timer(self, stream: _Stream) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        if stream.visit.caller.ends is not None:
            left_s = stream.visit.caller.ends - self._clock.now().ToNanoseconds() / 1e9
            loop = asyncio.get_running_loop()
            stream.timer = loop.call_later(min(max(left_s, 0.0), DAY_S), self._check, stream)

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        seen, asked_at = self._store.snapshot().tables.get(TOKENS), loop.time()
        with woken_by(self._store) as wake:
            while True:
                await wake.wait(asked_at + RECHECK_S - loop.time())
                before, seen = seen, self._store.snapshot().tables.get(TOKENS)
                if before is seen and loop.time() < asked_at + RECHECK_S:
                    continue
                asked_at = loop.time()
                for stream in list(self._open):
                    self._check(stream)

    def _check(self, stream: _Stream) -> None:
        """Ends it when its caller may not call any more."""
        try:
            self._ask(stream.visit)
        except PvcError as refusal:
            stream.visit.turned_out = refusal
            stream.call.cancel()
        else:
            self._set_timer(stream)
