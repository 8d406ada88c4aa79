"""Random stories: what a writer commits, and a reader who breaks off and resumes while it does;
told over a real world, and recorded."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from services.mesh.errors import PvcError
from services.state.store import ANY_VERSION, Change, Delete, Put, Store
from tests.mesh.vms import vm
from tests.watching.histories import (
    BOOKMARK,
    FILTERS,
    MASKS,
    STAMP,
    Asked,
    History,
    Reading,
    Truth,
    Vm,
)
from tests.watching.readers import Broken, Stream

LAST = "vms/zz-last"
"""Written last of all, and meant by every filter: whoever has seen it has seen the story."""
AWAY = ("UNREACHABLE", "STORE_UNAVAILABLE")
PAUSE_S, SETTLED_S = 0.1, 20.0
_stamps = itertools.count(1)
Open = Callable[[Asked], Stream]


@dataclass(frozen=True, slots=True)
class Written:
    """What one commit does to one VM: memory None deletes it."""

    vm: str
    memory_mib: int | None
    tier: str


@dataclass(frozen=True, slots=True)
class Story:
    """What happens. breaks: after how many messages the reader goes, stream by stream; the last
    stream is read to the end. late: how many commits the reader lets go by before it begins."""

    commits: tuple[tuple[Written, ...], ...]
    breaks: tuple[int, ...]
    late: int
    filter: str
    mask: tuple[str, ...]


WRITTEN = st.builds(
    Written,
    st.sampled_from("abcde"),
    st.sampled_from([100, 900, 2000, 5000, None]),
    st.sampled_from(["web", "db"]),
)
COMMITS = st.lists(WRITTEN, min_size=1, max_size=4, unique_by=lambda one: one.vm).map(tuple)
STORIES = st.builds(
    Story,
    st.lists(COMMITS, min_size=1, max_size=25).map(tuple),
    st.lists(st.integers(1, 8), max_size=4).map(tuple),
    st.integers(0, 10),
    st.sampled_from(sorted(FILTERS)),
    st.sampled_from(MASKS),
)


class Writer:
    """Writes to a store, and remembers what."""

    def __init__(self, store: Store) -> None:
        """Begins with no VM at all."""
        self.store = store
        gone = [Delete(row.name, ANY_VERSION) for row in store.snapshot().rows(Vm)]
        self.truth = Truth(store.commit(gone))
        self._doubtful: dict[str, Vm | None] = {}

    def write(self, *wanted: Written) -> int:
        """One commit; what it would delete and is not there is left out. Gives the revision."""
        rows: dict[str, Vm | None] = {}
        there = self.truth.state(max(self.truth.commits, default=self.truth.begin))
        for one in wanted:
            name = f"vms/{one.vm}"
            if one.memory_mib is not None:
                rows[name] = stamped(one)
            elif name in there:
                rows[name] = None
        try:
            revision = self.store.commit([_change(name, row) for name, row in rows.items()])
        except PvcError:
            self._doubtful = rows
            raise
        if rows:
            self.truth.wrote(revision, rows)
        return revision

    def settle(self) -> None:
        """Finds out whether what the state did not answer to was done; it must have made a row."""
        self.store.touch(SETTLED_S)
        time.sleep(PAUSE_S)
        for name, row in self._doubtful.items():
            there = self.store.snapshot().find(Vm, name)
            if row is not None and there is not None and _stamp(there) == _stamp(row):
                self.truth.wrote(int(there.meta.etag), self._doubtful)
                return

    def end(self) -> int:
        """The last thing that happens."""
        return self.write(Written(LAST.removeprefix("vms/"), 5000, "web"))


def stamped(one: Written) -> Vm:
    """The row, as it is written now and never again."""
    row = vm(one.vm, one.memory_mib or 0, tier=one.tier)
    row.meta.labels[STAMP] = str(next(_stamps))
    row.meta.etag = ANY_VERSION
    return row


def _stamp(row: Vm) -> str:
    return row.meta.labels[STAMP]


def _change(name: str, row: Vm | None) -> Change:
    return Put(row) if row is not None else Delete(name, ANY_VERSION)


class Reader:
    """Reads in a thread of its own, stream after stream, each from where the one before had come
    to."""

    def __init__(
        self, open: Open, asked: Asked, breaks: Sequence[int] = (), patience: int = 0
    ) -> None:
        """breaks: see Story. patience: how many streams may break without the reader's wish."""
        self.readings: list[Reading] = []
        self.failed: list[BaseException] = []
        self._open, self._asked = open, asked
        self._breaks = (*breaks, *(None for _ in range(patience + 1)))
        self._patience = patience
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float = 60) -> None:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"it never saw the end: {self.readings[-1:]}"
        if self.failed:
            raise self.failed[0]

    def _read(self) -> None:
        try:
            asked = self._asked
            for most in self._breaks:
                reading = Reading(asked)
                self.readings.append(reading)
                try:
                    self._stream(reading, most)
                except Broken as broken:
                    self._bear(reading, broken)
                if self._is_over(reading):
                    return
                asked = replace(asked, from_revision=reading.newest)
        except BaseException as error:  # noqa: BLE001 - raised where the test is
            self.failed.append(error)

    def _bear(self, reading: Reading, broken: Broken) -> None:
        """Takes an error that says that another try may help; raises any other."""
        reading.ended = broken.reason
        self._patience -= 1
        if broken.reason not in AWAY or self._patience < 0:
            raise broken
        time.sleep(PAUSE_S)

    def _stream(self, reading: Reading, most: int | None) -> None:
        stream = self._open(reading.asked)
        try:
            while most is None or len(reading.seen) < most:
                reading.seen.append(next(stream))
                if self._is_over(reading):
                    break
        finally:
            stream.close()

    def _is_over(self, reading: Reading) -> bool:
        """The last row came; and when it came with the opening snapshot, or on a stream before, the
        bookmark too."""
        if not reading.seen:
            return False
        newest = reading.seen[-1]
        if newest.name == LAST:
            return newest.revision > 0
        came = any(one.name == LAST for reading in self.readings for one in reading.seen)
        return came and newest.kind == BOOKMARK


def told(store: Store, story: Story, open: Open) -> History:
    """Has it happen; gives what the reader saw."""
    writer = Writer(store)
    asked = Asked(story.filter, story.mask, at_least=writer.truth.begin)
    reader = Reader(open, asked, story.breaks)
    for number, commit in enumerate(story.commits):
        if number == min(story.late, len(story.commits) - 1):
            reader.start()
        writer.write(*commit)
    writer.end()
    reader.join()
    return History(writer.truth, tuple(reader.readings))
