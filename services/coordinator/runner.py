"""Calls that may hang, kept away from the loop that wants their answers: one behind the other, each
with an end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from services.mesh.clock import Clock
from services.mesh.errors import PvcError

DEADLINE_S = 12.0
"""A call that has not returned by then is not waited for any longer."""

HANGING_MAX = 3
"""Calls of one line that may hang at a time: further ones wait until one of them returned."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call gave nothing."""

    why: str


Outcome = Answer | Failure


class Running(Protocol):
    """A call under way."""

    def outcome(self) -> Outcome | None:
        """None while it is."""
        ...


class Runner(Protocol):
    """Makes calls; the simulator has its own, on virtual time."""

    def start(self, name: str, call: Callable[[], Any]) -> Running:
        """Begins a call, and returns at once. name: of whom what is asked, "n2 power"."""
        ...


class ThreadRunner:
    """A thread for each call: none can be in another's way. They are few, because lines bound
    them. `wake` is called when one has ended."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self.wake = wake

    def start(self, name: str, call: Callable[[], Any]) -> Running:
        """See Runner."""
        running = _InThread(call, lambda: self.wake())
        threading.Thread(target=running.run, name=name, daemon=True).start()
        return running


class _InThread:
    def __init__(self, call: Callable[[], Any], wake: Callable[[], None]) -> None:
        self._call = call
        self._wake = wake
        self._outcome: Outcome | None = None

    def run(self) -> None:
        self._outcome = made(self._call)
        self._wake()

    def outcome(self) -> Outcome | None:
        return self._outcome


def made(call: Callable[[], Any]) -> Outcome:
    """What comes of a call, whatever happens in it."""
    try:
        return Answer(call())
    except PvcError as error:
        return Failure(error.message)
    except Exception as error:  # noqa: BLE001 - it is told, and tried again
        return Failure(f"{type(error).__name__}: {error}")


class Line:
    """One call at a time to the same place."""

    def __init__(self, runner: Runner, clock: Clock, name: str) -> None:
        self._runner = runner
        self._clock = clock
        self._name = name
        self._running: Running | None = None
        self._hanging: list[Running] = []
        self._deadline = 0.0

    @property
    def free(self) -> bool:
        """The next call can be begun."""
        self._hanging = [call for call in self._hanging if call.outcome() is None]
        return self._running is None and len(self._hanging) < HANGING_MAX

    def begin(self, call: Callable[[], Any]) -> None:
        """Makes a call; `outcome` tells what came of it."""
        assert self.free
        self._deadline = self._clock.monotonic() + DEADLINE_S
        self._running = self._runner.start(self._name, call)

    def outcome(self) -> Outcome | None:
        """What came of the call, once; None while nothing did. A call that hangs is a failure; what
        it gives later is not looked at."""
        running = self._running
        if running is None:
            return None
        outcome = running.outcome()
        if outcome is None:
            if self._clock.monotonic() < self._deadline:
                return None
            self._hanging.append(running)
            outcome = Failure(f"no answer within {DEADLINE_S:g} s")
        self._running = None
        return outcome
