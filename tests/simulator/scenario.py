"""Scenario folders: README.md says why, world.txt what it begins with, script.txt what happens,
expected.log what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.simulator.run import Result, run
from tests.simulator.world import (
    Script,
    World,
    parse,
    parse_script,
    spelled,
    spelled_script,
)

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def expected(self) -> Path:
        return self.folder / "expected.log"

    def world(self) -> World:
        return parse((self.folder / "world.txt").read_text())

    def script(self) -> Script:
        return parse_script((self.folder / "script.txt").read_text())

    def run(self) -> Result:
        return run(self.world(), self.script(), stop_early=False)

    def accept(self) -> Result:
        """Keeps the log as it is now: read it, it must show the right story."""
        result = self.run()
        self.expected.write_text(told(result))
        return result


def all_scenarios() -> list[Scenario]:
    return [Scenario(path.parent) for path in sorted(FOLDER.glob("*/world.txt"))]


def told(result: Result) -> str:
    """The log as it is kept."""
    return "\n".join(result.story) + "\n"


def keep(folder: Path, why: str, world: World, script: Script, result: Result) -> None:
    """Writes a scenario folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(why)
    (folder / "world.txt").write_text(spelled(world))
    (folder / "script.txt").write_text(spelled_script(script))
    (folder / "expected.log").write_text(told(result))
