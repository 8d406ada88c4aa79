"""Commands that look alike for every kind of thing: list and info."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from shell.listing import Columns, Listing, show_list
from shell.render import Column, Output
from shell.tree import command, format_option, list_options, name_argument


def add_list(
    group: click.Group,
    collection: str,
    path: str,
    columns: Columns,
    *examples: str,
    first: str = "",
) -> None:
    """Adds `list`. path: what names begin with: "vms", "pools/*/volumes". first: the command that
    makes the first one."""

    @command(group, "list", *examples)
    @list_options
    def list_(session: Any, asked: Listing) -> None:
        """List them; PATTERNs for the name may have stars."""
        there = getattr(session.cluster, collection)
        show_list(session, asked, there, columns, path=path, first=first)


def add_info(
    group: click.Group, collection: str, columns: Sequence[Column], *examples: str
) -> None:
    """Adds `info`."""

    @command(group, "info", *examples)
    @name_argument(collection)
    @format_option
    def info(session: Any, name: str, format: Output) -> None:
        """Show everything about one."""
        session.show_one(getattr(session.cluster, collection).get(name), columns, format)
