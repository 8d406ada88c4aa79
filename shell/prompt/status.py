"""The line at the bottom of a prompt: cluster, leader, nodes, VMs, operations, faults, connection,
keys. Pure: what it shows comes in, and what fits comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shell.live import Link
from shell.render import cells_wide, clean, cut

Fragments = list[tuple[str, str]]
NODES_UP = ("online", "draining", "drained")
VMS_UP = ("running", "paused", "stopping")


@dataclass(frozen=True, slots=True)
class Doing:
    """An operation that goes on."""

    text: str
    """"StartVm web"."""
    percent: int


@dataclass(frozen=True, slots=True)
class Picture:
    """All that the line shows of the cluster."""

    link: Link = Link.CONNECTING
    address: str = ""
    name: str = ""
    health: str = ""
    leader: str = ""
    nodes_up: int = 0
    nodes: int = 0
    vms_up: int = 0
    vms: int = 0
    newest: Doing | None = None
    operations: int = 0
    faults: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the keys at the prompt are set to."""

    vi: bool = False
    mode: str = ""
    """Of vi: "insert", "normal"."""
    help: bool = True
    context: str = ""


MISSED_FIRST = tuple(f"class:status.{one}" for one in ("context", "leader", "vms", "nodes"))
FAULT_CELLS = 24
"""A fault is cut no shorter, as long as something else can be left out."""
SEPARATOR = ("class:status.dim", " │ ")


def status_line(picture: Picture, keys: Keys, width: int) -> Fragments:
    """The line, as wide as the terminal: what matters least is left out when it does not fit."""
    right = key_hints(keys)
    parts = [part for part in parts_of(picture, keys) if part]
    room = width - 2 - _wide(right)
    if picture.faults and picture.link is Link.UP:
        parts = _fault_cut(parts, room)
    while len(parts) > 2 and _wide(joined(parts)) > room:
        if right:
            right, room = [], width - 2
            continue
        parts.pop(_least(parts))
    line = clipped(joined(parts), width - 2)
    gap = " " * max(width - 1 - _wide(line) - _wide(right), 1)
    return [("class:status", " "), *line, ("class:status", gap), *right]


def _fault_cut(parts: Sequence[Fragments], room: int) -> list[Fragments]:
    """The faults in what the others leave, but never too short to say anything."""
    fault = next(n for n, part in enumerate(parts) if part[0][0] == "class:status.fault")
    others = _wide(joined(parts)) - _wide(parts[fault])
    fits = clipped(parts[fault], max(room - others, FAULT_CELLS))
    return [*parts[:fault], fits, *parts[fault + 1 :]]


def _least(parts: Sequence[Fragments]) -> int:
    """What can be missed first: the counts, then what is done; the cluster and its faults never."""
    for style in MISSED_FIRST:
        for place, part in enumerate(parts):
            if part[0][0] == style:
                return place
    return len(parts) - 1


def parts_of(picture: Picture, keys: Keys) -> list[Fragments]:
    """The parts of the line, left to right."""
    if picture.link is not Link.UP or (picture.refused and not picture.name):
        known = bool(picture.name)
        shown = [_away(picture)]
        return [*shown, _counts(picture)] if known else shown
    return [
        _cluster(picture),
        _leader(picture),
        _nodes(picture),
        _vms(picture),
        _doing(picture),
        _faults(picture),
        [("class:status.context", keys.context)] if keys.context else [],
    ]


def _away(picture: Picture) -> Fragments:
    """What there is to say while there is no connection."""
    where = clean(picture.name or picture.address)
    match picture.link:
        case Link.CONNECTING:
            return [("class:status.busy", f"connecting to {where} …")]
        case Link.REFUSED | Link.UP:
            return [("class:status.bad", f"{where}: {clean(picture.refused)}")]
        case _:
            return [("class:status.bad", f"{where} is away, reconnecting …")]


def _cluster(picture: Picture) -> Fragments:
    style = {"ok": "good", "warning": "busy", "error": "bad"}.get(picture.health, "dim")
    health = (f"class:status.{style}", f" {picture.health}")
    return [("class:status.name", clean(picture.name)), health]


def _leader(picture: Picture) -> Fragments:
    if picture.leader:
        return [("class:status.leader", f"leader {clean(picture.leader)}")]
    return [("class:status.bad", "no leader")]


def _counts(picture: Picture) -> Fragments:
    return [("class:status.dim", f"last seen: {picture.nodes} nodes, {picture.vms} VMs")]


def _nodes(picture: Picture) -> Fragments:
    style = "class:status.nodes" if picture.nodes_up == picture.nodes else "class:status.bad"
    return [(style, f"nodes {picture.nodes_up}/{picture.nodes}")]


def _vms(picture: Picture) -> Fragments:
    return [("class:status.vms", f"VMs {picture.vms_up}/{picture.vms}")]


def _doing(picture: Picture) -> Fragments:
    if picture.newest is None:
        return []
    more = f" +{picture.operations - 1}" if picture.operations > 1 else ""
    shown = clean(picture.newest.text)
    return [("class:status.busy", f"{shown} {picture.newest.percent}%{more}")]


def _faults(picture: Picture) -> Fragments:
    if not picture.faults:
        return []
    more = f" +{len(picture.faults) - 1}" if len(picture.faults) > 1 else ""
    return [("class:status.fault", f"{clean(picture.faults[0])}{more}")]


def key_hints(keys: Keys) -> Fragments:
    """What the function keys do."""
    editing = f"vi {keys.mode}".rstrip() if keys.vi else "emacs"
    return [
        ("class:status.key", " F2"),
        ("class:status.dim", " help" if not keys.help else " hide help"),
        ("class:status.key", "  F4"),
        ("class:status.dim", f" {editing} "),
    ]


def joined(parts: Sequence[Fragments]) -> Fragments:
    """The parts with lines between them."""
    line: Fragments = []
    for part in parts:
        line += [SEPARATOR, *part] if line else part
    return line


def clipped(line: Fragments, width: int) -> Fragments:
    """As much of the line as fits."""
    fits: Fragments = []
    for style, text in line:
        left = width - _wide(fits)
        if left <= 0:
            break
        fits.append((style, cut(text, left)))
    return fits


def _wide(line: Fragments) -> int:
    return sum(cells_wide(text) for _, text in line)
