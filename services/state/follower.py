"""Keeps a Mirror up to date with what ZooKeeper holds: loads it, follows the log, hears of leases.

It reads, and drops the oldest of the log; it never writes a row.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError, Message

from pvc.core.v1 import store_pb2
from services.mesh.loop import Loop
from services.state.changes import StoredRows, loaded
from services.state.ensemble import Connection, Cut
from services.state.mirror import Mirror, unavailable
from services.state.znodes import Znodes, lease_name, unescaped, version_after

LOG_KEPT = 1_000
"""Commits that a mirror may be behind before it must load everything again."""

LOG_BYTES_KEPT = 32 * 1024 * 1024
"""Room that the log may take before fewer commits are kept: ZooKeeper has everything in memory."""

TRIM_EVERY = 100
_PERIOD_S = 15.0
_LOADS_MAX = 5

log = logging.getLogger("pvc.state")


class Follower:
    """Feeds a mirror, in a thread of its own and whenever somebody calls `catch_up`."""

    def __init__(self, connection: Connection, znodes: Znodes, mirror: Mirror) -> None:
        self._connection = connection
        self._znodes = znodes
        self._mirror = mirror
        self._reading = threading.Lock()
        self._head_moved = threading.Event()
        self._leases_moved = threading.Event()
        self._head = (0, 0)
        self._holders: dict[str, str] = {}
        self._sizes: deque[tuple[int, int]] = deque(maxlen=LOG_KEPT)
        self._trim_due = False
        self._loop = Loop("state", self._step, _PERIOD_S)

    def start(self) -> None:
        """Loads everything, then follows until `stop`."""
        with self._reading:
            self._load()
        self.read_leases()
        self._loop.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread."""
        self._loop.stop(timeout_s)

    def wake(self) -> None:
        """The connection came or went: what was watched must be read again."""
        self._head_moved.set()
        self._leases_moved.set()
        self._loop.wake()

    def head_version(self, revision: int) -> int:
        """The version that the head znode has while `revision` is the newest."""
        known, version = self._head
        return version_after(version, revision - known)

    def catch_up(self, sync: bool = False) -> None:
        """Brings the mirror to what the server holds; with `sync` to what the ensemble holds now.

        Raises Cut, or PvcError when what is there cannot be read by this build.
        """
        with self._reading:
            if sync:
                self._connection.sync()
            at, newest = self._mirror.snapshot.revision, self._read_head()
            if newest < at:
                log.error("the state went back from revision %d to %d: loading it", at, newest)
                self._load()
            elif newest > at and not self._follow(at, newest):
                log.warning("the log begins after revision %d: loading everything", at)
                self._load()

    def load(self) -> None:
        """Loads everything again."""
        with self._reading:
            self._load()

    def take(self, revision: int, rows: StoredRows, size: int) -> None:
        """Takes in a commit that this process made, unless it was read already."""
        with self._reading:
            if self._mirror.snapshot.revision == revision - 1:
                self._apply(revision, rows, size)
        if revision % TRIM_EVERY == 0:
            self._trim_due = True
            self._loop.wake()
        if self._mirror.snapshot.revision < revision:
            self.catch_up()

    def holdings(self) -> Iterable[str]:
        """The znodes of the leases that are held, as last heard."""
        return self._holders

    def read_leases(self) -> list[str]:
        """The znodes of all leases that are held; tells the mirror who holds them."""
        children = self._connection.children(self._znodes.leases, self._on_leases)
        fresh = [child for child in children if child not in self._holders]
        paths = [f"{self._znodes.leases}/{child}" for child in fresh]
        found = dict(zip(fresh, self._connection.get_many(paths), strict=True))
        known = {**self._holders, **{c: h.decode() for c, h in found.items() if h is not None}}
        held = {child: known[child] for child in children if child in known}
        self._holders = held
        self._mirror.set_leases({lease_name(child): holder for child, holder in held.items()})
        return children

    def _step(self) -> None:
        if not self._connection.up:
            return
        idle = not (self._head_moved.is_set() or self._leases_moved.is_set())
        try:
            if self._head_moved.is_set() or idle:
                self._head_moved.clear()
                self.catch_up()
            if self._leases_moved.is_set() or idle:
                self._leases_moved.clear()
                self.read_leases()
            if self._trim_due:
                self._trim_due = False
                self._trim()
        except Cut as cut:
            log.info("the state is not followed for now: %s", cut)
            self.wake()

    def _on_head(self, _event: object) -> None:
        self._head_moved.set()
        self._loop.wake()

    def _on_leases(self, _event: object) -> None:
        self._leases_moved.set()
        self._loop.wake()

    def _read_head(self) -> int:
        found = self._connection.get(self._znodes.head, self._on_head)
        if found is None:
            raise unavailable(
                f"ZooKeeper holds no state at {self._znodes.root}: see whether it is the right "
                "ensemble, and restore the state from a backup if it is"
            )
        value, stat = found
        self._head = (int(value), stat.version)
        return int(value)

    def _follow(self, at: int, newest: int) -> bool:
        """Applies the commits after `at`; False if one is no longer in the log."""
        revisions = range(at + 1, newest + 1)
        entries = self._connection.get_many(self._znodes.entry(r) for r in revisions)
        for revision, entry in zip(revisions, entries, strict=True):
            if entry is None:
                return False
            self._apply(revision, self._changes(entry), len(entry))
        return True

    def _apply(self, revision: int, rows: StoredRows, size: int) -> None:
        try:
            values = loaded(rows)
        except ValueError as error:
            raise self._damaged(f"revision {revision}: {error}") from error
        self._sizes.append((revision, size))
        self._mirror.apply(revision, values)

    def _load(self) -> None:
        for _ in range(_LOADS_MAX):
            first = self._read_head()
            rows = self._read_rows()
            newest = self._read_head()
            if self._replay(rows, first, newest):
                break
        else:
            raise unavailable("the state changes faster than this process can load it; try again")
        try:
            values: Mapping[str, Message | None] = loaded(rows)
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self._mirror.load(newest, [value for value in values.values() if value is not None])

    def _read_rows(self) -> dict[str, store_pb2.StoredRow | None]:
        """All rows, each at some revision between the head's before and after the reading."""
        names = [unescaped(child) for child in self._connection.children(self._znodes.rows)]
        values = self._connection.get_many(self._znodes.row(name) for name in names)
        rows: dict[str, store_pb2.StoredRow | None] = {}
        for name, value in zip(names, values, strict=True):
            if value is not None:
                try:
                    rows[name] = store_pb2.StoredRow.FromString(value)
                except DecodeError as error:
                    raise self._damaged(f"the row {name}: {error}") from error
        return rows

    def _replay(self, rows: dict[str, store_pb2.StoredRow | None], first: int, newest: int) -> bool:
        """Brings rows that were read while others wrote to one revision; False if it cannot."""
        revisions = range(first + 1, newest + 1)
        entries = self._connection.get_many(self._znodes.entry(r) for r in revisions)
        for revision, entry in zip(revisions, entries, strict=True):
            if entry is None:
                return False
            for name, row in self._changes(entry).items():
                there = rows.get(name)
                if there is None or there.revision < revision:
                    rows[name] = row
        return True

    def _changes(self, entry: bytes) -> StoredRows:
        try:
            commit = store_pb2.StoredCommit.FromString(entry)
        except DecodeError as error:
            raise self._damaged(f"an entry of the log: {error}") from error
        return {c.name: c.row if c.HasField("row") else None for c in commit.changes}

    def _trim(self) -> None:
        newest = self._mirror.snapshot.revision
        keep_from, room = newest - LOG_KEPT + 1, LOG_BYTES_KEPT
        for revision, size in reversed(self._sizes):
            room -= size
            if room < 0:
                keep_from = max(keep_from, revision + 1)
                break
        entries = self._connection.children(self._znodes.log)
        old = [int(entry) for entry in entries if int(entry) < keep_from]
        self._connection.delete_many(self._znodes.entry(revision) for revision in sorted(old))

    def _damaged(self, what: str) -> Exception:
        return unavailable(
            f"the state in ZooKeeper is damaged at {self._znodes.root}, {what}; restore it from a "
            "backup"
        )
