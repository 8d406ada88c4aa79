"""When a watchdog may be fed, and that it fires in time, wherever the feeder stands still."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.compute.core.feeding import NEVER, Answer, Contact, Times

TIMES = Times(session_s=6.0, watchdog_s=3.0, lag_s=0.35)


def heard(*answers: tuple[float, float, bool]) -> Contact:
    contact = Contact()
    for asked, answered, proof in answers:
        contact = contact.heard(Answer(asked, answered, proof))
    return contact


def test_without_a_proof_it_is_not_fed() -> None:
    assert Contact().feed_until(TIMES) == NEVER
    assert Contact().proof_is_due(0.0, TIMES)
    assert heard((1, 1, False), (2, 2, False)).feed_until(TIMES) == NEVER


def test_one_proof_alone_says_nothing() -> None:
    """The server that answered may not have told of us yet."""
    assert heard((10, 10, True)).feed_until(TIMES) == NEVER


def test_what_was_answered_counts_once_a_later_proof_was_given() -> None:
    assert heard((10, 10, False), (10.2, 10.2, True)).feed_until(TIMES) == NEVER
    assert heard((10, 10, False), (10.35, 10.4, True)).feed_until(TIMES) == 13.0
    assert heard((10, 10, True), (10.2, 10.2, False), (11, 11, True)).feed_until(TIMES) == 13.2


def test_a_slow_answer_counts_from_when_it_was_asked_for_and_after_it_came() -> None:
    assert heard((10, 11, False), (11, 11, True)).feed_until(TIMES) == NEVER
    assert heard((10, 11, False), (11.35, 12, True)).feed_until(TIMES) == 13.0


def test_without_lag_the_newest_counts() -> None:
    assert heard((10, 10, True)).feed_until(Times(6.0, 3.0, 0.0)) == 13.0


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
    calm = heard((10, 10, True), (10.6, 10.6, False), (11, 11, True))
    assert not calm.proof_is_due(11.5, TIMES)
    assert calm.proof_is_due(12.25, TIMES)
    assert heard((10, 10, True)).proof_is_due(10.25, TIMES), "a second one is wanted soon"
    long_ago = heard((10, 10, True), (10.6, 10.6, False), (11, 11, True), (13, 13, False))
    assert long_ago.proof_is_due(13.2, TIMES)


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

    def ask(self, there_s: float, back_s: float, cut: bool, lag: bool, proof: bool) -> None:
        """A server hears of us after a while; those that end sessions after the lag or at once, if
        the server is not cut off from them before. Then it hangs up on us."""
        asked, lag_s = self.now, self.times.lag_s if lag else 0.0
        self.now += there_s
        self.hear()
        if cut:
            self.told.clear()
            self.broken = True
        if self.now > self.ends or (cut and proof):
            return
        if self.broken and proof:  # a connection was made anew where sessions are ended
            self.broken, self.heard = False, self.now
        if not self.broken:
            self.told.append((self.now + lag_s, self.now))
        self.now += back_s
        self.contact = self.contact.heard(Answer(asked, self.now, proof))

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
SHORT = st.sampled_from([0.0, 0.1, 0.25, 1.0])


class Round(NamedTuple):
    """What happens in a round of the guard."""

    idle: Idle = 0.25
    there_s: float = 0.0
    back_s: float = 0.0
    cut: bool = False
    late: bool = False
    lag: bool = True


ROUND = st.builds(
    Round,
    st.one_of(SHORT, st.sampled_from(Last)),
    SHORT,
    SHORT,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
ALL_TIMES = [TIMES, Times(6.0, 3.0, 1.6), Times(6.0, 3.0, 0.0), Times(4.0, 2.0, 1.0)]


@settings(max_examples=2000, deadline=None)
@given(st.lists(ROUND, min_size=1, max_size=14), st.integers(0, 16), st.sampled_from(ALL_TIMES))
def test_it_fires_by_the_end_of_the_session_and_its_own_time(
    rounds: list[Round], calm: int, times: Times
) -> None:
    """Pauses at every point of every round, and cuts before what was told arrived."""
    machine = Machine(times)
    for one in [Round()] * calm + rounds:
        machine.idle(one.idle)
        if machine.now > machine.fires:
            break
        proof = machine.contact.proof_is_due(machine.now, times)
        machine.ask(one.there_s, one.back_s, one.cut, one.lag, proof)
        machine.feed(one.late)
    machine.hear()
    assert machine.fires <= machine.ends + times.watchdog_s + 1e-9


def test_the_bound_is_reached() -> None:
    """So it is no looser than it must be, and the test above could see a breach of it."""
    machine = Machine(Times(6.0, 3.0, 0.0))
    machine.ask(0.0, 0.0, cut=False, lag=False, proof=True)
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
        proof = machine.contact.proof_is_due(machine.now, TIMES)
        machine.ask(0.01, 0.01, cut=False, lag=True, proof=proof)
        machine.feed(late=False)
