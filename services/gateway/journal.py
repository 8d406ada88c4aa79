"""The file in which a gateway writes down calls when it lets them in, and again when they have
ended, until they are in the state: what was under way when a process died is found there by the
next one. It decides nothing.

A line is a sign and an entry: "begin", "ended", or "kept" with the names of those that are in the
state. A line that was cut short by a death was never acted on.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from pvc.gateway.v1 import audit_pb2

log = logging.getLogger("pvc.audit")

AuditEntry = audit_pb2.AuditEntry

REWRITTEN_FROM_BYTES = 1 << 20
"""From this size on the file is written anew, with what is still needed, when it has doubled."""


@dataclass(slots=True)
class Left:
    """What a process left behind: entries by name, in the order in which they came."""

    going: dict[str, AuditEntry] = field(default_factory=dict)
    ended: dict[str, AuditEntry] = field(default_factory=dict)


class Journal:
    """One process writes it at a time. All verbs raise OSError, and may hang as the disk does. For
    one thread, but for `sync`, which another may call, and what is only looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self.size = 0
        """Bytes in the file."""
        self._unsynced = False
        self._needed = 0
        """Its size when it was last written anew."""
        self._swapping = threading.Lock()
        """Held while `_file` becomes another."""

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    @property
    def is_large(self) -> bool:
        """Worth to be written anew, with what is still needed."""
        return self.size >= max(REWRITTEN_FROM_BYTES, 2 * self._needed)

    def open(self) -> Left:
        """Reads what is there; writing goes on after it."""
        return _read(self._path.read_bytes() if self._path.exists() else b"")

    def begin(self, entry: AuditEntry) -> None:
        """A call is let in."""
        self._write(_line("begin", entry))

    def end(self, entry: AuditEntry) -> None:
        """It has ended, or was turned away."""
        self._write(_line("ended", entry))

    def keep(self, names: Iterable[str]) -> None:
        """Those entries are in the state, or not wanted there."""
        self._write(f"kept {' '.join(names)}\n".encode())

    def rewrite(self, going: Iterable[AuditEntry], ended: Iterable[AuditEntry]) -> None:
        """The file is anew, and has these alone. The new one is whole before it takes the place of
        the old one; that it outlives a failure of the machine is for the next `sync` to see to."""
        self._make_folder()
        partial = self._path.with_name(f"{self._path.name}.new")
        try:
            _write_whole(partial, going, ended)
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)  # it may have taken the last room
            raise
        self.close()
        self._reopen()
        self._needed, self._unsynced = self.size, True

    def sync(self) -> None:
        """What was written outlives a failure of the machine from now on."""
        with self._swapping:
            if self._file < 0 or not self._unsynced:
                return
            self._unsynced = False
            descriptor = os.dup(self._file)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Writes no more."""
        with self._swapping:
            descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self, line: bytes) -> None:
        if self._file < 0:
            self._reopen()
        written = os.write(self._file, line)
        self._unsynced = True
        self.size += written
        if written < len(line):
            self._reopen_after(written)

    def _reopen_after(self, written: int) -> None:
        """The rest of a line had no room: it is taken back, so that the next one is whole."""
        os.ftruncate(self._file, max(0, os.fstat(self._file).st_size - written))
        self.size -= written
        raise OSError("there is no room for a whole line")

    def _reopen(self) -> None:
        """What follows begins on a line of its own, though a death cut the last one short."""
        self._make_folder()
        descriptor = os.open(
            self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            self.size = os.fstat(descriptor).st_size
            if self.size:
                self.size += os.write(descriptor, b"\n")
        except OSError:
            os.close(descriptor)
            raise
        with self._swapping:
            self._file = descriptor

    def _make_folder(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_whole(path: Path, going: Iterable[AuditEntry], ended: Iterable[AuditEntry]) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for entry in going:
            file.write(_line("begin", entry))
        for entry in ended:
            file.write(_line("ended", entry))


def _line(sign: str, entry: AuditEntry) -> bytes:
    return b"%s %s\n" % (sign.encode(), base64.b64encode(entry.SerializeToString()))


def _read(content: bytes) -> Left:
    left = Left()
    for sign, rest in _lines(content):
        if sign == "kept":
            for name in rest.split():
                left.going.pop(name, None)
                left.ended.pop(name, None)
            continue
        try:
            entry = AuditEntry.FromString(base64.b64decode(rest, validate=True))
        except (DecodeError, binascii.Error, ValueError):
            log.warning("a line of the audit journal cannot be read: %.40s…", rest)
            continue
        left.going.pop(entry.name, None)
        (left.going if sign == "begin" else left.ended)[entry.name] = entry
    return left


def _lines(content: bytes) -> Iterator[tuple[str, str]]:
    """Sign and rest of each whole line."""
    *whole, _cut_short = content.decode("ascii", "replace").split("\n")
    for line in whole:
        sign, _, rest = line.partition(" ")
        if sign in ("begin", "ended", "kept"):
            yield sign, rest
        elif line:
            log.warning("a line of the audit journal cannot be read: %.40s…", line)
