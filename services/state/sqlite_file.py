"""The SQLite file of a SqliteStore: its making, its checks, its reading and its one transaction.

It knows rows as bytes and decides nothing. What it opens is whole, or it raises.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pvc.core.v1 import reason_pb2, store_pb2
from services.mesh.errors import PvcError
from services.mesh.loop import pause
from services.state.changes import StoredRows
from services.state.mirror import unavailable

LAYOUT = 1
"""Of the tables; kept in user_version."""

APPLICATION_ID = 0x50564353
"""Marks the file as ours ("PVCS")."""

HISTORY_KEPT = 2_000
"""Commits whose watchers can be served after a restart."""

_BUSY_TIMEOUT_S = 2.0
_HEIR_S, _HEIR_LOOKS = 10.0, 200
"""How long, and how often, a lock is looked at whose owner is dead."""
_WAL_BYTES_KEPT = 16 * 1024 * 1024
_SCARCE_BYTES = 256 * 1024

_MAKE = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {LAYOUT};
BEGIN;
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE rows (name TEXT NOT NULL UNIQUE, stored BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE history (revision INTEGER NOT NULL, name TEXT NOT NULL, before BLOB, checksum INTEGER NOT NULL, PRIMARY KEY (revision, name));
INSERT INTO meta VALUES (1, 0, 0);
COMMIT;
"""  # noqa: E501

log = logging.getLogger("pvc.state")


