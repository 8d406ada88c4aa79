"""The commands of `pvc-shell` itself: use, alias, save, watch, set, source… One click tree like
that of `pvc`, with the Runner in the place of the session.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from shell.failures import DECLINED, DONE, INTERRUPTED, USAGE
from shell.language.line import spelled
from shell.language.settings import SETTINGS
from shell.tree import Command, F, Group, command

if TYPE_CHECKING:
    from shell.language.runner import Runner

FOLLOWED = ("run", "time", "watch")
"""Another command follows these, and what belongs to the statement belongs to that."""
WATCH_S = 2.0
CLEAR = "\x1b[H\x1b[J"


builtins = Group(
    "pvc-shell",
    aliases={"quit": "exit", "..": "unuse"},
    help="What the shell can do beside the commands of pvc.",
)


def _kinds(_ctx: click.Context, _param: Any, incomplete: str) -> list[CompletionItem]:
    from shell.language.using import things

    return [CompletionItem(one) for one in things() if one.startswith(incomplete)]


def _names(_ctx: click.Context, _param: Any, incomplete: str) -> list[CompletionItem]:
    """Names are live: whoever completes asks which collection they come from."""
    return []


def _collection_of(before: Sequence[str]) -> str:
    from shell.language.using import collection_at

    return collection_at(before)


_names.collection_of = _collection_of  # type: ignore[attr-defined]


@command(builtins, "use", "use vm web", "use connection prod", "use ..", "use")
@click.argument("kind", required=False, shell_complete=_kinds)
@click.argument("name", required=False, shell_complete=_names)
def use(runner: Runner, kind: str | None, name: str | None) -> None:
    """Go on about one thing, so that its name need not be repeated; alone: say which."""
    from shell.language.using import use_thing

    if kind == "..":
        runner.used = type(runner.used)()
    elif kind is None:
        click.echo(runner.context or "nothing is used: use vm NAME")
    else:
        use_thing(runner, kind, name or "")


@command(builtins, "unuse", "unuse")
def unuse(runner: Runner) -> None:
    """Be about nothing in particular again."""
    runner.used = type(runner.used)()


def _show(kept: Any, kind: str, name: str | None) -> None:
    if name is not None and name not in kept:
        raise click.UsageError(f"there is no {name!r}; there are: {', '.join(kept) or 'none'}")
    for one in [name] if name else sorted(kept):
        click.echo(f"{kind} {one} = {kept[one]}")


@command(builtins, "alias", "alias ll = vm list -f wide --sort -memory", "alias on = vm start $*",
         "alias")  # fmt: skip
@click.argument("name", required=False)
def alias(runner: Runner, name: str | None) -> None:
    """Give a command another name: alias NAME = COMMAND. What follows the name when it is used goes
    where $1, $2 and $* stand, or behind it all. Alone: show them."""
    _show(runner.settings.aliases, "alias", name)


@command(builtins, "unalias", "unalias ll")
@click.argument("name")
def unalias(runner: Runner, name: str) -> None:
    """Forget an alias."""
    runner.settings.forget("aliases", name)


@command(builtins, "save", "save big = vm list --filter 'memory>$1'", "save")
@click.argument("name", required=False)
def save(runner: Runner, name: str | None) -> None:
    """Keep a command to be run by name: save NAME = COMMAND. Alone: show them."""
    _show(runner.settings.queries, "save", name)


@command(builtins, "unsave", "unsave big")
@click.argument("name")
def unsave(runner: Runner, name: str) -> None:
    """Forget a saved query."""
    runner.settings.forget("queries", name)


def _following(name: str, *examples: str) -> Callable[[F], Command]:
    """A command that another whole command follows: its options are that one's own."""

    def decorate(function: F) -> Command:
        made = command(builtins, name, *examples)(function)
        made.ignore_unknown_options = True
        made.allow_interspersed_args = False
        return made

    return decorate


@_following("run", "run big 4G", "\\big 4G")
@click.argument("name")
@click.argument("given", nargs=-1, type=click.UNPROCESSED)
def run(runner: Runner, name: str, given: tuple[str, ...]) -> int:
    """Run a saved query; \\NAME does the same."""
    statement = runner.inner(len(given) + 1)
    _, *words = statement.command.words
    return _each(runner, runner.query(name, words, statement))


