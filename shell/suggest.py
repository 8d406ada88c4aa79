"""Where on a command line somebody is, by the tree of commands: which command, which parameter,
what was given. Knows nothing of screens, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import click


class Slot(Enum):
    """What the word that is being typed will be."""

    COMMAND = "command"
    OPTION = "option"
    VALUE = "value"
    """Of the parameter that is awaited."""
    SURPLUS = "surplus"
    """One word more than the command takes."""
    LOST = "lost"
    """A word before is no command."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the words before lead."""

    context: click.Context
    """Of the command that they lead to."""
    slot: Slot
    typed: str
    """The word as far as it is there; of --option=value the value."""
    awaited: click.Parameter | None = None
    arguments: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    """Names of the options that were given, as the command calls its parameters."""

    @property
    def path(self) -> tuple[str, ...]:
        """The names of the commands that lead here: ("vm", "snapshot", "create")."""
        names: list[str] = []
        context: click.Context | None = self.context
        while context is not None and context.parent is not None:
            names.append(context.command.name or "")
            context = context.parent
        return tuple(reversed(names))


@dataclass(slots=True)
class _Walk:
    """What was read so far."""

    context: click.Context
    arguments: list[str] = field(default_factory=list)
    options: set[str] = field(default_factory=set)
    awaited: click.Option | None = None
    missing: int = 0
    """Values that the awaited option still takes."""
    literal: bool = False
    """Behind `--`: nothing is an option any more."""
    lost: bool = False

    def read(self, word: str) -> None:
        """Takes in a finished word."""
        if self.awaited is not None:
            self.missing -= 1
            self.awaited = self.awaited if self.missing else None
        elif not self.literal and word == "--":
            self.literal = True
        elif not self.literal and len(word) > 1 and word.startswith("-"):
            self._option(word)
        elif isinstance(self.context.command, click.Group) and not self.lost:
            self._step(self.context.command, word)
        else:
            self.arguments.append(word)

    def _step(self, group: click.Group, word: str) -> None:
        inner = group.get_command(self.context, word)
        if inner is None:
            self.lost = True
            return
        self.context = click.Context(inner, self.context, word, resilient_parsing=True)
        self.arguments, self.options = [], set()

    def _option(self, word: str) -> None:
        option, value = option_in(self.context, word)
        if option is None:
            return
        self.options.add(option.name or "")
        if takes_value(option) and value is None:
            self.awaited, self.missing = option, max(option.nargs, 1)


def takes_value(option: click.Option) -> bool:
    """Whether a value belongs to it."""
    return not option.is_flag and not option.count


def option_in(context: click.Context, word: str) -> tuple[click.Option | None, str | None]:
    """The option that a word of the line is, and the value that it brings along: --format=json,
    -fjson, -yf."""
    if word.startswith("--"):
        spelling, equals, value = word.partition("=")
        return option_named(context, spelling), value if equals else None
    for at in range(1, len(word)):
        option = option_named(context, f"-{word[at]}")
        if option is None:
            break
        if takes_value(option):
            return option, word[at + 1 :] or None
    else:
        return option_named(context, word[-2:] if len(word) == 2 else f"-{word[-1]}"), None
    return None, None


def option_named(context: click.Context, spelling: str) -> click.Option | None:
    """The option with that spelling."""
    for option in context.command.get_params(context):
        if isinstance(option, click.Option) and spelling in (
            *option.opts,
            *option.secondary_opts,
        ):
            return option
    return None


def arguments_of(context: click.Context) -> list[click.Argument]:
    """The arguments of a command."""
    found = context.command.get_params(context)
    return [one for one in found if isinstance(one, click.Argument)]


def place_of(root: click.Group, words: Sequence[str], typed: str) -> Place:
    """Where the finished words of a line lead, and what the word that is being typed will be."""
    walk = _Walk(click.Context(root, info_name=root.name, resilient_parsing=True))
    for word in words:
        walk.read(word)
    place = Place(
        walk.context, Slot.SURPLUS, typed, None, tuple(walk.arguments), frozenset(walk.options)
    )
    if walk.lost:
        return replace(place, slot=Slot.LOST)
    if walk.awaited is not None:
        return replace(place, slot=Slot.VALUE, awaited=walk.awaited)
    if typed.startswith("-") and not walk.literal and not _takes_any(walk.context, typed):
        return _at_option(place)
    if isinstance(walk.context.command, click.Group):
        return replace(place, slot=Slot.COMMAND)
    return _at_argument(place)


def _takes_any(context: click.Context, typed: str) -> bool:
    """Whether a command takes words like this one though it has no such option: `sort -memory`."""
    command = context.command
    takes = command.ignore_unknown_options or command.context_settings.get("ignore_unknown_options")
    if not takes or typed == "-":
        return False
    options = (one for one in command.get_params(context) if isinstance(one, click.Option))
    return not any(name.startswith(typed) for one in options for name in one.opts)


def _at_option(place: Place) -> Place:
    """In the name of an option, or in the value that is written to it."""
    glued = "=" in place.typed or not place.typed.startswith("--")
    option, value = option_in(place.context, place.typed) if glued else (None, None)
    if option is None or value is None or not takes_value(option):
        return replace(place, slot=Slot.OPTION)
    return replace(place, slot=Slot.VALUE, awaited=option, typed=value)


def _at_argument(place: Place) -> Place:
    arguments, filled = arguments_of(place.context), len(place.arguments)
    if not arguments or (filled >= len(arguments) and arguments[-1].nargs != -1):
        return place
    awaited = arguments[min(filled, len(arguments) - 1)]
    return replace(place, slot=Slot.VALUE, awaited=awaited)


def collection_of(parameter: click.Parameter | None, before: Sequence[str] = ()) -> str:
    """The collection in which the values of a parameter are; "" for any other parameter."""
    complete = getattr(parameter, "_custom_shell_complete", None)
    if by_words := getattr(complete, "collection_of", None):
        return str(by_words(before))
    return str(getattr(complete, "collection", ""))
