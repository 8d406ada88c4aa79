"""Commands that look alike for every kind of thing: list and info."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from shell.render import Column
from shell.tree import command, filter_of, format_option, list_options, name_argument


def add_list(
    group: click.Group,
    collection: str,
    path: str,
    columns: Sequence[Column],
    *examples: str,
) -> None:
    """Adds `list`. path: what names begin with: "vms", "pools/*/volumes"."""

    @command(group, "list", *examples)
    @list_options
    def list_(session: Any, pattern: str | None, filter: str, sort: str, format: str) -> None:
        """List them; PATTERN for the name may have stars."""
        rows = getattr(session.cluster, collection).list(
            filter=filter_of(path, pattern, filter), order_by=sort
        )
        session.show_many(list(rows), columns, format)


def add_info(
    group: click.Group, collection: str, columns: Sequence[Column], *examples: str
) -> None:
    """Adds `info`."""

    @command(group, "info", *examples)
    @name_argument(collection)
    @format_option
    def info(session: Any, name: str, format: str) -> None:
        """Show everything about one."""
        session.show_one(getattr(session.cluster, collection).get(name), columns, format)
