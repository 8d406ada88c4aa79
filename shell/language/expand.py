"""Aliases and saved queries put in the place of their names. Pure.

What is given to them fills in $1, $2 and $* as whole words: nothing in it is read as a line again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import click

from shell.language.line import Stage, Statement, parse
from shell.language.words import SyntaxProblem, Word

_PLACE = re.compile(r"\$([1-9*])")


def expanded(
    statement: Statement, aliases: Mapping[str, str], seen: tuple[str, ...] = ()
) -> list[Statement]:
    """What a statement stands for: itself, or what its first word is an alias of. Raises
    UsageError."""
    first = statement.command.words[0]
    if first.is_quoted or statement.command.is_foreign or first.text not in aliases:
        return [statement]
    name = first.text
    if name in seen:
        chain = " → ".join((*seen, name))
        raise click.UsageError(f"the alias {name} stands for itself: {chain}")
    meant = stands_for(statement, name, aliases[name], statement.command.words[1:])
    return [
        inner for one in meant for inner in expanded(one, aliases, (*seen, name))
    ]  # fmt: skip


def stands_for(
    statement: Statement, name: str, body: str, given: Sequence[Word]
) -> list[Statement]:
    """The body with what was given filled in, or put behind it; then what followed in the
    statement. Raises UsageError."""
    parts = _parts(name, body)
    holes = {hole for part in parts for word in _all_words(part) for hole in _holes(word)}
    if holes:
        _check_number(name, body, holes, given)
        parts = [_filled(part, given) for part in parts]
    else:
        last = parts[-1]
        parts[-1] = replace(
            last, command=replace(last.command, words=(*last.command.words, *given))
        )
    return [*parts[:-1], _followed(name, parts, statement)]


def _parts(name: str, body: str) -> list[Statement]:
    """The statements of a body. Raises UsageError for one that was written past the shell."""
    try:
        parts = list(parse(body))
    except SyntaxProblem as problem:
        raise click.UsageError(f"what {name} stands for: {problem.pointed(body)}") from None
    if not parts or any(part.body for part in parts):
        raise click.UsageError(f"{name} stands for nothing that can be run: {body}")
    return parts


def _followed(name: str, parts: Sequence[Statement], statement: Statement) -> Statement:
    """The last part with the stages and the file that follow the name."""
    last = parts[-1]
    if len(parts) > 1 and (statement.stages or statement.target):
        raise click.UsageError(f"{name} is several commands; | and > cannot follow it")
    if last.target and (statement.stages or statement.target):
        raise click.UsageError(f"{name} writes to a file already; | and > cannot follow it")
    return replace(
        last,
        stages=(*last.stages, *statement.stages),
        target=statement.target or last.target,
        begin=statement.begin,
        end=statement.end,
    )


def _check_number(name: str, body: str, holes: set[str], given: Sequence[Word]) -> None:
    numbers = [int(hole) for hole in holes if hole != "*"]
    wanted = max(numbers, default=0)
    if len(given) < wanted:
        raise click.UsageError(f"{name} needs {_counted(wanted)}: {body}")
    if len(given) > wanted and "*" not in holes:
        raise click.UsageError(f"{name} takes {_counted(wanted)} and no more: {body}")


def _counted(number: int) -> str:
    return "one word" if number == 1 else f"{number} words"


def _all_words(statement: Statement) -> Iterator[Word]:
    for stage in (statement.command, *statement.stages):
        yield from stage.words
    if statement.target:
        yield statement.target.path


def _holes(word: Word) -> Iterator[str]:
    for place in word.live:
        if found := _PLACE.match(word.text, place):
            yield found[1]


def _filled(statement: Statement, given: Sequence[Word]) -> Statement:
    target = statement.target
    if target:
        target = replace(target, path=_word(target.path, given))
    return replace(
        statement,
        command=_stage(statement.command, given),
        stages=tuple(_stage(stage, given) for stage in statement.stages),
        target=target,
    )


def _stage(stage: Stage, given: Sequence[Word]) -> Stage:
    words: list[Word] = []
    for word in stage.words:
        if word.text == "$*" and word.live and not word.is_quoted:
            words += given
        else:
            words.append(_word(word, given) if word.live else word)
    return replace(stage, words=tuple(words))


def _word(word: Word, given: Sequence[Word]) -> Word:
    """A word with its places filled in; it stays one word."""
    pieces, last = [], 0
    for place in word.live:
        found = _PLACE.match(word.text, place)
        if found is None:
            continue
        texts = [one.text for one in given]
        filling = " ".join(texts) if found[1] == "*" else texts[int(found[1]) - 1]
        pieces += [word.text[last:place], filling]
        last = found.end()
    if not pieces:
        return word
    return Word("".join([*pieces, word.text[last:]]), False, word.begin, word.end, True)
