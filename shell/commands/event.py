"""`pvc event`: what happened, and why."""

from __future__ import annotations

from typing import Any

import click

from shell import columns
from shell.commands.recent import before, newest_options, quoted, show_coming, show_newest
from shell.render import Output
from shell.tree import Group, Span, command, filter_of, format_option, stacked


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
@newest_options
@format_option
def list_events(session: Any, lines: int, follow: bool, format: Output, **which: Any) -> None:
    """List events, the oldest first."""
    show_events(session, _query(session, **which), lines, format, follow=follow)


def show_events(session: Any, query: str, lines: int, format: Output, *, follow: bool) -> None:
    """Prints the newest that match, the oldest of them first; goes on with new ones if told to."""
    events = session.cluster.events
    show_newest(session, events, columns.EVENT, query, lines, format, follow=follow)


@command(event, "watch", "pvc event watch", "pvc event watch --subject 'vms/*' --severity warning")
@filters
@click.option("--all", "everything", is_flag=True, help="Begin with those that are kept.")
def watch(session: Any, everything: bool, **which: Any) -> None:
    """Show events as they happen, until Ctrl-C."""
    kept = everything or which["since"] is not None
    query = _query(session, **which)
    show_coming(session, session.cluster.events, columns.EVENT, query, Output(), kept=kept)


def _query(
    session: Any, subject: str | None, since: int | None, severity: str | None,
    cause: str | None, operation: str | None, filter: str,
) -> str:  # fmt: skip
    terms = [filter, GRAVER.get(severity or "", "")]
    terms += [f"{key} = {quoted(value)}" for key, value in
              (("subject", subject), ("cause", cause)) if value]  # fmt: skip
    if operation:
        terms.append(f"operation = {quoted(f'operations/{columns.last(operation)}')}")
    if since:
        terms.append(f'time >= "{before(session, since)}"')
    return filter_of("events", None, *terms)
