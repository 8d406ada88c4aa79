"""What callers may ask of a gateway at most: tries of strangers, requests and streams of callers.
Pure but for what it remembers; the time comes in. Root's socket knows none of this."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvc.core.v1 import reason_pb2
from services.gateway.access import Caller
from services.gateway.rates import Rates, host_of, limited
from services.mesh.errors import PvcError

REQUESTS_AT_ONCE_S = 2.0
"""After a pause so many seconds' worth of requests may come together."""
KNOWN_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """See the settings of the gateway; 0 for none."""

    tries_per_s: float = 3.0
    requests_per_s: float = 500.0
    streams_per_caller: int = 200
    connections: int = 4000
    """Of each door; always some."""


class Limits:
    """Not for several threads. All verbs raise RATE_LIMITED; peer: as gRPC or HTTP tell it."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._tries = Rates(bounds.tries_per_s)
        self._requests = Rates(bounds.requests_per_s, REQUESTS_AT_ONCE_S * bounds.requests_per_s)
        self._streams: Counter[str] = Counter()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Address and token of those who came in."""

    def count_try(self, peer: str, now_s: float) -> None:
        """Somebody without credentials, or with wrong ones."""
        if wait_s := self._tries.taken(host_of(peer), now_s):
            raise limited("too many tries from this address", wait_s)

    def count_entry(self, peer: str, caller: Caller, now_s: float) -> None:
        """Somebody with valid credentials. While there are too many tries from the address, only
        those go on who came from there before: a guess that is right tells nothing then."""
        pair = host_of(peer), caller.token
        if pair in self._known:
            return
        if wait_s := self._tries.wait_s(pair[0], now_s):
            raise limited("too many tries from this address", wait_s)
        self._known[pair] = None
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def count_request(self, caller: Caller, now_s: float) -> None:
        """A request of somebody who is known."""
        if wait_s := self._requests.taken(caller.name, now_s):
            most = self._bounds.requests_per_s
            raise limited(f"{caller.name} asks more than {most:g} times a second", wait_s)

    @contextmanager
    def stream(self, caller: Caller) -> Iterator[None]:
        """Within the block a stream of the caller is open."""
        most = self._bounds.streams_per_caller
        if most and self._streams[caller.name] >= most:
            raise PvcError(
                reason_pb2.REASON_RATE_LIMITED,
                f"{caller.name} has {most} streams open at this gateway, as many as one caller "
                "may have; close some, or use another token",
            )
        self._streams[caller.name] += 1
        try:
            yield
        finally:
            self._streams[caller.name] -= 1
            if not self._streams[caller.name]:
                del self._streams[caller.name]
