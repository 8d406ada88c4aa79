"""Virtual time: a heap of events, and processes whose loops are stepped as `services.mesh.loop`
does.

One thing happens at a time. A step runs on the engine's own thread; where it may have to stand
still in its middle it runs on a strand, a thread that has the baton only while the engine waits
for it.
"""

from __future__ import annotations

import heapq
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import ClassVar

from services.mesh.errors import PvcError
from services.mesh.loop import BACKOFF_DOUBLINGS_MAX, BACKOFF_FIRST_S, BACKOFF_MAX_S, Read

ARMED_S = 30.0
"""How long a process may take to come to the gate at which something is to happen."""
WAKE_S = 0.001
"""From a wake-up to the step that follows."""


class ProcessDied(BaseException):
    """The process ended where it was; nothing in it may go on."""


class Event:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("act", "when")

    def __init__(self, when: float, act: Callable[[], None]) -> None:
        self.when = when
        self.act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self.act = None


class Engine:
    """The clock, and everything that is going to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.current: Process | None = None
        """Whose step is being done."""
        self.strand: Strand | None = None
        """The strand that has the baton; None while the engine's own thread works."""
        self.mistake: Callable[[Process, BaseException], None] = _raised
        """Told of exceptions that no step may end with."""
        self.after_event: Callable[[], None] = lambda: None
        self._heap: list[tuple[float, int, Event]] = []
        self._strands: set[Strand] = set()
        self._count = 0

    def at(self, when: float, act: Callable[[], None]) -> Event:
        """Has `act` called at that time; not before now."""
        event = Event(max(when, self.now), act)
        self._count += 1
        heapq.heappush(self._heap, (event.when, self._count, event))
        return event

    def after(self, seconds: float, act: Callable[[], None]) -> Event:
        return self.at(self.now + seconds, act)

    def run(self, until: float) -> None:
        """Lets time pass."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, event = heapq.heappop(heap)
            if event.act is None:
                continue
            self.now = when
            act, event.act = event.act, None
            act()
            self.events += 1
            self.after_event()
        self.now = until

    def sleep(self, seconds: float) -> None:
        """The step that is being done stands still for so long. Only on a strand."""
        strand = self.strand
        assert strand is not None, "a step on the engine's own thread cannot stand still"
        self.after(seconds, strand.resumer())
        strand.suspend()

    def sleep_until(self, when: float, sleepers: list[Event]) -> None:
        """Stands still until that time, or until somebody hastens the event that is added to
        `sleepers`."""
        strand = self.strand
        assert strand is not None, "a step on the engine's own thread cannot stand still"
        event = self.at(when, strand.resumer())
        sleepers.append(event)
        strand.suspend()

    def hasten(self, sleepers: list[Event]) -> None:
        """Those that stand still go on now."""
        for event in sleepers:
            if event.act is not None:
                act = event.act
                event.cancel()
                self.at(self.now, act)
        sleepers.clear()

    def can_sleep(self) -> bool:
        return self.strand is not None

    def on_strand(self, work: Callable[[], None]) -> None:
        """Does the work where it may stand still; returns when it ended or first stood still."""
        strand = Strand.given(self, work)
        self._strands.add(strand)
        strand.resume()

    def ended(self, strand: Strand) -> None:
        self._strands.discard(strand)

    def close(self) -> None:
        """Ends whatever stands still."""
        for strand in list(self._strands):
            strand.kill()

    @contextmanager
    def as_process(self, process: Process | None) -> Iterator[None]:
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before


class Strand:
    """Work on a thread that runs only while the engine waits for it. Threads are used again: to
    start one costs more than most steps."""

    _idle: ClassVar[list[Strand]] = []

    def __init__(self) -> None:
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._engine: Engine | None = None
        self._process: Process | None = None
        self._work: Callable[[], None] = lambda: None
        self._killed = False
        self._stop = 0
        self.done = True
        threading.Thread(target=self._run, daemon=True).start()

    @classmethod
    def given(cls, engine: Engine, work: Callable[[], None]) -> Strand:
        """One that will do the work when it is resumed."""
        strand = cls._idle.pop() if cls._idle else cls()
        strand._engine, strand._process, strand._work = engine, engine.current, work
        strand._killed = strand.done = False
        strand._stop += 1
        return strand

    def resume(self) -> None:
        """Hands the baton over until the strand stands still or ends. From the engine's thread."""
        engine = self._engine
        if self.done or engine is None:
            return
        before = (engine.strand, engine.current)
        engine.strand, engine.current = self, self._process
        self._go.release()
        self._back.acquire()
        engine.strand, engine.current = before
        if self.done:
            engine.ended(self)
            self._engine = None
            self._idle.append(self)

    def resumer(self) -> Callable[[], None]:
        """Resumes it where it is about to stand still; does nothing once it went on from there."""
        self._stop += 1
        stop = self._stop

        def resume() -> None:
            if self._stop == stop:
                self.resume()

        return resume

    def suspend(self) -> None:
        """Hands the baton back. From the strand itself."""
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise ProcessDied

    def kill(self) -> None:
        self._killed = True
        self.resume()

    def _run(self) -> None:
        while True:
            self._go.acquire()
            try:
                if not self._killed:
                    self._work()
            except ProcessDied:
                pass
            finally:
                self.done = True
                self._back.release()


