"""A durable store in one SQLite file, for PVC in a single process on one machine.

Reads come from memory; a commit is on the disk when it returns. Leases live with the process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from services.mesh.clock import Clock, SystemClock
from services.state.changes import StoredRows, loaded, stored_rows
from services.state.lease import LocalLease, LocalLeases
from services.state.mirror import Mirror, MirrorWatch, unavailable
from services.state.schema import to_stored
from services.state.sqlite_file import SqliteFile, take_lock
from services.state.store import Change, Commit, Lease, Snapshot
from services.state.table import Row


class SqliteStore:
    """See Store. Raises PvcError IN_USE when another process has the file, STORE_UNAVAILABLE when
    it is damaged, SCHEMA_TOO_NEW when a newer version wrote it."""

    def __init__(
        self, path: Path, clock: Clock | None = None, session_timeout_s: float = 6.0
    ) -> None:
        self.session_timeout_s, self.proof_lag_s = session_timeout_s, 0.0
        self._path = path
        self._session = (clock or SystemClock()).new_id()
        self._writing = threading.Lock()
        self._doubtful = False
        self._closed = False
        self._mirror = Mirror()
        self._leases = LocalLeases(self._mirror.set_leases)
        self._owned = take_lock(path)
        try:
            self._file = SqliteFile(path)
            self._load()
        except BaseException:
            os.close(self._owned)
            raise

    def snapshot(self) -> Snapshot:
        """See Store."""
        return self._mirror.snapshot

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """See Store."""
        with self._writing:
            self._check_usable()
            self._leases.check(held_by)
            before = self._mirror.snapshot
            revision = before.revision + 1
            rows = stored_rows(before, changes, revision)
            if not rows:
                return before.revision
            self._write(revision, rows, _as_stored(before, rows))
            self._mirror.apply(revision, loaded(rows))
            return revision

    def wait(self, revision: int, timeout_s: float) -> None:
        """See Store."""
        self._mirror.wait(revision, timeout_s)

    def watch(self, after: int) -> MirrorWatch:
        """See Store."""
        return self._mirror.watch(after)

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store."""
        return self._mirror.on_change(wake)

    def acquire(self, name: str, holder: str, heir_of: str = "") -> LocalLease | None:
        """See Store."""
        with self._writing:
            self._check_open()
            return self._leases.acquire(name, holder, self._session, heir_of)

    def prove(self, lease: Lease, timeout_s: float) -> None:
        """See Store."""
        self._check_open()
        self._leases.prove(lease, self._session)

    def touch(self, timeout_s: float) -> None:
        """See Store."""
        self._check_open()

    def session(self) -> str:
        """See Store."""
        return self._session

    def close(self) -> None:
        """See Store."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            self._leases.end_session(self._session)
            self._mirror.close()
            self._file.close()
            os.close(self._owned)

    def _write(self, revision: int, rows: StoredRows, before: StoredRows) -> None:
        self._doubtful = True
        self._file.write(revision, rows, before)
        self._doubtful = False

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("the state was closed: this process is ending; nothing was written")

    def _check_usable(self) -> None:
        """After a failed write the disk says what is so: a commit may have got there after all."""
        self._check_open()
        if self._doubtful:
            self._file.reopen()
            if self._file.revision() != self._mirror.snapshot.revision:
                self._load()
            self._doubtful = False

    def _load(self) -> None:
        try:
            rows = loaded(self._file.rows())
            commits = self._commits(rows)
        except (ValueError, DecodeError) as error:
            raise unavailable(
                f"the state {self._path} is damaged: {error}. Restore it from a backup"
            ) from error
        kept = (row for row in rows.values() if row is not None)
        self._mirror.load(self._file.revision(), kept, commits)

    def _commits(self, rows: dict[str, Message | None]) -> list[Commit]:
        """The newest commits, oldest first: walks back from the rows as they are now."""
        now, commits = dict(rows), []
        for revision, before in self._file.history():
            was = loaded(before)
            changed = tuple(Row(name, now.get(name), was[name]) for name in was)
            commits.append(Commit(revision, changed))
            now.update(was)
        return commits[::-1]


def _as_stored(before: Snapshot, rows: StoredRows) -> StoredRows:
    """The rows that a commit changes, as they were before it."""
    was: dict[str, Any] = {name: before.named(name) for name in rows}
    return {name: row and to_stored(row, int(row.meta.etag)) for name, row in was.items()}
