"""What a store promises: a mirror to read, transactions to write, leases, a wake-up on change.

The promises hold for all implementations alike (tests/state proves it):

* A Snapshot is the whole state at one revision; it never changes and costs nothing to take.
* A commit happens whole or not at all; its revision is one more than that of the commit before it,
  for everybody.
* A commit is refused with Conflict when a row is not at the version that the writer saw, and with
  NOT_LEADER when the lease that it names is no longer held. Both are checked inside the transaction
  that writes.
* When `commit` returns, this process's snapshot shows it. When it raises Conflict or any error but
  STORE_UNAVAILABLE, nothing was written. When it raises STORE_UNAVAILABLE the message says whether
  nothing was written or the outcome was looked for and is still unknown: read again before acting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.message import Message
from immutables import Map

from services.state.schema import COLLECTIONS, collection_of
from services.state.table import BY_NAME, Extract, Index, Row, Table

R = TypeVar("R", bound=Message)
V = TypeVar("V")

ANY_VERSION = "*"
"""As a version: whatever the row's is, even none."""


@dataclass(frozen=True, slots=True)
class Put:
    """Writes a row. Its `meta.etag` is the version that must be there now; "" means that there must
    be none."""

    value: Message


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a row that must be at version `etag` (ANY_VERSION: if it is there at all; where it is
    not, that is no change)."""

    name: str
    etag: str


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as watchers see it."""

    revision: int
    rows: tuple[Row, ...]


class Conflict(Exception):
    """A row is not at the version that the writer saw: read again, decide again. Names the row."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} changed meanwhile")
        self.name = name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state at one revision. The messages are shared by all readers: copy before changing
    one."""

    revision: int
    tables: Map[str, Table]
    leases: Map[str, str]
    """Lease → who holds it, as far as this process has heard."""

    def find(self, kind: type[R], name: str) -> R | None:
        """The row of that name, or None."""
        return cast(R | None, self._table(kind).find(name))

    def rows(self, kind: type[R], parent: str = "") -> Iterator[R]:
        """All rows of a kind by name; with `parent` ("pools/a") only those below it."""
        found = self._table(kind).follow(BY_NAME)
        if not parent:
            return iter(cast(tuple[R, ...], found.values))
        # "0" is what follows "/": between the two are the names below the parent.
        begin, end = (bisect_left(found.names, f"{parent}{after}") for after in "/0")
        return iter(cast(tuple[R, ...], found.values[begin:end]))

    def names(self, kind: type[Message]) -> tuple[str, ...]:
        """The names of all rows of a kind, in order: the same object until one comes or goes."""
        return self._table(kind).follow(BY_NAME).names

    def by_name(self, kind: type[R]) -> Mapping[str, R]:
        """All rows of a kind, in the order of their names."""
        return cast(Mapping[str, R], self._table(kind))

    def extract(self, what: Extract[Any, V]) -> tuple[V, ...]:
        """What is made of the rows of a kind, by their names: the same object as long as that is
        the same."""
        return self._table(what.kind).follow(what).values

    def indexed(self, index: Index[R]) -> Map[str, tuple[R, ...]]:
        """The rows of a kind, in the order of their names, by each of their keys."""
        return self._table(index.kind).follow(index)

    def having(self, index: Index[R], key: str) -> tuple[R, ...]:
        """The rows with that key: the same object as long as they are the same."""
        return self.indexed(index).get(key, ())

    def named(self, name: str) -> Message | None:
        """The row of that name, whatever its kind, or None. Raises ValueError if it cannot be a
        name."""
        return self.tables.get(collection_of(name), NO_ROWS).find(name)

    def _table(self, kind: type[Message]) -> Table:
        return self.tables.get(COLLECTIONS[kind], NO_ROWS)


NO_ROWS = Table({})

EMPTY = Snapshot(0, Map(), Map())


