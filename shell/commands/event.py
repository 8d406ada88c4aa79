"""`pvc event`: what happened, and why."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.render import Output, table
from shell.tree import Group, Span, command, filter_of, format_option, stacked

PAGE_MAX = 1000


@click.group(cls=Group)
def event() -> None:
    """What happened, and why."""


filters = stacked(
    click.option("--subject", help="About this resource: vms/web, nodes/*."),
    click.option("--since", type=Span(), help="Not older than this: 1h, 2d."),
    click.option(
        "--severity", type=click.Choice(["info", "warning", "error"]), help="At least this grave."
    ),
    click.option("--cause", help="Caused by this: 'token ann', 'coordinator n1'; stars are fine."),
    click.option("--operation", help="Part of this operation."),
    click.option("--filter", default="", help="Which: 'severity = ERROR AND …'."),
)
GRAVER = {"warning": "severity = WARNING OR severity = ERROR", "error": "severity = ERROR"}


@command(
    event,
    "list",
    "pvc event list",
    "pvc event list --subject vms/web --since 1h",
    "pvc event list --severity warning --follow",
)
@filters
@click.option("-l", "--lines", type=click.IntRange(1), default=100, show_default=True,
              help="How many, the newest.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@format_option
def list_events(session: Any, lines: int, follow: bool, format: Output, **which: Any) -> None:
    """List events, the oldest first."""
    show_events(session, _query(session, **which), lines, format, follow=follow)


def show_events(session: Any, query: str, lines: int, format: Output, *, follow: bool) -> None:
    """Prints the newest that match, the oldest of them first; goes on with new ones if told to."""
    page = min(lines, PAGE_MAX)
    newest = session.cluster.events.list(filter=query, order_by="name desc", page_size=page)
    rows = [row for row, _ in zip(newest, range(lines), strict=False)]
    session.show_many(rows[::-1], columns.EVENT, format)
    if follow:
        _follow(session, query, newest.revision)


@command(event, "watch", "pvc event watch", "pvc event watch --subject 'vms/*' --severity warning")
@filters
@click.option("--all", "everything", is_flag=True, help="Begin with those that are kept.")
def watch(session: Any, everything: bool, **which: Any) -> None:
    """Show events as they happen, until Ctrl-C."""
    kept = everything or which["since"] is not None
    _follow(session, _query(session, **which), 0, kept=kept)


def _query(
    session: Any, subject: str | None, since: int | None, severity: str | None,
    cause: str | None, operation: str | None, filter: str,
) -> str:  # fmt: skip
    terms = [filter, GRAVER.get(severity or "", "")]
    terms += [f"{key} = {_quoted(value)}" for key, value in
              (("subject", subject), ("cause", cause)) if value]  # fmt: skip
    if operation:
        terms.append(f"operation = {_quoted(f'operations/{columns.last(operation)}')}")
    if since:
        terms.append(f'time >= "{_before(session, since)}"')
    return filter_of("events", None, *terms)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.now()) - seconds).ToJsonString())


def _follow(session: Any, query: str, revision: int, *, kept: bool = False) -> None:
    """Prints events after a revision, those that are kept before it too if told to; until
    Ctrl-C."""
    from pvc.core.v1 import meta_pb2

    wanted = {meta_pb2.CHANGE_KIND_ADDED} | ({meta_pb2.CHANGE_KIND_PRESENT} if kept else set())
    for change in session.cluster.events.watch(filter=query, from_revision=revision):
        if change.resource is not None and change.kind in wanted:
            shown = table([change.resource], columns.EVENT[:5], session.view(Output()))
            click.echo(shown.partition("\n")[2], nl=False)
