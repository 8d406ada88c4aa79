"""`pvc event`: what happened, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from shell import columns
from shell.listing import Listing, show_log
from shell.tree import Group, Span, command, inner_list_options, stacked


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
    inner_list_options,
)
GRAVER = {"warning": "severity = WARNING OR severity = ERROR", "error": "severity = ERROR"}
LINES = 100


@command(
    event,
    "list",
    "pvc event list",
    "pvc event list --subject vms/web --since 1h",
    "pvc event list --severity warning --watch",
)
@filters
@click.option("-l", "--lines", type=click.IntRange(1), default=LINES, show_default=True,
              help="How many, the newest; the same as --limit.")  # fmt: skip
@click.option("--follow", is_flag=True, help="The same as --watch.")
def list_events(session: Any, lines: int, follow: bool, asked: Listing, **which: Any) -> None:
    """List events, the oldest first."""
    asked = replace(asked, limit=asked.limit or lines, watch=asked.watch or follow)
    show_events(session, asked, *_terms(session, **which))


def show_events(session: Any, asked: Listing, *terms: str, kept: bool = True) -> None:
    """Prints the newest that match, the oldest of them first; goes on with new ones if told to.

    kept: off for the new ones alone.
    """
    show_log(
        session, asked, session.cluster.events, columns.EVENT,
        path="events", terms=terms, kept=kept,
    )  # fmt: skip


@command(event, "watch", "pvc event watch", "pvc event watch --subject 'vms/*' --severity warning")
@filters
@click.option("--all", "everything", is_flag=True, help="Begin with those that are kept.")
def watch(session: Any, everything: bool, asked: Listing, **which: Any) -> None:
    """Show events as they happen, until Ctrl-C."""
    kept = everything or which["since"] is not None
    asked = replace(asked, watch=True)
    show_events(session, asked, *_terms(session, **which), kept=kept)


def _terms(
    session: Any, subject: str | None, since: int | None, severity: str | None,
    cause: str | None, operation: str | None,
) -> list[str]:  # fmt: skip
    terms = [GRAVER.get(severity or "", "")]
    terms += [f"{key} = {_quoted(value)}" for key, value in
              (("subject", subject), ("cause", cause)) if value]  # fmt: skip
    if operation:
        terms.append(f"operation = {_quoted(f'operations/{columns.last(operation)}')}")
    if since:
        terms.append(f'time >= "{_before(session, since)}"')
    return terms


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.now()) - seconds).ToJsonString())
