"""What a small change costs a cluster as it grows, in processor time of all that PVC does because
of it: `python -m bench.growth`."""

from __future__ import annotations

import asyncio
import itertools
import sys

from bench.callers import Ask, GrpcCaller
from bench.doors import VM_SERVICE, calm, described, door_of
from bench.figures import Figure, Line
from bench.ground import Ground, name_of
from bench.idle import cpu_s
from bench.programs import alone
from tests.system.rig import Rig

SIZES = (100, 1_000, 5_000)
TURNS = 3
CHANGES = 30
APART_S = 0.25
"""From the end of one change to the next, so that no work is done for two of them at once."""


def measure(ground: Ground) -> list[Line]:
    """Each number of VMs beside the smallest."""
    lines: list[Line] = []
    first: dict[str, Figure] = {}
    for vms in SIZES:
        for how, cost in asyncio.run(costs(ground.pvc(vms))).items():
            least = first.setdefault(how, cost)
            what = f"a changed description among {vms:,} VMs, {how}"
            lines.append(Line(what, "CPU ms", cost, f"among {SIZES[0]}", least))
    return lines


async def costs(rig: Rig) -> dict[str, Figure]:
    """Milliseconds of pvcd's processor time for each change, until all is calm again."""
    door = door_of(rig)
    caller, names = GrpcCaller(door), itertools.cycle(map(name_of, range(100)))
    ask = caller.asker(f"{VM_SERVICE}/UpdateVm", map(described, names))
    found: dict[str, list[float]] = {"one by one": [], f"{APART_S:g} s apart": []}
    assert rig.process is not None
    for _ in range(TURNS):
        for samples, pause_s in zip(found.values(), (0.0, APART_S), strict=True):
            await calm(door)
            before = cpu_s(rig.process.pid)
            await changed(ask, pause_s)
            await calm(door)
            samples.append((cpu_s(rig.process.pid) - before) * 1000 / CHANGES)
    await caller.close()
    return {how: Figure(tuple(samples)) for how, samples in found.items()}


async def changed(ask: Ask, pause_s: float) -> None:
    """Some changes, one after the other."""
    for _ in range(CHANGES):
        await ask()
        await asyncio.sleep(pause_s)


if __name__ == "__main__":
    sys.exit(alone(measure))
