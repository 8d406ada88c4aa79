"""Filters as people write them, put into the contract's language: `state=running memory>2G tag:web`
becomes `status.state = "running" AND spec.memory.memory_mib > "2048" AND spec.tags : "web"`. Pure.

The contract's own language passes through; what is wrong is shown where it stands. What an enum
may be and the like is the server's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from shell import fields
from shell.choices import Unknown, column_named, did_you_mean, near
from shell.fields import Field
from shell.measures import MIB, parse_size, parse_span
from shell.render import Column

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"(AND|OR|NOT)(?![\w.=!<>:~-])")
_NAME = re.compile(r'[A-Za-z_][\w-]*(?:\.(?:[\w-]+|"[^"]*"))*')
_OPERATOR = re.compile(r"<=|>=|!=|==|=|<|>|:|~")
_VALUE = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s()"',<>=!]+)""", re.DOTALL)
_COMPARES = re.compile(r"[=<>~:]")
"""What no name and no pattern of names has."""
_OPPOSITE = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_YES = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_UNITS: dict[str, Callable[[str], float]] = {
    "_mib": lambda text: parse_size(text) / MIB,
    "_bytes": parse_size,
    "_s": parse_span,
    "_ms": lambda text: parse_span(text) * 1000,
}
"""How values of fields whose names end so may be written beside bare numbers."""


class BadFilter(click.UsageError):
    """A filter that cannot be understood: what is wrong, and the place in the text."""

    def __init__(
        self, what: str, text: str, at: int, length: int = 1, option: str = "--filter"
    ) -> None:
        self.at = at
        shown = text.replace("\n", " ").replace("\t", " ")
        said = f"{option}: {what}" if option else what
        super().__init__(f"{said}\n  {shown}\n  {' ' * at}{'^' * max(length, 1)}")


@dataclass(frozen=True, slots=True)
class Words:
    """What names in a filter mean."""

    columns: Sequence[Column]
    kind: Any
    """The descriptor of the rows."""
    path: str
    """What their names begin with: "vms", "pools/*/volumes"."""
    now: float
    """Seconds since the epoch, for ages."""


def is_filter(text: str) -> bool:
    """Whether a word in the place of a name is a filter: no name has anything that compares."""
    return bool(_COMPARES.search(text))


def translated(text: str, words: Words, option: str = "--filter") -> str:
    """The filter in the contract's language. option: where it was given. Raises BadFilter."""
    return _Reader(text, words, option).whole() if text.strip() else ""


class _Reader:
    """Reads a filter from left to right and writes it anew."""

    def __init__(self, text: str, words: Words, option: str) -> None:
        self._text = text
        self._words = words
        self._option = option
        self._at = 0

    def whole(self) -> str:
        found = self._all()
        if self._at < len(self._text):
            self._refuse("there is no parenthesis that this one closes")
        return found

    def _all(self) -> str:
        parts = [self._any()]
        while not self._ended() and self._text[self._at] != ")":
            self._word("AND")
            parts.append(self._any())
        return " AND ".join(parts)

    def _any(self) -> str:
        parts = [self._term()]
        while self._word("OR"):
            parts.append(self._term())
        return " OR ".join(parts)

    def _term(self) -> str:
        self._skip()
        if self._word("NOT") or self._sign("-"):
            return f"NOT {self._term()}"
        if self._sign("("):
            opened = self._at - 1
            inside = self._all()
            if not self._sign(")"):
                self._refuse("this parenthesis is not closed", opened)
            return f"({inside})"
        return self._comparison()

    def _comparison(self) -> str:
        begin = self._at
        name = self._match(_NAME)
        if name is None or name in ("AND", "OR", "NOT"):
            self._refuse("here should be the name of a column or field", begin, len(name or ""))
        field, column = self._field(name, begin)
        self._skip()
        operator = self._match(_OPERATOR)
        if operator is None:
            self._refuse(f"after {name} should be one of = != < <= > >= : ~", begin, len(name))
        self._skip()
        values = [self._value(field, column, operator)]
        while self._sign(","):
            values.append(self._value(field, column, operator))
        return _joined(values, operator)

    def _field(self, name: str, begin: int) -> tuple[Field, Column | None]:
        """What a name means, with the column if it is the name of one."""
        words = self._words
        column = column_named(words.columns, name)
        if column is not None and column.path:
            return fields.find(words.kind, column.path), column
        try:
            return self._labelled(name), None
        except fields.UnknownField as error:
            if column is not None:
                what = f"{name} is made of several things: filter by one of its fields"
            else:
                meant = near(words.columns, words.kind, name, error.near)
                what = f"there is no column or field {name!r}{did_you_mean(meant)}"
            self._refuse(what, begin, len(name))

    def _labelled(self, name: str) -> Field:
        """ "label.owner" is a label, everything else a path."""
        first, _, key = name.partition(".")
        path = f"meta.labels.{key}" if key and first in ("label", "labels") else name
        return fields.find(self._words.kind, path.replace('"', ""))

    def _value(self, field: Field, column: Column | None, operator: str) -> str:
        begin = self._at
        raw = self._match(_VALUE)
        if raw is None:
            quoted = self._text[self._at : self._at + 1] in ('"', "'")
            self._refuse("this quote is not closed" if quoted else "here should be a value")
        text = _unquoted(raw)
        try:
            operator, text = _meant(field, column, operator, text, self._words)
        except ValueError as error:
            self._refuse(str(error), begin, len(raw))
        self._skip()
        return f'{_spelled(field)} {operator} "{text}"'

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match.group()

    def _word(self, word: str) -> bool:
        self._skip()
        match = _WORD.match(self._text, self._at)
        if match is None or match.group() != word:
            return False
        self._at = match.end()
        self._skip()
        return True

    def _sign(self, sign: str) -> bool:
        self._skip()
        if not self._text.startswith(sign, self._at):
            return False
        self._at += 1
        self._skip()
        return True

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _ended(self) -> bool:
        self._skip()
        return self._at >= len(self._text)

    def _refuse(self, what: str, at: int | None = None, length: int = 1) -> NoReturn:
        place = self._at if at is None else at
        raise BadFilter(what, self._text, place, length, self._option)


