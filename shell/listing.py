"""Lists of every kind: what somebody asked for of one, and how it is fetched, filtered, sorted and
shown. The one way in which all list commands work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from shell.choices import SortKey, order_by, ordered, sort_keys
from shell.filters import Words, is_filter, translated
from shell.render import Column, Output

Columns = Sequence[Column] | Callable[[], Sequence[Column]]
"""Columns, or what finds them when what they show is not in the rows alone."""
PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """What somebody asked for of a list."""

    output: Output = field(default_factory=Output)
    pattern: tuple[str, ...] = ()
    """Names, with stars or without, of which one must fit; filters, which all must hold."""
    filter: str = ""
    """As people write it."""
    sort: str = ""
    limit: int = 0
    """Most rows; 0 for all."""
    watch: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows of a list come from."""

    collection: Any
    """One of the client's collections."""
    columns: Columns
    path: str
    """What names begin with: "vms", "pools/*/volumes"."""
    terms: tuple[str, ...] = ()
    """Further filters, in the contract's language."""
    parent: str = ""

    @property
    def kind(self) -> Any:
        """The descriptor of the rows."""
        return self.collection.kind.DESCRIPTOR

    def found_columns(self) -> Sequence[Column]:
        """The columns."""
        return self.columns() if callable(self.columns) else self.columns


@dataclass(frozen=True, slots=True)
class Plan:
    """A list about to be fetched."""

    query: str
    """The filter in the contract's language."""
    keys: Sequence[SortKey]


def show_list(
    session: Any,
    asked: Listing,
    collection: Any,
    columns: Columns,
    *,
    path: str,
    terms: Sequence[str] = (),
    parent: str = "",
    nothing: str = "nothing found",
    first: str = "",
) -> None:
    """Prints what is in a collection as it was asked for; goes on with changes for --watch.

    path, terms, parent: see Source. nothing: what to say where people read and nothing is there;
    first: the command that makes the first one, which is told where all were asked for.
    """
    source = Source(collection, columns, path, tuple(filter(None, terms)), parent)
    told = source.found_columns()
    plan = planned(asked, source, told, session.now())
    session.columns(asked.output, told, source.kind)  # before anything is fetched
    if asked.watch:
        from shell.watching import watch

        watch(session, asked, source, plan)
        return
    rows = fetched(source, plan, asked)
    rows = ordered(rows, plan.keys, session.view(asked.output))
    if first and not (rows or asked.pattern or asked.filter or source.terms or parent):
        nothing = f"there is none yet; make one: {first}"
    session.show_many(cut_off(rows, asked), told, asked.output, nothing, source.kind)


def show_log(
    session: Any,
    asked: Listing,
    collection: Any,
    columns: Sequence[Column],
    *,
    path: str,
    terms: Sequence[str] = (),
    kept: bool = True,
    changes: bool = False,
    nothing: str = "nothing found",
) -> None:
    """Prints the newest of what is only ever added to (events, the audit log), the oldest of them
    first; goes on with what is added for --watch.

    asked.limit: how many. path, terms: see Source; names must sort by age. kept: off for what is
    added from now on alone. changes: on shows again what changes.
    """
    source = Source(collection, columns, path, tuple(filter(None, terms)))
    plan = planned(asked, source, columns, session.now())
    session.columns(asked.output, columns, source.kind)  # before anything is fetched
    rows, revision = _newest(source, plan, asked.limit)
    rows = ordered(rows if kept else [], plan.keys, session.view(asked.output))
    if asked.watch:
        from shell.watching import go_on

        go_on(session, asked, source, plan, rows, revision, changes=changes)
        return
    session.show_many(rows, columns, asked.output, nothing, source.kind)


def _newest(source: Source, plan: Plan, limit: int) -> tuple[list[Any], int]:
    """The newest rows, the oldest of them first, and the revision that they are of."""
    size = min(limit or PAGE_MAX, PAGE_MAX)
    pages = source.collection.list(filter=plan.query, order_by="name desc", page_size=size)
    found = [row for _, row in zip(range(limit), pages, strict=False)] if limit else list(pages)
    return found[::-1], int(pages.revision)


def show_rows(
    session: Any,
    asked: Listing,
    rows: Sequence[Any],
    columns: Sequence[Column],
    nothing: str = "nothing found",
) -> None:
    """Prints rows that are no collection of the cluster: an answer's list of moves, recipes."""
    kind = getattr(rows[0], "DESCRIPTOR", None) if rows else None
    keys = sort_keys(columns, kind, asked.sort) if rows else []
    told = ordered(rows, keys, session.view(asked.output))
    session.show_many(cut_off(told, asked), columns, asked.output, nothing)


def planned(asked: Listing, source: Source, columns: Sequence[Column], now: float) -> Plan:
    """What to ask the cluster for. Raises UsageError for what cannot be understood."""
    from shell.query import filter_of

    words = Words(columns, source.kind, source.path, now)
    filters = [translated(one, words, "") for one in asked.pattern if is_filter(one)]
    names = [one for one in asked.pattern if not is_filter(one)]
    mine = translated(asked.filter, words)
    query = filter_of(source.path, names, *source.terms, *filters, mine)
    return Plan(query, sort_keys(columns, source.kind, asked.sort))


def fetched(source: Source, plan: Plan, asked: Listing) -> list[Any]:
    """The rows; no more than are needed when the cluster can sort them."""
    order = order_by(plan.keys, source.kind) if asked.limit else None
    wanted: dict[str, Any] = {"filter": plan.query, "order_by": order or ""}
    if source.parent:
        wanted["parent"] = source.parent
    if order is None:
        return list(source.collection.list(**wanted))
    pages = source.collection.list(**wanted, page_size=min(asked.limit, PAGE_MAX))
    return [row for _, row in zip(range(asked.limit), pages, strict=False)]


def cut_off(rows: Sequence[Any], asked: Listing) -> Sequence[Any]:
    """At most as many as were asked for."""
    return rows[: asked.limit] if asked.limit else rows
