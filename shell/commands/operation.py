"""`pvc operation`: long work that was asked for."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info
from shell.listing import Listing, show_list
from shell.tree import Group, command, list_options, name_argument
from shell.waiting import finish


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


@command(operation, "wait", "pvc operation wait 01k5f3")
@name_argument("operations")
def wait(session: Any, name: str) -> None:
    """Wait for an operation, with its progress; fail if it fails."""
    finish(session, session.cluster.operations.pending(name), f"{name} is done", wait=True)


@command(operation, "cancel", "pvc operation cancel 01k5f3")
@name_argument("operations")
def cancel(session: Any, name: str) -> None:
    """Ask the worker to stop and undo what it did."""
    found = session.cluster.operations.cancel(name)
    state = columns.enum_word(found, "state")
    ended = state in ("succeeded", "failed", "cancelled")
    click.echo(f"{name} has ended already: {state}" if ended else f"{name} was asked to stop")
