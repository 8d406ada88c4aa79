"""`pvc event`: what happened, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from shell import columns
from shell.commands.recent import newest_options
from shell.listing import Listing, show_log
from shell.query import before, quoted
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
)
GRAVER = {"warning": "severity = WARNING OR severity = ERROR", "error": "severity = ERROR"}


@command(
    event,
    "list",
    "pvc event list",
    "pvc event list --subject vms/web --since 1h",
    "pvc event list --severity warning --watch",
)
@filters
@newest_options
def list_events(session: Any, asked: Listing, **which: Any) -> None:
    """List events, the oldest first."""
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
@inner_list_options
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
    terms += [f"{key} = {quoted(value)}" for key, value in
              (("subject", subject), ("cause", cause)) if value]  # fmt: skip
    if operation:
        terms.append(f"operation = {quoted(f'operations/{columns.last(operation)}')}")
    if since:
        terms.append(f'time >= "{before(session, since)}"')
    return terms
