"""How often somebody without credentials may try: so many times a second from one address, and a
few more at once. Pure but for what it remembers; the time comes in."""

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
    """Counts tries by address. Not for several threads."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def admit(self, peer: str, now_s: float) -> None:
        """Counts a try. peer: address and port as gRPC or HTTP tell them; now_s: of a clock that
        never goes back. Raises RATE_LIMITED."""
        bucket = self._bucket(host_of(peer), now_s)
        if bucket.left < 1.0:
            wait_s = (1.0 - bucket.left) / self._per_s
            raise PvcError(
                reason_pb2.REASON_RATE_LIMITED,
                f"too many tries from this address; ask again in {wait_s:.1f} s",
            )
        bucket.left -= 1.0

    def _bucket(self, host: str, now_s: float) -> _Bucket:
        most = max(AT_ONCE, self._per_s)
        bucket = self._buckets.pop(host, None) or _Bucket(most, now_s)
        bucket.left = min(most, bucket.left + (now_s - bucket.seen) * self._per_s)
        bucket.seen = now_s
        self._buckets[host] = bucket  # the longest unseen come first
        if len(self._buckets) > REMEMBERED_MAX:
            self._buckets.popitem(last=False)
        return bucket


def host_of(peer: str) -> str:
    """The address without the port, spelled alike at all doors: "ipv6:%5B::1%5D:9" → "::1"."""
    spelled = unquote(peer.removeprefix("ipv4:").removeprefix("ipv6:"))
    return spelled.rpartition(":")[0].strip("[]")
