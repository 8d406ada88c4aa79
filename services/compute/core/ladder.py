"""How a live migration that does not get ahead is helped along: a longer pause, then a slower
guest, then post-copy where that is allowed, else its end.

Pure. What counts is whether what is left to copy, at its largest in one pass over the memory, gets
less from pass to pass: the time that a pass takes differs a thousandfold between guests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from services.compute.drivers.hypervisor import Passage

DOWNTIMES_MS = (100, 150, 200, 300, 500)
"""Pauses that are allowed one after the other. A larger limit is reached by doubling."""
DOWNTIME_MAX_MS = 500
"""The longest pause of a VM that says nothing about it."""
PASSES = 2
"""So many passes without gain are a stall."""
GAIN = 0.9
"""A pass has gained when it left less than this part of the best one before."""
PATIENCE_S = 1.0
"""A rung is given this long at least."""
THROTTLE_PASSES = 6
THROTTLE_PATIENCE_S = 5.0
"""The same for a guest that is being slowed down, which happens step by step."""
POST_COPY_PASSES = 3
"""Where post-copy is allowed, slowing the guest down is given no more than this."""
STUCK_S = 30.0
"""Nothing at all is copied for this long: the way is broken, no rung helps."""


class Stage(Enum):
    """What was done so far."""

    PAUSE = "a longer pause"
    THROTTLE = "a slower guest"
    POST_COPY = "post-copy"
    ABORT = "its end"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the VM allows."""

    downtime_max_ms: int = DOWNTIME_MAX_MS
    post_copy: bool = False

    @property
    def downtimes(self) -> tuple[int, ...]:
        """The pauses to be tried, the first one first."""
        most = self.downtime_max_ms or DOWNTIME_MAX_MS
        steps = [ms for ms in DOWNTIMES_MS if ms < most]
        while steps and steps[-1] >= DOWNTIMES_MS[-1] and steps[-1] * 2 < most:
            steps.append(steps[-1] * 2)
        return (*steps, most)


@dataclass(frozen=True, slots=True)
class Climb:
    """How far the ladder was climbed, and what was seen on the present rung."""

    downtime_ms: int
    rung_s: float
    """When the present rung was entered, by the agent's own clock."""
    moved_s: float
    """When less remained than ever before in the same pass."""
    stage: Stage = Stage.PAUSE
    iteration: int = 0
    """The pass that is going on."""
    peak: int = 0
    """The most that remained in it."""
    low: int = 1 << 62
    """The least that remained in it."""
    best: int = 1 << 62
    """The least peak of a pass that has ended."""
    stalled: int = 0
    """Passes without gain since the rung was entered."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do now. Its stage says what; downtime_ms counts for PAUSE."""

    stage: Stage
    why: str
    downtime_ms: int = 0


def begin(terms: Terms, now_s: float, downtime_ms: int = 0, throttled: bool = False) -> Climb:
    """At the foot of the ladder; or, for a migration that was found going on, where it was."""
    stage = Stage.THROTTLE if throttled else Stage.PAUSE
    return Climb(downtime_ms or terms.downtimes[0], now_s, now_s, stage)


def climb(before: Climb, seen: Passage, terms: Terms, now_s: float) -> tuple[Climb, Advice | None]:
    """One look at a migration that goes on."""
    if not seen.total_bytes or seen.post_copy or before.stage in (Stage.POST_COPY, Stage.ABORT):
        return replace(before, moved_s=now_s), None
    now = _looked(before, seen, now_s)
    if now_s - now.moved_s >= STUCK_S:
        why = f"nothing was copied for {STUCK_S:g} s; is the network between the nodes whole?"
        return replace(now, stage=Stage.ABORT), Advice(Stage.ABORT, why)
    if not _is_stalled(now, terms, now_s):
        return now, None
    return _next(now, seen, terms, now_s)


def figures(seen: Passage) -> str:
    """How fast the guest writes and how fast it is copied, for people."""
    return (
        f"the guest writes {_rate(seen.dirty_bytes_per_s)}, {_rate(seen.copied_bytes_per_s)} is "
        "copied"
    )


def _looked(before: Climb, seen: Passage, now_s: float) -> Climb:
    left = seen.remaining_bytes
    if seen.iterations == before.iteration:
        low = min(before.low, left)
        moved_s = now_s if left < before.low else before.moved_s
        return replace(before, peak=max(before.peak, left), low=low, moved_s=moved_s)
    passed = replace(before, iteration=seen.iterations, peak=left, low=left, moved_s=now_s)
    if before.iteration <= 1:
        return passed  # the first pass goes over everything: what remained of it says nothing
    if before.peak < before.best * GAIN:
        return replace(passed, best=before.peak, stalled=0)
    return replace(passed, stalled=before.stalled + seen.iterations - before.iteration)


def _is_stalled(now: Climb, terms: Terms, now_s: float) -> bool:
    passes, patience_s = PASSES, PATIENCE_S
    if now.stage is Stage.THROTTLE:
        passes = POST_COPY_PASSES if terms.post_copy else THROTTLE_PASSES
        patience_s = THROTTLE_PATIENCE_S
    return now.stalled >= passes and now_s - now.rung_s >= patience_s


def _next(now: Climb, seen: Passage, terms: Terms, now_s: float) -> tuple[Climb, Advice]:
    fresh = replace(now, rung_s=now_s, stalled=0)
    longer = [ms for ms in terms.downtimes if ms > now.downtime_ms]
    match now.stage:
        case Stage.PAUSE if longer:
            why = f"allowing a pause of {longer[0]} ms: {figures(seen)}"
            advice = Advice(Stage.PAUSE, why, longer[0])
            return replace(fresh, downtime_ms=longer[0]), advice
        case Stage.PAUSE:
            advice = Advice(Stage.THROTTLE, f"slowing the guest down: {figures(seen)}")
        case _ if terms.post_copy:
            advice = Advice(Stage.POST_COPY, f"post-copy: {figures(seen)}")
        case _:
            advice = Advice(
                Stage.ABORT,
                f"it does not get ahead: {figures(seen)}, with a pause of {now.downtime_ms} ms "
                f"allowed and the guest slowed down by {seen.throttle_percent} %; allow a longer "
                "pause or post-copy, or try when the guest does less",
            )
    return replace(fresh, stage=advice.stage), advice


def _rate(bytes_per_s: int) -> str:
    return f"{bytes_per_s / (1 << 20):.1f} MiB/s"
