"""The ladder that a migration climbs when it does not get ahead: tables of what is seen and what is
advised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.compute.core.ladder import STUCK_S, Advice, Stage, Terms, begin, climb
from services.compute.drivers.hypervisor import Passage

MIB = 1 << 20
LOOK_S = 0.25


def looks(peaks: list[float], per_pass: int = 4, **seen: int) -> Iterator[Passage]:
    """What is seen of a migration whose passes begin with so many MiB left each."""
    for number, peak in enumerate(peaks, 1):
        for part in range(per_pass):
            yield Passage(
                remaining_bytes=int(peak * MIB * (1 - part / per_pass)),
                total_bytes=1024 * MIB,
                dirty_bytes_per_s=90 * MIB,
                copied_bytes_per_s=100 * MIB,
                iterations=number,
                **seen,
            )


def advised(terms: Terms, seen: Iterator[Passage], throttle: bool = False) -> list[Advice]:
    now_s, state, told = 0.0, begin(terms, 0.0), []
    for passage in seen:
        now_s += LOOK_S
        state, advice = climb(state, passage, terms, now_s)
        if advice is not None:
            told.append(advice)
    return told


def rungs(told: list[Advice]) -> list[int | str]:
    return [x.downtime_ms if x.stage is Stage.PAUSE else x.stage.name for x in told]


@pytest.mark.parametrize(
    ("longest", "steps"),
    [
        (0, (100, 150, 200, 300, 500)),
        (500, (100, 150, 200, 300, 500)),
        (250, (100, 150, 200, 250)),
        (100, (100,)),
        (10, (10,)),
        (5000, (100, 150, 200, 300, 500, 1000, 2000, 4000, 5000)),
    ],
)
def test_pauses(longest: int, steps: tuple[int, ...]) -> None:
    assert Terms(longest).downtimes == steps


STORIES = {
    "it gets ahead": ([1024, 500, 250, 120, 60, 30, 14], Terms(), []),
    "it stalls for good": (
        [1024, *[80] * 40],
        Terms(),
        [150, 200, 300, 500, "THROTTLE", "ABORT"],
    ),
    "it stalls, and post-copy is allowed": (
        [1024, *[80] * 40],
        Terms(post_copy=True),
        [150, 200, 300, 500, "THROTTLE", "POST_COPY"],
    ),
    "it stalls for a while": ([1024, 80, 79, 80, 40, 20, 10, 5], Terms(), [150]),
    "a short pause is all that is allowed": (
        [1024, *[80] * 20],
        Terms(downtime_max_ms=50),
        ["THROTTLE", "ABORT"],
    ),
    "slowing it down helps": (
        [1024, *[80] * 15, 60, 50, 40, 30, 20, 15, 12, 10, 8, 6],
        Terms(),
        [150, 200, 300, 500, "THROTTLE"],
    ),
    "the first pass says nothing": ([1024], Terms(), []),
}


@pytest.mark.parametrize("story", STORIES)
def test_stories(story: str) -> None:
    peaks, terms, expected = STORIES[story]
    assert rungs(advised(terms, looks(peaks))) == expected


def test_a_rung_is_given_its_time() -> None:
    """However short the passes are."""
    told = advised(Terms(), looks([1024, *[1] * 17], per_pass=1))
    assert rungs(told) == [150, 200, 300, 500]


def test_nothing_is_copied() -> None:
    still = looks([1024], per_pass=1)
    first = next(still)
    told = advised(Terms(), iter([first] * int(STUCK_S / LOOK_S + 4)))
    assert rungs(told) == ["ABORT"] and "nothing was copied for 30 s" in told[0].why


def test_what_has_not_begun_or_follows_is_left_alone() -> None:
    assert not advised(Terms(), iter([Passage()] * 400))
    assert not advised(Terms(), looks([1024, *[80] * 40], post_copy=True))  # type: ignore[arg-type]


def test_the_reasons_have_figures() -> None:
    told = advised(Terms(), looks([1024, *[80] * 40], throttle_percent=99))
    assert told[0].why == (
        "allowing a pause of 150 ms: the guest writes 90.0 MiB/s, 100.0 MiB/s is copied"
    )
    assert told[-1].why == (
        "it does not get ahead: the guest writes 90.0 MiB/s, 100.0 MiB/s is copied, with a pause "
        "of 500 ms allowed and the guest slowed down by 99 %; allow a longer pause or post-copy, "
        "or try when the guest does less"
    )


def test_one_that_is_found_goes_on_where_it_was() -> None:
    found = begin(Terms(), 0.0, downtime_ms=300, throttled=False)
    assert found.downtime_ms == 300 and found.stage is Stage.PAUSE
    assert begin(Terms(), 0.0, 500, throttled=True).stage is Stage.THROTTLE
