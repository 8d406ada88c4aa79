"""Runs seeds, alone or many at a time, and says what they found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulator.faults import script_of, world_of
from tests.simulator.run import Result, run
from tests.simulator.shrink import shrunk
from tests.simulator.world import Script, World

CHUNK = 25


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that broke something."""

    seed: int
    sentence: str


@dataclass(slots=True)
class Tally:
    """What came of many seeds."""

    seeds: int = 0
    simulated_s: float = 0.0
    events: int = 0
    took_s: float = 0.0
    findings: tuple[Finding, ...] = ()


def run_seed(seed: int, stop_early: bool = True) -> Result:
    return run(world_of(seed), script_of(seed), stop_early)


def run_chunk(seeds: list[int]) -> Tally:
    """In this process, one after the other."""
    tally = Tally()
    for seed in seeds:
        result = run_seed(seed)
        tally.seeds += 1
        tally.simulated_s += result.simulated_s
        tally.events += result.events
        tally.findings += tuple(Finding(seed, sentence) for sentence in result.found[:1])
    return tally


def run_seeds(first: int, count: int, jobs: int) -> Iterator[Tally]:
    """What came of all so far, again after every chunk."""
    began, total = time.monotonic(), Tally()
    chunks = [
        list(range(start, min(start + CHUNK, first + count)))
        for start in range(first, first + count, CHUNK)
    ]
    if jobs == 1:
        results: Iterator[Tally] = map(run_chunk, chunks)
    else:
        pool = ProcessPoolExecutor(jobs)
        results = pool.map(run_chunk, chunks)
    for part in results:
        total.seeds += part.seeds
        total.simulated_s += part.simulated_s
        total.events += part.events
        total.findings += part.findings
        total.took_s = time.monotonic() - began
        yield total


def smallest(seed: int, kind: str) -> tuple[World, Script]:
    """The least of that seed's story that fails in the same way. kind: how its sentence begins."""

    def fails(world: World, script: Script) -> bool:
        return any(kind_of(sentence) == kind for sentence in run(world, script).found)

    return shrunk(world_of(seed), script_of(seed), fails)


def kind_of(sentence: str) -> str:
    """A finding without the names in it."""
    kept = [word for word in sentence.split() if not any(x.isdigit() or x in "/[]" for x in word)]
    return " ".join(kept[:6])