class Process:
    """A process of a node: its loops live and die together.

    `gate` stands before and after everything that it does to the world outside: there it may die
    or stand still.
    """

    def __init__(self, engine: Engine, node: str, service: str) -> None:
        self.engine = engine
        self.node = node
        self.service = service
        self.name = f"{node}/{service}"
        self.alive = True
        self.frozen_until = 0.0
        self.loops: list[SimLoop] = []
        self.on_death: list[Callable[[], None]] = []
        self.on_end: list[Callable[[], None]] = []
        """What it does when it is asked to end."""
        self.gates = 0
        self.last_gate = ""
        self.needs_strand: Callable[[], bool] = lambda: False
        """Its calls may have to wait."""
        self._armed: dict[int, Callable[[], None]] = {}
        self._stops: set[int] = set()
        self.will_stand_still = False
        """It is going to, in the middle of some step."""
        self._on: dict[str, Callable[[], None]] = {}

    @property
    def frozen(self) -> bool:
        return self.engine.now < self.frozen_until

    @property
    def may_stand_still(self) -> bool:
        return self.will_stand_still or bool(self._stops)

    def arm(self, gates: int, deed: Callable[[], None], stands_still: bool) -> None:
        """Has the deed done at the so-many-th gate from now (1: the next), if it comes soon.
        stands_still: the process does not end there, but goes on later."""
        gate = self.gates + gates
        self._armed[gate] = deed
        if stands_still:
            self._stops.add(gate)
        self.engine.after(ARMED_S, lambda: self._disarm(gate, deed))

    def arm_on(self, what: str, deed: Callable[[], None]) -> None:
        """Has the deed done at the next gate of that name: "start", or "start done"."""
        self._on[what] = deed

    def _disarm(self, gate: int, deed: Callable[[], None]) -> None:
        if self._armed.get(gate) is deed:
            del self._armed[gate]
            self._stops.discard(gate)

    def disarm(self) -> None:
        self._armed.clear()
        self._on.clear()
        self.will_stand_still = False
        self._stops.clear()

    def gate(self, what: str) -> None:
        """Raises ProcessDied where the process is dead or dies; returns once it is not frozen."""
        if not self.alive:
            raise ProcessDied
        self.gates += 1
        if self._on and (at := self._on.pop(what, None)) is not None:
            self.last_gate = what
            at()
        if self._armed and (deed := self._armed.pop(self.gates, None)) is not None:
            self._stops.discard(self.gates)
            self.last_gate = what
            deed()
        while self.frozen and self.alive:
            self.engine.sleep(self.frozen_until - self.engine.now)
        if not self.alive:
            raise ProcessDied

    def freeze(self, seconds: float) -> None:
        """It stands still, wherever it is, and goes on from there."""
        self.frozen_until = max(self.frozen_until, self.engine.now + seconds)
        self.engine.at(self.frozen_until, self._thawed)

    def die(self) -> None:
        """It ends at once. Calls that are under way end with ProcessDied."""
        if self.alive:
            self.alive = False
            for tell in self.on_death:
                tell()

    def add(
        self,
        name: str,
        step: Callable[[], None],
        period_s: float,
        reads: tuple[Read, ...] | None = None,
        slow: bool = False,
    ) -> SimLoop:
        """A loop that begins at once. slow: its steps may stand still at any time."""
        loop = SimLoop(self, name, step, period_s, reads, slow)
        self.loops.append(loop)
        return loop

    def _thawed(self) -> None:
        if self.alive and not self.frozen:
            for loop in self.loops:
                loop.thawed()


class SimLoop:
    """As `services.mesh.loop.Loop`, on virtual time."""

    def __init__(
        self,
        process: Process,
        name: str,
        step: Callable[[], None],
        period_s: float,
        reads: tuple[Read, ...] | None,
        slow: bool,
    ) -> None:
        self.process = process
        self.name = name
        self.reads = reads
        self.slow = slow
        self.hint: Callable[[], float] | None = None
        """For how long no step can matter; see ticks."""
        self.steps = 0
        self._step = step
        self._period_s = period_s
        self._failures = 0
        self._running = False
        self._woken = False
        self._due: Event | None = None
        self.wake()

    def wake(self) -> None:
        """See Loop.wake."""
        if not self.process.alive:
            return
        self._woken = True
        if not self._running and not self._failures:
            self._schedule(WAKE_S)

    def thawed(self) -> None:
        """What became due while the process stood still is done now."""
        if self._due is None and not self._running:
            self._schedule(WAKE_S)

    def _schedule(self, seconds: float) -> None:
        engine = self.process.engine
        when = engine.now + seconds
        if self._due is not None:
            if self._due.when <= when:
                return
            self._due.cancel()
        self._due = engine.at(when, self._fire)

    def _fire(self) -> None:
        self._due = None
        process = self.process
        if not process.alive or process.frozen:
            return
        self._woken, self._running = False, True
        self.steps += 1
        engine = process.engine
        before, engine.current = engine.current, process
        try:
            if self.slow or process.may_stand_still or process.needs_strand():
                engine.on_strand(self._guarded)
            else:
                self._guarded()
        except ProcessDied:
            pass
        finally:
            engine.current = before

    def _guarded(self) -> None:
        try:
            self._step()
            self._failures = 0
        except PvcError:
            self._failures += 1
        except ProcessDied:
            self.process.die()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is found
            self._failures += 1
            self.process.engine.mistake(self.process, error)
        self._running = False
        if self._failures:
            doublings = min(self._failures - 1, BACKOFF_DOUBLINGS_MAX)
            self._schedule(min(BACKOFF_FIRST_S * 2.0**doublings, BACKOFF_MAX_S))
        else:
            self._schedule(WAKE_S if self._woken else self._pause_s())

    def _pause_s(self) -> float:
        period_s = self._period_s
        if self.hint is None:
            return period_s
        return period_s * max(ceil(self.hint() / period_s - 1e-9), 1)


def _raised(process: Process, error: BaseException) -> None:
    traceback.print_exception(error)
    raise error
