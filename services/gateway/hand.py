"""A thread that does what may never return, such as to write to a disk, so that nobody else has to
wait for it. What it is given it does one after the other; what does not end it is at for ever."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from services.mesh.clock import Clock

log = logging.getLogger("pvc.gateway")

Work = Callable[[], None]
Outcome = Future[str]
"""What became of a work: "" once it is done, or why it is not."""
NO_ROOM = "too much is waiting to be written"
ENDED = "the gateway is ending"


class Hand:
    """Thread-safe. Its thread begins with the first work, and never keeps a process from ending."""

    def __init__(self, name: str, room: int, clock: Clock) -> None:
        """room: how many works wait at most."""
        self._name, self._room, self._clock = name, room, clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Work, Outcome]] = deque()
        self._since: float | None = None
        """When the work that it is at was begun."""
        self._begun = self._ending = False

    def give(self, work: Work) -> Outcome:
        """Has it done after what was given before, unless there is no room."""
        outcome: Outcome = Future()
        with self._changed:
            refusal = ENDED if self._ending else NO_ROOM
            if not self._ending and len(self._waiting) < self._room:
                self._waiting.append((work, outcome))
                self._begin()
                self._changed.notify_all()
                return outcome
        outcome.set_result(refusal)
        return outcome

    def busy_s(self) -> float:
        """For how long it has been at the work that it is at; 0 while it has none."""
        with self._changed:
            return 0.0 if self._since is None else self._clock.monotonic() - self._since

    @property
    def idle(self) -> bool:
        """It has nothing to do."""
        with self._changed:
            return self._since is None and not self._waiting

    def finish(self, timeout_s: float) -> bool:
        """Waits until it has done all it was given; False if that takes longer."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._since is None and not self._waiting, timeout_s
            )

    def end(self) -> None:
        """Takes no more; does what it has, and ends."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                work, outcome = self._waiting.popleft()
                self._since = self._clock.monotonic()
            outcome.set_result(self._done(work))
            with self._changed:
                self._since = None
                self._changed.notify_all()

    def _done(self, work: Work) -> str:
        try:
            work()
        except OSError as error:
            return str(error)
        except Exception as error:
            log.exception("%s failed", self._name)
            return repr(error)
        return ""