def take_lock(path: Path) -> int:
    """Makes this process the only one that uses the file; returns what to close to give it up.

    Raises PvcError IN_USE naming the process that has it.
    """
    lock = path.with_name(path.name + ".lock")
    with _Explained(path):
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    owner = _holder(handle)
    for _ in range(_HEIR_LOOKS):
        if not owner or _lives(owner):
            break
        pause(_HEIR_S / _HEIR_LOOKS)
        owner = _holder(handle)
    if owner:
        os.close(handle)
        raise PvcError(
            reason_pb2.REASON_IN_USE,
            f"the state {path} is in use by the process {owner}: stop that one first",
            metadata={"pid": owner},
        )
    with _Explained(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _holder(handle: int) -> str:
    """Takes the lock, or says which process noted that it has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
    return ""


def _lives(owner: str) -> bool:
    """One that was killed at the moment it began a child leaves the lock to that, until it runs
    its program."""
    return not owner.isdecimal() or Path("/proc", owner).exists()


class SqliteFile:
    """One open file. Used by one thread at a time; the caller sees to that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            self._make()
        self._db = self._open()
        self._check_whole()

    def close(self) -> None:
        """Closes the file; everything committed is in it."""
        self._db.close()

    def reopen(self) -> None:
        """Begins anew after an error, with what the disk really holds."""
        self._db.close()
        self._db = self._open()

    def revision(self) -> int:
        """The revision of the newest commit."""
        with _Explained(self._path):
            (revision,) = self._db.execute("SELECT revision FROM meta").fetchone()
        return int(revision)

    def rows(self) -> Mapping[str, store_pb2.StoredRow]:
        """All rows. Raises PvcError STORE_UNAVAILABLE if one is damaged or missing."""
        rows: dict[str, store_pb2.StoredRow] = {}
        with _Explained(self._path):
            for name, stored, checksum in self._db.execute("SELECT * FROM rows"):
                if _checksum(name, stored) != checksum:
                    raise self._damaged(f"its row {name} is not what was written")
                rows[name] = store_pb2.StoredRow.FromString(stored)
            (expected,) = self._db.execute("SELECT rows FROM meta").fetchone()
        if len(rows) != expected:
            raise self._damaged(f"it holds {len(rows)} rows instead of {expected}")
        return rows

    def history(self) -> Iterator[tuple[int, StoredRows]]:
        """The newest commits, newest first: revision, and the rows as they were before it."""
        rows: dict[str, store_pb2.StoredRow | None] = {}
        newest = 0
        with _Explained(self._path):
            query = "SELECT * FROM history ORDER BY revision DESC"
            for revision, name, before, checksum in self._db.execute(query):
                if _checksum(name, before or b"") != checksum:
                    raise self._damaged(f"its history of {name} is not what was written")
                if rows and revision != newest:
                    yield newest, rows
                    rows = {}
                newest = revision
                rows[name] = store_pb2.StoredRow.FromString(before) if before else None
        if rows:
            yield newest, rows

    def write(self, revision: int, rows: StoredRows, before: StoredRows) -> None:
        """Writes one commit, all of it or nothing; it is on the disk when this returns.

        before: the same rows as they were. Raises PvcError STORE_UNAVAILABLE or OUT_OF_SPACE.
        """
        with _Explained(self._path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._write_rows(revision, rows, before)
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _write_rows(self, revision: int, rows: StoredRows, before: StoredRows) -> None:
        grown = sum((row is not None) - (before[name] is not None) for name, row in rows.items())
        moved = self._db.execute(
            "UPDATE meta SET revision = ?, rows = rows + ? WHERE revision = ?",
            (revision, grown, revision - 1),
        )
        if moved.rowcount != 1:
            raise self._damaged("another program wrote to it")
        for name, row in rows.items():
            if row is None:
                self._db.execute("DELETE FROM rows WHERE name = ?", (name,))
            else:
                stored = row.SerializeToString()
                self._db.execute(
                    "INSERT INTO rows VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
                    "SET stored = excluded.stored, checksum = excluded.checksum",
                    (name, stored, _checksum(name, stored)),
                )
            was = before[name]
            undo = was.SerializeToString() if was is not None else None
            self._db.execute(
                "INSERT INTO history VALUES (?, ?, ?, ?)",
                (revision, name, undo, _checksum(name, undo or b"")),
            )
        self._db.execute("DELETE FROM history WHERE revision <= ?", (revision - HISTORY_KEPT,))

    def _make(self) -> None:
        """Makes the file under another name first: the real one is whole from its first moment."""
        if self._path.with_name(self._path.name + "-wal").exists():
            raise self._damaged("the file is gone, and only its log (-wal) is left")
        fresh = self._path.with_name(self._path.name + ".new")
        with _Explained(self._path):
            fresh.unlink(missing_ok=True)
            fresh.touch(mode=0o600)
            db = sqlite3.connect(fresh, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = OFF")
                db.execute("PRAGMA synchronous = FULL")
                db.executescript(_MAKE)
            finally:
                db.close()
            fresh.replace(self._path)
            _sync_folder(self._path.parent)

    def _open(self) -> sqlite3.Connection:
        with _Explained(self._path):
            db = sqlite3.connect(
                self._path,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            # SQLite begins a new database in a file that is too short to be one: look first.
            (mark,) = db.execute("PRAGMA application_id").fetchone()
            if mark != APPLICATION_ID:
                db.close()
                raise self._damaged("it is no state of PVC, or only a piece of one")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
        return db

    def _check_whole(self) -> None:
        with _Explained(self._path):
            (layout,) = self._db.execute("PRAGMA user_version").fetchone()
            if layout > LAYOUT:
                raise PvcError(
                    reason_pb2.REASON_SCHEMA_TOO_NEW,
                    f"the state {self._path} has layout {layout}, and this version knows {LAYOUT}: "
                    "run the newer version of PVC",
                )
            (verdict,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise self._damaged(verdict)

    def _damaged(self, how: str) -> PvcError:
        return unavailable(
            f"the state {self._path} is damaged: {how}. Nothing was changed; restore the file and "
            "its -wal from a backup"
        )


class _Explained:
    """Turns what SQLite and the file system say into what to do about it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | OSError):
            raise _explanation(self._path, error) from error


def _explanation(path: Path, error: sqlite3.Error | OSError) -> PvcError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
    if code == sqlite3.SQLITE_IOERR and _free_bytes(path) < _SCARCE_BYTES:
        code = sqlite3.SQLITE_FULL
    match code:
        case sqlite3.SQLITE_FULL:
            return PvcError(
                reason_pb2.REASON_OUT_OF_SPACE,
                f"there is no room left for the state {path} ({error}), so nothing was written: "
                "free some space on its file system and try again",
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return unavailable(
                f"another program keeps the state {path} locked ({error}), so nothing was "
                "written: end that program and try again"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return unavailable(
                f"the state {path} is damaged ({error}): restore the file and its "
                "-wal from a backup"
            )
        case _:
            return unavailable(
                f"the state {path} cannot be read or written ({error}): see to its disk and "
                "permissions and try again; what was being written may or may not be kept"
            )


def _free_bytes(path: Path) -> int:
    try:
        room = os.statvfs(path.parent)
    except OSError as error:
        log.warning("cannot tell how much room %s has: %s", path.parent, error)
        return _SCARCE_BYTES
    return room.f_bavail * room.f_frsize


def _checksum(name: str, stored: bytes) -> int:
    return zlib.crc32(stored, zlib.crc32(name.encode()))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
