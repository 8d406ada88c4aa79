"""The colours of a line while it is typed: commands, options, values, names that exist and those
that do not, what cannot be. Asks only memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from shell.language.words import END, NEW_LINE, PIPE, REDIRECTS, Mark, Token, Word, tokens
from shell.live import Rows
from shell.prompt.offers import in_command, is_own
from shell.prompt.speech import Speech
from shell.suggest import Place, Slot, collection_of, option_in, place_of

FindRows = Callable[[str], Rows | None]
"""A collection, if it is followed."""


class LineLexer(Lexer):
    """Colours whole documents, which may have several lines."""

    def __init__(self, root: click.Group, rows: FindRows, speech: Speech) -> None:
        self._root = root
        self._rows = rows
        self._speech = speech

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """See Lexer."""
        lines = split_lines(self.styled(document.text))
        return lambda number: lines[number] if number < len(lines) else []

    def styled(self, text: str) -> StyleAndTextTuples:
        """The text in pieces with their styles."""
        shown: StyleAndTextTuples = []
        at = 0
        for token, style in self._styles(text):
            if token.begin > at:
                gap = text[at : token.begin]
                shown.append(("class:line.comment" if "#" in gap else "", gap))
            shown.append((style, text[token.begin : token.end]))
            at = token.end
        if at < len(text):
            shown.append(("class:line.comment" if "#" in text[at:] else "", text[at:]))
        return shown

    def _styles(self, text: str) -> Iterator[tuple[Token, str]]:
        before: list[str] = []
        where = "command"
        for token in tokens(text):
            if isinstance(token, Mark):
                before = []
                where = _after(token.text)
                yield token, "class:line.sign"
                continue
            style = "class:line.file"
            if where != "file":
                style = self._word(token, before, where, typed=token.end == len(text))
            before.append(token.text)
            yield token, style

    def _word(self, word: Word, before: list[str], where: str, *, typed: bool) -> str:
        if where == "foreign" or (not before and word.text.startswith("!")):
            return "class:line.foreign"
        if where == "stage":
            if self._speech.stages is None:
                return ""
            place = place_of(self._speech.stages, before, word.text)
        else:
            place = in_command(self._root, before, word.text, self._speech)
        return self._style(place, word, before, typed=typed)

    def _style(self, place: Place, word: Word, before: list[str], *, typed: bool) -> str:
        match place.slot:
            case Slot.COMMAND:
                return self._command(place, before, typed=typed)
            case Slot.OPTION:
                known = option_in(place.context, word.text)[0] is not None
                return "class:line.option" if known or typed else "class:line.wrong"
            case Slot.LOST | Slot.SURPLUS:
                return "class:line.wrong" if not typed else ""
        return self._value(place, word, before, typed=typed)

    def _command(self, place: Place, before: list[str], *, typed: bool) -> str:
        group = place.context.command
        assert isinstance(group, click.Group)
        if group.get_command(place.context, place.typed) is not None:
            return "class:line.command"
        if place.context.parent is None and self._opens(place.typed):
            return "class:line.command"
        begun = any(name.startswith(place.typed) for name in self._commands(group))
        return "" if typed and begun else "class:line.wrong"

    def _commands(self, group: click.Group) -> list[str]:
        own = self._speech.builtins
        more = own.list_commands(click.Context(own)) if own is not None else []
        place = place_of(self._root, self._speech.place, "")
        if isinstance(place.context.command, click.Group):
            more = [*more, *place.context.command.list_commands(place.context)]
        names = [name for name, _ in self._speech.aliases()]
        return [*group.list_commands(click.Context(group)), *more, *names]

    def _opens(self, word: str) -> bool:
        """Whether a line may begin with it for another reason than the tree."""
        if word == "pvc" or any(word == name for name, _ in self._speech.aliases()):
            return True
        if is_own(self._speech, word):
            return True
        place = place_of(self._root, self._speech.place, word)
        group = place.context.command
        return isinstance(group, click.Group) and group.get_command(place.context, word) is not None

    def _value(self, place: Place, word: Word, before: list[str], *, typed: bool) -> str:
        parameter = place.awaited
        if collection := collection_of(parameter, before):
            return self._name(collection, place.typed, typed=typed)
        if parameter is not None and isinstance(parameter.type, click.Choice):
            fits = place.typed in map(str, parameter.type.choices)
            return "class:line.value" if fits or typed else "class:line.wrong"
        return "class:line.string" if word.is_quoted else "class:line.value"

    def _name(self, collection: str, name: str, *, typed: bool) -> str:
        rows = self._rows(collection)
        if rows is None or not rows.known:
            return "class:line.value"
        if rows.find(name) is not None:
            return "class:line.name"
        return "class:line.value" if typed else "class:line.missing"


def _after(mark: str) -> str:
    """What follows a sign."""
    if mark == PIPE:
        return "stage"
    if mark in REDIRECTS:
        return "file"
    assert mark in (END, NEW_LINE), mark
    return "command"


def split_lines(pieces: StyleAndTextTuples) -> list[StyleAndTextTuples]:
    """Pieces by lines."""
    lines: list[StyleAndTextTuples] = [[]]
    for piece in pieces:
        first, *others = piece[1].split("\n")
        lines[-1].append((piece[0], first))
        lines += [[(piece[0], other)] for other in others]
    return lines
