"""Where in a line the cursor is: in a command, in what its answer goes through, in a file's name.

Pure, and never refuses: what completes and colours a line asks while it is being typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shell.language.line import DEFINING
from shell.language.words import END, NEW_LINE, REDIRECTS, Mark, Token, Word, tokens


class Spot(Enum):
    """What kind of word is being typed."""

    COMMAND = "command"
    """Of a command of PVC or of the shell."""
    STAGE = "stage"
    """Of what an answer goes through: grep, where, sort…"""
    FOREIGN = "foreign"
    """Of a command of this machine."""
    FILE = "file"
    """The name of a file to write to."""
    COMMENT = "comment"
    """No word at all."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the cursor is."""

    spot: Spot
    words: tuple[str, ...]
    """The finished words before it, of this command or stage alone."""
    word: str
    """What is being typed, without quotes."""
    begin: int
    """Where that begins in the text, with its quotes."""
    quote: str
    """The quote that is open, or ""."""
    command: tuple[str, ...]
    """The words of the statement's command, also when the cursor is in a later stage."""
    statement: int
    """Where the statement begins in the text."""


PREFIXES = {"time": (), "watch": ("-n", "--every")}
"""Commands that a whole command follows, with their options that take a value."""


def cursor_in(text: str, place: int | None = None) -> Cursor:
    """Where the cursor is; at the end if no place is given."""
    before = text if place is None else text[:place]
    spot = Spot.COMMAND
    command: tuple[str, ...] = ()
    words: list[Word] = []
    begin = last = 0
    for token in _without_heads(before):
        last = token.end
        if isinstance(token, Word):
            words.append(token)
            continue
        if spot is Spot.COMMAND:
            command = tuple(word.text for word in words)
        if token.text in (END, NEW_LINE):
            begin, spot, command = token.end, Spot.COMMAND, ()
        else:
            spot = Spot.FILE if token.text in REDIRECTS else Spot.STAGE
        words = []
    return _told(before, spot, words, command, begin, last)


def _without_heads(text: str) -> list[Token]:
    """The tokens of a text; of definitions only those of what a name stands for."""
    found: list[Token] = []
    line: list[Token] = []
    for token in [*tokens(text), Mark(END, len(text), len(text))]:
        line.append(token)
        if isinstance(token, Mark):
            found += _body(line)
            line = []
    return found[:-1]


def _body(line: list[Token]) -> list[Token]:
    """`alias NAME = vm list` as `vm list`."""
    match line:
        case [Word(text=first), Word(), Word(text="="), *rest] if first in DEFINING and rest:
            return rest
    return line


def _told(
    before: str, spot: Spot, words: list[Word], command: tuple[str, ...], begin: int, last: int
) -> Cursor:
    typed = Word("", begin=len(before), end=len(before))
    rest = before[last:]
    if "#" in rest:
        spot = Spot.COMMENT
    elif words and (words[-1].end == len(before) and _still_typed(before, words[-1])):
        typed = words.pop()
    texts = tuple(word.text for word in words)
    if spot in (Spot.COMMAND, Spot.STAGE):
        first = words[0] if words else typed
        if before[first.begin : first.begin + 1] == "!":
            spot = Spot.FOREIGN
    whole = (*texts, typed.text) if spot is Spot.COMMAND else command
    return Cursor(spot, texts, typed.text, typed.begin, typed.open, whole, begin)


def _still_typed(before: str, word: Word) -> bool:
    """Whether the cursor touches the word; a closed word that ends with an operator is done."""
    return bool(before) and (bool(word.open) or not word.is_operator)


def unwrapped(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of the command itself: without `pvc`, `time`, `watch -n 2` before it."""
    rest = list(words)
    while rest:
        if rest[0] == "pvc":
            rest.pop(0)
        elif rest[0] in PREFIXES and len(rest) > 1:
            _drop_prefix(rest)
        else:
            break
    return tuple(rest)


def _drop_prefix(rest: list[str]) -> None:
    valued = PREFIXES[rest.pop(0)]
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in valued and rest:
            rest.pop(0)
