"""When a watchdog may be fed, and that it fires in time, wherever the feeder stands still."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.compute.core.feeding import NEVER, Contact, Times

TIMES = Times(session_s=6.0, watchdog_s=3.0, lag_s=0.35)


def test_without_a_proof_it_is_not_fed() -> None:
    assert Contact().feed_until(TIMES) == NEVER
    assert Contact().due(0.0, TIMES)


def test_one_proof_alone_says_nothing() -> None:
    """The server that answered may not have told of us yet."""
    assert Contact().proven(10.0).feed_until(TIMES) == NEVER


def test_an_older_proof_counts_once_a_later_one_was_given() -> None:
    contact = Contact().proven(10.0).proven(10.2)
    assert contact.feed_until(TIMES) == NEVER
    assert contact.proven(10.35).feed_until(TIMES) == 13.0
    assert contact.proven(11.0).feed_until(TIMES) == pytest.approx(13.2)


def test_without_lag_the_newest_counts() -> None:
    assert Contact().proven(10.0).feed_until(Times(6.0, 3.0, 0.0)) == 13.0


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (Times(6.0, 3.0, 1.6), ""),
        (Times(6.0, 4.0, 0.0), "half of the session's timeout (6 s)"),
        (Times(6.0, 3.0, 2.5), "say state.tick_ms"),
    ],
)
def test_times_that_do_not_fit_are_told(times: Times, words: str) -> None:
    assert words in times.wrong and bool(times.wrong) == bool(words)


def test_a_proof_is_asked_for_oftener_when_it_is_needed() -> None:
    contact = Contact().proven(10.0).proven(11.0)
    assert not contact.due(11.5, TIMES)
    assert contact.due(12.0, TIMES)
    assert contact.due(12.5, TIMES)
    lonely = Contact().proven(10.0)
    assert lonely.due(10.5, TIMES), "a second one is wanted soon"


@dataclass
class Machine:
    """A watchdog, the feeder, and a state that hears of signs of life after a while, all on one
    clock. The session ends T after the last sign of life that was heard of."""

    times: Times
    now: float = 0.0
    fed: float = 0.0
    heard: float = 0.0
    """The newest sign of life that is known where sessions are ended."""
    told: list[tuple[float, float]] = field(default_factory=list)
    """Signs of life on their way: when they arrive, and when they were given."""
    contact: Contact = field(default_factory=Contact)
    broken: bool = False

    @property
    def fires(self) -> float:
        return self.fed + self.times.watchdog_s

    @property
    def ends(self) -> float:
        return self.heard + self.times.session_s

    def hear(self) -> None:
        for arrives, given_at in list(self.told):
            if arrives <= self.now:
                self.told.remove((arrives, given_at))
                if arrives <= self.ends:
                    self.heard = max(self.heard, arrives)

    def prove(self, there_s: float, back_s: float, cut: bool, lag: bool = True) -> None:
        """A server hears of us at once; those that end sessions after the lag or at once, if the
        server is not cut off from them before. Then it hangs up on us."""
        asked, lag_s = self.now, self.times.lag_s if lag else 0.0
        self.now += there_s
        self.hear()
        alive = self.now <= self.ends
        if cut:
            self.told.clear()
            self.broken = True
        if alive and not cut:
            if self.broken:  # a connection is made anew where sessions are ended
                self.broken, self.heard = False, self.now
            self.told.append((self.now + lag_s, self.now))
            self.now += back_s
            self.contact = self.contact.proven(asked)

    def feed(self, late: bool) -> None:
        """late: stands still between look and feed for as long as there is anything to feed."""
        may = self.now <= self.contact.feed_until(self.times)
        if late:
            self.now = max(self.now, self.fires)
        if may and self.now <= self.fires:
            self.fed = self.now

    def idle(self, move: Idle) -> None:
        """Stands still before a round, often until the very last moment for something."""
        match move:
            case Last.LOOK:
                until = self.contact.feed_until(self.times)
            case Last.SESSION:
                until = self.ends
            case Last.WATCHDOG:
                until = self.fires
            case seconds:
                until = self.now + seconds
        if until < float("inf"):
            self.now = max(self.now, until)


class Last(Enum):
    """The last moment…"""

    LOOK = "at which feeding is allowed"
    SESSION = "of the session"
    WATCHDOG = "before the machine is reset"


Idle = Last | float
SHORT = st.sampled_from([0.0, 0.1, 0.5, 1.0])
ROUND = st.tuples(
    st.one_of(SHORT, st.sampled_from(Last)),
    SHORT,
    SHORT,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
CALM = (0.5, 0.0, 0.0, False, False, False)
ALL_TIMES = [TIMES, Times(6.0, 3.0, 1.6), Times(6.0, 3.0, 0.0), Times(4.0, 2.0, 1.0)]


@settings(max_examples=1500, deadline=None)
@given(st.lists(ROUND, min_size=1, max_size=12), st.integers(0, 8), st.sampled_from(ALL_TIMES))
def test_it_fires_by_the_end_of_the_session_and_its_own_time(
    rounds: list[tuple[Idle, float, float, bool, bool, bool]], calm: int, times: Times
) -> None:
    """Pauses at every point of every round, and cuts before what was told arrived."""
    machine = Machine(times)
    for idle, there, back, late, cut, lag in [CALM] * calm + rounds:
        machine.idle(idle)
        if machine.now > machine.fires:
            break
        if machine.contact.due(machine.now, times):
            machine.prove(there, back, cut, lag)
        machine.feed(late)
    machine.hear()
    assert machine.fires <= machine.ends + times.watchdog_s + 1e-9


def test_the_bound_is_reached() -> None:
    """So it is no looser than it must be, and the test above could see a breach of it."""
    machine = Machine(Times(6.0, 3.0, 0.0))
    machine.prove(0.0, 0.0, cut=False)
    machine.now = machine.contact.feed_until(machine.times)
    machine.feed(late=False)
    machine.feed(late=True)
    machine.hear()
    assert machine.fires == machine.ends + 3.0


@given(st.integers(1, 500))
def test_while_all_is_well_it_never_fires(rounds: int) -> None:
    machine = Machine(TIMES)
    for _ in range(rounds):
        machine.now += TIMES.look_every_s
        assert machine.now < machine.fires
        if machine.contact.due(machine.now, TIMES):
            machine.prove(0.01, 0.01, cut=False)
        machine.feed(late=False)
