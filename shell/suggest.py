"""What could come next on a command line: commands, options, their values and live names, with what
each means. Knows the click tree and nothing of screens; the names come from whoever has them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click

FindNames = Callable[[str], Sequence[str]]
"""The names in a collection ("vms"), at once, from memory."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One thing that could come next."""

    text: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a line the cursor is."""

    context: click.Context
    """Of the command that the words before lead to."""
    given: tuple[str, ...]
    """The words after that command."""
    word: str
    """What is being typed."""


def words_of(text: str) -> tuple[list[str], str]:
    """The finished words of a line and the one that is being typed; an open quote is fine."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        words += lexer
    except ValueError:
        words.append(lexer.token)
        return words[:-1], words[-1]
    if not words or text[-1:].isspace():
        return words, ""
    return words[:-1], words[-1]


def place_of(root: click.Group, text: str) -> Place:
    """Follows the words of a line into the tree as far as they lead."""
    words, word = words_of(text)
    context = click.Context(root, info_name="pvc", resilient_parsing=True)
    while words and isinstance(context.command, click.Group):
        inner = context.command.get_command(context, words[0])
        if inner is None:
            break
        context = click.Context(inner, context, words.pop(0), resilient_parsing=True)
    return Place(context, tuple(words), word)


def suggestions(root: click.Group, text: str, names: FindNames) -> Iterator[Suggestion]:
    """What could stand in the place of the word that is being typed, best first."""
    place = place_of(root, text)
    command = place.context.command
    found: Iterator[Suggestion]
    if (option := _awaited(place)) is not None:
        found = _values(option, names)
    elif place.word.startswith("-"):
        found = _options(place)
    elif isinstance(command, click.Group):
        found = _commands(place) if not place.given else iter(())
    else:
        found = _arguments(place, names)
    yield from _matching(found, place.word)


def _matching(found: Iterator[Suggestion], word: str) -> Iterator[Suggestion]:
    """Those that begin with the word, then those that merely hold its letters in their order."""
    loose = []
    for one in found:
        if one.text.startswith(word):
            yield one
        elif is_fuzzy(one.text, word):
            loose.append(one)
    yield from loose


def is_fuzzy(text: str, word: str) -> bool:
    """Whether the letters of the word stand in the text in their order."""
    rest = iter(text.lower())
    return all(letter in rest for letter in word.lower())


def _awaited(place: Place) -> click.Parameter | None:
    """The option whose value is being typed, or None."""
    last = place.given[-1] if place.given else ""
    for parameter in place.context.command.get_params(place.context):
        takes_value = isinstance(parameter, click.Option) and not parameter.is_flag
        if takes_value and last in parameter.opts:
            return parameter
    return None


def _options(place: Place) -> Iterator[Suggestion]:
    for parameter in place.context.command.get_params(place.context):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        spellings = [*parameter.opts, *parameter.secondary_opts]
        if parameter.multiple or not any(one in place.given for one in spellings):
            for spelling in spellings:
                if spelling.startswith("--") or place.word == "-":
                    yield Suggestion(spelling, parameter.help or "")


def _commands(place: Place) -> Iterator[Suggestion]:
    from shell.tree import Group

    group = place.context.command
    assert isinstance(group, Group)
    for name, help in group.told(place.context):
        yield Suggestion(name, help)


def _arguments(place: Place, names: FindNames) -> Iterator[Suggestion]:
    """Values for the argument whose turn it is."""
    arguments = [
        one
        for one in place.context.command.get_params(place.context)
        if isinstance(one, click.Argument)
    ]
    filled = sum(not word.startswith("-") for word in place.given)
    if arguments and (filled < len(arguments) or arguments[-1].nargs == -1):
        for one in _values(arguments[min(filled, len(arguments) - 1)], names):
            if one.text not in place.given:
                yield one


def _values(parameter: click.Parameter, names: FindNames) -> Iterator[Suggestion]:
    """What a parameter may be, as far as that can be listed."""
    if isinstance(parameter.type, click.Choice):
        yield from (Suggestion(str(choice)) for choice in parameter.type.choices)
    collection = getattr(parameter, "_custom_shell_complete", None)
    if (path := getattr(collection, "collection", "")) != "":
        yield from (Suggestion(name, path.removesuffix("s")) for name in names(path))
