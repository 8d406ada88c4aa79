"""What a line of `pvc-shell` says: statements, each a command, what its answer goes through, and
where it ends up. Pure: no name in it is looked up here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeGuard

from shell.language.words import (
    END,
    NEW_LINE,
    PIPE,
    REDIRECTS,
    Mark,
    SyntaxProblem,
    Token,
    Word,
    tokens,
    written,
)

DEFINING = ("alias", "save")
"""Commands that keep what follows `NAME =` as it is written."""
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
"""What aliases and saved queries may be called."""

_DEFINITION = re.compile(rf"[ \t]+({NAME.pattern})[ \t]*=[ \t]*")
_QUERY = re.compile(rf"\\{NAME.pattern}(?![^\s|;])")
_NUMBERED = re.compile(r"\d+>+\|?")
"""As other shells name what is to go to a file."""
_REFUSED = {
    "&&": "a script stops at the first error by itself; write ;",
    "||": "there is no ||; write ; between commands",
    "&": "there is no &; with --no-wait a command does not wait for the end",
    "<": "there is no <; commands that read a file take its name",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A command and its words, or one thing that its answer goes through."""

    words: tuple[Word, ...]
    is_foreign: bool = False
    """A command of this machine, written with ! before it."""

    @property
    def texts(self) -> list[str]:
        """What the words say."""
        return [word.text for word in self.words]


@dataclass(frozen=True, slots=True)
class Redirect:
    """The file that the answer goes to."""

    mark: str
    path: Word


@dataclass(frozen=True, slots=True)
class Statement:
    """One command with all that belongs to it."""

    command: Stage
    stages: tuple[Stage, ...] = ()
    target: Redirect | None = None
    body: str = ""
    """Of a definition: what the name stands for. Only a definition has one."""
    is_query: bool = False
    """Its first word is the name of a saved query, written with a backslash before it."""
    begin: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


def parse(text: str) -> tuple[Statement, ...]:
    """The statements of a text, of one line or many. Raises SyntaxProblem."""
    return tuple(_Parser(text).statements())


def is_unfinished(text: str) -> bool:
    """Whether a line wants to go on: a quote or a pipe is open, or it ends with a backslash."""
    try:
        parse(text)
    except SyntaxProblem as problem:
        return problem.unfinished
    return False


def spelled(statements: tuple[Statement, ...]) -> str:
    """The text that says this."""
    return "; ".join(map(_spelled, statements))


def _spelled(statement: Statement) -> str:
    if statement.body:
        kind, name = statement.command.texts
        return f"{kind} {name} = {statement.body}\n"
    first = _stage(statement.command)
    if statement.is_query:
        first = " ".join(["\\" + statement.command.texts[0],
                          *map(written, statement.command.words[1:])])  # fmt: skip
    text = " | ".join([first, *map(_stage, statement.stages)])
    target = statement.target
    return f"{text} {target.mark} {written(target.path)}" if target else text


def _stage(stage: Stage) -> str:
    text = " ".join(map(written, stage.words))
    return f"!{text}" if stage.is_foreign else text


def line_number(text: str, place: int) -> int:
    """The number, from 1, of the line that a place is in."""
    return text.count("\n", 0, place) + 1


