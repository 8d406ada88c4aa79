"""The help pane: what there is to know about the word under the cursor, fitted into a few lines.
Pure, but that it reads the help of commands and the rows in memory.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from shell.language.cursor import Spot as Where
from shell.prompt import queries
from shell.prompt.kinds import KINDS
from shell.prompt.offers import (
    Spot,
    collection_at,
    matching,
    option_offers,
    use_of,
    written_so_far,
)
from shell.prompt.offers import command_offers as commands_in
from shell.render import View, cells_wide, clean, cut, titled
from shell.suggest import Slot, option_named

Line = list[tuple[str, str]]
FindRow = Callable[[str, str], Any]
"""(collection, name) → its row as far as it is kept, or None."""

LINES_MAX = 7
NARROW = 40
HINTS = ("Tab completes", "Ctrl-R finds earlier lines", "exit leaves")
LEFT_OUT = ("AGE", "UPTIME", "NAME")
"""Columns that change by themselves, or say what is known."""
TITLE, TEXT, DIM, STRONG = "class:pane.title", "class:pane", "class:pane.dim", "class:pane.strong"


def pane(spot: Spot, find: FindRow, width: int, height: int) -> list[Line]:
    """At most so many lines about what is under the cursor; the last says when there is more."""
    lines = list(_told(spot, find, max(width - 2, NARROW)))
    room = max(min(height, LINES_MAX), 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], [(DIM, f"… {_more(spot)}")]]
    return [clipped(line, width - 1) for line in lines]


def _more(spot: Spot) -> str:
    """Where all of it is."""
    return f"{' '.join(spot.place.path)} --help tells all".strip()


def clipped(line: Line, width: int) -> Line:
    """The line behind one blank, cut where the terminal ends."""
    fits: Line = [(TEXT, " ")]
    for style, text in line:
        left = width - sum(cells_wide(one) for _, one in fits)
        if left > 0:
            fits.append((style, cut(clean(text), left)))
    return fits


def _told(spot: Spot, find: FindRow, width: int) -> Iterator[Line]:
    place = spot.place
    match spot.cursor.spot, place.slot:
        case (Where.COMMENT, _):
            yield [(TEXT, "A comment: nothing of it is run.")]
        case (Where.FOREIGN, _):
            yield [(TEXT, "A command of this machine: what came before is what it reads.")]
        case (Where.FILE, _):
            yield [(TEXT, "The file that the answer goes to.")]
        case (_, Slot.OPTION):
            yield from _option(spot, width)
        case (_, Slot.VALUE):
            yield from _value(spot, find, width)
        case (_, Slot.COMMAND):
            yield from _command(_command_at(spot), width)
        case (_, Slot.LOST):
            yield [(STRONG, "There is no such command here.")]
            yield from _command(place.context, width)
        case _:
            yield from _command(place.context, width)


def _command_at(spot: Spot) -> click.Context:
    """The command that is typed, or would best fit: of the context's group before all others."""
    place = spot.place
    if spot.near is not None and place.typed:
        found = _named(spot.near, place.typed)
        if found is not spot.near:
            return found
    return _named(place.context, place.typed)


def _named(context: click.Context, typed: str) -> click.Context:
    """The context of the command that is typed, or would best fit; the group's when none does."""
    group = context.command
    if not typed or not isinstance(group, click.Group):
        return context
    found = group.get_command(context, typed)
    if found is None:
        first = next(matching(commands_in(context), typed), None)
        found = group.get_command(context, first.text) if first else None
    return context if found is None else click.Context(found, context, found.name)


def _command(context: click.Context, width: int) -> Iterator[Line]:
    """What a command is for, how it is written, examples."""
    if context.parent is None:
        yield [(TITLE, "Type a command"), (DIM, "  ".join(("", *HINTS)))]
        yield from _groups(context, width)
        return
    command = context.command
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece]
    yield [(TITLE, context.command_path.partition(" ")[2]), (DIM, f"  {' '.join(pieces)}")]
    first = (command.help or "").strip().partition("\n\n")[0]
    yield from wrapped(" ".join(first.split()), width, TEXT)
    for example in getattr(command, "examples", ()):
        yield [(DIM, "e.g.  "), (STRONG, example.removeprefix("pvc "))]
    if isinstance(command, click.Group):
        yield from _groups(context, width)


def _groups(context: click.Context, width: int) -> Iterator[Line]:
    """The names of the commands there are."""
    yield from wrapped("  ".join(offer.text for offer in commands_in(context)), width, TEXT)


def _option(spot: Spot, width: int) -> Iterator[Line]:
    place = spot.place
    name = place.typed.partition("=")[0]
    option = option_named(place.context, name)
    if option is None:
        fits = [offer.text for offer in matching(option_offers(place), name)]
        option = option_named(place.context, fits[0]) if fits and name.strip("-") else None
    if option is None:
        yield from _command(place.context, width)
    else:
        yield from _parameter(option, place.context, width)


