"""The words and marks of a line of `pvc-shell`, each with its exact place. Pure.

Quotes and backslashes mean what they mean to shlex; a comment begins with # where a word could. A
> sends to a file only where a word could begin: within one it is a letter, as in memory>2G.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

PIPE, END, NEW_LINE = "|", ";", "\n"
REPLACE, APPEND, OVERWRITE = ">", ">>", ">|"
REDIRECTS = (REPLACE, APPEND, OVERWRITE)
WHERE = "where"
"""The stage in which < and > compare."""

_MARK = re.compile(r">>|>\||>|\||;|\n")
_COMPARISON = re.compile(r"<=|>=|!=|==|=|<|>|:|~|\(|\)")
_BLANK = " \t\r"
_SAFE = re.compile(r"[\w@%+=:,./*?^~{}\[\]-]+")


class SyntaxProblem(Exception):
    """A line that says nothing. begin, end: what is at fault in it. unfinished: more may follow."""

    def __init__(self, message: str, begin: int, end: int, unfinished: bool = False) -> None:
        super().__init__(message)
        self.message, self.begin, self.end, self.unfinished = message, begin, end, unfinished

    def pointed(self, text: str) -> str:
        """The message over the line at fault, with a mark under what is."""
        first = text.rfind("\n", 0, self.begin) + 1
        last = text.find("\n", self.begin)
        line = text[first : last if last >= 0 else len(text)]
        blank = "".join(letter if letter == "\t" else " " for letter in line[: self.begin - first])
        wide = max(min(self.end - first, len(line)) - (self.begin - first), 1)
        return f"{self.message}\n  {line}\n  {blank}{'^' * wide}"


@dataclass(frozen=True, slots=True)
class Word:
    """One word: what it says, and where it stands."""

    text: str
    is_operator: bool = False
    """It compares, in a filter."""
    begin: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)
    is_quoted: bool = False
    live: tuple[int, ...] = ()
    """Where in the text a $ stands that an alias may fill in."""
    open: str = field(default="", compare=False)
    """The quote, or backslash, that is not closed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands between words."""

    text: str
    begin: int
    end: int


Token: TypeAlias = Word | Mark


def quoted(text: str) -> str:
    """A word as it must be written to be read as this text."""
    if _SAFE.fullmatch(text) and text.isprintable():
        return text
    return _in_quotes(text)


def _in_quotes(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


def written(word: Word) -> str:
    """A word as it is read back: the same text, quoted if it was, the same $ to be filled in."""
    if not word.is_quoted:
        return word.text
    pieces, last = [], 0
    for place in word.live:
        pieces += [_in_quotes(word.text[last:place]) if place > last else "", "$"]
        last = place + 1
    rest = word.text[last:]
    return "".join(pieces) + _in_quotes(rest)


def tokens(text: str, begin: int = 0) -> Iterator[Token]:
    """The words and marks from a place on. A word that is not closed is the last, and is open."""
    return iter(_Lexer(text, begin))


class _Lexer:
    """Reads tokens; knows whether it is in a filter, where < and > compare."""

    def __init__(self, text: str, begin: int) -> None:
        self._text, self._at = text, begin
        self._stage_begins = False
        self._filter = ""
        """Where in a filter it is: "field", "operator", "value" comes next, or it is "complete"."""

    def __iter__(self) -> Iterator[Token]:
        while (token := self._next()) is not None:
            self._note(token)
            yield token

    def _next(self) -> Token | None:
        self._skip()
        if self._at >= len(self._text):
            return None
        compares = _COMPARISON.match(self._text, self._at) if self._filter else None
        if compares and (compares.group()[0] != ">" or self._filter == "operator"):
            return self._operator(compares.group())
        if found := _MARK.match(self._text, self._at):
            self._at = found.end()
            return Mark(found.group(), found.start(), found.end())
        return self._word()

    def _operator(self, text: str) -> Word:
        begin, self._at = self._at, self._at + len(text)
        return Word(text, True, begin, self._at)

    def _skip(self) -> None:
        """Blanks, comments, and ends of lines behind a backslash."""
        text = self._text
        while self._at < len(text):
            if text[self._at] in _BLANK:
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = end if end >= 0 else len(text)
            else:
                return

    def _note(self, token: Token) -> None:
        """Follows the way into a filter and out of it."""
        if isinstance(token, Mark):
            self._stage_begins, self._filter = token.text == PIPE, ""
            return
        if self._stage_begins:
            self._filter = "field" if token.text == WHERE and not token.is_quoted else ""
        elif self._filter:
            self._filter = _after(self._filter, token)
        self._stage_begins = False

    def _word(self) -> Word:
        begin, text = self._at, self._text
        word = _Spelling()
        while self._at < len(text) and not self._ends_word():
            letter = text[self._at]
            self._at += 1
            if letter == "\\":
                self._escape(word)
            elif letter in "'\"":
                self._quote(word, letter)
            else:
                word.add(letter, live=letter == "$")
        return Word(
            "".join(word.letters), False, begin, self._at, word.is_quoted, tuple(word.live),
            word.open,
        )  # fmt: skip

    def _ends_word(self) -> bool:
        text, at = self._text, self._at
        if text[at] in _BLANK or text.startswith("\\\n", at) or text[at] in "|;\n":
            return True
        return bool(self._filter) and text[at] in "()<>=!~" and (
            text[at] != "!" or text.startswith("!=", at)
        )  # fmt: skip

    def _escape(self, word: _Spelling) -> None:
        """What follows a backslash outside of quotes is text."""
        word.is_quoted = True
        if self._at >= len(self._text):
            word.open = "\\"
            return
        word.add(self._text[self._at])
        self._at += 1

    def _quote(self, word: _Spelling, quote: str) -> None:
        """Up to the quote that closes; in double ones a backslash may stand before " and \\."""
        text, word.is_quoted = self._text, True
        while self._at < len(text):
            letter = text[self._at]
            self._at += 1
            if letter == quote:
                return
            if letter == "\\" and quote == '"' and text[self._at : self._at + 1] in ('"', "\\"):
                word.add(text[self._at])
                self._at += 1
            else:
                word.add(letter, live=letter == "$" and quote == '"')
        word.open = quote


class _Spelling:
    """A word while it is read."""

    __slots__ = ("is_quoted", "letters", "live", "open")

    def __init__(self) -> None:
        self.letters: list[str] = []
        self.live: list[int] = []
        self.is_quoted, self.open = False, ""

    def add(self, letter: str, live: bool = False) -> None:
        """One more letter. live: it is a $ that may be filled in."""
        if live:
            self.live.append(len(self.letters))
        self.letters.append(letter)


def _after(place: str, word: Word) -> str:
    """Where in a filter one is behind a word."""
    if word.is_operator:
        return {"(": "field", ")": "complete"}.get(word.text, "value")
    if not word.is_quoted and word.text in ("AND", "OR", "NOT"):
        return "field"
    if place == "value":
        return "complete"
    name, colon, value = word.text.partition(":")
    has_value = bool(name and colon) and not word.is_quoted
    return ("complete" if value else "value") if has_value else "operator"
