"""What is in the cluster, kept fresh in memory by watches in the background, so that nobody at a
prompt waits for it. Asks the cluster for nothing but lists and watches.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from shell.prompt.fuzzy import Names
from shell.prompt.kinds import Kind, kind_of

KEPT_MAX = 50_000
"""Rows of a collection beyond these are not remembered."""
PAUSE_FIRST_S, PAUSE_MAX_S = 0.2, 3.0
"""Between attempts to begin a watch that cannot be begun."""
REFUSED_S = 30.0
"""Before asking again for what the cluster refused to show."""
LISTED_S = 5.0
"""What cannot be watched is listed again when somebody looks at a list older than this."""


class Link(Enum):
    """How the connection stands."""

    CONNECTING = "connecting"
    UP = "up"
    LOST = "lost"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that there is."""

    help: str
    """What stands beside its name: "running  n1"."""
    packed: bytes
    """The fields of it that are kept."""

    @property
    def state(self) -> str:
        """The first of those words."""
        return self.help.partition("  ")[0]


class Source(Protocol):
    """Where rows come from."""

    def watch(self, kind: Kind) -> Any:
        """An iterator of the client's Changes, that can be closed. Raises PvcError."""
        ...

    def list(self, kind: Kind) -> Iterable[Any]:
        """The rows there are. Raises PvcError."""
        ...


