"""How far things are, on stderr: bars that are painted in place on a terminal, plain lines of what
began elsewhere. Knows nothing of operations.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from shell.measures import size, span
from shell.render import cells_wide, clean, cut, painted

BAR = 20
ETA_AFTER_S = 4.0
"""Nobody can tell before how long something takes."""
ETA_FROM_PERCENT = 10


@dataclass(slots=True)
class Bar:
    """One thing that goes on."""

    title: str
    stage: str = ""
    percent: int = 0
    began: float = 0.0
    ended: float = 0.0
    """0 while it goes on."""


class Board:
    """The bars of several things, one below the other."""

    def __init__(
        self, titles: Sequence[str], stream: TextIO, colour: bool, *, quiet: bool = False
    ) -> None:
        """quiet: say nothing at all."""
        now = time.monotonic()
        self._bars = [Bar(clean(title), began=now) for title in titles]
        self._stream = stream
        self._colour = colour
        self._quiet = quiet
        self._live = not quiet and stream.isatty() and os.environ.get("TERM", "") != "dumb"
        self._painted = 0
        """Lines that stand on the screen."""

    @property
    def live(self) -> bool:
        """Whether bars are painted."""
        return self._live

    def tell(self, place: int, stage: str, percent: int) -> None:
        """Takes in how far one is; says so where nothing is painted."""
        bar = self._bars[place]
        if not (self._live or self._quiet) and stage and stage != bar.stage:
            self._stream.write(f"{bar.title}: {clean(stage)}\n")
            self._stream.flush()
        bar.stage, bar.percent = stage, percent

    def ended(self, place: int, word: str) -> None:
        """One is over; nothing is said where nothing is painted."""
        bar = self._bars[place]
        bar.stage, bar.ended = word, time.monotonic()

    def draw(self) -> None:
        """Paints all of them where they are."""
        if not self._live:
            return
        columns, lines = shutil.get_terminal_size()
        shown = board_lines(self._bars, time.monotonic(), columns - 1, max(lines - 1, 1))
        self._stream.write(
            self._back()
            + "\n".join(f"\x1b[K{painted(line, 'dim', self._colour)}" for line in shown)
            + "\x1b[J"
        )
        self._stream.flush()
        self._painted = len(shown)

    def end(self) -> None:
        """Wipes them."""
        if self._live and self._painted:
            self._stream.write(f"{self._back()}\x1b[K\x1b[J")
            self._stream.flush()
            self._painted = 0

    def _back(self) -> str:
        return "\r" + "\x1b[A" * (self._painted - 1)


class Progress:
    """One line that shows how far something is; plain lines where no terminal is."""

    def __init__(self, title: str, stream: TextIO, colour: bool) -> None:
        self._board = Board([title], stream, colour)

    def tell(self, stage: str, percent: int) -> None:
        """Shows the stage and how much of it all is done."""
        self._board.tell(0, stage, percent)
        self._board.draw()

    def transferred(self, done: int, total: int) -> None:
        """Shows how many bytes of how many have gone."""
        percent = done * 100 // max(total, 1)
        live = self._board.live
        self.tell(f"{size(done)} of {size(total)}" if live else "transferring", percent)

    def end(self) -> None:
        """Leaves the line empty."""
        self._board.end()


def board_lines(bars: Sequence[Bar], now: float, width: int, height: int) -> list[str]:
    """The lines of a board, at most `height`: what goes on first if there is no room for all."""
    widest = max((cells_wide(bar.title) for bar in bars), default=0)
    if len(bars) > height:
        bars = sorted(bars, key=lambda bar: bar.ended > 0)
        left = len(bars) - height + 1
        return [*board_lines(bars[: height - 1], now, width, height), f"… {left} more"]
    lines = []
    for bar in bars:
        elapsed = (bar.ended or now) - bar.began
        title = bar.title + " " * (widest - cells_wide(bar.title))
        left_s = None if bar.ended else time_left(elapsed, bar.percent)
        lines.append(progress_line(title, bar.stage, bar.percent, elapsed, width, left_s))
    return lines


def time_left(elapsed_s: float, percent: int) -> float | None:
    """How long it will go on if it goes on as it did; None when nobody can tell."""
    if elapsed_s < ETA_AFTER_S or not ETA_FROM_PERCENT <= percent < 100:
        return None
    return elapsed_s * (100 - percent) / percent


def progress_line(
    title: str, stage: str, percent: int, elapsed_s: float, width: int, left_s: float | None = None
) -> str:
    """ "web  [#####...............]  25%  3.1s, 9s left  starting the emulator"."""
    filled = "#" * (BAR * percent // 100)
    took = f"{elapsed_s:.1f}s" if elapsed_s < 60 else span(elapsed_s)
    left = f", {span(left_s)} left" if left_s is not None else ""
    bar = f"[{filled.ljust(BAR, '.')}] {percent:3}%"
    return cut(f"{title}  {bar}  {took}{left}  {clean(stage)}".rstrip(), width)
