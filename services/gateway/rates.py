"""How often somebody may do something: so many times a second, and some more at once after a pause.
Pure but for what it remembers; the time comes in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import unquote

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

AT_ONCE = 5.0
"""Tries that may come together, after a pause."""
REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class _Bucket:
    left: float
    seen: float


class Rates:
    """Counts tries by whoever makes them. Not for several threads."""

    def __init__(self, per_s: float, at_once: float = AT_ONCE) -> None:
        """per_s: 0 for as often as one likes."""
        self._per_s = per_s
        self._most = max(at_once, per_s)
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def taken(self, who: str, now_s: float) -> float:
        """Counts a try, and gives 0; or gives the seconds until there may be one. now_s: of a clock
        that never goes back."""
        if not self._per_s:
            return 0.0
        bucket = self._bucket(who, now_s)
        if bucket.left < 1.0:
            return (1.0 - bucket.left) / self._per_s
        bucket.left -= 1.0
        return 0.0

    def wait_s(self, who: str, now_s: float) -> float:
        """What `taken` would give, counting nothing."""
        bucket = self._buckets.get(who)
        if bucket is None:
            return 0.0
        left = bucket.left + (now_s - bucket.seen) * self._per_s
        return max(0.0, (1.0 - left) / self._per_s)

    def _bucket(self, who: str, now_s: float) -> _Bucket:
        bucket = self._buckets.pop(who, None) or _Bucket(self._most, now_s)
        bucket.left = min(self._most, bucket.left + (now_s - bucket.seen) * self._per_s)
        bucket.seen = now_s
        self._buckets[who] = bucket  # the longest unseen come first
        if len(self._buckets) > REMEMBERED_MAX:
            self._buckets.popitem(last=False)
        return bucket


def limited(what: str, wait_s: float) -> PvcError:
    """RATE_LIMITED, with the time after which to ask again."""
    return PvcError(
        reason_pb2.REASON_RATE_LIMITED,
        f"{what}; ask again in {max(wait_s, 0.1):.1f} s",
        retry_after_s=max(wait_s, 0.001),
    )


def address_of(peer: str) -> str:
    """Address and port, spelled alike at all doors: "ipv4:10.0.0.7:9" → "10.0.0.7:9"."""
    return unquote(peer.removeprefix("ipv4:").removeprefix("ipv6:"))


def host_of(peer: str) -> str:
    """The address without the port: "ipv6:%5B::1%5D:9" → "::1"."""
    return address_of(peer).rpartition(":")[0].strip("[]")