class Rows:
    """A collection, as it was last heard of. The feeding thread writes it, others read."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.known = False
        """All that there was in the beginning has come, once at least."""
        self.left_out = 0
        """Rows that there was no room for."""
        self.wanted = threading.Event()
        """Somebody has looked since it was last listed."""
        self._rows: dict[str, Told] = {}
        self._stale: set[str] = set()
        """Names that have not come again since the watch was begun anew."""
        self.states: Counter[str] = Counter()
        """How many are in each state: the first words of what stands beside their names."""
        self._version = 0
        self._names = (0, Names(()))
        """What can be searched, and of which version it was made."""

    def __len__(self) -> int:
        return len(self._rows) + self.left_out

    def begin(self) -> None:
        """A watch begins anew: what it does not tell of is gone."""
        self._stale, self.left_out = set(self._rows), 0

    def complete(self) -> None:
        """Everything there was has come."""
        for name in self._stale:
            self._forget(name)
        self._stale, self.known = set(), True

    def put(self, row: Any) -> None:
        """A row that is there."""
        name = self._called(row)
        self._stale.discard(name)
        before = self._rows.get(name)
        if before is None and len(self._rows) >= KEPT_MAX:
            self.left_out += 1
            return
        told = Told(self.kind.told(row), row.SerializeToString())
        self._rows[name] = told
        self.states[told.state] += 1
        if before is None:
            self._version += 1
        else:
            self.states[before.state] -= 1

    def drop(self, row: Any) -> None:
        """A row that is there no more."""
        self._stale.discard(self._called(row))
        self._forget(self._called(row))

    def _called(self, row: Any) -> str:
        """How a row is named where it is asked for: inside of something by its last id."""
        return row.name.rpartition("/")[2] if self.kind.parent else short(row.name)

    def _forget(self, name: str) -> None:
        if (before := self._rows.pop(name, None)) is not None:
            self.states[before.state] -= 1
            self._version += 1

    def best(self, typed: str, limit: int) -> list[str]:
        """The names that fit what is typed, best first."""
        version, names = self._names
        if version != self._version:
            version = self._version  # before the names: what comes meanwhile is seen the next time
            names = Names(list(self._rows))
            self._names = version, names
        return names.best(typed, limit) if typed or not self.kind.newest else names.last(limit)

    def find(self, name: str) -> Told | None:
        """What is known of one."""
        return self._rows.get(name)

    def row(self, name: str) -> Any:
        """One as a message, with the fields that are kept; None for one that is not there."""
        told = self._rows.get(name)
        return self.kind.type().FromString(told.packed) if told is not None else None

    def all(self) -> Mapping[str, Told]:
        """All of them as they are now."""
        return dict(self._rows)


def short(name: str) -> str:
    """The ids of a name: "pools/local/volumes/web-root" → "local/web-root"."""
    return "/".join(name.split("/")[1::2])


class Live:
    """All collections of one connection. `rows` answers at once and begins to follow what it is
    asked for; `close` ends all threads."""

    def __init__(self, source: Source, tell: Callable[[str, Any], None] | None = None) -> None:
        """tell: is called in the background after a change of a collection, with the row if there
        is one; must be quick."""
        self._source = source
        self._tell = tell or (lambda collection, row: None)
        self._lock = threading.Lock()
        self._rows: dict[str, Rows] = {}
        self._streams: dict[str, Any] = {}
        self._ended = threading.Event()
        self._wake = threading.Event()
        self.link = Link.CONNECTING
        self.refused = ""
        """What the cluster said when it refused to show something."""

    def rows(self, collection: str) -> Rows:
        """A collection, "vms", or one inside of something, "vms.snapshots:web"; nothing is in it
        before anything was heard of it."""
        with self._lock:
            found = self._rows.get(collection)
            if found is None:
                found = self._rows[collection] = Rows(kind_of(collection))
                if not self._ended.is_set():
                    self._begin(found)
        found.wanted.set()
        return found

    def _begin(self, rows: Rows) -> None:
        name = f"live-{rows.kind.collection}"
        threading.Thread(target=self._follow, args=(rows,), name=name, daemon=True).start()

    def peek(self, collection: str) -> Rows | None:
        """A collection if it is followed already."""
        return self._rows.get(collection)

    def close(self) -> None:
        """Ends all that goes on in the background."""
        self._ended.set()
        self._wake.set()
        with self._lock:
            streams = list(self._streams.values())
            for rows in self._rows.values():
                rows.wanted.set()
        for stream in streams:
            stream.close()

    def _follow(self, rows: Rows) -> None:
        """Keeps a collection fresh until the end, whatever happens to the connection."""
        pause_s = PAUSE_FIRST_S
        while not self._ended.is_set():
            try:
                self._listen(rows) if rows.kind.watched else self._look(rows)
                pause_s = PAUSE_FIRST_S
            except Exception as error:  # noqa: BLE001 - whatever it was, it is shown, and tried again
                pause_s = self._broken(rows, error, pause_s)
            if not self._ended.is_set():
                self._ended.wait(pause_s)

    def _listen(self, rows: Rows) -> None:
        """Follows a watch until it ends."""
        stream = self._source.watch(rows.kind)
        with self._lock:
            self._streams[rows.kind.collection] = stream
        if self._ended.is_set():
            stream.close()
        rows.begin()
        for change in stream:
            self.link = Link.UP
            if change.resource is None:
                rows.complete()
            elif change.kind == DELETED:
                rows.drop(change.resource)
            else:
                rows.put(change.resource)
            self._tell(rows.kind.collection, change.resource)

    def _look(self, rows: Rows) -> None:
        """Lists what cannot be watched; again when somebody looks at what has grown old."""
        rows.begin()
        for row in self._source.list(rows.kind):
            rows.put(row)
        rows.complete()
        self._tell(rows.kind.collection, None)
        self._ended.wait(LISTED_S)
        rows.wanted.clear()
        if not self._ended.is_set():
            rows.wanted.wait()

    def _broken(self, rows: Rows, error: Exception, pause_s: float) -> float:
        """Notes that a watch broke; gives how long to wait."""
        if self._ended.is_set():
            return 0
        if is_lost(error):
            self.link = Link.LOST
            self._tell(rows.kind.collection, None)
            return min(pause_s * 2, PAUSE_MAX_S)
        self.refused = str(error)
        self.link = Link.REFUSED if self.link is not Link.UP else self.link
        self._tell(rows.kind.collection, None)
        return REFUSED_S


DELETED = 4
"""CHANGE_KIND_DELETED, without loading the contract for it."""


def is_lost(error: Exception) -> bool:
    """Whether it says that the cluster cannot be reached just now."""
    from pvc_client.errors import Unavailable

    return isinstance(error, Unavailable)
