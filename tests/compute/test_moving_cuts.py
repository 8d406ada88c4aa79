"""An agent dies during a migration, at any call to its hypervisor or at any commit, on either side;
a fresh one comes later. The VM runs at most once at any moment, and once in the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from services.state.memory import MemoryStore
from tests.compute.fake_hypervisor import Cut
from tests.compute.moving import Pair, Side

AWAY_ROUNDS = (0, 40)
"""How long nobody takes the place of the agent that died."""


class CutStore(MemoryStore):
    """A store whose process ends before or after one of its commits."""

    def __init__(self, cluster: Any, at: int, after: bool) -> None:
        super().__init__(cluster)
        self.left, self.after = at, after

    def commit(self, changes: Any, held_by: Any = None) -> int:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Cut
        revision = super().commit(changes, held_by)
        if self.left == 0:
            raise Cut
        return revision


def moves(pair: Pair) -> None:
    pair.source.hypervisor.script("web").copying_s = 1
    pair.move()


def moves_with_help(pair: Pair) -> None:
    pair.source.hypervisor.script("web").needs_downtime_ms = 200
    pair.source.hypervisor.script("web").needs_throttle = True
    pair.move()


def is_cancelled(pair: Pair) -> None:
    pair.source.hypervisor.script("web").copying_s = 30
    pair.move()
    pair.until(lambda: pair.wire.trips)
    pair.cancel()


def is_interrupted(pair: Pair) -> None:
    pair.source.hypervisor.script("web").copying_s = 30
    pair.move()
    pair.until(lambda: pair.wire.trips)
    pair.source.hypervisor.interrupt("web")


def is_interrupted_late(pair: Pair) -> None:
    is_interrupted(pair)
    pair.target.hypervisor.resume("web")


STORIES: list[Callable[[Pair], None]] = [
    moves, moves_with_help, is_cancelled, is_interrupted, is_interrupted_late,
]  # fmt: skip


def arm_hypervisor(side: Side, at: int) -> Callable[[], None]:
    """The agent dies at the n-th call, before it is made."""
    calls = iter(range(1, 100_000))

    def die(call: str) -> None:
        if call != "domains" and next(calls) == at:
            raise Cut

    side.hypervisor.before = die
    return lambda: setattr(side.hypervisor, "before", lambda call: None)


def arm_store(side: Side, at: int, after: bool) -> Callable[[], None]:
    side.start(CutStore(side.pair.cluster, at, after))
    return lambda: None


def ends_well(pair: Pair, side: Side, disarm: Callable[[], None], away: int) -> bool:
    """Goes on until the cut, and with a fresh agent after it; False if it never came."""
    cut = False
    try:
        for _ in range(60):
            pair.round()
    except Cut:
        cut = True
        side.stop()
    disarm()
    for _ in range(away if cut else 0):
        pair.round()
    side.start()
    pair.calm(1200)
    (name,) = pair.runs_on()
    pair.is_at(name)
    assert vm_pb2.VM_STATE_CRASHED not in [state for _, state in pair.states]
    return cut


@pytest.mark.parametrize("away", AWAY_ROUNDS)
@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_cut_at_every_call_to_the_hypervisor(
    tmp_path: Path, story: Callable[[Pair], None], which: str, away: int
) -> None:
    for at in range(1, 200):
        pair = Pair(tmp_path / str(at))
        side: Side = getattr(pair, which)
        story(pair)
        if not ends_well(pair, side, arm_hypervisor(side, at), away):
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("away", AWAY_ROUNDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("which", ["source", "target"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_cut_at_every_commit(
    tmp_path: Path, story: Callable[[Pair], None], which: str, after: bool, away: int
) -> None:
    for at in range(1, 60):
        pair = Pair(tmp_path / str(at))
        side: Side = getattr(pair, which)
        story(pair)
        if not ends_well(pair, side, arm_store(side, at, after), away):
            assert at > 1
            return
    raise AssertionError("it never came to an end")
