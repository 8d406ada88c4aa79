"""`pvc explain`: what the contract says about a thing, a field or a method."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from shell.render import json_text, painted, yaml_text
from shell.tree import Command

WIDTH_MAX = 100


def complete(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:
    """Words that lead one step deeper."""
    from shell.contract.fields import find
    from shell.contract.texts import first_sentence

    inside, dot, _ = incomplete.rpartition(".")
    if not dot:
        return [CompletionItem(one) for one in _roots() if one.startswith(incomplete)]
    root, _, path = inside.partition(".")
    message = _root(root)
    for step in filter(None, path.split(".")):
        message = message and find(message, step).message_type
    fields = message.fields if message else []
    found = [(f"{inside}.{one.name}", first_sentence(one)) for one in fields]
    return [CompletionItem(name, help=help) for name, help in found if name.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=(
        "pvc explain vm",
        "pvc explain vm.spec.memory.memory_mib",
        "pvc explain StartVm            # a method",
    ),
)
@click.argument("what", required=False, shell_complete=complete)
@click.option("--recursive", is_flag=True, help="With all fields inside.")
@click.option("-f", "--format", type=click.Choice(["text", "json", "yaml"]), default="text",
              show_default=True, help="How to show it.")  # fmt: skip
@click.pass_obj
def explain(session: Any, what: str | None, recursive: bool, format: str) -> None:
    """Say what a thing, a field or a method is: its text, its rules, who writes it.

    WHAT is a path such as vm.spec.cpu, or a method such as StartVm. Without it: what there is.
    """
    told = _overview() if what is None else _about(what, recursive)
    if format == "json":
        click.echo(json_text(told, 2))
    elif format == "yaml":
        click.echo(yaml_text(told), nl=False)
    else:
        for line in _lines(told, session.coloured(sys.stdout)):
            click.echo(line)


def _roots() -> dict[str, Any]:
    """Word → message, of what paths can begin with."""
    from pvc.coordinator.v1 import cluster_pb2
    from pvc.core.v1 import event_pb2
    from pvc.provisioner.v1 import image_pb2
    from shell.contract.kinds import kinds

    return {kind.word: kind.message for kind in kinds().values()} | {
        "cluster": cluster_pb2.Cluster.DESCRIPTOR,
        "event": event_pb2.Event.DESCRIPTOR,
        "cloud-init": image_pb2.CloudInit.DESCRIPTOR,
    }


def _root(word: str) -> Any:
    """The message of a word: "vm", or of its own name: "CreateVmRequest"; None for a foreign
    one."""
    from shell.contract.methods import modules

    known = _roots()
    for name in (word.lower(), word.lower().removesuffix("s")):
        if name in known:
            return known[name]
    for module in modules():
        if word in module.DESCRIPTOR.message_types_by_name:
            return module.DESCRIPTOR.message_types_by_name[word]
    return None


def _overview() -> dict[str, Any]:
    from shell.contract.methods import methods
    from shell.contract.texts import text_of

    things = [_short(word, text_of(message)) for word, message in sorted(_roots().items())]
    calls = [_short(name, text_of(method)) for name, method in methods().items()]
    return {"things": things, "methods": calls}


def _short(name: str, text: str) -> dict[str, Any]:
    head, end, _ = text.partition(". ")
    return {"name": name, "text": head + end.strip()}


def _about(what: str, recursive: bool) -> dict[str, Any]:
    """Raises UsageError."""
    from shell.contract.fields import find, nearest
    from shell.contract.methods import methods

    for name, method in methods().items():
        if what in (name, name.partition("/")[2]):
            return _about_method(name, method)
    word, _, path = what.partition(".")
    message = _root(word)
    if message is None:
        raise click.UsageError(f"nothing is called {word!r}{nearest(word, list(_roots()))}")
    if not path:
        return _about_message(what, message, recursive)
    try:
        found = _about_field(what, find(message, path), recursive)
        return found | _inherited(message, path)
    except LookupError as error:
        raise click.UsageError(str(error).strip("'\"")) from None


def _about_method(name: str, method: Any) -> dict[str, Any]:
    from pvc.core.v1 import options_pb2
    from shell.commands.table import commands_for
    from shell.contract.texts import text_of

    role = method.GetOptions().Extensions[options_pb2.access].role
    asked, told = method.input_type, method.output_type
    commands = [f"pvc {one}" for one in commands_for(method.name)]
    return {
        "name": name,
        "text": text_of(method),
        "commands": commands,
        "role": options_pb2.Role.Name(role).removeprefix("ROLE_").lower(),
        "answer": told.name + (", a stream" if method.server_streaming else ""),
        "fields": list(_fields(asked, False)),
    }


def _about_message(name: str, message: Any, recursive: bool) -> dict[str, Any]:
    from shell.contract.texts import text_of

    return {
        "name": name,
        "text": text_of(message),
        "fields": list(_fields(message, recursive, frozenset({message.full_name}))),
    }


def _about_field(name: str, field: Any, recursive: bool) -> dict[str, Any]:
    found = _field(field) | {"name": name}
    if field.enum_type is not None:
        found["values"] = list(_values(field.enum_type))
    if _inner(field) is not None:
        found["fields"] = list(_fields(field.message_type, recursive))
    return found


def _inherited(message: Any, path: str) -> dict[str, Any]:
    """Who writes what the field is in, where that is the cluster alone."""
    from shell.contract.fields import behaves, find, writer_words

    steps = path.split(".")
    for length in range(1, len(steps)):
        outer = find(message, ".".join(steps[:length]))
        if behaves(outer, "OUTPUT_ONLY"):
            return {"writer": writer_words(outer)}
    return {}


def _field(field: Any) -> dict[str, Any]:
    from shell.contract.fields import rule_words, type_words, writer_words
    from shell.contract.texts import text_of

    found = {
        "name": field.name,
        "type": type_words(field),
        "text": text_of(field),
        "rules": rule_words(field),
        "writer": writer_words(field),
    }
    return {key: value for key, value in found.items() if value}


def _values(kind: Any) -> Iterator[dict[str, Any]]:
    from shell.contract.fields import enum_words
    from shell.contract.texts import value_text

    for name, word in enum_words(kind).items():
        yield {"name": word, "text": value_text(kind, name)}


def _inner(field: Any) -> Any:
    """The message of ours that a field holds, or None."""
    from shell.contract.fields import is_map

    message = field.message_type
    ours = message is not None and not is_map(field) and message.full_name.startswith("pvc.")
    return message if ours else None


def _fields(
    message: Any, recursive: bool, seen: frozenset[str] = frozenset()
) -> Iterator[dict[str, Any]]:
    for field in message.fields:
        found, inner = _field(field), _inner(field)
        if recursive and inner is not None and inner.full_name not in seen:
            found["fields"] = list(_fields(inner, True, seen | {inner.full_name}))
        yield found


TITLES = {
    "rules": "rules: ",
    "commands": "commands: ",
    "role": "least role: ",
    "answer": "answers: ",
}


def _lines(told: Mapping[str, Any], colour: bool) -> Iterator[str]:
    """For people."""
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX)
    if "name" in told:
        kind = f"  {told['type']}" if "type" in told else ""
        yield painted(told["name"], "bold", colour) + kind
        yield from _wrapped(told.get("text", ""), 2, width)
        for key in ("rules", "writer", "role", "answer", "commands"):
            if value := told.get(key):
                text = "; ".join(value) if isinstance(value, list) else value
                yield from _wrapped(TITLES.get(key, "") + text, 2, width)
    for key in ("values", "things", "fields", "methods"):
        if key in told:
            yield ""
            yield painted(f"{key}:", "dim", colour)
            yield from _listed(told[key], 2, width, colour)


def _listed(items: list[dict[str, Any]], indent: int, width: int, colour: bool) -> Iterator[str]:
    for item in items:
        kind = painted(item.get("type", ""), "dim", colour)
        yield f"{' ' * indent}{painted(item['name'], 'bold', colour)}  {kind}".rstrip()
        said = [item.get("text", ""), "; ".join(item.get("rules", ())), item.get("writer", "")]
        for text in filter(None, said):
            yield from _wrapped(text, indent + 4, width)
        yield from _listed(item.get("fields", []), indent + 4, width, colour)


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, width, initial_indent=space, subsequent_indent=space)
