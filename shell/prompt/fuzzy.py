"""How well a few typed letters fit a name, and the best of many names at once. Pure."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

BREAKS = r"[-_./: ]"
"""What words of a name are parted by."""


class Fit(IntEnum):
    """How letters fit, the best first."""

    PREFIX = 0
    WORD_STARTS = 1
    WITHIN = 2
    SCATTERED = 3


@dataclass(frozen=True, slots=True)
class Match:
    """How letters fit one name."""

    fit: Fit
    places: tuple[int, ...]
    """Where in the name they are."""


def matched(text: str, typed: str) -> Match | None:
    """How the letters fit the text, upper and lower case alike; None if they do not."""
    low, letters = text.lower(), typed.lower()
    if low.startswith(letters):
        return Match(Fit.PREFIX, tuple(range(len(letters))))
    if found := _starts(letters).match(low):
        return Match(Fit.WORD_STARTS, _places(found))
    at = low.find(letters)
    if at >= 0:
        return Match(Fit.WITHIN, tuple(range(at, at + len(letters))))
    if found := _scattered(letters).match(low):
        return Match(Fit.SCATTERED, _places(found))
    return None


def _places(found: re.Match[str]) -> tuple[int, ...]:
    return tuple(found.start(n) for n in range(1, len(found.groups()) + 1))


@lru_cache(maxsize=64)
def _starts(letters: str) -> re.Pattern[str]:
    """Each letter follows the one before, or else begins the next word that it can; never goes
    back, so that no name takes long."""
    parts = "".join(f"(?>(?:|[^\\n]*?{BREAKS})({re.escape(letter)}))" for letter in letters)
    return re.compile(f"^{parts}", re.MULTILINE)


@lru_cache(maxsize=64)
def _scattered(letters: str) -> re.Pattern[str]:
    """The letters in their order, each as early as can be; never goes back."""
    parts = "".join(f"[^\\n{re.escape(one)}]*+({re.escape(one)})" for one in letters)
    return re.compile(f"^{parts}", re.MULTILINE)


def best(texts: Iterable[str], typed: str) -> Iterator[tuple[int, Match]]:
    """The places of those texts that fit with how they do, best first, else as they came."""
    found = ((n, match) for n, text in enumerate(texts) if (match := matched(text, typed)))
    yield from sorted(found, key=lambda pair: pair[1].fit)


class Names:
    """Many names, ready to be searched: ten thousand take a few milliseconds."""

    def __init__(self, names: Iterable[str]) -> None:
        pairs = sorted((name.lower(), name) for name in names)
        self._low = [low for low, _ in pairs]
        self._names = [name for _, name in pairs]
        self._joined = "\n".join(self._low)
        self._line_starts: list[int] = []

    def __len__(self) -> int:
        return len(self._names)

    def best(self, typed: str, limit: int) -> list[str]:
        """At most so many names that fit, best first."""
        letters = typed.lower()
        start = bisect_left(self._low, letters)
        end = bisect_left(self._low, letters + "\U0010ffff")
        chosen = dict.fromkeys(range(start, min(end, start + limit)))
        if not letters or "\n" in letters:
            return self._names[:limit] if not letters else []
        for places in (self._by(_starts(letters)), self._within(letters),
                       self._by(_scattered(letters))):  # fmt: skip
            for place in places:
                if len(chosen) >= limit:
                    return [self._names[one] for one in chosen]
                chosen.setdefault(place)
        return [self._names[one] for one in chosen]

    def last(self, limit: int) -> list[str]:
        """At most so many names, from the end of the alphabet."""
        return self._names[: -limit - 1 : -1]

    def _by(self, pattern: re.Pattern[str]) -> Iterator[int]:
        for found in pattern.finditer(self._joined):
            yield self._place(found.start())

    def _within(self, letters: str) -> Iterator[int]:
        at = self._joined.find(letters)
        while at >= 0:
            yield self._place(at)
            at = self._joined.find(letters, self._joined.find("\n", at) + 1 or len(self._joined))

    def _place(self, at: int) -> int:
        """Which name stands at a position of them all."""
        if not self._line_starts:
            self._line_starts = _starts_of(self._low)
        return bisect_left(self._line_starts, at + 1) - 1


def _starts_of(lines: Sequence[str]) -> list[int]:
    starts, at = [], 0
    for line in lines:
        starts.append(at)
        at += len(line) + 1
    return starts
