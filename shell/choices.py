"""What of rows is shown and in which order, by the names that people use: titles of columns, other
words for them, field paths. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import click

from shell import fields
from shell.measures import parse_size
from shell.render import TABLE, Column, View

_DIRECTIONS = {"asc": False, "desc": True}
_DIGITS = re.compile(r"(\d+)")
_UNNAMED = str.maketrans("-_", "  ")


class Unknown(click.UsageError):
    """A name that stands for no column and no field. near: what was probably meant."""

    def __init__(self, name: str, near: Sequence[str]) -> None:
        self.near = tuple(near)
        super().__init__(f"there is no column or field {name!r}{did_you_mean(near)}")


def did_you_mean(near: Sequence[str]) -> str:
    """ ". Did you mean 'a' or 'b'?"; "" when nothing was near."""
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else ""


def spelled(name: str) -> str:
    """A name of a column without what does not matter: case, hyphens, a plural."""
    return name.strip().translate(_UNNAMED).lower().removesuffix("s")


def column_named(columns: Sequence[Column], name: str) -> Column | None:
    """The column of that title or other name."""
    wanted = spelled(name)
    for column in columns:
        if wanted in (spelled(column.title), *map(spelled, column.also)):
            return column
    return None


def column_of(columns: Sequence[Column], kind: Any, name: str) -> Column:
    """The column of that name, or one made of a field path. Raises Unknown.

    kind: the descriptor of the rows; None when there are none to ask.
    """
    found = column_named(columns, name)
    if found is not None:
        return found
    if kind is None:
        raise Unknown(name, near(columns, kind, name))
    try:
        field = fields.find(kind, name.strip())
    except fields.UnknownField as error:
        raise Unknown(name, near(columns, kind, name, error.near)) from None
    return Column(
        name.strip().upper(),
        lambda row, view: field.text(row),
        right=field.is_number,
        elastic=field.many,
        path=field.path,
        plain=field.plain,
    )


def near(
    columns: Sequence[Column], kind: Any, name: str, first: Sequence[str] = ()
) -> Sequence[str]:
    """Names that were probably meant: titles first, then fields."""
    titles = {spelled(one): column.key for column in columns
              for one in (column.title, *column.also)}  # fmt: skip
    found = [titles[one] for one in get_close_matches(spelled(name), titles, 2, 0.6)]
    if not found and not first and kind is not None:
        known = fields.paths(kind)
        first = [p for p in known if p.rpartition(".")[2] == name] or get_close_matches(
            name, known, 2, 0.6
        )
    return list(dict.fromkeys([*found, *first]))[: fields.NEAR_MAX]


def picked(columns: Sequence[Column], kind: Any, names: str) -> list[Column]:
    """The columns of "name,state,spec.cpu.vcpus"; those after a "+" come after the usual ones.

    Raises Unknown.
    """
    usual = [column for column in columns if column.level == TABLE]
    chosen = usual if names.startswith("+") else []
    for name in filter(str.strip, names.removeprefix("+").split(",")):
        title = name.strip()
        found = column_of(columns, kind, title)
        chosen.append(replace(found, level=TABLE, elastic=found.elastic))
    if not chosen:
        raise click.UsageError("--columns names no column: write --columns name,state")
    return chosen


@dataclass(frozen=True, slots=True)
class SortKey:
    """One thing to sort by."""

    column: Column
    descending: bool


def sort_keys(columns: Sequence[Column], kind: Any, text: str) -> list[SortKey]:
    """What "-memory,name" or "memory desc, name" means. Raises Unknown and UsageError."""
    keys = []
    for part in filter(str.strip, text.split(",")):
        name, _, direction = part.strip().partition(" ")
        down = name.startswith("-")
        if direction.strip().lower() in _DIRECTIONS:
            down = down != _DIRECTIONS[direction.strip().lower()]
        elif direction:
            name, down = part.strip().removeprefix("-"), down
        keys.append(SortKey(column_of(columns, kind, name.lstrip("-+")), down))
    return keys


def ordered(rows: Sequence[Any], keys: Sequence[SortKey], view: View) -> list[Any]:
    """The rows in that order; those that tie stay as they were, those with nothing there come
    last."""
    found = list(rows)
    for key in reversed(keys):
        measured = [(_measure(row, key.column, view), row) for row in found]
        there = [pair for pair in measured if pair[0] is not None]
        there.sort(key=lambda pair: pair[0], reverse=key.descending)
        found = [row for _, row in there] + [row for value, row in measured if value is None]
    return found


def _measure(row: Any, column: Column, view: View) -> Any:
    """What a row is sorted by; None when there is nothing."""
    if not column.path:
        return _natural(column.value(row, view))
    field = fields.find(row.DESCRIPTOR, column.path)
    values = field.values(row)
    if not values or (field.leaf.enum_type is not None and not values[0]):
        return None
    if field.message in (fields.TIME, fields.DURATION):
        moment = values[0].seconds + values[0].nanos / 1e9
        return -moment if column.is_age else moment
    if field.is_number and field.leaf.enum_type is None and not field.many:
        return values[0]
    return field.text(row) or None


def _natural(text: str) -> Any:
    """A shown text as something to compare: sizes and numbers by how large they are."""
    if not text:
        return None
    first = text.split(" ")[0].split("/")[0].rstrip("%")
    try:
        return (0, float(first), text)
    except ValueError:
        pass
    try:
        return (0, float(parse_size(first)), text)
    except ValueError:
        parts = [int(one) if one.isdigit() else one for one in _DIGITS.split(text)]
        return (1, 0.0, [(isinstance(one, str), one) for one in parts])


def order_by(keys: Sequence[SortKey], kind: Any) -> str | None:
    """The same order in the contract's language; None when only this side can tell: the cluster
    begins with those that have nothing there, here they come last."""
    parts = []
    for key in keys:
        if not key.column.path:
            return None
        field = fields.find(kind, key.column.path)
        if field.many or field.leaf.enum_type is not None or field.is_message:
            return None
        down = key.descending != key.column.is_age
        if not down and field.path != "name":
            return None
        parts.append(f"{field.path} desc" if down else field.path)
    return ", ".join(parts)
