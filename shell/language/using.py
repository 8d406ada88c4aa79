"""What commands of the shell need of the tree of `pvc`: things to use, lists to watch, help."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from shell import main
from shell.language.builtins import builtins
from shell.language.context import Context, collection_of, kinds, located
from shell.language.line import Statement
from shell.language.stages import stages
from shell.language.words import Word

if TYPE_CHECKING:
    from shell.language.runner import Runner

CONNECTION = "connection"


def use_thing(runner: Runner, kind: str, name: str) -> None:
    """Goes on about a thing that is there. Raises UsageError and PvcError."""
    from pvc_client.names import short_name

    if "/" in kind and not name:
        kind, _, name = kind.partition("/")
    kind = main.ALIASES.get(kind, kind)
    if kind == CONNECTION:
        if not name:
            raise click.UsageError("use connection NAME; connection list shows them")
        runner.session.switch(name)
        return
    collection = collection_of(main.pvc, kind)
    if not collection:
        known = ", ".join(things())
        raise click.UsageError(f"{kind!r} is nothing that can be used; there are: {known}")
    if name:
        row = getattr(runner.session.cluster, collection).get(name)
        name = short_name(row.name)
    runner.used = Context(kind, collection, name)


def things() -> list[str]:
    """Kinds of things that can be used."""
    return sorted({CONNECTION, *kinds(main.pvc)})


def collection_at(before: Sequence[str]) -> str:
    """The collection that a name comes from behind these words: use, vm."""
    kind = before[-1] if before else ""
    return collection_of(main.pvc, main.ALIASES.get(kind, kind))


def live_words(runner: Runner, statement: Statement) -> Statement | None:
    """The same list with --watch, when it is one that can be watched and goes nowhere else."""
    if statement.stages or statement.target or statement.command.is_foreign:
        return None
    command, _, rest = located(main.pvc, runner.expanded(statement.command.texts))
    is_live = any(one.name == "watch" for one in command.params)
    if not is_live or "--watch" in rest:
        return None
    written = statement.command
    return replace(statement, command=replace(written, words=(*written.words, Word("--watch"))))


def explain(runner: Runner, words: list[str]) -> Any:
    """The help of a command of pvc, of the shell or of what follows a |."""
    if not words:
        with suppress(click.exceptions.Exit):
            main.call(["--help"], runner.session)
        for group, title in ((builtins, "The shell's own"), (stages, "Behind a |")):
            click.echo(f"\n{title}:")
            for name, help in group.told(click.Context(group)):
                click.echo(f"  {name:<12} {help}")
        return None
    for group, prog in ((builtins, "pvc-shell"), (stages, "|")):
        if words[0] in group.commands or words[0] in group.aliases:
            return group.main([*words, "--help"], prog_name=prog, standalone_mode=False)
    return main.call([*runner.expanded(words), "--help"], runner.session)
