"""Drives a `step()` in a thread of its own: on wake-up or after a period, once at a time.

Backs off after failures. The only place in the services that sleeps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from services.mesh.errors import PvcError
from services.mesh.log import bound
from services.state.store import Snapshot

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 30.0
BACKOFF_DOUBLINGS_MAX = 16
REST_RATIO, REST_MAX_S = 2.0, 0.25

Read = str | Callable[[Snapshot], object]
"""Something of the state: a collection ("vms"), or what a function finds in it, which must be the
same object for as long as it says the same (Snapshot.extract, Snapshot.having)."""

log = logging.getLogger("pvc.loop")


class Loop:
    """Calls `step` when woken and at least every `period_s`; after a failure later and later."""

    def __init__(
        self,
        name: str,
        step: Callable[[], None],
        period_s: float,
        reads: Collection[Read] | None = None,
    ) -> None:
        """reads: what of the state is to wake it when it changes, and changes of leases with it; ()
        for none, None for all."""
        self.name = name
        self.reads = reads
        self._step = step
        self._period_s = period_s
        self._wakened = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins with a first step at once."""
        self._wakened.set()
        self._thread.start()

    def wake(self) -> None:
        """Has a step done soon. Wakes that come during a step make one more, not many."""
        self._wakened.set()

    def stop(self, timeout_s: float) -> bool:
        """Ends after the step that is being done; False if that takes longer than the timeout."""
        self._stopping.set()
        self._wakened.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with bound(service=self.name):
            self._go_round()

    def _go_round(self) -> None:
        while not self._stopping.is_set():
            if self._failures:
                self._stopping.wait(self._pause_s())
            else:
                self._wakened.wait(self._period_s)
            if self._stopping.is_set():
                return
            self._wakened.clear()
            began_s = time.thread_time()
            self._guarded_step()
            self._stopping.wait(_rest_s(time.thread_time() - began_s))

    def _guarded_step(self) -> None:
        try:
            self._step()
            self._failures = 0
        except Exception as error:
            self._failures += 1
            # A PvcError says all there is to say: what is away comes back. Others are mistakes.
            mistake = self._failures == 1 and not isinstance(error, PvcError)
            log.error("%s: %s (failure %d; next try in %.1f s)", self.name, error, self._failures,
                      self._pause_s(), exc_info=mistake)  # fmt: skip

    def _pause_s(self) -> float:
        # Without a bound the power itself would fail after some hours, and the thread end with it.
        doublings = min(self._failures - 1, BACKOFF_DOUBLINGS_MAX)
        return min(BACKOFF_FIRST_S * 2.0**doublings, BACKOFF_MAX_S)


def _rest_s(worked_s: float) -> float:
    """Who worked long and is woken again at once lets others work too: those who answer calls share
    the interpreter with all loops of the process. What changes meanwhile is seen in one go."""
    return min(worked_s * REST_RATIO, REST_MAX_S)


def parts_of(snapshot: Snapshot, reads: Collection[Read]) -> tuple[object, ...]:
    """What is read of a state: to be compared one by one, as objects."""
    return tuple(
        snapshot.tables.get(read) if isinstance(read, str) else read(snapshot) for read in reads
    )


def pause(seconds: float) -> None:
    """Stands still, for those in a thread of their own who try again after a failure."""
    threading.Event().wait(seconds)