@_following("time", "time vm list")
@click.argument("words", metavar="COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def time_(runner: Runner, words: tuple[str, ...]) -> int:
    """Run a command and say how long it took."""
    began = time.monotonic()
    code = runner.run(runner.inner(len(words)))
    click.echo(f"{time.monotonic() - began:.2f} s", err=True)
    return code


every_option: Callable[[F], F] = click.option(
    "-n",
    "--every",
    type=click.FloatRange(0.2),
    default=WATCH_S,
    show_default=True,
    help="Seconds between two runs of what cannot be watched.",
)


@_following("watch", "watch vm list", "watch -n 5 vm list | where state=running | count")
@every_option
@click.argument("words", metavar="COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def watch(runner: Runner, every: float, words: tuple[str, ...]) -> int:
    """Show a list as it changes, until Ctrl-C; run any other command again and again."""
    from shell.language.using import live_words

    statement = runner.inner(len(words))
    runner.session.page = None  # nobody leafs through what is shown anew all the time
    if (live := live_words(runner, statement)) is not None:
        return runner.run(live)
    while True:
        if sys.stdout.isatty():
            click.echo(CLEAR, nl=False)
        click.echo(
            f"every {every:g} s: {spelled((statement,))}    {time.strftime('%H:%M:%S')}", err=True
        )
        code = runner.run(statement)
        if code in (USAGE, DECLINED, INTERRUPTED):
            return code
        time.sleep(every)


def _each(runner: Runner, statements: Any) -> int:
    for one in statements:
        if code := runner.run(one):
            return code
    return DONE


@command(builtins, "set", "set", "set format wide", "set timing on", "set --keep keys vi")
@click.argument("key", required=False, type=click.Choice(list(SETTINGS)))
@click.argument("value", required=False)
@click.option("--keep", is_flag=True, help="For later shells too.")
def set_(runner: Runner, key: str | None, value: str | None, keep: bool) -> None:
    """Change how this shell behaves; alone: show it."""
    if key is not None and value is not None:
        key, value = runner.settings.set(key, value, keep=keep)
        runner.settle()
        return
    if keep:
        raise click.UsageError("--keep goes with a setting and its value")
    _show_settings(runner, [key] if key else list(SETTINGS))


def _show_settings(runner: Runner, keys: list[str]) -> None:
    wide = max(map(len, SETTINGS))
    for one in keys:
        told = f"{one.ljust(wide)}  {runner.settings[one].ljust(8)}  "
        click.echo(f"{told}{SETTINGS[one].help} ({'|'.join(SETTINGS[one].choices)})")


@command(builtins, "show", "show settings", "show aliases")
@click.argument("what", type=click.Choice(["settings", "aliases", "queries", "context"]))
def show(runner: Runner, what: str) -> None:
    """Show what the shell knows."""
    match what:
        case "settings":
            _show_settings(runner, list(SETTINGS))
        case "aliases":
            _show(runner.settings.aliases, "alias", None)
        case "queries":
            _show(runner.settings.queries, "save", None)
        case _:
            click.echo(runner.context or "nothing is used")


@command(builtins, "timing", "timing on", "timing")
@click.argument("state", required=False, type=click.Choice(["on", "off"]))
def timing(runner: Runner, state: str | None) -> None:
    """Say after each command how long it took; alone: switch it over."""
    over = "off" if runner.settings.is_on("timing") else "on"
    runner.settings.set("timing", state or over)
    click.echo(f"timing is {runner.settings['timing']}", err=True)


@command(builtins, "history", "history", "history 50 | grep delete")
@click.argument("number", type=click.IntRange(1), default=100)
def history(runner: Runner, number: int) -> None:
    """Show the last lines that were typed."""
    lines = runner.history()
    for place, line in list(enumerate(lines, 1))[-number:]:
        click.echo(f"{place:5}  {line}")


@command(builtins, "source", "source morning.pvc")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
def source(runner: Runner, path: str) -> int:
    """Run the lines of a file here, up to the first that fails."""
    from shell.language.script import run_text

    whole = str(Path(path).resolve())
    if whole in runner.sources:
        raise click.UsageError(f"{path} is being read already: it would read itself for ever")
    before = runner.sources
    runner.sources = (*before, whole)
    try:
        return run_text(runner, Path(path).read_text(encoding="utf-8"), path)
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not a text in UTF-8") from None
    finally:
        runner.sources = before


@_following("help", "help", "help vm create", "help where")
@click.argument("words", metavar="[COMMAND]", nargs=-1, type=click.UNPROCESSED)
def help_(runner: Runner, words: tuple[str, ...]) -> Any:
    """Explain a command, or what may follow a |; alone: list what there is."""
    from shell.language.using import explain

    return explain(runner, list(words))


@command(builtins, "clear", "clear")
def clear(runner: Runner) -> None:
    """Leave the screen empty."""
    click.clear()


@command(builtins, "exit", "exit", "exit 1")
@click.argument("code", required=False, type=click.IntRange(0, 255))
def exit_(runner: Runner, code: int | None) -> int:
    """Leave the shell; without CODE with that of the last command."""
    runner.is_leaving = True
    return runner.code if code is None else code
