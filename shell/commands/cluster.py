"""`pvc cluster`, `pvc node`, `pvc operation` and `pvc event`: the cluster, and what goes on in
it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shell import columns
from shell.commands.shared import add_info, add_list
from shell.render import table
from shell.tree import (
    Group,
    Span,
    command,
    filter_of,
    format_option,
    list_options,
    name_argument,
    yes_option,
)
from shell.waiting import finish

PAGE_MAX = 1000
INIT = "services.pvcd.init"
"""Where a new cluster is made; only on a machine that runs the services."""
JOIN = "services.pvcd.join"
"""Where a machine becomes a node."""


@click.group(cls=Group, aliases={"info": "status"})
def cluster() -> None:
    """The cluster as a whole."""


@click.group(cls=Group)
def node() -> None:
    """The machines of the cluster."""


@click.group(cls=Group)
def operation() -> None:
    """Long work that was asked for: look at it, wait for it, stop it."""


@click.group(cls=Group)
def event() -> None:
    """What happened, and why."""


@command(cluster, "status", "pvc cluster status", "pvc cluster status -f json")
@format_option
def status(session: Any, format: str) -> None:
    """Say who leads, how many of what are in which state, and what is wrong."""
    session.show_one(session.cluster.status(), columns.CLUSTER, format)


config_option = click.option(
    "--config", type=click.Path(dir_okay=False), help="This machine's configuration."
)


def _here(module: str) -> Any:
    """A module of the services, which only machines that run them have."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        problem = f"this installation has no services, only the client ({error})"
        raise click.ClickException(problem) from None


@contextmanager
def _told() -> Iterator[None]:
    """Has the services' own refusals told like any other."""
    try:
        yield
    except Exception as error:
        if not hasattr(error, "reason_name"):
            raise
        raise click.ClickException(str(error)) from None


@command(cluster, "init", "sudo pvc cluster init", "sudo pvc cluster init --config lab.toml")
@config_option
@yes_option
def init(session: Any, config: str | None, yes: bool) -> None:
    """Make a new cluster on this machine: state, CA, first token. Needs no server."""
    make = _here(INIT).init
    if config and not Path(config).exists():
        raise click.BadParameter(f"{config} does not exist", param_hint="--config")
    session.confirm("Make a new cluster on this machine?", yes=yes)
    with _told():
        begun = make(Path(config) if config else None)
    for name in begun.made:
        click.echo(f"made {name}")
    click.echo(f"cluster {begun.cluster} is on {begun.node}; its first token: {begun.token_file}")


@command(cluster, "join", "sudo pvc cluster join", "sudo pvc cluster join --config lab.toml")
@click.argument("token", required=False)
@config_option
def join(session: Any, token: str | None, config: str | None) -> None:
    """Make this machine a node of the cluster that expects it (pvc node add).

    Without TOKEN it is asked for, or read from standard input: other users of the machine can see
    what is on a command line. May be repeated if it broke off.
    """
    make = _here(JOIN).join
    if not token and sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    given = token or sys.stdin.readline()
    with _told():
        joined = make(given, Path(config) if config else None)
    for path in joined.made:
        click.echo(f"made {path}")
    role = ", a coordinator" if joined.coordinator else ""
    click.echo(f"this machine is {joined.node} of the cluster {joined.cluster}{role}")
    click.echo(
        f"next: start PVC's services with --config {joined.config}, then see it come: "
        "pvc node list",
        err=True,
    )


add_list(node, "nodes", "nodes", columns.NODE, "pvc node list -f wide")
add_info(node, "nodes", columns.NODE, "pvc node info n1")


@command(operation, "list", "pvc operation list", "pvc operation list --all -f wide")
@list_options
@click.option("--all", "everything", is_flag=True, help="Also those that have ended.")
def list_operations(
    session: Any, pattern: str | None, filter: str, sort: str, format: str, everything: bool
) -> None:
    """List operations that go on."""
    running = "" if everything else "state = PENDING OR state = RUNNING"
    query = filter_of("operations", pattern, filter, running)
    rows = list(session.cluster.operations.list(filter=query, order_by=sort))
    nothing = "nothing found" if everything else "nothing goes on; --all shows what has ended"
    session.show_many(rows, columns.OPERATION, format, nothing)


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


@command(event, "list", "pvc event list", "pvc event list --subject vms/web --since 1h")
@click.option("--subject", help="About this resource: vms/web.")
@click.option("--since", type=Span(), help="Not older than this: 1h, 2d.")
@click.option("--filter", default="", help="Which: 'severity = ERROR AND …'.")
@click.option("-l", "--lines", type=click.IntRange(1), default=100, show_default=True,
              help="How many, the newest.")  # fmt: skip
@format_option
def list_events(
    session: Any, subject: str | None, since: int | None, filter: str, lines: int, format: str
) -> None:
    """List events, the oldest first."""
    terms = [filter, f'subject = "{subject}"' if subject else ""]
    if since:
        terms.append(f'time >= "{_before(session, since)}"')
    query = filter_of("events", None, *terms)
    page = min(lines, PAGE_MAX)
    newest = session.cluster.events.list(filter=query, order_by="name desc", page_size=page)
    rows = [row for row, _ in zip(newest, range(lines), strict=False)]
    session.show_many(rows[::-1], columns.EVENT, format)


def _before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.view("table").now) - seconds).ToJsonString())


@command(event, "watch", "pvc event watch")
@click.option("--filter", default="", help="Which: 'severity = ERROR AND …'.")
@click.option("--all", "everything", is_flag=True, help="Begin with those that are kept.")
def watch(session: Any, filter: str, everything: bool) -> None:
    """Show events as they happen, until Ctrl-C."""
    from pvc.core.v1 import meta_pb2

    skipped = () if everything else (meta_pb2.CHANGE_KIND_PRESENT,)
    wanted = (meta_pb2.CHANGE_KIND_PRESENT, meta_pb2.CHANGE_KIND_ADDED)
    for change in session.cluster.events.watch(filter=filter):
        if change.resource is not None and change.kind in wanted and change.kind not in skipped:
            shown = table([change.resource], columns.EVENT[:5], session.view("table"))
            click.echo(shown.partition("\n")[2], nl=False)
