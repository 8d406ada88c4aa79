"""What may be written where rows are chosen, sorted and cut into columns: titles of columns,
fields, operators, values of enums; and what each means. Reads the contract, asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import click

from shell.prompt.kinds import GROUPS, KINDS

_PIECE = re.compile(r"""[^\s"',()=<>!:~+]*$""")
_COMPARED = re.compile(r"""([\w.-]+)\s*(?:!=|<=|>=|=|<|>|:|~)\s*(?:[^\s"'()]+,)*"?[^\s"'(),]*$""")
_FIELD_THERE = re.compile(r"""(?:^|[\s(])(?!AND\s|OR\s|NOT\s)[A-Za-z_][\w.-]*\s+$""")
_FINISHED = re.compile(r"""(?:=|<|>|:|~)\s*(?:"[^"]*"|[^\s"'()]+)\s+$""")
OPERATORS = (
    ("=", "is; stars are fine"),
    ("!=", "is not"),
    (":", "has it among several"),
    ("~", "has it somewhere in the text"),
    (">", "is more than"),
    ("<", "is less than"),
    (">=", "is at least"),
    ("<=", "is at most"),
)
JOINTS = (("OR", "one of both; nothing between two means both"), ("AND", "both"),
          ("NOT", "the opposite of what follows"))  # fmt: skip


class Use(Enum):
    """What is being written."""

    FILTER = "filter"
    SORT = "sort"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class Candidates:
    """What could take the place of a piece of a value."""

    piece: str
    """What is typed of it."""
    told: Sequence[tuple[str, str]] = ()
    """Texts, and what each means."""
    collection: str = ""
    """The names in this collection, instead."""


def candidates(use: Use, collection: str, typed: str) -> Candidates:
    """What could stand at the end of a filter, an order or a list of columns."""
    found = _PIECE.search(typed)
    piece = found.group() if found else ""
    before = typed[: len(typed) - len(piece)]
    if collection not in KINDS:
        return Candidates(piece)
    if use is Use.FILTER:
        return _in_filter(collection, typed, before, piece)
    if use is Use.SORT:
        piece = piece.removeprefix("-")
    return Candidates(piece, [*titles(collection), *paths(collection)])


def _in_filter(collection: str, typed: str, before: str, piece: str) -> Candidates:
    if found := _COMPARED.search(typed):
        return _values(collection, found[1], piece)
    if _FINISHED.search(before):
        return Candidates(piece, [*JOINTS[:1], *titles(collection), *paths(collection)])
    if _FIELD_THERE.search(before):
        return Candidates(piece, OPERATORS)
    return Candidates(piece, [*titles(collection), *paths(collection), *JOINTS[2:]])


def _values(collection: str, name: str, piece: str) -> Candidates:
    """What a field may be, where the contract lists it or names are known."""
    field = field_of(collection, name)
    if field is None:
        return Candidates(piece)
    if field.leaf.enum_type is not None:
        return Candidates(piece, enum_values(field.leaf.enum_type))
    if field.is_boolean:
        return Candidates(piece, (("yes", ""), ("no", "")))
    inner = {"pools/volumes": "volumes"}.get(field.resource, field.resource)
    if field.path == "name":
        inner = collection
    elif inner not in KINDS:  # what only services write has no rules, but a telling name
        inner = GROUPS.get(field.path.rpartition(".")[2], "")
    return Candidates(piece, (), inner)


_NAMES = re.compile(r"[A-Za-z_][\w.-]*")


def subject(use: Use, collection: str, typed: str) -> tuple[str, Any] | None:
    """The field that the end of a filter, an order or a list of columns is about, with its name as
    it is written; None where that is none."""
    compared = _COMPARED.search(typed) if use is Use.FILTER else None
    names = [compared[1]] if compared else _NAMES.findall(typed)[-1:]
    if collection not in KINDS or not names:
        return None
    field = field_of(collection, names[0])
    return None if field is None else (names[0], field)


def field_text(field: Any) -> str:
    """All that the contract says of a field."""
    from shell.contract.texts import texts

    return texts().get(f"{field.leaf.containing_type.full_name}.{field.leaf.name}", "")