def _joined(values: Sequence[str], operator: str) -> str:
    """One of several values, or none of them."""
    if len(values) == 1:
        return values[0]
    return f"({(' AND ' if operator == '!=' else ' OR ').join(values)})"


def _unquoted(raw: str) -> str:
    """What is in quotes as double quotes would have it; bare texts as they are."""
    if raw[0] == '"':
        return raw[1:-1]
    text = raw[1:-1] if raw[0] == "'" else raw
    return re.sub(r'(?<!\\)"', lambda _: '\\"', text)


def _spelled(field: Field) -> str:
    """The path with keys of maps in quotes where they need them."""
    return ".".join(one if re.fullmatch(r"[\w-]+", one) else f'"{one}"' for one in field.steps)


def _meant(
    field: Field, column: Column | None, operator: str, text: str, words: Words
) -> tuple[str, str]:
    """The operator and the value in the contract's language. Raises ValueError."""
    operator = {"==": "=", "~": "="}.get(operator, operator) if operator != "~" else "~"
    if text == "*":
        return (":" if operator == "=" else operator), text
    if operator == "~":
        if field.leaf.cpp_type != 9:
            raise ValueError(f"~ looks into texts, and {field.path} is none")
        return "=", _named(field, f"*{text}*", words)
    if field.is_message:
        raise ValueError(_too_much(field, words))
    if field.message == fields.TIME:
        return _moment(operator, text, words.now, is_age=column is not None and column.is_age)
    if field.message == fields.DURATION:
        return operator, _length(text)
    if field.is_number and field.leaf.enum_type is None:
        return operator, _number(field, text)
    if field.is_boolean:
        return operator, _YES.get(text.lower(), text.lower())
    if field.leaf.enum_type is not None:
        return operator, _enum(field, text)
    return operator, _named(field, text, words)


def _too_much(field: Field, words: Words) -> str:
    """What to say of a field that has fields, which can only be there or not (`status:*`)."""
    inside = f"{field.path}."
    titles = [column.key for column in words.columns if column.path.startswith(inside)]
    paths = [path for path in fields.paths(words.kind) if path.startswith(inside)]
    meant = [*titles, *paths][:2] or [f"{inside}KEY"]
    return f"{field.path} has several fields{did_you_mean(meant)}"


def _enum(field: Field, text: str) -> str:
    """A value of an enum. Raises ValueError naming those that there are."""
    from difflib import get_close_matches

    word = text.replace("-", "_").replace(" ", "_")
    known = fields.enum_words(field.leaf.enum_type)
    if word.lower() not in known and word not in field.leaf.enum_type.values_by_name:
        meant = get_close_matches(word.lower(), known, 2, 0.5)
        hint = did_you_mean(meant) or f"; it is one of {', '.join(known)}"
        raise ValueError(f"{field.path} is never {text!r}{hint}")
    return word


def _length(text: str) -> str:
    """A length of time in seconds; the contract's own form stays. Raises ValueError."""
    if re.fullmatch(r"-?\d+(\.\d+)?s?", text):
        return f"{text.removesuffix('s')}s"
    return f"{parse_span(text)}s"


def _number(field: Field, text: str) -> str:
    """A number; sizes and times where the field counts such. Raises ValueError."""
    try:
        float(text)
        return text
    except ValueError:
        pass
    for suffix, counted in _UNITS.items():
        if field.path.endswith(suffix):
            return f"{counted(text):g}" if counted(text) < 1e5 else str(int(counted(text)))
    raise ValueError(f"{field.path} is a number, and {text!r} is none")


def _moment(operator: str, text: str, now: float, *, is_age: bool) -> tuple[str, str]:
    """An age becomes the moment so long ago, and older means earlier."""
    try:
        seconds = parse_span(text)
    except ValueError:
        return operator, text
    if operator not in _OPPOSITE:
        raise ValueError("ages are compared with < <= > >=")
    moment = datetime.fromtimestamp(now - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return (_OPPOSITE[operator] if is_age else operator), moment


def _named(field: Field, text: str, words: Words) -> str:
    """The full name of a resource where the field names one: node=n1 means nodes/n1."""
    path = words.path if field.path == "name" else field.resource
    collections = path.split("/")[:: 2 if "*" in path else 1]
    parts = text.split("/")
    if not path or (len(parts) > 1 and parts[0] == collections[0]):
        return text
    if len(parts) > len(collections):
        return text
    parts = ["*"] * (len(collections) - len(parts)) + parts
    return "/".join(f"{kind}/{one}" for kind, one in zip(collections, parts, strict=True))


__all__ = ["BadFilter", "Unknown", "Words", "translated"]
