"""Holds back steps that look at something outside: a loop is woken by every change of the state,
and most are none of theirs."""

from __future__ import annotations

from collections.abc import Callable

from services.mesh.clock import Clock


class Paced:
    """A step that is done at most once in a period."""

    def __init__(self, step: Callable[[], None], clock: Clock, period_s: float) -> None:
        self._step = step
        self._clock = clock
        self._period_s = period_s
        self._due = clock.monotonic()

    def __call__(self) -> None:
        """Does it if it is time; a step that failed is due at once."""
        now = self._clock.monotonic()
        if now >= self._due:
            self._step()
            self._due = now + self._period_s
