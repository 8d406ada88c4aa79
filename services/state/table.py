"""The rows of one collection at one revision, and what follows from them row by row. Nothing here
ever changes, and nothing is asked of the world.

What follows from rows (their order, an `Extract`, an `Index`) is taken over from the revision
before, so that only rows that changed are looked at; it is what it would be if all were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message
from immutables import Map

R = TypeVar("R", bound=Message)
V = TypeVar("V")
D = TypeVar("D")

BEHIND_MAX = 64
"""After so many changes that nobody wanted to see it, what follows from rows is made anew."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row's change in a commit; `value` is None when it was deleted, `before` None when it was
    made."""

    name: str
    value: Message | None
    before: Message | None


class Following(Protocol[D]):
    """Something that follows from the rows of a collection, each by itself. It must ask nothing but
    the row: that is why it cannot be out of date."""

    def of_all(self, table: Table) -> D:
        """What follows from all of them."""
        ...

    def after(self, known: D, change: Row) -> D:
        """The same once a row has changed; the very object that it was if that changes nothing."""
        ...


class Table(Mapping[str, Message]):
    """Rows by name, in the order of names. Two tables that are the same object hold the same
    rows."""

    __slots__ = ("_behind", "_known", "_rows")

    def __init__(self, rows: Mapping[str, Message]) -> None:
        self._rows: Map[str, Message] = rows if isinstance(rows, Map) else Map(rows)
        self._known: dict[Any, Any] = {}
        self._behind: dict[Any, tuple[Any, tuple[Row, ...]]] = {}
        """What was known of tables before this one, and all that changed since."""

    def __getitem__(self, name: str) -> Message:
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def find(self, name: str) -> Message | None:
        """The row of that name, or None."""
        return self._rows.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.follow(BY_NAME).names)

    def __len__(self) -> int:
        return len(self._rows)

    def changed(self, changes: tuple[Row, ...]) -> Table:
        """The table after them."""
        rows = self._rows
        for change in changes:
            if change.value is not None:
                rows = rows.set(change.name, change.value)
            elif change.before is not None:
                rows = rows.delete(change.name)
        after = Table(rows)
        known = self._behind | {what: (value, ()) for what, value in self._known.copy().items()}
        for what, (value, since) in known.items():
            if len(since) + len(changes) <= BEHIND_MAX:
                after._behind[what] = value, (*since, *changes)
        return after

    def follow(self, what: Following[D]) -> D:
        """What follows from these rows. The same object as in the tables before, as long as nothing
        of it changed and it was asked for now and then."""
        found = self._known.get(what)
        if found is None:
            found = self._known[what] = self._found(what)
        return found

    def _found(self, what: Following[D]) -> D:
        if what not in self._behind:
            return what.of_all(self)
        found, changes = self._behind[what]
        for change in changes:
            found = what.after(found, change)
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Ordered(Generic[V]):
    """Something of rows, in the order of their names."""

    names: tuple[str, ...]
    values: tuple[V, ...]

    def set(self, name: str, value: V | None) -> Ordered[V]:
        """With another value for a name, or without it."""
        at = bisect_left(self.names, name)
        there = at < len(self.names) and self.names[at] == name
        rest = self.values[at + there :]
        if value is None:
            names = self.names[:at] + self.names[at + 1 :] if there else self.names
            return Ordered(names, self.values[:at] + rest)
        names = self.names if there else (*self.names[:at], name, *self.names[at:])
        return Ordered(names, (*self.values[:at], value, *rest))


class ByName:
    """The rows themselves."""

    def of_all(self, table: Table) -> Ordered[Message]:
        """See Following."""
        names = tuple(sorted(table._rows))
        return Ordered(names, tuple(map(table._rows.__getitem__, names)))

    def after(self, known: Ordered[Message], change: Row) -> Ordered[Message]:
        """See Following."""
        return known.set(change.name, change.value)


BY_NAME = ByName()


class Extract(Generic[R, V]):
    """What `make` says of each row, of which it must be a pure function; rows of which it says None
    are left out. What it says is compared: rows that change in other things alone change nothing
    here."""

    def __init__(self, kind: type[R], make: Callable[[R], V | None]) -> None:
        self.kind = kind
        self._make: Callable[[Any], V | None] = make

    def of_all(self, table: Table) -> Ordered[V]:
        """See Following."""
        rows = table.follow(BY_NAME)
        found = list(zip(rows.names, map(self._make, rows.values), strict=True))
        names = tuple(name for name, value in found if value is not None)
        return Ordered(names, tuple(value for _, value in found if value is not None))

    def after(self, known: Ordered[V], change: Row) -> Ordered[V]:
        """See Following."""
        now = None if change.value is None else self._make(change.value)
        was = None if change.before is None else self._make(change.before)
        return known if now == was else known.set(change.name, now)


class Index(Generic[R]):
    """Rows by the keys that `keys` says of each, of which it must be a pure function."""

    def __init__(self, kind: type[R], keys: Callable[[R], Iterable[str]]) -> None:
        self.kind = kind
        self._keys: Callable[[Any], Iterable[str]] = keys

    def of_all(self, table: Table) -> Map[str, tuple[R, ...]]:
        """See Following."""
        found: dict[str, dict[str, Any]] = {}
        rows = table.follow(BY_NAME)
        for name, row in zip(rows.names, rows.values, strict=True):
            for key in self._keys(row):
                found.setdefault(key, {})[name] = row
        return Map({key: tuple(some.values()) for key, some in found.items()})

    def after(self, known: Map[str, tuple[R, ...]], change: Row) -> Map[str, tuple[R, ...]]:
        """See Following."""
        was = frozenset(self._keys(change.before)) if change.before is not None else frozenset()
        now = frozenset(self._keys(change.value)) if change.value is not None else frozenset()
        for key in was | now:
            some = _replaced(known.get(key, ()), change.name, change.value if key in now else None)
            known = known.set(key, some) if some else known.delete(key)
        return known


def _replaced(rows: tuple[Any, ...], name: str, row: Any | None) -> tuple[Any, ...]:
    at = bisect_left(rows, name, key=lambda each: each.name)
    rest = rows[at + 1 :] if at < len(rows) and rows[at].name == name else rows[at:]
    return (*rows[:at], *rest) if row is None else (*rows[:at], row, *rest)
