"""Lists that go on: a live table on a terminal, a line for each change where programs read."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from shell.choices import ordered
from shell.fields import enum_value
from shell.listing import Listing, Plan, Source, cut_off
from shell.render import (
    Column,
    View,
    clean,
    csv_lines,
    cut_painted,
    json_text,
    many,
    painted,
    short,
    shown_of,
    table,
    told_of,
    widths_of,
    yaml_text,
)
from shell.terminal import signals_raise

PRESENT, ADDED, MODIFIED, DELETED, BOOKMARK = 1, 2, 3, 4, 5
FRAME_S = 0.1
"""Two pictures are at least this far apart."""
TICK_S = 1.0
"""Ages grow as often as this."""
COLUMNS_FRESH_S = 2.0
"""Columns that show other rows too are found anew after this long."""
POLL_S = 2.0
"""How often a collection that cannot be watched is read."""
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
BEGIN, END = "\x1b[?2026h\x1b[H", "\x1b[J\x1b[?2026l"


def watch(session: Any, asked: Listing, source: Source, plan: Plan) -> None:
    """Shows what is there and then every change, until Ctrl-C."""
    changes = changes_of(source, plan)
    if asked.output.for_people and is_screen(sys.stdout):
        Live(session, asked, source, plan).run(changes)
    else:
        Stream(session, asked, source, plan).run(changes)


def is_screen(stream: Any) -> bool:
    """Whether it is a terminal that can be painted on."""
    return bool(stream.isatty()) and os.environ.get("TERM", "dumb") != "dumb"


def changes_of(source: Source, plan: Plan) -> Iterator[Any]:
    """What a watch tells, begun anew when what it would go on from is no longer kept; what
    reading again and again tells for what cannot be watched."""
    from pvc_client import errors

    wanted = {"parent": source.parent} if source.parent else {}
    while True:
        try:
            changes = source.collection.watch(filter=plan.query, **wanted)
        except AttributeError:  # the contract has no Watch for these
            yield from _polled(source, plan, wanted)
            return
        try:
            yield from changes
            return
        except errors.RevisionTooOld:
            continue
        finally:
            changes.close()


def go_on(
    session: Any, asked: Listing, source: Source, plan: Plan, rows: Sequence[Any], revision: int,
    *, changes: bool,
) -> None:  # fmt: skip
    """Shows rows, then each that is added after a revision, until Ctrl-C; each that changes too, if
    told to."""
    wanted = (ADDED, MODIFIED) if changes else (ADDED,)
    stream = Stream(session, asked, source, plan, alone=True)
    coming = source.collection.watch(filter=plan.query, from_revision=revision)
    stream.show([_Seen(PRESENT, row) for row in rows])
    for change in coming:
        if change.kind in wanted:
            stream.show([change])


class _Seen:
    """A change found by reading."""

    def __init__(self, kind: int, resource: Any, revision: int = 0) -> None:
        self.kind, self.resource, self.revision = kind, resource, revision


def _polled(source: Source, plan: Plan, wanted: dict[str, str]) -> Iterator[_Seen]:
    known: dict[str, Any] = {}
    first = True
    while True:
        rows = source.collection.list(filter=plan.query, **wanted)
        found = {row.name: row for row in rows}
        for name, row in found.items():
            if name not in known:
                yield _Seen(PRESENT if first else ADDED, row, rows.revision)
            elif row != known[name]:
                yield _Seen(MODIFIED, row, rows.revision)
        for name in known.keys() - found.keys():
            yield _Seen(DELETED, known[name], rows.revision)
        if first:
            yield _Seen(BOOKMARK, None, rows.revision)
        known, first = found, False
        time.sleep(POLL_S)


class Stream:
    """Changes as lines: what is there first, in order, then each change as it comes."""

    def __init__(
        self, session: Any, asked: Listing, source: Source, plan: Plan, *, alone: bool = False
    ) -> None:
        """alone: tables do not say what kind of change a row is."""
        self._session, self._asked, self._plan, self._alone = session, asked, plan, alone
        columns = source.found_columns()
        self._columns = session.columns(asked.output, columns, source.kind)
        kind = source.kind.name
        self._field = kind[:1].lower() + kind[1:]
        self._widths: list[int] = []
        self._titled = not asked.output.header

    def run(self, changes: Iterator[Any]) -> None:
        """Prints all that comes."""
        there: list[Any] | None = []
        for change in changes:
            if there is not None and change.kind == PRESENT:
                there.append(change)
            elif there is not None:
                rows = {one.resource.name: one for one in there}
                view = self._session.view(self._asked.output)
                found = ordered([one.resource for one in there], self._plan.keys, view)
                self.show([rows[row.name] for row in cut_off(found, self._asked)])
                there = None
            if change.resource is not None and change.kind != PRESENT:
                self.show([change])

    def show(self, changes: Sequence[Any]) -> None:
        """Prints some of them."""
        if not changes:
            return
        view = self._session.view(self._asked.output)
        click.echo(self._told(changes, view), nl=False)
        sys.stdout.flush()

    def _told(self, changes: Sequence[Any], view: View) -> str:
        match view.format:
            case "json":
                lines = [json_text(self._object(c, view)) for c in changes]
                return "".join(f"{line}\n" for line in lines)
            case "yaml":
                return "".join(f"---\n{yaml_text(self._object(c, view))}" for c in changes)
            case "name":
                return "".join(f"{clean(short(c.resource))}\n" for c in changes)
        rows = [change.resource for change in changes]
        kinds = {id(change.resource): change_word(change.kind) for change in changes}
        first = Column("CHANGE", lambda row, v: kinds[id(row)])
        usual = self._columns if view.format == "csv" else shown_of(self._columns, rows, view)
        columns = [*([] if self._alone else [first]), *usual]
        header, self._titled = not self._titled, True
        view = View(view.format, view.width, view.colour, view.now, header, view.chosen)
        if view.format == "csv":
            return csv_lines(rows, columns, view)
        return self._aligned(rows, columns, view)

    def _aligned(self, rows: Sequence[Any], columns: Sequence[Column], view: View) -> str:
        """Rows of the table that was begun, as wide as those before."""
        body = [[clean(column.value(row, view)) for column in columns] for row in rows]
        least = self._widths if len(self._widths) == len(columns) else []
        titles = [column.title for column in columns]
        self._widths = widths_of([titles, *body], least)
        return table(rows, columns, view, self._widths)

    def _object(self, change: Any, view: View) -> dict[str, Any]:
        """A change as the REST API streams it; only some columns of it, if so asked."""
        shown = told_of(change.resource, self._columns, view)
        kind = f"CHANGE_KIND_{change_word(change.kind).upper()}"
        return {"kind": kind, self._field: shown, "revision": str(change.revision)}


def change_word(kind: int) -> str:
    """ "added", "modified"…"""
    from pvc.core.v1 import meta_pb2

    return enum_value(meta_pb2.ChangeKind.DESCRIPTOR, kind)


class Live:
    """A table on the whole screen that follows the changes."""

    def __init__(self, session: Any, asked: Listing, source: Source, plan: Plan) -> None:
        self._session, self._asked, self._source, self._plan = session, asked, source, plan
        self._rows: dict[str, Any] = {}
        self._columns: Sequence[Column] = ()
        self._found_at = 0.0
        self._shown = ""
        self._arrived: deque[Any] = deque()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)

    def run(self, changes: Iterator[Any]) -> None:
        """Until q or Ctrl-C; the last picture stays where the table was asked for."""
        threading.Thread(target=self._read, args=(changes,), daemon=True).start()
        try:
            with signals_raise(), _resizes(self._wake), _screen():
                self._follow()
        finally:
            click.echo(self._text(self._columns or self._source.found_columns()), nl=False)

    def _read(self, changes: Iterator[Any]) -> None:
        """In a thread of its own: passes on what comes, at last what it ended with."""
        end: BaseException | None = None
        try:
            for change in changes:
                self._arrived.append(change)
                self._wake()
        except Exception as error:  # noqa: BLE001 - raised again by _take, in the thread that shows
            end = error
        self._arrived.append(end or EOFError())
        self._wake()

    def _wake(self, *_: Any) -> None:
        with suppress(BlockingIOError):  # enough of them wait to be read
            os.write(self._wake_in, b".")

    def _follow(self) -> None:
        drawn = 0.0
        keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        while self._take():
            left = drawn + FRAME_S - time.monotonic()
            if left <= 0:
                self._draw()
                drawn = time.monotonic()
            ready, _, _ = select.select(
                [self._wake_out, *keyboard], [], [], left if left > 0 else TICK_S
            )
            if self._wake_out in ready:
                os.read(self._wake_out, 4096)
            if keyboard and keyboard[0] in ready and os.read(keyboard[0], 64)[:1] in b"qQ":
                return

    def _take(self) -> bool:
        """Takes in what has come. Raises what the watch ended with; False when it just ended."""
        while self._arrived:
            change = self._arrived.popleft()
            if isinstance(change, EOFError):
                return False
            if isinstance(change, BaseException):
                raise change
            if change.kind == DELETED:
                self._rows.pop(change.resource.name, None)
            elif change.resource is not None:
                self._rows[change.resource.name] = change.resource
        return True

    def _text(self, columns: Sequence[Column]) -> str:
        output = self._asked.output
        view = self._session.view(output)
        rows = cut_off(
            ordered(sorted(self._rows.values(), key=lambda r: r.name), self._plan.keys, view),
            self._asked,
        )
        return many(rows, self._session.columns(output, columns, self._source.kind), view)

    def _draw(self) -> None:
        now = time.monotonic()
        if not self._columns or now - self._found_at > COLUMNS_FRESH_S:
            self._columns, self._found_at = self._source.found_columns(), now
        size = shutil.get_terminal_size()
        picture = framed(
            self._text(self._columns).splitlines(),
            f"{len(self._rows)} in all, as of {time.strftime('%H:%M:%S')}; q or Ctrl-C leaves",
            size.lines,
            size.columns,
            colour=self._session.coloured(sys.stdout),
        )
        if picture != self._shown:
            sys.stdout.write(BEGIN + picture + END)
            sys.stdout.flush()
            self._shown = picture


def framed(lines: Sequence[str], note: str, height: int, width: int, *, colour: bool) -> str:
    """A table as one picture for a screen: cut to its size, a note below, old text wiped."""
    room = max(height - 2, 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more"]
    told = [*lines, "", painted(note, "dim", colour)][:height]
    return "\r\n".join(f"{cut_painted(line, width)}\x1b[K" for line in told)


@contextmanager
def _screen() -> Iterator[None]:
    """A screen of its own, and keys that are not shown; all as before afterwards."""
    terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(terminal) if terminal is not None else None
    sys.stdout.write(ENTER)
    sys.stdout.flush()
    try:
        if terminal is not None:
            silent = termios.tcgetattr(terminal)
            silent[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
        yield
    finally:
        if terminal is not None and before is not None:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


@contextmanager
def _resizes(wake: Any) -> Iterator[None]:
    """Wakes when the terminal changes its size."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, wake)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
