"""PVC's command line as a process of its own, and how one bench is run alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from bench.figures import Line, environment, program, table
from bench.ground import Ground

PVC = Path(sys.executable).with_name("pvc")

Measure = Callable[[Ground], list[Line]]


def pvc(*words: str) -> str:
    """What it prints."""
    return program(PVC, *words)


def alone(measure: Measure) -> int:
    """Runs one bench and prints its table."""
    print(environment())
    with Ground() as ground:
        print(table(measure(ground)))
    return 0
