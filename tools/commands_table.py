"""Writes docs/commands.md: every command, what it does, the methods of the API that it is there
for, and what PVC 1.0.3 called it. `python -m tools.commands_table` after a change of the tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from shell.commands.table import ALONE, CALLS, OLD, canonical
from shell.contract.methods import methods
from shell.main import pvc

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Every command of `pvc`, and of `pvc-shell`, with the methods of the API that it is there for. Each
has `--help` with examples. Names of PVC 1.0.3 that lead to another one work too: they stand in
the last column. This page is made by `python -m tools.commands_table`; a test holds it to the
tree of commands.

* Several at once: `pvc vm start web db`, `'web*'`, `--all`, `-g TAG`, `--filter 'state=stopped'`.
  One that is refused does not keep the others back.
* `--dry-run` checks everything and changes nothing. `--no-wait` leaves the work to itself,
  `--timeout` waits so long at most.
* `pvc storage volume` and `pvc storage snapshot` also take POOL NAME as two words, as 1.0.3 did.
* What destroys something asks and names what it hits; `--yes` answers. A no ends with 3.
* `pvc apply -f FILE`, `pvc diff -f FILE`, `pvc vm edit`, `pvc vm export`: things as YAML of the
  contract's form. `pvc explain vm.spec.cpu` tells what a field is. `pvc call METHOD` asks any
  method.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its own place in the tree."""
    seen = set()
    for path, command in _inside(pvc, ""):
        own = canonical(path)
        if own not in seen:
            seen.add(own)
            yield own, command


def _inside(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if inner is not None and not inner.hidden:
            yield from _inside(inner, f"{path} {name}".strip())


def row(path: str, command: click.Command) -> str:
    """A line of the table."""
    first = (command.help or "").partition("\n\n")[0]
    text = " ".join(first.split()).partition(". ")[0].rstrip(".")
    told = CALLS.get(path, "")
    calls = ", ".join(told.split(" ")) if told else f"({ALONE.get(path, 'this user’s own files')})"
    old = ", ".join(f"`{name}`" for name, new in sorted(OLD.items()) if new == path != name)
    return f"| `{path}` | {text.replace('|', '/')} | {calls} | {old} |"


def page() -> str:
    """The whole text."""
    groups: dict[str, list[str]] = {}
    for path, command in sorted(commands()):
        group, space, _ = path.partition(" ")
        groups.setdefault(group if space else "", []).append(row(path, command))
    parts = [HEAD]
    for group, rows in groups.items():
        title = f"## pvc {group}" if group else "## Without a group"
        head = "| Command | What it does | Methods | In 1.0.3 |\n|---|---|---|---|"
        parts.append("\n".join([title, "", head, *rows, ""]))
    parts.append(_by_method())
    return "\n".join(parts)


def _by_method() -> str:
    from shell.commands.table import commands_for

    lines = ["## By method", "", "| Method | Commands |", "|---|---|"]
    for name in methods():
        found = ", ".join(f"`{one}`" for one in commands_for(name.partition("/")[2]))
        lines.append(f"| {name} | {found} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
