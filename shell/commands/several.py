"""Which of many a command is for: names, patterns, all, those with a tag or that a filter finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from shell.failures import NOT_FOUND
from shell.filters import Words, is_filter, translated
from shell.query import filter_of
from shell.tree import F, live_names, packed, stacked


@dataclass(frozen=True, slots=True)
class Which:
    """What somebody said of which ones are meant."""

    names: tuple[str, ...] = ()
    everything: bool = False
    tags: tuple[str, ...] = ()
    filter: str = ""

    @property
    def is_search(self) -> bool:
        """Whether it must be looked up which they are."""
        return self.everything or bool(self.tags or self.filter) or any(map(_starred, self.names))


def several(collection: str, *, tags: bool = False) -> Callable[[F], F]:
    """NAMES, --all, --filter, and --tag where things have tags; the function gets a Which as
    `which`."""
    named = click.argument("names", nargs=-1, shell_complete=live_names(collection))
    chosen = [
        click.option("--all", "everything", is_flag=True, help="All there are."),
        click.option("--filter", default="", help="Those that it finds: 'state=running tag:web'."),
    ]
    if tags:
        tag = click.option("-g", "--tag", "tags", multiple=True, help="Those with this tag.")
        chosen.append(tag)
    parts = ("names", "everything", "filter", *(("tags",) if tags else ()))
    return stacked(named, *chosen, packed(Which, "which", parts))


def chosen(session: Any, which: Which, collection: str, columns: Any) -> tuple[str, ...]:
    """The short names of those that are meant, those that were named first. Raises UsageError when
    nothing was said, Exit when nothing is found."""
    if which.names and (which.everything or which.tags or which.filter):
        raise click.UsageError("give names, or --all, --tag and --filter; not both")
    if wrong := next(filter(is_filter, which.names), ""):
        raise click.UsageError(f"{wrong} is no name but a filter: write --filter '{wrong}'")
    if not which.names and not which.is_search:
        raise click.UsageError("which ones? Give names, --all, or --filter")
    if not which.is_search:
        return tuple(dict.fromkeys(which.names))
    found = _found(session, which, collection, columns)
    if not found:
        click.echo("nothing matches; nothing was done", err=True)
        raise click.exceptions.Exit(NOT_FOUND)
    return found


def _found(session: Any, which: Which, collection: str, columns: Any) -> tuple[str, ...]:
    from pvc_client.names import short_name

    there = getattr(session.cluster, collection)
    path = "/*/".join(there.path.split("/"))
    terms = [f'spec.tags:"{tag}"' for tag in which.tags]
    words = Words(columns, there.kind.DESCRIPTOR, path, session.now())
    terms.append(translated(which.filter, words))
    names: list[str] = []
    for pattern in which.names or ("",):
        if pattern and not _starred(pattern):
            names.append(pattern)
            continue
        query = filter_of(path, [pattern] if pattern else [], *terms)
        names += [short_name(row.name) for row in there.list(filter=query, read_mask=["name"])]
    return tuple(dict.fromkeys(names))


def _starred(name: str) -> bool:
    return "*" in name
