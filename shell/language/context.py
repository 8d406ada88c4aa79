"""What the shell is about: `use vm web`, and then `start` alone. Pure.

The tree of commands says what a word means and which of its arguments the context gives; no place
in a line is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from shell.tree import Group

SEARCHES = ("everything", "filter", "tags")
"""Options that say which ones are meant, in the place of names."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is used."""

    kind: str = ""
    """A group of the tree: "vm"; "" for nothing."""
    collection: str = ""
    """What the tree completes its names with: "vms"."""
    name: str = ""
    """Of one of them; "" for all of that kind."""

    def __bool__(self) -> bool:
        return bool(self.kind)

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" if self.name else self.kind


def after(context: Context, operation: Any, result: Any) -> Context:
    """What is used when an operation has ended well: the same under its new name when it was
    renamed, nothing when it is gone.

    result: what came of it: what was renamed, under its new name.
    """
    method = operation.method.rpartition("/")[2]
    if not context.name or not is_named(context, operation.target):
        return context
    kind = context.kind.capitalize()
    if method == f"Rename{kind}":
        return replace(context, name=_ids(result.name))
    return Context() if method in (f"Delete{kind}", f"Remove{kind}") else context


def is_named(context: Context, name: str) -> bool:
    """Whether it is the full name of what is used."""
    return name.split("/")[-2:-1] == [context.collection] and _ids(name) == context.name


def _ids(name: str) -> str:
    """The ids of a full name: "pools/local/volumes/web" → "local/web"."""
    return "/".join(name.split("/")[1::2])


class _Placed(str):
    """A word that knows where among the words it stands."""

    place: int

    @classmethod
    def all(cls, words: Sequence[str]) -> list[str]:
        found: list[str] = []
        for place, word in enumerate(words):
            one = cls(word)
            one.place = place
            found.append(one)
        return found


def placed(root: click.Group, context: Context, words: Sequence[str]) -> list[str]:
    """The words as the tree takes them: the context's group before what it has, and its name where
    a command takes one of its kind.

    A command that was written in full gets the name only where it could not do without. One that
    was found in the context's group is about the name unless the words are as many as it takes.
    `pvc` before a command means that it is written in full.
    """
    from_root = list(words[:1]) == ["pvc"]
    rest = list(words[1:] if from_root else words)
    if not context or not rest:
        return rest
    is_short = not from_root and _child(_child(root, context.kind), rest[0]) is not None
    if is_short:
        rest = [context.kind, *rest]
    return _named(root, context, rest, is_short) if context.name else rest


def collection_of(root: click.Group, kind: str) -> str:
    """The collection that a group of commands is about: what its `info` takes; "" if none."""
    info = _child(_child(root, kind), "info")
    for argument in _arguments(info) if info else ():
        if found := _collection(argument):
            return found
    return ""


def kinds(root: click.Group) -> list[str]:
    """What can be used: the groups that are about one collection."""
    names = root.list_commands(click.Context(root, info_name="pvc"))
    return [name for name in names if collection_of(root, name)]


def located(root: click.Group, words: Sequence[str]) -> tuple[click.Command, list[str], list[str]]:
    """The command that words lead to, their names as the tree has them, and the words after it."""
    command: click.Command = root
    path: list[str] = []
    rest = list(words)
    while rest and (inner := _child(command, rest[0])) is not None:
        path.append(command.named(rest[0]) if isinstance(command, Group) else rest[0])
        command, rest = inner, rest[1:]
    return command, path, rest


def _child(group: Any, name: str) -> click.Command | None:
    if not isinstance(group, click.Group):
        return None
    return group.get_command(click.Context(group, resilient_parsing=True), name)


def _arguments(command: click.Command) -> list[click.Argument]:
    return [one for one in command.params if isinstance(one, click.Argument)]


def _collection(parameter: click.Parameter) -> str:
    complete = getattr(parameter, "_custom_shell_complete", None)
    return str(getattr(complete, "collection", ""))


def _named(root: click.Group, context: Context, words: list[str], is_short: bool) -> list[str]:
    """The words with the name put in, if the command lacks it."""
    command, _, rest = located(root, words)
    arguments = [] if isinstance(command, click.Group) else _arguments(command)
    ours = [one for one in arguments if _collection(one) == context.collection]
    if not ours:
        return words
    given, options = _given(command, rest)
    if not _lacks(ours[0], arguments, len(given), options, is_short):
        return words
    before = sum(abs(one.nargs) for one in arguments[: arguments.index(ours[0])])
    if before > len(given):
        return words  # what stands before it is missing too
    at = len(words) - len(rest) + (given[before - 1] + 1 if before else 0)
    return [*words[:at], context.name, *words[at:]]


def _lacks(
    ours: click.Argument, arguments: Sequence[click.Argument], given: int, options: Sequence[str],
    is_short: bool,
) -> bool:  # fmt: skip
    """Whether a command with so many words lacks the one that names what it is about."""
    if ours.nargs < 0:
        return not given and not any(one in options for one in SEARCHES)
    if is_short:
        others = [one for one in arguments if one is not ours]
        endless = any(one.nargs < 0 for one in others)
        return endless or given < ours.nargs + sum(one.nargs for one in others if not _is_file(one))
    least = sum(abs(one.nargs) for one in arguments if one.required)
    return ours.required and given < least


def _is_file(argument: click.Argument) -> bool:
    """Whether it is a file that may be left out: a word alone is rather a name."""
    return not argument.required and isinstance(argument.type, click.Path | click.File)


def _given(command: click.Command, words: Sequence[str]) -> tuple[list[int], list[str]]:
    """The places of the words that are neither options nor their values, and the options."""
    options = [one for one in command.params if isinstance(one, click.Option)]
    rest = click.Argument(["words"], nargs=-1, required=False, type=click.UNPROCESSED)
    twin = click.Command("twin", params=[*options, rest], add_help_option=True)
    context = click.Context(twin, resilient_parsing=True, ignore_unknown_options=True)
    found, _, _ = twin.make_parser(context).parse_args(_Placed.all(words))
    plain = found.pop("words", ())
    plain = plain if isinstance(plain, tuple) else ()  # click has a mark of its own for none
    return [word.place for word in plain if isinstance(word, _Placed)], list(found)
