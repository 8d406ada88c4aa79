"""The language of filters (AIP-160): text to a tree of comparisons and back.

Pure, and knows no resource: which fields exist and what they hold is looked at in `filters`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from pvc.core.v1 import reason_pb2
from services.mesh.errors import refuse, shown

DEPTH_MAX = 32
"""How deep parentheses and NOT may be nested."""

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"(AND|OR|NOT)(?![\w.])")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'', re.DOTALL)
_BARE = re.compile(r"[^\s()\"',<>=!]+")
_OPERATOR = re.compile(r"<=|>=|!=|=|<|>|:")
_PIECE = re.compile(r"\\(.)|(\*)|([^\\*]+|\\\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path operator value`. The value's pieces are what stands between its wildcards."""

    path: tuple[str, ...]
    operator: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Tree


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more."""

    parts: tuple[Tree, ...]


Tree: TypeAlias = Comparison | Not | And | Or


def parse(text: str) -> Tree | None:
    """The tree of a filter, None for an empty one. Raises INVALID_QUERY saying where and why."""
    return _Parser(text).whole()


def render(tree: Tree) -> str:
    """The text that parses to this tree."""
    match tree:
        case Comparison(path, operator, pieces):
            return f"{'.'.join(map(_key_text, path))} {operator} {_value_text(pieces)}"
        case Not(part):
            return f"NOT {_grouped(part)}"
        case And(parts):
            return " AND ".join(map(_grouped, parts))
        case Or(parts):
            return " OR ".join(map(_grouped, parts))


def _grouped(tree: Tree) -> str:
    return render(tree) if isinstance(tree, Comparison) else f"({render(tree)})"


def _key_text(key: str) -> str:
    return key if _KEY.fullmatch(key) else _value_text((key,))


def _value_text(pieces: tuple[str, ...]) -> str:
    return '"' + "*".join(re.sub(r'([\\"*])', r"\\\1", piece) for piece in pieces) + '"'


class _Parser:
    """Reads a filter from left to right. OR binds closer than AND, as AIP-160 has it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Tree | None:
        self._skip()
        if self._ended():
            return None
        tree = self._all()
        if not self._ended():
            self._refuse("here should be AND, OR or the end")
        return tree

    def _all(self) -> Tree:
        parts = [self._any()]
        while not self._ended() and self._text[self._at] != ")":
            self._word("AND")
            parts.append(self._any())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _any(self) -> Tree:
        parts = [self._term()]
        while self._word("OR"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _term(self) -> Tree:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._refuse(f"nested more than {DEPTH_MAX} deep")
        tree = self._nested()
        self._depth -= 1
        return tree

    def _nested(self) -> Tree:
        if self._word("NOT") or self._sign("-"):
            return Not(self._term())
        if self._sign("("):
            tree = self._all()
            if not self._sign(")"):
                self._refuse("a closing parenthesis is missing")
            return tree
        return self._comparison()

    def _comparison(self) -> Comparison:
        path = self._path()
        operator = self._match(_OPERATOR)
        if operator is None:
            self._refuse(f"after {'.'.join(path)} should be one of = != < <= > >= :")
        self._skip()
        return Comparison(path, operator, self._value())

    def _path(self) -> tuple[str, ...]:
        first = self._match(_NAME)
        if first is None or first in ("AND", "OR", "NOT"):
            self._refuse("here should be the name of a field")
        path = [first]
        while self._text.startswith(".", self._at):
            self._at += 1
            path.append(self._key())
        self._skip()
        return tuple(path)

    def _key(self) -> str:
        quoted = self._quoted()
        if quoted is not None:
            return "*".join(quoted)
        key = self._match(_KEY)
        if key is None:
            self._refuse("after the dot should be a name")
        return key

    def _value(self) -> tuple[str, ...]:
        pieces = self._quoted()
        if pieces is None:
            bare = self._match(_BARE)
            if bare is None:
                self._refuse("here should be a value")
            pieces = _pieces(bare)
        self._skip()
        return pieces

    def _quoted(self) -> tuple[str, ...] | None:
        match = _QUOTED.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        double, single = match.groups()
        return _pieces(single if double is None else double)

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match.group()

    def _word(self, word: str) -> bool:
        match = _WORD.match(self._text, self._at)
        if match is None or match.group() != word:
            return False
        self._at = match.end()
        self._skip()
        return True

    def _sign(self, sign: str) -> bool:
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
        return self._at >= len(self._text)

    def _refuse(self, what: str) -> NoReturn:
        rest = self._text[self._at :]
        place = f"at {shown(rest, 20)}" if rest else "at the end"
        refuse(
            reason_pb2.REASON_INVALID_QUERY,
            f"the filter cannot be understood at character {self._at + 1}, {place}: {what}",
            "filter",
        )


def _pieces(text: str) -> tuple[str, ...]:
    """What stands between the wildcards of a value, escapes undone."""
    pieces = [""]
    for escaped, star, plain in _PIECE.findall(text):
        if star:
            pieces.append("")
        else:
            pieces[-1] += escaped or plain
    return tuple(pieces)
