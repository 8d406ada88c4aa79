"""The simulator finds nothing in the seeds of every day, tells the same story twice, and is not
blind: each planted mistake is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.faults import script_of, world_of
from tests.simulator.planted import PLANTED, Planted
from tests.simulator.scenario import Scenario, all_scenarios, told
from tests.simulator.seeds import run_chunk, run_seed
from tests.simulator.world import parse, parse_script, spelled, spelled_script

pytestmark = pytest.mark.timeout(1800)
SEEDS = 500
PART = 50


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_seeds_find_nothing(first: int) -> None:
    tally = run_chunk(list(range(first, first + PART)))
    assert not tally.findings, f"python -m tests.simulator --show {tally.findings[0].seed}"


@pytest.mark.parametrize("scenario", all_scenarios(), ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario) -> None:
    result = scenario.run()
    assert told(result) == scenario.expected.read_text(), (
        f"python -m tests.simulator --accept {scenario.name}, and read what changed"
    )
    assert not result.found
    assert (scenario.folder / "README.md").read_text().strip()


def test_the_same_seed_tells_the_same_story() -> None:
    """In other processes too, whose sets and hashes come in another order."""
    tell = "from tests.simulator.seeds import run_seed; print('\\n'.join(run_seed({}).log))"
    for seed in (4, 11):
        logs = {
            subprocess.run(
                [sys.executable, "-c", tell.format(seed)],
                env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": ":".join(sys.path)},
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                check=True,
                timeout=600,
            ).stdout
            for hashes in ("1", "2")
        }
        assert logs == {"\n".join(run_seed(seed).log) + "\n"}


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_mistake_is_found(planted: Planted) -> None:
    """By what is known to find it; after a change of the code by another seed."""
    found = planted.found()
    if not found:
        with planted.plant():
            found = next((x for seed in range(SEEDS) if (x := run_seed(seed).found)), [])
    assert found, f"{planted.name} is found by none of {SEEDS} seeds"


def test_worlds_and_scripts_are_text() -> None:
    for seed in range(20):
        assert parse(spelled(world_of(seed))) == world_of(seed)
        assert parse_script(spelled_script(script_of(seed))) == script_of(seed)
