"""`pvc call`: any method of the API by its name, with its request as JSON; for what no command
does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from shell.render import as_dict, json_text, yaml_text
from shell.tree import Command


def complete(ctx: click.Context, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of methods, with their services or without."""
    from shell.contract.methods import methods
    from shell.contract.texts import text_of

    found = [(name, text_of(method).partition(". ")[0]) for name, method in methods().items()]
    found += [(name.partition("/")[2], help) for name, help in found]
    return [CompletionItem(name, help=help) for name, help in found if name.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=(
        'pvc call GetVm \'{"name": "vms/web"}\'',
        "pvc call VmService/UpdateVm @change.json",
        "pvc call WatchVms --lines      # a stream, a line for each answer",
        "pvc call --list",
    ),
)
@click.argument("method", required=False, shell_complete=complete)
@click.argument("request", required=False)
@click.option("--list", "listing", is_flag=True, help="Show the methods there are.")
@click.option("-f", "--format", type=click.Choice(["json", "yaml"]), default="json",
              show_default=True, help="How to show the answer.")  # fmt: skip
@click.option("--lines", is_flag=True, help="Every answer in one line of JSON.")
@click.option("--timeout", type=click.FloatRange(0.001), help="Seconds; for ever for a stream.")
@click.pass_obj
def call(session: Any, method: str | None, request: str | None, listing: bool, format: str,
         lines: bool, timeout: float | None) -> None:  # fmt: skip
    """Ask any METHOD of the API; REQUEST is JSON, @FILE, or - for standard input.

    What a method wants: pvc explain METHOD.
    """
    if listing or method is None:
        return _list()
    found = _method(method)
    asked = _request(found, request)
    for answer in _answers(session, found, asked, timeout):
        _show(answer, "lines" if lines else format, several=found.server_streaming)


def _list() -> None:
    from shell.contract.methods import methods
    from shell.contract.texts import text_of

    widest = max(map(len, methods()))
    for name, method in methods().items():
        click.echo(f"{name.ljust(widest)}  {text_of(method).partition('. ')[0]}")


def _method(name: str) -> Any:
    """Raises UsageError, also for what no single request makes."""
    from shell.contract.fields import nearest
    from shell.contract.methods import methods

    wanted = name.removeprefix("/").rpartition(".")[2]
    for known, method in methods().items():
        if wanted in (known, known.partition("/")[2]):
            if method.client_streaming:
                raise click.UsageError(f"{known} takes a stream: use `pvc vm console`, `pvc volume "
                                       "import` or the client")  # fmt: skip
            return method
    near = nearest(wanted, [one.partition("/")[2] for one in methods()])
    raise click.UsageError(f"there is no method {name!r}{near if 'mean' in near else ''}; all: "
                           "pvc call --list")  # fmt: skip


def _request(method: Any, text: str | None) -> Any:
    """Raises BadParameter."""
    from google.protobuf import json_format

    from shell.contract.methods import message_class

    if text == "-":
        text = sys.stdin.read()
    elif text and text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    try:
        return json_format.Parse(text or "{}", message_class(method.input_type)())
    except json_format.ParseError as error:
        said = " ".join(str(error).split())
        raise click.BadParameter(f"{said}; see pvc explain {method.name}",
                                 param_hint="REQUEST") from None  # fmt: skip


def _answers(session: Any, method: Any, request: Any, timeout: float | None) -> Any:
    from shell.commands.raw import ask, follow

    if method.server_streaming:
        return follow(session, method, request, timeout)
    return [ask(session, method, request, timeout or 0)]


def _show(answer: Any, format: str, *, several: bool) -> None:
    shown = as_dict(answer)
    match format:
        case "lines":
            click.echo(json_text(shown))
        case "yaml":
            text = yaml_text(shown)
            click.echo(("---\n" if several else "") + text, nl=False)
        case _:
            click.echo(json_text(shown, 2))
