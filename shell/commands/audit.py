"""`pvc audit`: who did what, from where, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from shell.audit_columns import AUDIT
from shell.commands.recent import newest_options
from shell.listing import Listing, show_log
from shell.query import before, quoted
from shell.render import Output
from shell.tree import (
    Group,
    Span,
    command,
    format_option,
    inner_list_options,
    name_argument,
    stacked,
)

PATH = "auditEntries"
OUTCOMES = ("succeeded", "refused", "failed", "cancelled", "unknown", "running")


@click.group(cls=Group)
def audit() -> None:
    """Who did what, from where, and how it ended; for admins."""


filters = stacked(
    click.option("--caller", help="Called by: ann, 'token c*', 'local root'; stars are fine."),
    click.option("--method", help="This method: StartVm, 'Delete*'."),
    click.option("--target", help="About this resource: vms/web, 'pools/*'."),
    click.option("--peer", help="From this address: 10.0.0.7."),
    click.option("--since", type=Span(), help="Not older than this: 1h, 2d."),
    click.option("--outcome", type=click.Choice(OUTCOMES), multiple=True, help="Ended like this."),
)


@command(
    audit,
    "list",
    "pvc audit list",
    "pvc audit list --caller ann --since 1d",
    "pvc audit list --target vms/web --method 'Delete*'",
    "pvc audit list --outcome refused --outcome failed -f wide",
)
@filters
@newest_options
def list_entries(session: Any, asked: Listing, **which: Any) -> None:
    """List what was done and what was refused, the oldest first."""
    _show(session, asked, **which)


@command(audit, "info", "pvc audit info 01jd3v7h8mzq2x4c5b6n7p8r9s")
@name_argument("audit")
@format_option
def info(session: Any, name: str, format: Output) -> None:
    """Show everything about one entry."""
    session.show_one(session.cluster.audit.get(name), AUDIT, format)


@command(audit, "watch", "pvc audit watch", "pvc audit watch --outcome refused",
         "pvc audit watch --caller ann -f json")  # fmt: skip
@filters
@inner_list_options
@click.option("--all", "everything", is_flag=True, help="Begin with those that are kept.")
def watch(session: Any, everything: bool, asked: Listing, **which: Any) -> None:
    """Show what is done as it is done, until Ctrl-C."""
    kept = everything or which["since"] is not None
    _show(session, replace(asked, watch=True), kept=kept, **which)


def _show(session: Any, asked: Listing, *, kept: bool = True, **which: Any) -> None:
    """An entry that changes, when what it tells of has ended, is shown again."""
    show_log(
        session, asked, session.cluster.audit, AUDIT,
        path=PATH, terms=list(_terms(session, **which)), kept=kept, changes=True,
    )  # fmt: skip


def _terms(
    session: Any, caller: str | None, method: str | None, target: str | None, peer: str | None,
    since: int | None, outcome: tuple[str, ...],
) -> Iterator[str]:  # fmt: skip
    if caller:
        names = [caller] if " " in caller else [caller, f"token {caller}"]
        yield " OR ".join(f"caller = {quoted(name)}" for name in names)
    if method:
        yield f"method = {quoted(method if '/' in method else f'*/{method}')}"
    if target:
        shapes = (target, f"{target} *", f"* {target}")
        yield " OR ".join(f"target = {quoted(shape)}" for shape in shapes)
    if peer:
        yield f"peer = {quoted(peer)} OR peer = {quoted(f'{peer}:*')}"
    if outcome:
        yield " OR ".join(f"outcome = {one.upper()}" for one in outcome)
    if since:
        yield f'time >= "{before(session, since)}"'