class _Parser:
    """Takes tokens one after the other."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self._token: Token | None = next(self._tokens, None)

    def statements(self) -> Iterator[Statement]:
        """All of them."""
        while (token := self._token) is not None:
            if isinstance(token, Mark) and token.text in (END, NEW_LINE):
                self._step()
            else:
                yield self._statement()

    def _step(self) -> None:
        self._token = next(self._tokens, None)

    def _statement(self) -> Statement:
        begin = self._token.begin if self._token else 0
        is_query = bool(_QUERY.match(self._text, begin))
        command = self._stage("a command")
        if command.texts[0] in DEFINING and not command.is_foreign:
            if found := _DEFINITION.match(self._text, command.words[0].end):
                return self._definition(command, found, begin)
            self._check_shown(command)
        stages = []
        while isinstance(pipe := self._token, Mark) and pipe.text == PIPE:
            self._after_pipe()
            stages.append(self._stage("what the answer goes through", pipe))
        target = self._redirect()
        end = self._end()
        return Statement(command, tuple(stages), target, "", is_query, begin, end)

    def _after_pipe(self) -> None:
        """A line may end behind a pipe."""
        self._step()
        while isinstance(self._token, Mark) and self._token.text == NEW_LINE:
            self._step()

    def _end(self) -> int:
        """Where the statement ends. Raises SyntaxProblem when something follows it."""
        token = self._token
        if token is None:
            return len(self._text)
        if isinstance(token, Mark) and token.text in (END, NEW_LINE):
            return token.begin
        raise SyntaxProblem("nothing but ; may follow the name of the file", token.begin, token.end)

    def _stage(self, what: str, pipe: Mark | None = None) -> Stage:
        token = self._token
        if not isinstance(token, Word):
            raise self._missing(what, pipe)
        foreign = token.text[:1] == "!" and self._text[token.begin] == "!"
        words = [self._taken(word) for word in self._words()]
        if foreign:
            words[0] = without_mark(words[0])
            if not words[0].text and not words[0].is_quoted:
                words = words[1:]
        if not words:
            raise SyntaxProblem("a command of this machine must follow !", token.begin, token.end)
        return Stage(tuple(words), foreign)

    def _missing(self, what: str, pipe: Mark | None) -> SyntaxProblem:
        if self._token is None:
            assert pipe is not None, "only a pipe makes a stage necessary at the end"
            return SyntaxProblem(f"{what} must follow |", pipe.begin, pipe.end, unfinished=True)
        problem = f"{what} must stand before {self._token.text}".replace("\n", "the end")
        return SyntaxProblem(problem, self._token.begin, self._token.end)

    def _words(self) -> Iterator[Word]:
        while isinstance(token := self._token, Word):
            self._step()
            yield token

    def _taken(self, word: Word) -> Word:
        """The word, if it is a whole one."""
        if word.open:
            quote = "a line is" if word.open == "\\" else f"a quote ({word.open}) is"
            begin = self._text.find(word.open, word.begin) if word.open != "\\" else word.end - 1
            raise SyntaxProblem(f"{quote} not closed", begin, word.end, unfinished=True)
        if not word.is_quoted and not word.is_operator and word.text in _REFUSED:
            raise SyntaxProblem(_REFUSED[word.text], word.begin, word.end)
        if not word.is_quoted and (found := _NUMBERED.match(word.text)):
            problem = "only what a command prints can go to a file; leave a blank before >"
            raise SyntaxProblem(problem, word.begin, word.begin + found.end())
        return word

    def _redirect(self) -> Redirect | None:
        mark = self._token
        if not _redirects(mark):
            return None
        self._step()
        if not isinstance(path := self._token, Word):
            raise SyntaxProblem(f"the name of a file must follow {mark.text}", mark.begin, mark.end)
        self._step()
        if not self._taken(path).text:
            raise SyntaxProblem("a file must have a name", path.begin, path.end)
        if has_arrow(path):
            raise SyntaxProblem("one file only; a name with > in it needs quotes", path.begin,
                                path.end)  # fmt: skip
        return Redirect(mark.text, path)

    def _definition(self, command: Stage, found: re.Match[str], begin: int) -> Statement:
        """`alias NAME = …` with its body."""
        first = command.words[0]
        end = self._end_of_line(found.end())
        body = _without_quotes(self._text[found.end() : end].strip())
        try:
            if not parse(body):
                raise SyntaxProblem(f"what {found[1]} stands for must follow =", 0, 1)
        except SyntaxProblem as problem:
            place = max(self._text.find(body, found.end()), 0)
            raise SyntaxProblem(
                problem.message, place + problem.begin, place + problem.end, problem.unfinished
            ) from None
        self._tokens = tokens(self._text, end)
        self._step()
        name = Word(found[1], begin=found.start(1), end=found.end(1))
        return Statement(Stage((first, name)), (), None, body, False, begin, end)

    def _check_shown(self, command: Stage) -> None:
        """`alias` and `alias NAME` show; there is nothing else without a body."""
        if len(command.words) > 2:
            wrong = command.words[2]
            kind = command.texts[0]
            raise SyntaxProblem(f"it reads: {kind} NAME = COMMAND", wrong.begin, wrong.end)

    def _end_of_line(self, begin: int) -> int:
        """Where the line ends that a definition is on; what is in quotes does not end it."""
        for token in tokens(self._text, begin):
            if isinstance(token, Mark) and token.text == NEW_LINE:
                return token.begin
            if isinstance(token, Word):
                self._taken_whole(token)
        return len(self._text)

    def _taken_whole(self, word: Word) -> None:
        """Raises SyntaxProblem for a word that is not closed."""
        if word.open:
            raise SyntaxProblem("a quote is not closed", word.begin, word.end, unfinished=True)


def _redirects(token: Token | None) -> TypeGuard[Mark]:
    return isinstance(token, Mark) and token.text in REDIRECTS


def has_arrow(word: Word) -> bool:
    """Whether a > without quotes is a letter of it."""
    return not word.is_quoted and not word.is_operator and ">" in word.text


def without_mark(word: Word) -> Word:
    """The word without the ! that it begins with."""
    live = tuple(place - 1 for place in word.live)
    return Word(word.text[1:], False, word.begin + 1, word.end, word.is_quoted, live)


def _without_quotes(body: str) -> str:
    """What is in quotes, where the whole body is."""
    found = list(tokens(body))
    if len(found) == 1 and isinstance(found[0], Word) and found[0].is_quoted:
        return found[0].text.strip()
    return body
