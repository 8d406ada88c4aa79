"""What the commands are made of: groups that load when they are needed, help with examples, options
that many commands share, completion with live names.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from shell.answers import FORMATS as ANSWERS
from shell.answers import TEXT
from shell.listing import Listing
from shell.measures import parse_size, parse_span
from shell.render import FORMATS, Output
from shell.waiting import Waiting

if TYPE_CHECKING:
    from shell.session import Session

F = TypeVar("F", bound=Callable[..., Any])

COMPLETION_S = 0.7
"""A name that takes longer to find is not completed."""
COMPLETED_MAX = 200
OTHER_WORDS = {"ls": "list", "show": "info"}
"""What a group calls these, where it has no command of that name."""
VERBS = OTHER_WORDS | {"get": "list", "ps": "list", "describe": "info", "rm": "delete"}
"""What is meant where one of these comes before the kind of thing that it is about."""


class Group(click.Group):
    """A group whose subcommands may live in modules that load when used, and have other names."""

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """lazy: name → ("shell.commands.vm:vm", short help). aliases: other name → name."""
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.aliases = dict(aliases or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names but aliases."""
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name or alias, loaded."""
        name = self.aliases.get(cmd_name, cmd_name)
        if name in self.lazy:
            module, _, attribute = self.lazy[name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        found = super().get_command(ctx, name)
        other = OTHER_WORDS.get(name) if found is None else None
        return found if other is None else super().get_command(ctx, other)

    def named(self, word: str) -> str:
        """The command's own name, of which a word is an alias or not."""
        own = self.aliases.get(word, word)
        return own if own in self.commands or own in self.lazy else OTHER_WORDS.get(own, own)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help."""
        with formatter.section("Commands"):
            formatter.write_dl(self.told(ctx))

    def told(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Every command with what it does in short, without loading anything."""
        rows = []
        for name in self.list_commands(ctx):
            if name in self.lazy:
                rows.append((name, self.lazy[name][1]))
            elif (command := super().get_command(ctx, name)) and not command.hidden:
                rows.append((name, command.get_short_help_str(60)))
        return rows

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Says what was near when there is no such command. A command is told of by its own name,
        however it was called."""
        word = args[0] if args else ""
        if word and not word.startswith("-") and self.get_command(ctx, word) is None:
            near = self.meant(ctx, args)
            hint = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"There is no command {word!r}.{hint}", ctx)
        found, command, rest = super().resolve_command(ctx, args)
        return found if found is None else self.named(found), command, rest

    def meant(self, ctx: click.Context, args: Sequence[str]) -> str:
        """The command that was probably meant: with the words in the other order ("get vms"), of
        a group ("start web"), or of nearly that spelling; "" for none."""
        from difflib import get_close_matches

        verb = VERBS.get(args[0], args[0])
        known = [*self.list_commands(ctx), *self.aliases]
        if verb in known:
            return verb
        groups = [*args[1:2], "vm", *self.lazy] if self.lazy else []
        for group in groups:
            if _has(self.get_command(ctx, group), verb, ctx):
                return f"{self.named(group)} {verb}"
        return next(iter(get_close_matches(args[0], known, 1)), "")


def _has(command: click.Command | None, name: str, ctx: click.Context) -> bool:
    """Whether it is a group that has a command of that name."""
    return isinstance(command, click.Group) and command.get_command(ctx, name) is not None


EXPLAINED = {
    "address": "Where the others reach it.",
    "conditions": "FIELD=VALUE of the thing, or deleted.",
    "file": "A file of this machine.",
    "image": "An image of the cluster.",
    "kind": "Which one.",
    "method": "A method of the contract: StartVm.",
    "memory": "How much: 2G, 768M.",
    "name": "How it is called, or is to be.",
    "names": "How they are called.",
    "network": "A network of the cluster.",
    "new": "How it is to be called.",
    "part_id": "The one of the VM's: its id.",
    "request": "The request as JSON; - for standard input.",
    "size": "How large: 20G.",
    "snapshot_name": "How the snapshot is called.",
    "tags": "Words to find it by.",
    "token": "What pvc node add printed; standard input without it.",
    "vcpus": "How many processors.",
    "volume": "A volume: POOL/VOLUME.",
    "volumes": "Volumes: POOL/VOLUME.",
    "what": "A kind, or a field of one: vm.spec.cpu.",
    "word": "Which of the two.",
    "xml": "A file with the domain; - for standard input.",
}
"""What arguments of these names are, where a command does not say more."""


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)
        for parameter in self.params:
            if isinstance(parameter, click.Argument) and not parameter.help:
                parameter.help = EXPLAINED.get(parameter.name or "", "")

    def invoke(self, ctx: click.Context) -> Any:
        """Runs it; what a service says of a field is told of the option that was typed."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if getattr(error, "field", ""):
                from shell.commands.fields import told_of_options

                told_of_options(error, self)
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples as they are."""
        if self.examples:
            formatter.write("\nExamples:\n")
            for example in self.examples:
                formatter.write(f"  {example}\n")


def command(group: click.Group, name: str, *examples: str) -> Callable[[F], Command]:
    """Makes a function a command of a group; its docstring is the help."""

    def decorate(function: F) -> Command:
        make = group.command(name, cls=Command, examples=examples)
        made = make(click.pass_obj(function))
        assert isinstance(made, Command)
        return made

    return decorate


def stacked(*decorators: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several decorators as one."""

    def decorate(function: F) -> F:
        made: Any = function
        for decorator in reversed(decorators):
            made = decorator(made)
        return made  # type: ignore[no-any-return]

    return decorate


