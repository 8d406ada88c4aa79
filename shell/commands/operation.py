"""`pvc operation`: long work that was asked for."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info
from shell.listing import Listing, show_list
from shell.render import Output
from shell.tree import (
    Command,
    Group,
    Span,
    command,
    format_option,
    list_options,
    live_names,
    name_argument,
    wait_options,
)
from shell.waiting import Waiting, finish


@click.group(cls=Group)
def operation() -> None:
    """Long work that was asked for: look at it, wait for it, stop it."""


@command(operation, "list", "pvc operation list", "pvc operation list --all -f wide")
@list_options
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
def list_operations(session: Any, asked: Listing, everything: bool) -> None:
    """List operations that go on."""
    terms = [] if everything else ["state = PENDING OR state = RUNNING"]
    nothing = "nothing found" if everything else "nothing goes on; --all shows what has ended"
    show_list(
        session, asked, session.cluster.operations, columns.OPERATION,
        path="operations", terms=terms, nothing=nothing,
    )  # fmt: skip


add_info(operation, "operations", columns.OPERATION, "pvc operation info 01k5f3")


@command(operation, "wait", "pvc operation wait 01k5f3",
         "pvc operation wait 01k5f3 --quiet --timeout 5m")  # fmt: skip
@name_argument("operations")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("--timeout", "timeout_s", type=Span(), help="Wait so long at most: 90s, 10m.")
def wait(session: Any, name: str, quiet: bool, timeout_s: int | None) -> None:
    """Wait for an operation, with its progress; fail if it fails."""
    _wait(session, name, Waiting(timeout_s=timeout_s or 0), quiet=quiet)


def _wait(session: Any, name: str, wait: Waiting, *, quiet: bool = False) -> None:
    pending = session.cluster.operations.pending(name)
    if quiet:
        pending.result(wait.timeout_s or None)
        session.say(f"{name} is done")
    else:
        finish(session, pending, f"{name} is done", wait=wait)


@command(operation, "cancel", "pvc operation cancel 01k5f3")
@name_argument("operations")
def cancel(session: Any, name: str) -> None:
    """Ask the worker to stop and undo what it did."""
    found = session.cluster.operations.cancel(name)
    state = columns.enum_word(found, "state")
    ended = state in ("succeeded", "failed", "cancelled")
    click.echo(f"{name} has ended already: {state}" if ended else f"{name} was asked to stop")


@click.command(
    "task", cls=Command, examples=("pvc cluster task", "pvc cluster task 01k5f3 --no-wait")
)
@click.argument("name", required=False, shell_complete=live_names("operations"))
@wait_options
@format_option
@click.pass_obj
def task(session: Any, /, name: str | None, wait: Waiting, format: Output) -> None:
    """List what goes on; or follow one operation to its end, with --no-wait look at it."""
    if name is None:
        terms = ["state = PENDING OR state = RUNNING"]
        show_list(
            session, Listing(format), session.cluster.operations, columns.OPERATION,
            path="operations", terms=terms, nothing="nothing goes on",
        )  # fmt: skip
    elif wait:
        _wait(session, name, wait)
    else:
        session.show_one(session.cluster.operations.get(name), columns.OPERATION, format)
