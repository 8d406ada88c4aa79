"""Makes a failing story smaller: drops whatever it fails without, until nothing can be dropped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulator.world import Deed, Script, World

Fails = Callable[[World, Script], bool]
TRIES_MAX = 400


def shrunk(world: World, script: Script, fails: Fails) -> tuple[World, Script]:
    """A story that still fails and of which no line can be left out; or as far as it came."""
    budget = [TRIES_MAX]

    def still(other_world: World, other: Script) -> bool:
        budget[0] -= 1
        return budget[0] >= 0 and fails(other_world, other)

    script = _fewer_deeds(world, script, still)
    world = _fewer_vms(world, script, still)
    script = _fewer_deeds(world, script, still)
    return _fewer_nodes(world, script, still), script


def _fewer_deeds(world: World, script: Script, still: Fails) -> Script:
    """Halves first, then single lines."""
    size = max(len(script) // 2, 1)
    while size:
        start = 0
        while start < len(script):
            fewer = script[:start] + script[start + size :]
            if still(world, fewer):
                script = fewer
            else:
                start += size
        size //= 2
    return script


def _fewer_vms(world: World, script: Script, still: Fails) -> World:
    for vm in world.vms:
        fewer = replace(world, vms=tuple(other for other in world.vms if other.name != vm.name))
        if not _names(script, vm.name) and still(fewer, script):
            world = fewer
    return world


def _fewer_nodes(world: World, script: Script, still: Fails) -> World:
    for node in world.nodes[1:]:
        fewer = replace(world, nodes=tuple(x for x in world.nodes if x.name != node.name))
        if not _names(script, node.name) and still(fewer, script):
            world = fewer
    return world


def _names(script: tuple[Deed, ...], name: str) -> bool:
    return any(name in deed.words for deed in script)
