"""What may follow a `|`: grep, where, sort, columns, head, tail, count, and the formats.

Each is a command of click, so that it has help and completion like any other; what it makes is a
Stage. On rows they act on rows, on text on its lines.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from shell.choices import column_of, ordered, sort_keys
from shell.language.condition import checked, condition
from shell.language.line import Stage as Written
from shell.language.words import Word
from shell.render import FORMATS, Answer, Column, Output, View, many, one, short, shown_of, titled
from shell.tree import Command, Group

PLAIN_WIDTH = 200
"""Width of a table whose lines go on through a pipe."""
USUAL = 10
"""Lines of head and tail."""


class Stage:
    """One thing that an answer goes through. What it does not know how to change it passes on."""

    needs_rows = False
    """It can do nothing with lines of text."""
    gives_text = False
    """What comes out are lines, also of rows."""

    def __init__(self) -> None:
        self.has_enough = False
        """Nothing that comes later would come out."""

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        """What becomes of rows: other rows, or a text."""
        text = shown_text(answer, session)
        kept = [one for line in text.splitlines() for one in self.line(line)]
        return "".join(f"{line}\n" for line in [*kept, *self.end()])

    def line(self, line: str) -> Sequence[str]:
        """What becomes of a line, now."""
        return [line]

    def end(self) -> Sequence[str]:
        """What comes behind the last line."""
        return []


def shown_text(answer: Answer, session: Any) -> str:
    """The rows as lines: no colours, nothing cut."""
    output = answer.output
    if not answer.rows and output.for_people:
        return ""
    columns = (
        session.columns(output, answer.columns, answer.kind) if answer.rows else answer.columns
    )
    chosen = bool(output.columns)
    view = View(output.format, PLAIN_WIDTH, False, session.now(), output.header, chosen)
    if answer.is_one and answer.rows:
        return one(answer.rows[0], columns, view)
    return many(answer.rows, columns, view)


def plain(answer: Answer, session: Any) -> View:
    """How rows are looked at: all of every value, no colours."""
    return View(answer.output.format, 1 << 16, False, session.now(), True,
                bool(answer.output.columns))  # fmt: skip


class _Grep(Stage):
    def __init__(self, pattern: re.Pattern[str], invert: bool) -> None:
        super().__init__()
        self._pattern, self._invert = pattern, invert

    def _fits(self, text: str) -> bool:
        return (self._pattern.search(text) is not None) is not self._invert

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        view, chosen = plain(answer, session), answer.output
        columns = session.columns(chosen, answer.columns, answer.kind)
        if not answer.is_one or not answer.rows:
            told = [] if view.format == "name" else shown_of(columns, answer.rows, view)
            kept = [row for row in answer.rows if self._fits(_cells(row, told, view))]
            return replace(answer, rows=kept)
        if not chosen.for_people:
            return super().rows(answer, session)
        row = answer.rows[0]
        lines = [c for c in columns if self._fits(f"{titled(c.title)}: {c.value(row, view)}")]
        return replace(answer, columns=lines, output=replace(chosen, columns=""))

    def line(self, line: str) -> Sequence[str]:
        return [line] if self._fits(line.rstrip("\r")) else []


def _cells(row: Any, columns: Sequence[Column], view: View) -> str:
    """What is seen of a row."""
    return " ".join(column.value(row, view) for column in columns) if columns else short(row)


class _Where(Stage):
    needs_rows = True

    def __init__(self, words: Sequence[Word]) -> None:
        super().__init__()
        self._words = words

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        if not answer.rows:
            return answer
        test = condition(self._words, answer.columns, answer.kind)
        view = plain(answer, session)
        return replace(answer, rows=[row for row in answer.rows if test(row, view)])


class _Sort(Stage):
    def __init__(self, names: str) -> None:
        super().__init__()
        self._names = names
        self._lines: list[str] = []
        self.needs_rows = bool(names)

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        if not answer.rows:
            return answer
        names = self._names or answer.columns[0].title
        keys = sort_keys(answer.columns, answer.kind, names)
        return replace(answer, rows=ordered(answer.rows, keys, plain(answer, session)))

    def line(self, line: str) -> Sequence[str]:
        self._lines.append(line)
        return []

    def end(self) -> Sequence[str]:
        return sorted(self._lines)


class _Columns(Stage):
    needs_rows = True

    def __init__(self, names: str) -> None:
        super().__init__()
        self._names = names

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        for name in filter(str.strip, self._names.removeprefix("+").split(",")):
            if answer.rows:
                column_of(answer.columns, answer.kind, name.strip())
        return replace(answer, output=replace(answer.output, columns=self._names))


class _Head(Stage):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = self._number = number

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        if answer.is_one:
            return super().rows(answer, session)
        return replace(answer, rows=answer.rows[: self._number])

    def line(self, line: str) -> Sequence[str]:
        self._left -= 1
        self.has_enough = self._left <= 0
        return [line] if self._left >= 0 else []


class _Tail(Stage):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=number)
        self._number = number

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        if answer.is_one:
            return super().rows(answer, session)
        return replace(answer, rows=answer.rows[max(len(answer.rows) - self._number, 0) :])

    def line(self, line: str) -> Sequence[str]:
        self._lines.append(line)
        return []

    def end(self) -> Sequence[str]:
        return self._lines


class _Count(Stage):
    gives_text = True

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        return f"{len(answer.rows)}\n"

    def line(self, line: str) -> Sequence[str]:
        self._number += 1
        return []

    def end(self) -> Sequence[str]:
        return [str(self._number)]


class _Format(Stage):
    needs_rows = True

    def __init__(self, format: str) -> None:
        super().__init__()
        self._format = format

    def rows(self, answer: Answer, session: Any) -> Answer | str:
        before = answer.output
        output = Output(self._format, before.columns, before.header)
        return replace(answer, output=output)


stages = Group("|", help="What an answer may go through: COMMAND | STAGE | STAGE.")


def _stage(name: str, *examples: str, **settings: Any) -> Callable[[Any], Any]:
    return stages.command(name, cls=Command, examples=examples, context_settings=settings)


@_stage("grep", "vm list | grep web", "vm log web | grep -i error", ignore_unknown_options=False)
@click.argument("pattern")
@click.option("-i", "--ignore-case", is_flag=True, help="Large letters are small letters.")
@click.option("-v", "--invert", is_flag=True, help="Those in which it is not found.")
@click.option("-F", "--fixed", is_flag=True, help="PATTERN is a text, not a regular expression.")
def _grep(pattern: str, ignore_case: bool, invert: bool, fixed: bool) -> Stage:
    """Keep the rows or lines in which a regular expression is found; it is an extended one, as of
    grep -E: 'web|db' is either."""
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    try:
        return _Grep(re.compile(re.escape(pattern) if fixed else pattern, flags), invert)
    except re.error as error:
        raise click.UsageError(f"{pattern!r} is no regular expression: {error}") from None


@_stage(
    "where", "vm list | where state=running memory>2G", "node list | where 'vms > 10 OR cpus < 8'",
    ignore_unknown_options=True, allow_interspersed_args=False,
)  # fmt: skip
@click.argument("condition", nargs=-1, required=True, type=click.UNPROCESSED)
def _where(condition: tuple[str, ...]) -> Stage:
    """Keep the rows that a condition holds for; it reads like --filter."""
    words = [one.word if isinstance(one, _Text) else Word(one) for one in condition]
    checked(words)
    return _Where(words)


@_stage(
    "sort", "vm list | sort memory", "vm list | sort -memory,name", "vm log web | sort",
    ignore_unknown_options=True,
)  # fmt: skip
@click.argument("field", nargs=-1, type=click.UNPROCESSED)
def _sort(field: tuple[str, ...]) -> Stage:
    """Put rows in an order, a - before what goes downwards; lines without a FIELD."""
    return _Sort(" ".join(field))


@_stage("columns", "vm list | columns name,state", "vm list | columns +spec.cpu.vcpus")
@click.argument("columns", nargs=-1, required=True)
def _columns(columns: tuple[str, ...]) -> Stage:
    """Show these columns: titles or field paths; + before them adds them to the usual ones."""
    return _Columns(",".join(columns).replace(",,", ","))


def _numbered(make: Callable[[int], Stage], name: str, which: str) -> None:
    @_stage(name, f"vm list | sort -memory | {name} 3")
    @click.argument("number", type=click.IntRange(0), default=USUAL)
    def numbered(number: int) -> Stage:
        return make(number)

    numbered.help = f"Keep the {which} rows or lines, {USUAL} without a NUMBER."


_numbered(_Head, "head", "first")
_numbered(_Tail, "tail", "last")


@_stage("count", "vm list | where state=running | count")
def _count() -> Stage:
    """Say how many rows or lines there are."""
    return _Count()


def _formatted(format: str) -> None:
    @_stage(format, f"vm list | {format}")
    def formatted() -> Stage:
        return _Format(format)

    formatted.help = "Show names alone." if format == "name" else f"Show the rows as {format}."


for _format in FORMATS:
    _formatted(_format)


class _Text(str):
    """A word that knows how it was written."""

    word: Word


def made(written: Written) -> Stage:
    """The stage that is written. Raises ClickException for what is none."""
    texts: list[str] = []
    for word in written.words:
        text = _Text(word.text)
        text.word = word
        texts.append(text)
    stage = stages.main(texts, prog_name="|", standalone_mode=False)
    if not isinstance(stage, Stage):
        raise click.exceptions.Exit(0)  # its help was shown
    return stage
