"""How the benches take samples and show them: a median with its range, beside what it stands
against. It judges nothing."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.compute.drivers.daemon import machine_accelerator

Action = Callable[[], object]

PROGRAM_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Samples of one thing, at least one, all in the same unit."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.samples)

    def shown(self) -> str:
        """Median, and in brackets the least and the greatest."""
        low, high = brief(min(self.samples)), brief(max(self.samples))
        return brief(self.median) if low == high else f"{brief(self.median)} [{low}-{high}]"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    what: str
    unit: str
    pvc: Figure
    against: str = ""
    """What a user would use instead, and how."""
    other: Figure | None = None
    aim: str = ""

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        ratio = (
            brief(self.pvc.median / self.other.median) if self.other and self.other.median else "-"
        )
        other = self.other.shown() if self.other else "-"
        runs = str(len(self.pvc.samples))
        return (self.what, self.unit, self.pvc.shown(), other, ratio, runs, self.aim, self.against)


HEADINGS = ("what", "unit", "PVC", "other", "ratio", "runs", "aim", "other is")


def brief(number: float) -> str:
    """Three digits that count."""
    if number >= 99.5:
        return f"{number:,.0f}"
    return f"{number:.3g}"


def table(lines: Sequence[Line]) -> str:
    """The lines below headings, in columns."""
    grid = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in grid) for column in range(len(HEADINGS))]
    last = len(HEADINGS) - 1
    widths[last] = 0  # nothing stands behind it
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in grid
    )


def seconds(action: Action) -> float:
    """How long it takes, once."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def side_by_side(
    first: Action, second: Action, runs: int, after: Action = lambda: None
) -> tuple[Figure, Figure]:
    """Milliseconds of both, by turns, so that what else the machine does falls on both alike; the
    first turn does not count. after: puts things back after each turn, unmeasured."""
    samples: list[tuple[float, float]] = []
    for _ in range(runs + 1):
        samples.append((seconds(first) * 1000, seconds(second) * 1000))
        after()
    ours, theirs = zip(*samples[1:], strict=True)
    return Figure(ours), Figure(theirs)


def program(*words: str | Path, text: str = "") -> str:
    """What a program prints. Raises RuntimeError with its own words when it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        input=text,
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")
    return done.stdout


def check(true: object, what: str) -> None:
    """A bench that measures something wrong measures nothing. Raises AssertionError."""
    if not true:
        raise AssertionError(f"wrong result: {what}")


def environment() -> str:
    """The machine, in one line."""
    virsh = program("virsh", "--version").strip()
    qemu = program("qemu-img", "--version").split()[2]
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    accelerator, _ = machine_accelerator()
    return (
        f"{platform.platform()}, {os.cpu_count()} CPUs, {accelerator.upper()}, libvirt {virsh}, "
        f"QEMU {qemu}, Python {platform.python_version()}, load {load}"
    )


def say(text: str) -> None:
    """How far it is, where it does not get into the table."""
    print(text, file=sys.stderr, flush=True)
