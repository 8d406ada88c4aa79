"""What comes in the order of time, such as events: the newest of it, and what comes after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click

from shell.render import (
    TABLE,
    WIDE,
    Column,
    Output,
    View,
    as_dict,
    clean,
    json_text,
    table,
    widths_of,
)
from shell.tree import stacked

PAGE_MAX = 1000

newest_options: Callable[[Any], Any] = stacked(
    click.option("-l", "--lines", type=click.IntRange(1), default=100, show_default=True,
                 help="How many, the newest."),
    click.option("--follow", is_flag=True, help="Go on with what happens from now on."),
)  # fmt: skip


def show_newest(
    session: Any, collection: Any, columns: Sequence[Column], query: str, lines: int,
    format: Output, *, follow: bool,
) -> None:  # fmt: skip
    """Prints the newest that match, the oldest of them first; goes on with new ones if told to."""
    page = min(lines, PAGE_MAX)
    newest = collection.list(filter=query, order_by="name desc", page_size=page)
    rows = [row for row, _ in zip(newest, range(lines), strict=False)]
    session.show_many(rows[::-1], columns, format)
    if follow:
        show_coming(session, collection, columns, query, format, newest.revision)


def show_coming(
    session: Any, collection: Any, columns: Sequence[Column], query: str, format: Output,
    revision: int = 0, *, kept: bool = False,
) -> None:  # fmt: skip
    """Prints what comes after a revision, what is kept before it too if told to, a line each; until
    Ctrl-C. A row that changes is printed again."""
    from pvc.core.v1 import meta_pb2

    wanted = {meta_pb2.CHANGE_KIND_ADDED, meta_pb2.CHANGE_KIND_MODIFIED}
    wanted |= {meta_pb2.CHANGE_KIND_PRESENT} if kept else set()
    lines = Lines(session.columns(format, columns, collection.kind.DESCRIPTOR))
    for change in collection.watch(filter=query, from_revision=revision):
        if change.resource is None or change.kind not in wanted:
            continue
        view = session.view(format)
        told = lines.line(change.resource, view) if format.for_people else _object(change)
        click.echo(told, nl=False)


class Lines:
    """Rows of a table that come one by one: each as wide as the widest before it."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._widths: list[int] = []

    def line(self, row: Any, view: View) -> str:
        """The row, without a heading."""
        bare = replace(view, header=False)
        wide = view.format == "wide"
        columns = [c for c in self._columns if c.level <= (WIDE if wide else TABLE)]
        cells = [clean(column.value(row, bare)) for column in columns]
        self._widths = widths_of([cells], self._widths)
        return table([row], columns, bare, self._widths)


def _object(change: Any) -> str:
    return f"{json_text(as_dict(change.resource))}\n"


def quoted(text: str) -> str:
    """A text as filters have it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def before(session: Any, seconds: int) -> str:
    """A moment so many seconds ago, in RFC 3339."""
    from google.protobuf.timestamp_pb2 import Timestamp

    return str(Timestamp(seconds=int(session.now()) - seconds).ToJsonString())
