"""A machine's watchdog: hardware that counts by its own clock, whatever the machine does."""

from __future__ import annotations

from collections.abc import Callable

from services.compute.drivers.watchdog import FakeWatchdog
from tests.simulator.engine import Engine, Event

VERBS = frozenset({"arm", "feed", "disarm"})


class SimWatchdog(FakeWatchdog):
    """Fires by itself, where the fake one has to be looked at."""

    def __init__(self, engine: Engine, fire: Callable[[], None], rate: float = 1.0) -> None:
        """rate: how fast its clock runs."""
        super().__init__(lambda: engine.now * rate, fire)
        self._engine = engine
        self._rate = rate
        self._look: Event | None = None

    def arm(self, timeout_s: float) -> float:
        """See Watchdog."""
        actual_s = super().arm(timeout_s)
        self._watch()
        return actual_s

    def power_lost(self) -> None:
        """It comes back counting nothing."""
        self.timeout_s, self.deadline = 0.0, float("inf")

    def _watch(self) -> None:
        if self._look is None and self.armed:
            self._look = self._engine.at(self.deadline / self._rate + 1e-6, self._looked)

    def _looked(self) -> None:
        self._look = None
        self.look()
        self._watch()