def field_of(collection: str, name: str) -> Any:
    """The field that a column's title or a path stands for; None for none."""
    from shell import fields
    from shell.choices import column_named

    column = column_named(columns(collection), name)
    try:
        return fields.find(
            KINDS[collection].type().DESCRIPTOR, column.path if column and column.path else name
        )
    except fields.UnknownField:
        return None


@cache
def titles(collection: str) -> Sequence[tuple[str, str]]:
    """The columns of a kind of rows as they are written, with what the field of each means."""
    found = []
    for column in columns(collection):
        field = field_of(collection, column.path) if column.path else None
        found.append((column.key, _meaning(field) if field is not None else "a column"))
    return tuple(found)


def columns(collection: str) -> Sequence[Any]:
    """The columns of a kind of rows."""
    from shell import columns as of
    from shell import node_columns

    kind = KINDS[collection]
    if not kind.columns:
        return node_columns.columns(node_columns.Around())
    found: Sequence[Any] = getattr(of, kind.columns)
    return found


@cache
def paths(collection: str) -> Sequence[tuple[str, str]]:
    """The fields of a kind of rows by their paths, with what each means; the user's own first."""
    from shell import fields

    kind = KINDS[collection].type().DESCRIPTOR
    found = sorted(fields.paths(kind), key=_rank)
    return tuple((path, _meaning(fields.find(kind, path))) for path in found if path != "name")


ORDER = ("spec", "status", "decision", "meta")


def _rank(path: str) -> int:
    first = path.partition(".")[0]
    return ORDER.index(first) if first in ORDER else 0


def _meaning(field: Any) -> str:
    from shell.contract.texts import texts

    owner = field.leaf.containing_type
    if owner.GetOptions().map_entry:
        return ""
    return short(texts().get(f"{owner.full_name}.{field.leaf.name}", ""))


def enum_values(enum: Any) -> Sequence[tuple[str, str]]:
    """The values of an enum as they are written, and what each means."""
    from shell.contract.texts import value_text
    from shell.fields import enum_words

    named = [value for value in enum.values if value.number]
    words = enum_words(enum)
    pairs = zip(words, named, strict=True)
    return tuple((word, short(value_text(enum, value.name))) for word, value in pairs)


def short(text: str) -> str:
    """As much of a text as fits beside a name: its first sentence."""
    return re.split(r"(?<=[a-z0-9)\"])[.:;] ", text, maxsplit=1)[0].rstrip(".")


STATE_PATHS = ("status.state", "decision.state", "state")


def state_values(collection: str) -> Sequence[tuple[str, str]]:
    """The states that rows of a kind may be in."""
    if collection not in KINDS:
        return ()
    found = (field_of(collection, path) for path in STATE_PATHS)
    return next((enum_values(one.leaf.enum_type) for one in found if one is not None), ())


FORMATS = {
    "table": "columns, as wide as the terminal",
    "wide": "more columns",
    "json": "everything, for programs",
    "yaml": "everything, for reading",
    "csv": "columns, for spreadsheets",
    "name": "names alone, one a line",
}


def meaning(parameter: click.Parameter, value: str) -> str:
    """What a choice of a parameter means, where the contract says so."""
    if parameter.name == "format":
        return FORMATS.get(value, "")
    choices = getattr(parameter.type, "choices", ())
    enum = _enum_of(frozenset(map(_spelled, map(str, choices))))
    return enum.get(_spelled(value), "")


def _spelled(value: str) -> str:
    return value.lower().replace("-", "_")


@cache
def _enum_of(choices: frozenset[str]) -> Mapping[str, str]:
    """The meanings of the enum that has all these values, and as few others as can be."""
    from google.protobuf import descriptor_pool

    from shell.contract.texts import texts

    if len(choices) < 2:
        return {}
    pool, best, fewest = descriptor_pool.Default(), None, 0
    for name in {name.rpartition(".")[0] for name in texts() if name.rpartition(".")[2].isupper()}:
        try:
            enum = pool.FindEnumTypeByName(name)
        except KeyError:
            continue
        words = {_spelled(word) for word, _ in enum_values(enum)}
        if choices <= words and (best is None or len(words) < fewest):
            best, fewest = enum, len(words)
    return {_spelled(word): told for word, told in enum_values(best)} if best else {}
