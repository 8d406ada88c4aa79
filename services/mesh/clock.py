"""Time and chance: the only place in the services that asks the machine for either.

Everything that decides gets its time and ids as arguments; whoever calls it takes them from a
Clock.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp


class Clock(Protocol):
    """What the services ask about time and chance. The simulator has its own."""

    def now(self) -> Timestamp:
        """The time of day. May jump; never compared between nodes."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring on this machine."""
        ...

    def new_id(self) -> str:
        """A new unique id, 26 lower-case characters; ids made later sort after earlier ones."""
        ...


_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def sortable_id(milliseconds: int, entropy: int) -> str:
    """48 bits of time and 80 of chance in Crockford's base 32."""
    number = (milliseconds & (1 << 48) - 1) << 80 | entropy & (1 << 80) - 1
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class SystemClock:
    """The machine's clock and its source of chance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def now(self) -> Timestamp:
        """See Clock."""
        stamp = Timestamp()
        stamp.FromNanoseconds(time.time_ns() // 1000 * 1000)
        return stamp

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def new_id(self) -> str:
        """See Clock. Ids of the same millisecond count up from its first one."""
        fresh = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10))
        with self._lock:
            later = fresh >> 80 > self._last >> 80
            self._last = fresh if later else self._last + 1
            return sortable_id(self._last >> 80, self._last)