class Lease(Protocol):
    """The right to be something ("leader", "nodes/n1") for as long as the holder's session lives.

    It ends by `release`, or when the store has not heard of the session for its timeout. Only a
    commit that names it proves that it is still held.
    """

    @property
    def name(self) -> str: ...

    @property
    def holder(self) -> str: ...

    @property
    def session(self) -> str:
        """The session that it ends with."""
        ...

    def release(self) -> None:
        """Gives it up at once. May be called again. Raises PvcError STORE_UNAVAILABLE when the
        store does not answer: then it ends with the session."""
        ...


class Watch(Protocol):
    """A queue of commits, in order, none missing. Close it when done."""

    def next(self, timeout_s: float) -> Commit | None:
        """The next commit, or None after the timeout. Raises PvcError REVISION_TOO_OLD when the
        reader fell so far behind that commits are gone, STORE_UNAVAILABLE once the store is
        closed."""
        ...

    def close(self) -> None: ...


class Readable(Protocol):
    """What readers of the state ask for, from any thread. Nothing of it waits."""

    def snapshot(self) -> Snapshot:
        """The newest state that this process has heard of."""
        ...

    def watch(self, after: int) -> Watch:
        """The commits after revision `after`. Raises PvcError REVISION_TOO_OLD when they are no
        longer kept, or not yet known to this process (`wait` for them first)."""
        ...

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Has `wake` called after every change of rows or leases, until the function that is
        returned is called. It may be called from any thread: it must be quick, and may read the
        snapshot but call nothing else here."""
        ...


class Store(Readable, Protocol):
    """The state. All methods may be called from any thread; reads never wait, `commit` takes
    milliseconds, and at most some seconds when the store does not answer."""

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """Writes all changes or none; returns the revision. No changes: the current revision, but a
        lease that is named is still checked. No row may be named twice. Raises Conflict, or
        PvcError NOT_LEADER, TOO_LARGE, OUT_OF_SPACE, STORE_UNAVAILABLE."""
        ...

    def wait(self, revision: int, timeout_s: float) -> None:
        """Returns once the snapshot is at `revision` or later. Raises PvcError STORE_UNAVAILABLE on
        timeout."""
        ...

    def acquire(self, name: str, holder: str, heir_of: str = "") -> Lease | None:
        """The lease, or None while another holds it: does not wait for it. A lease already held by
        this very session and holder is returned again. Raises PvcError STORE_UNAVAILABLE.

        heir_of: a session whose process has ended for certain. A lease that it still holds passes
        on at once: nobody sees it free, and no commit under the old one happens any more."""
        ...

    def prove(self, lease: Lease, timeout_s: float) -> None:
        """Returns once the state itself, not what this process has heard of it, confirmed that the
        lease is held by this very session; writes no row. Raises PvcError NOT_LEADER, or
        STORE_UNAVAILABLE when no answer came in time, which says nothing about the lease.

        What that is worth: ask for something, `touch` or this, at the moment s; have it answered;
        call this at least `proof_lag_s` after the answer, successfully. Then the lease does not end
        before s + `session_timeout_s` (clocks that run alike), unless this process ends it."""
        ...

    def touch(self, timeout_s: float) -> None:
        """A sign of life: returns once whoever serves this process has answered. Says nothing about
        any lease, costs next to nothing, and writes nothing. Raises PvcError STORE_UNAVAILABLE when
        no answer came in time."""
        ...

    @property
    def session_timeout_s(self) -> float:
        """After how many seconds without a sign of life a session ends, as agreed with the state.
        Where a session lives as long as its process: as configured, and nothing follows from
        it."""
        ...

    @property
    def proof_lag_s(self) -> float:
        """How long it may take until a sign of life is known wherever it is decided that a session
        has ended; see `prove`."""
        ...

    def session(self) -> str:
        """Names this process's session; another one after the first was lost, "" while there is
        none. Leases die with their session."""
        ...

    def close(self) -> None:
        """Gives up all leases and ends. May be called again."""
        ...
