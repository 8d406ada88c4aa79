"""What a node of the simulator knows of time and chance: a wall clock that may be wrong, a
monotonic one that runs a little too fast or too slow, and ids that are the same in every run."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from services.mesh.clock import sortable_id
from tests.simulator.engine import Engine

EPOCH_S = 1_800_000_000
"""When every simulation begins, by a clock that is right."""


class SimClock:
    """Implements Clock for the processes of one node."""

    def __init__(self, engine: Engine, number: int, skew_s: float = 0.0, rate: float = 1.0) -> None:
        self._engine = engine
        self._number = number
        self.skew_s = skew_s
        self.rate = rate
        self._offset_s = 1000.0 * (number + 1)
        self._ids = 0

    def now(self) -> Timestamp:
        """See Clock."""
        nanoseconds = round((EPOCH_S + self._engine.now + self.skew_s) * 1e6) * 1000
        return Timestamp(seconds=nanoseconds // 10**9, nanos=nanoseconds % 10**9)

    def monotonic(self) -> float:
        """See Clock. No other node's has anything to do with it."""
        return self._offset_s + self._engine.now * self.rate

    def new_id(self) -> str:
        """See Clock."""
        self._ids += 1
        milliseconds = int((EPOCH_S + self._engine.now + self.skew_s) * 1000)
        return sortable_id(milliseconds, self._number << 64 | self._ids)