class Size(click.ParamType[int]):
    """A size as people write it; becomes bytes."""

    name = "SIZE"

    def __init__(self, unit: str = "") -> None:
        self._unit = unit

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Bytes."""
        try:
            return value if isinstance(value, int) else parse_size(value, self._unit)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Span(click.ParamType[int]):
    """A length of time as people write it; becomes seconds."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Seconds."""
        try:
            return value if isinstance(value, int) else parse_span(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Pair(click.ParamType[tuple[str, str]]):
    """KEY=VALUE; becomes a tuple."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """(key, value)."""
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} must read KEY=VALUE", param, ctx)
        return key, text


def live_names(collection: str) -> Callable[..., list[CompletionItem]]:
    """Completes with the names there are in a collection of the cluster ("vms"), quickly or not."""

    def complete(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:
        try:
            return [CompletionItem(n) for n in names_of(ctx, collection) if _fits(n, incomplete)]
        except Exception:  # noqa: BLE001 - completion must never disturb who is typing
            return []

    complete.collection = collection  # type: ignore[attr-defined]
    return complete


def _fits(name: str, incomplete: str) -> bool:
    return name.startswith(incomplete)


def names_of(ctx: click.Context, collection: str) -> list[str]:
    """The short names of what is in a collection, over a connection of its own."""
    from shell.session import Session

    wanted = ctx.find_root().params
    session = Session(
        wanted.get("connection") or "",
        wanted.get("token_file") or "",
        wanted.get("ca") or "",
        timeout_s=COMPLETION_S,
    )
    try:
        return names_in(session, collection)
    finally:
        session.close()


def names_in(session: Session, collection: str) -> list[str]:
    """The short names of what is in a collection. Raises PvcError."""
    from pvc_client.names import short_name

    found = getattr(session.cluster, collection).list(read_mask=["name"], page_size=COMPLETED_MAX)
    return [short_name(row.name) for row in itertools.islice(found, COMPLETED_MAX)]


def name_argument(collection: str, name: str = "name", **kwargs: Any) -> Callable[[F], F]:
    """The argument that names one of a collection, or several with nargs=-1."""
    required = kwargs.pop("required", True)
    kind = collection.removesuffix("s").replace("_", " ")
    many = kwargs.get("nargs") == -1
    told = f"Names of {kind}s: several at once." if many else f"Name of the {kind}."
    kwargs.setdefault("help", told.replace("vm", "VM"))
    return click.argument(name, required=required, shell_complete=live_names(collection), **kwargs)


def packed(make: Callable[..., Any], into: str, names: Sequence[str]) -> Callable[[F], F]:
    """Makes one argument of several: what `make` makes of those, under the name `into`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            one = make(**{name: given.pop(name) for name in names})
            return function(*args, **given, **{into: one})

        return call  # type: ignore[return-value]

    return decorate


_output_options = (
    click.option(
        "-f",
        "--format",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to show it.",
    ),
    click.option(
        "--columns",
        default="",
        metavar="NAMES",
        help="These instead: titles or fields, 'name,spec.cpu.vcpus'; '+…' for these too.",
    ),
    click.option("--no-header", "header", flag_value=False, default=True, help="No titles."),
)
_OUTPUT = ("format", "columns", "header")


def _waiting(on: bool, timeout_s: int | None, shown: str = TEXT) -> Waiting:
    return Waiting(on, timeout_s or 0, shown)


def _listing(**given: Any) -> Listing:
    output = Output(**{name: given.pop(name) for name in _OUTPUT})
    return Listing(output, **{key: value for key, value in given.items() if value})


format_option = stacked(*_output_options, packed(Output, "format", _OUTPUT))
"""How one thing is shown; the function gets an Output as `format`."""
_sort_options = (
    click.option("--sort", default="", metavar="NAMES", help="By these: 'state,-memory'."),
    click.option("--limit", type=click.IntRange(1), help="So many at most."),
)
rows_options = stacked(
    *_sort_options, *_output_options, packed(_listing, "asked", ("sort", "limit", *_OUTPUT))
)
"""For lists that are no collection; the function gets a Listing as `asked`, for show_rows."""
_query_options = (
    click.option("--filter", default="", help="Which: 'state=running memory>2G tag:web'."),
    *_sort_options,
    click.option("-w", "--watch", is_flag=True, help="Go on with every change, until Ctrl-C."),
    *_output_options,
)
_QUERY = ("filter", "sort", "limit", "watch", *_OUTPUT)
inner_list_options = stacked(*_query_options, packed(_listing, "asked", _QUERY))
"""list_options without a PATTERN, for what is inside of something that is named."""
list_options = stacked(
    click.argument(
        "pattern", nargs=-1, help="Names: web 'db-*'. And filters, as --filter: state=running."
    ),
    *_query_options,
    packed(_listing, "asked", ("pattern", *_QUERY)),
)
"""What every list has; the function gets a Listing as `asked`, for shell.listing.show_list."""
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
_wait_options = (
    click.option(
        "--wait/--no-wait", "on", default=True, show_default=True, help="Wait for the end."
    ),
    click.option("--timeout", "timeout_s", type=Span(), help="Wait so long at most: 90s, 10m."),
)
wait_options = stacked(*_wait_options, packed(_waiting, "wait", ("on", "timeout_s")))
"""For what goes on in the background; the function gets a Waiting as `wait`, for finish."""
_SHOWN: Any = {"type": click.Choice(ANSWERS), "default": TEXT, "show_default": True,
          "help": "How to show what came out."}  # fmt: skip
answer_option = click.option("-f", "--format", "shown", **_SHOWN)
"""For changes that are done at once; the function gets the format as `shown`."""
_packed_wait = packed(_waiting, "wait", ("on", "timeout_s", "shown"))
waiting_options = stacked(*_wait_options, answer_option, _packed_wait, dry_run_option)
"""wait_options, how to show what came out, and --dry-run."""
filed_options = stacked(
    *_wait_options, click.option("--format", "shown", **_SHOWN), _packed_wait, dry_run_option
)
"""waiting_options of commands whose -f is a file."""
copy_option = click.option(
    "--copy-volumes", is_flag=True, help="Copy volumes along that cannot be opened there."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def options(*, dry_run: bool = False, etag: str = "") -> dict[str, Any]:
    """What goes with a change."""
    found: dict[str, Any] = {"validate_only": True} if dry_run else {}
    return found | ({"etag": etag} if etag else {})