def _parameter(one: click.Parameter, context: click.Context, width: int) -> Iterator[Line]:
    """An option or argument: how it is written, its type, its default, what it is for."""
    if isinstance(one, click.Option):
        spelled = " ".join([*one.opts, *one.secondary_opts])
        value = "" if one.is_flag or one.count else one.make_metavar(context)
    else:
        spelled, value = one.make_metavar(context), ""
    title: Line = [(TITLE, spelled), (STRONG, f" {value}".rstrip())]
    if told := ", ".join(_manners(one)):
        title.append((DIM, f"  {told}"))
    yield title
    text = getattr(one, "help", "") or (context.command.help or "").strip().partition("\n\n")[0]
    yield from wrapped(" ".join(text.split()), width, TEXT)


def _manners(one: click.Parameter) -> Iterator[str]:
    """What else there is to know: "may be given several times"."""
    if one.required and isinstance(one, click.Option):
        yield "needed"
    if one.multiple or one.nargs == -1:
        yield "may be given several times"
    default = one.default
    if isinstance(default, bool) and isinstance(one, click.Option) and one.secondary_opts:
        yield f"default {(one.opts if default else one.secondary_opts)[0]}"
    elif isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        yield f"default {default}"


def _value(spot: Spot, find: FindRow, width: int) -> Iterator[Line]:
    """A value: of a live name what it is like; else what the parameter takes."""
    place, parameter = spot.place, spot.place.awaited
    assert parameter is not None, "a value belongs to a parameter"
    collection = collection_at(spot, parameter)
    typed = place.typed or (place.arguments[-1] if place.arguments and collection else "")
    row = find(collection, typed) if collection and typed else None
    if row is not None:
        yield [(TITLE, typed), (DIM, f"  {KINDS[collection].singular}")]
        yield from flowed(facts(row, collection), width)
        return
    use = use_of(spot, parameter)
    if use is not None and (about := queries.subject(use, spot.collection, written_so_far(spot))):
        yield from _field(*about, width)
        return
    yield from _parameter(parameter, place.context, width)
    if isinstance(parameter.type, click.Choice):
        yield from _choices(parameter, place.typed, width)
    elif not isinstance(parameter, click.Option):
        yield from _examples(place.context)


def _field(name: str, field: Any, width: int) -> Iterator[Line]:
    """A field of rows: what it means, and what it may be."""
    text = queries.field_text(field)
    path = "" if name == field.path else f"  {field.path}"
    yield [(TITLE, name), (DIM, path)]
    yield from wrapped(text, width, TEXT)
    enum = field.leaf.enum_type
    for word, meaning in queries.enum_values(enum) if enum is not None else ():
        yield [(STRONG, f"{word:<14}"), (DIM, meaning)]


def _choices(parameter: click.Parameter, typed: str, width: int) -> Iterator[Line]:
    """What it may be: the one that is typed first."""
    assert isinstance(parameter.type, click.Choice)
    told = [(str(one), queries.meaning(parameter, str(one))) for one in parameter.type.choices]
    for value, meaning in sorted(told, key=lambda pair: pair[0] != typed):
        style = STRONG if value == typed else TEXT
        yield [(style, f"{value:<14}"), (DIM, meaning)]


def _examples(context: click.Context) -> Iterator[Line]:
    for example in getattr(context.command, "examples", ()):
        yield [(DIM, "e.g.  "), (STRONG, example.removeprefix("pvc "))]


def facts(row: Any, collection: str) -> list[tuple[str, str]]:
    """What the columns of a table say of a row, with their titles."""
    view = View("wide", 200)
    kind_of = [c for c in queries.columns(collection) if c.level <= 1 and c.title not in LEFT_OUT]
    told = [(titled(column.title), clean(column.value(row, view))) for column in kind_of]
    return [(title, text) for title, text in told if text]


def flowed(pairs: Sequence[tuple[str, str]], width: int) -> Iterator[Line]:
    """Titles and texts one after the other, in as few lines as fit."""
    line: Line = []
    for title, text in pairs:
        piece = [(DIM, f"{title} "), (STRONG, text)]
        there = sum(cells_wide(one) for _, one in line)
        if line and there + 3 + cells_wide(title) + 1 + cells_wide(text) > width:
            yield line
            line = []
        line += [(TEXT, "   "), *piece] if line else piece
    if line:
        yield line


def wrapped(text: str, width: int, style: str) -> Iterator[Line]:
    """A text in lines."""
    for line in textwrap.wrap(text, width):
        yield [(style, line)]
