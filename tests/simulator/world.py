"""What a simulation begins with, as text and as values.

    seed 7
    locks on
    node n1 memory=8192 cpus=8
    vm web memory=1024 priority=900

A line for each node and VM, `key=value` for all that is not as usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NODE_DEFAULTS: Mapping[str, str] = {"memory": "8192", "cpus": "8", "skew": "0", "rate": "1"}
VM_DEFAULTS: Mapping[str, str] = {"memory": "1024", "power": "on"}


@dataclass(frozen=True, slots=True)
class Thing:
    """A node or VM with what is said of it."""

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def text(self, kind: str, defaults: Mapping[str, str]) -> str:
        said = [f"{k}={v}" for k, v in self.facts.items() if defaults.get(k) != v]
        return " ".join((kind, self.name, *said))


@dataclass(frozen=True, slots=True)
class World:
    """The beginning."""

    seed: int = 0
    nodes: tuple[Thing, ...] = ()
    vms: tuple[Thing, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    """Of the whole: locks=on|off, timeout=SECONDS, and fields of the cluster's spec."""

    def option(self, name: str, default: str) -> str:
        return self.options.get(name, default)


def parse(text: str) -> World:
    """Reads a world. Raises ValueError naming the line."""
    seed, nodes, vms, options = 0, [], [], {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        match words:
            case []:
                continue
            case ["seed", number]:
                seed = int(number)
            case ["node", name, *rest]:
                nodes.append(Thing(name, {**NODE_DEFAULTS, **facts(rest)}))
            case ["vm", name, *rest]:
                vms.append(Thing(name, {**VM_DEFAULTS, **facts(rest)}))
            case [option, value]:
                options[option] = value
            case _:
                raise ValueError(f"not a line of a world: {line!r}")
    return World(seed, tuple(nodes), tuple(vms), options)


def spelled(world: World) -> str:
    """The text of a world."""
    lines = [f"seed {world.seed}", *(f"{k} {v}" for k, v in world.options.items())]
    lines += [node.text("node", NODE_DEFAULTS) for node in world.nodes]
    lines += [vm.text("vm", VM_DEFAULTS) for vm in world.vms]
    return "\n".join(lines) + "\n"


def facts(words: list[str]) -> dict[str, str]:
    """`key=value` words."""
    for word in words:
        if "=" not in word:
            raise ValueError(f"{word!r} is not key=value")
    return dict(word.split("=", 1) for word in words)


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done to the cluster, or asked of it: "at 12.0 cut n2"."""

    time: float
    words: tuple[str, ...]

    def text(self) -> str:
        return f"at {self.time:g} {' '.join(self.words)}"


Script = tuple[Deed, ...]


def parse_script(text: str) -> Script:
    """Reads a script. Raises ValueError naming the line."""
    deeds = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0] != "at" or len(words) < 3:
            raise ValueError(f"not a line of a script: {line!r}")
        deeds.append(Deed(float(words[1]), tuple(words[2:])))
    return tuple(sorted(deeds, key=lambda deed: deed.time))


def spelled_script(script: Script) -> str:
    return "".join(deed.text() + "\n" for deed in script)
