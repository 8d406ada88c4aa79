"""`where state=running memory>2G`: a filter as `--filter` has it, asked of rows that are there
already. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import click

from shell import fields
from shell.choices import column_of
from shell.fields import Field
from shell.language.words import Word, tokens
from shell.measures import MIB, parse_size, parse_span
from shell.render import Column, View

Test = Callable[[Any, View], bool]
"""Whether a row is wanted."""

_COMPARING: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_UNITS: dict[str, Callable[[str], float]] = {
    "_mib": lambda text: parse_size(text) / MIB,
    "_bytes": parse_size,
    "_s": parse_span,
    "_ms": lambda text: parse_span(text) * 1000,
}
_CONNECTIVES = ("AND", "OR", "NOT")


class BadCondition(click.UsageError):
    """A condition that cannot be understood."""

    def __init__(self, what: str) -> None:
        super().__init__(f"where: {what}")


def condition(words: Sequence[Word], columns: Sequence[Column], kind: Any) -> Test:
    """The test that the words of a condition are. Raises BadCondition, Unknown.

    kind: the descriptor of the rows; None when they have none.
    """
    return _Reader(_unpacked(words), columns, kind).whole()


def checked(words: Sequence[Word]) -> None:
    """Raises BadCondition for what no rows could make sense of."""
    _Reader(_unpacked(words), None, None).whole()


def _unpacked(words: Sequence[Word]) -> list[Word]:
    """The words of a condition that was put in quotes as a whole."""
    if len(words) == 1 and words[0].is_quoted:
        inside = list(tokens(f"|where {words[0].text}"))[2:]
        if all(isinstance(one, Word) for one in inside):
            return [one for one in inside if isinstance(one, Word)]
        raise BadCondition(f"{words[0].text!r} has something in it that compares nothing")
    return list(words)


class _Reader:
    """Reads a condition from left to right. OR binds closer than AND, as in filters."""

    def __init__(self, words: list[Word], columns: Sequence[Column] | None, kind: Any) -> None:
        self._words, self._columns, self._kind = words, columns, kind
        self._at = 0

    def whole(self) -> Test:
        if not self._words:
            raise BadCondition("a condition must follow, such as state=running")
        found = self._every()
        if self._at < len(self._words):
            raise BadCondition("there is no parenthesis that ) closes")
        return found

    def _every(self) -> Test:
        parts = [self._any()]
        while self._at < len(self._words) and not self._sees(")"):
            self._takes("AND")
            parts.append(self._any())
        return lambda row, view: all(part(row, view) for part in parts)

    def _any(self) -> Test:
        parts = [self._term()]
        while self._takes("OR"):
            parts.append(self._term())
        return lambda row, view: any(part(row, view) for part in parts)

    def _term(self) -> Test:
        if self._takes("NOT"):
            inner = self._term()
            return lambda row, view: not inner(row, view)
        if self._takes("("):
            inside = self._every()
            if not self._takes(")"):
                raise BadCondition("a parenthesis is not closed")
            return inside
        return self._comparison()

    def _comparison(self) -> Test:
        name = self._next("the name of a column or field")
        if name.is_operator or (name.text in _CONNECTIVES and not name.is_quoted):
            raise BadCondition(f"the name of a column or field should be where {name.text} is")
        title, colon, rest = name.text.partition(":")
        if colon and not name.is_quoted:
            operator = ":"
            values = [rest] if rest else [self._next(f"a value after {title}:").text]
        else:
            title, operator = name.text, self._operator(name.text)
            values = self._values(self._next(f"a value after {name.text} {operator}"))
        if self._columns is None:
            return lambda row, view: True
        return _test(column_of(self._columns, self._kind, title), self._kind, operator, values)

    def _operator(self, name: str) -> str:
        found = self._words[self._at] if self._at < len(self._words) else None
        if found is None or not found.is_operator or found.text in "()":
            raise BadCondition(f"after {name} should be one of = != < <= > >= : ~")
        self._at += 1
        return "=" if found.text == "==" else found.text

    def _values(self, word: Word) -> list[str]:
        if word.is_operator:
            raise BadCondition(f"a value should be where {word.text} is")
        return [word.text] if word.is_quoted else word.text.split(",")

    def _next(self, what: str) -> Word:
        if self._at >= len(self._words):
            raise BadCondition(f"{what} is missing at the end")
        self._at += 1
        return self._words[self._at - 1]

    def _sees(self, text: str) -> bool:
        if self._at >= len(self._words):
            return False
        word = self._words[self._at]
        return word.text == text and not word.is_quoted

    def _takes(self, text: str) -> bool:
        found = self._sees(text)
        self._at += found
        return found


@dataclass(frozen=True, slots=True)
class _Value:
    """What a row has, in the ways in which it may be asked for."""

    texts: tuple[str, ...]
    number: float | None = None


def _test(column: Column, kind: Any, operator: str, wanted: Sequence[str]) -> Test:
    """Whether what a column shows is one of several values, or none of them for !=."""
    field = fields.find(kind, column.path) if column.path and kind is not None else None
    tests = [_one(column, field, operator, one) for one in wanted]
    if operator == "!=":
        return lambda row, view: all(test(row, view) for test in tests)
    return lambda row, view: any(test(row, view) for test in tests)


def _one(column: Column, field: Field | None, operator: str, wanted: str) -> Test:
    if wanted == "*" and operator in ("=", ":", "!="):
        there = operator != "!="
        return lambda row, view: bool(_values(column, field, row, view)) is there
    if operator in (":", "~"):
        return lambda row, view: any(
            _contains(one, operator, wanted) for one in _values(column, field, row, view)
        )
    number = _number(column, field, wanted)
    compare = _COMPARING[operator]

    def test(row: Any, view: View) -> bool:
        values = _values(column, field, row, view)
        if operator == "!=":
            return not any(_equal(one, wanted, number) for one in values)
        if operator == "=":
            return any(_equal(one, wanted, number) for one in values)
        return any(_ordered(one, wanted, number, compare) for one in values)

    return test


def _contains(value: _Value, operator: str, wanted: str) -> bool:
    """`:` is for one of several things, `~` for a part of a text."""
    if operator == ":":
        return _equal(value, wanted, None) or wanted.lower() in value.texts[0].lower().split()
    return wanted.lower() in value.texts[0].lower()


def _equal(value: _Value, wanted: str, number: float | None) -> bool:
    if number is not None and value.number is not None:
        return value.number == number
    pattern = wanted.lower()
    return any(fnmatchcase(text.lower(), pattern.replace("[", "[[]")) for text in value.texts)


def _ordered(
    value: _Value, wanted: str, number: float | None, compare: Callable[[Any, Any], bool]
) -> bool:
    if number is not None and value.number is not None:
        return compare(value.number, number)
    return compare(value.texts[0], wanted)


def _values(column: Column, field: Field | None, row: Any, view: View) -> list[_Value]:
    """What a row has in a column; nothing where nothing is."""
    if field is None:
        text = column.value(row, view)
        return [_Value((text,), _measured(text))] if text else []
    found = []
    for value in field.values(row):
        if field.leaf.enum_type is not None and not value:
            continue
        if (told := _told(column, field, value, view)).texts[0]:
            found.append(told)
    return found


def _told(column: Column, field: Field, value: Any, view: View) -> _Value:
    if field.message == fields.TIME:
        seconds = value.seconds + value.nanos / 1e9
        return _Value((field.word(value),), view.now - seconds if column.is_age else seconds)
    if field.message == fields.DURATION:
        return _Value((field.word(value),), value.seconds + value.nanos / 1e9)
    word = field.word(value)
    if field.leaf.enum_type is not None:
        return _Value((word, word.replace(" ", "_"), word.replace(" ", "-")))
    if field.is_number:
        return _Value((word,), float(value))
    if field.is_boolean:
        return _Value((word, "true" if value else "false", "on" if value else "off"))
    return _Value((word, word.rpartition("/")[2], "/".join(word.split("/")[1::2])))


def _number(column: Column, field: Field | None, text: str) -> float | None:
    """What is wanted as a number, where the column has numbers. Raises BadCondition."""
    if field is None:
        return _measured(text)
    if field.message in (fields.TIME, fields.DURATION):
        return _moment(column, field, text)
    if not field.is_number or field.leaf.enum_type is not None:
        return None
    units = [unit for suffix, unit in _UNITS.items() if field.path.endswith(suffix)]
    for read in (float, *units):
        try:
            return float(read(text))
        except ValueError:
            continue
    raise BadCondition(f"{column.title.lower()} is a number, and {text!r} is none")


def _moment(column: Column, field: Field, text: str) -> float:
    """Seconds of an age, or of a time since the epoch."""
    try:
        if column.is_age or field.message == fields.DURATION:
            return float(parse_span(text))
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise BadCondition(f"{column.title.lower()}: {error}") from None


def _measured(text: str) -> float | None:
    """A shown text as a number: of a size, a time, or as it is."""
    for read in (float, parse_size, parse_span):
        try:
            return float(read(text.rstrip("%")))
        except ValueError:
            continue
    return None
