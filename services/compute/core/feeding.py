"""When a node may feed its watchdog: the arithmetic that makes "its watchdog has reset it" a proof.
Pure; moments are seconds on this machine's monotonic clock.

Let T be the session's timeout, W the watchdog's, E the moment at which the session ends.

* Whatever the state answered, a sign of life or a proof, was asked for at s and answered at r. A
  proof that was asked for at least `proof_lag_s` after r, and given, says E >= s + T (see
  Store.prove). The newest such s is the `base`.
* The watchdog is fed only if, looking at the clock just before, now <= base + T - W.

Then whatever happens to this process, the machine is reset by E + W:

* A feed that follows its look at once happens by base + T - W <= E - W, and lasts until E.
* Nobody else feeds between look and feed, but the thread may stand still there for any time. The
  feed before it came before the look, so by base + T - W; unless the machine was reset, the late
  one comes within W of that one, so by base + T <= E, and lasts until E + W. Every later feed
  looks at the clock first.

So whoever has known for W (and some more, for clocks that do not run alike) that the session has
ended may take the machine for dead. The watchdog must have been armed before the cluster was told
of it, and the cluster be told before the session's first feed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NEVER = float("-inf")
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Times:
    """What the arithmetic is about, in seconds."""

    session_s: float
    watchdog_s: float
    lag_s: float

    @property
    def wrong(self) -> str:
        """Why a node cannot live with these; "" when it can."""
        if self.watchdog_s > self.session_s / 2:
            return (
                f"the watchdog cannot be set to less than {self.watchdog_s:g} s, and half of the "
                f"session's timeout ({self.session_s:g} s) is the most that is of use: make "
                "state.session_timeout_s longer"
            )
        if self.lag_s + self.prove_every_s > self.session_s - self.watchdog_s:
            return (
                f"it takes {self.lag_s:g} s until the ZooKeeper servers know that a node lives: "
                "make state.session_timeout_s longer, or say state.tick_ms"
            )
        return ""

    @property
    def look_every_s(self) -> float:
        """How often to see to it."""
        return self.watchdog_s / 12

    @property
    def prove_every_s(self) -> float:
        """How often to ask for a proof while all is well."""
        return self.watchdog_s * 0.4

    @property
    def last_resort_s(self) -> float:
        """How long before the watchdog resets the machine its VMs are ended, so that they do not
        write to the last."""
        return self.watchdog_s / 6


@dataclass(frozen=True, slots=True)
class Answer:
    """Something that the state answered to the holder of a lease. proof: that it holds it."""

    asked: float
    answered: float
    proof: bool


@dataclass(frozen=True, slots=True)
class Contact:
    """What the state answered to the holder of one lease lately, oldest first."""

    answers: tuple[Answer, ...] = ()

    def heard(self, answer: Answer) -> Contact:
        """With one more."""
        return replace(self, answers=(*self.answers, answer)[-_KEPT:])

    @property
    def proven_at(self) -> float:
        """When the newest proof was asked for; NEVER while there is none."""
        return max((one.asked for one in self.answers if one.proof), default=NEVER)

    def base(self, lag_s: float) -> float:
        """See the top of this file; NEVER while there is none."""
        told = self.proven_at - lag_s
        return max((one.asked for one in self.answers if one.answered <= told), default=NEVER)

    def feed_until(self, times: Times) -> float:
        """The last moment to feed at."""
        return self.base(times.lag_s) + times.session_s - times.watchdog_s

    def proof_is_due(self, now: float, times: Times) -> bool:
        """It is time for a proof, and not just for a sign of life: always, when the last one will
        not do for long."""
        calm = now + 2 * times.look_every_s <= self.feed_until(times)
        return not calm or now >= self.proven_at + times.prove_every_s * 0.9
