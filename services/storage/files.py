"""Keeps files for a day: what users upload to import, and what was exported for them to fetch.

A file is `ID.data` beside `ID.json`; it exists once its `.json` does. Everything else in the folder
is unfinished and goes when the service starts. Nothing that a user says becomes part of a path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_service_pb2
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, not_found, refuse
from services.storage.core import layout
from services.storage.core.images import SIZE_MAX
from services.storage.core.room import amount

FileInfo = storage_service_pb2.FileInfo

KEPT_S = 24 * 3600
PIECE_BYTES = 1 << 20
RESERVE_BYTES = 1 << 30

log = logging.getLogger("pvc.storage")

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class Files:
    """The kept files of one node.

    All methods may be called from any thread; all may wait for the disk.
    """

    def __init__(
        self, folder: Path, node: str, clock: Clock, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self.folder = folder
        self.node = node
        self._clock = clock
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._promised = 0
        """Bytes that uploads under way have announced and not yet written."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = {path.stem for path in folder.glob("*.json") if _is_card(path)}
        for path in folder.iterdir():
            if path.suffix not in (".data", ".json") or path.stem not in whole:
                path.unlink()

    def find(self, name: str, field: str = "name") -> FileInfo:
        """What is known of a file. Raises NOT_FOUND."""
        try:
            text = self._path(name, ".json").read_text()
        except FileNotFoundError:
            raise not_found(name[:120], field) from None
        return json_format.Parse(text, FileInfo())

    def path(self, name: str) -> str:
        """Where a file's bytes lie."""
        return str(self._path(name, ".data"))

    def head(self, name: str, count: int) -> bytes:
        """A file's first bytes."""
        return next(self.read(name, 0, count), b"")

    def read(self, name: str, offset: int, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """A file's bytes from an offset on, piece by piece; also to its end when it is removed
        meanwhile.
        """
        try:
            opened = self._path(name, ".data").open("rb")
        except FileNotFoundError:  # its day was over just now
            raise not_found(name) from None
        with opened as file:
            file.seek(offset)
            while piece := file.read(piece_bytes):
                yield piece

    def all(self) -> list[FileInfo]:
        """Every file that is kept."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append(json_format.Parse(path.read_text(), FileInfo()))
        return found

    def delete(self, name: str) -> None:
        """Removes a file. Raises NOT_FOUND."""
        self.find(name)
        self.drop(name)

    def drop(self, name: str) -> None:
        """Removes a file and what there may be of it. Not an error if there is nothing."""
        for suffix in (".json", ".data", ".data.part"):
            self._path(name, suffix).unlink(missing_ok=True)

    def expire(self, is_used: Callable[[str], bool]) -> None:
        """Removes the files whose day is over and that nothing reads."""
        now = self._clock.now().ToNanoseconds()
        for file in self.all():
            if file.expire_time.ToNanoseconds() <= now and not is_used(file.name):
                self.drop(file.name)

    def check_room(self, needs_bytes: int) -> None:
        """Raises OUT_OF_SPACE unless so much may be written."""
        there = os.statvfs(self.folder)
        free = there.f_bavail * there.f_frsize - self._promised
        if free - needs_bytes < self._reserve_bytes:
            refuse(
                reason_pb2.REASON_OUT_OF_SPACE,
                f"{self.node} has {amount(free)} free for files, of which "
                f"{amount(self._reserve_bytes)} are kept in reserve; this needs "
                f"{amount(needs_bytes)}: delete files that are not needed",
            )

    def begin(self, size_bytes: int, sha256: str, source_name: str) -> Upload:
        """Takes a file in. Raises INVALID_FIELD, OUT_OF_SPACE."""
        if not 0 < size_bytes <= SIZE_MAX:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                "the first message must say the file's size, and an empty file is no image",
                "size_bytes",
            )
        with self._lock:
            self.check_room(size_bytes)
            self._promised += size_bytes
        name = layout.file_name_for(self.node, self._clock.new_id())
        try:
            with _full_disk():
                return Upload(self, name, size_bytes, sha256, source_name)
        except BaseException:
            self.written(size_bytes)
            raise

    def take(self, name: str, pieces: Iterable[bytes], check: Callable[[int], None]) -> int:
        """Writes bytes to where a file of that name lies, without keeping it; gives their number.
        `drop` it when it is not needed any more. check: told how many came; may raise to stop.
        Raises OUT_OF_SPACE."""
        count = 0
        with _full_disk(), self._path(name, ".data").open("wb") as file:
            for piece in pieces:
                self.check_room(len(piece))
                file.write(piece)
                count += len(piece)
                check(count)
        return count

    def written(self, count: int) -> None:
        """So many of the promised bytes are there now, or will never come."""
        with self._lock:
            self._promised -= count

    def keep(
        self, name: str, file_name: str, progress: Callable[[float], None], sha256: str = ""
    ) -> FileInfo:
        """Makes a file of the bytes that lie at `path(name)`, under a name to save it under."""
        data = self._path(name, ".data")
        size = data.stat().st_size
        expires = Timestamp()
        expires.FromNanoseconds(self._clock.now().ToNanoseconds() + KEPT_S * 10**9)
        file = FileInfo(
            name=name,
            size_bytes=size,
            sha256=sha256 or self._hash(name, size, progress),
            file_name=_plain(file_name),
            expire_time=expires,
            node=self.node,
        )
        with _full_disk():
            self._write_card(self._path(name, ".json"), file)
        return file

    @staticmethod
    def _write_card(card: Path, file: FileInfo) -> None:
        """Whole on the disk before it stands there: whoever was told of the file finds it, also
        after a power cut."""
        new = card.with_suffix(".new")
        with new.open("w") as written:
            written.write(json_format.MessageToJson(file))
            written.flush()
            os.fsync(written.fileno())
        new.replace(card)

    def _hash(self, name: str, size: int, progress: Callable[[float], None]) -> str:
        digest, done = hashlib.sha256(), 0
        for piece in self.read(name, 0):
            digest.update(piece)
            done += len(piece)
            progress(100.0 * done / max(size, 1))
        return digest.hexdigest()

    def _path(self, name: str, suffix: str) -> Path:
        if layout.node_of_file(name) != self.node:
            raise PvcError(
                reason_pb2.REASON_NOT_FOUND,
                f"{name} is kept by {layout.node_of_file(name)}, not by {self.node}",
                field="name",
            )
        return self.folder / f"{layout.id_of(name)}{suffix}"


class Upload:
    """A file on its way in. Ends with `finish` or `abort`; until then nobody can see it."""

    def __init__(
        self, files: Files, name: str, size_bytes: int, sha256: str, source_name: str
    ) -> None:
        self.name = name
        self._files = files
        self._size_bytes = size_bytes
        self._sha256 = sha256
        self._source_name = source_name
        self._digest = hashlib.sha256()
        self._count = 0
        self._open = True
        self._file: BinaryIO = Path(files.path(name)).open("xb")  # noqa: SIM115

    def write(self, piece: bytes) -> None:
        """Takes a piece. Raises INVALID_CONTENT when there is more than was said, OUT_OF_SPACE."""
        if self._count + len(piece) > self._size_bytes:
            self._refuse(f"more than the {self._size_bytes} bytes that were announced came")
        with _full_disk():
            self._file.write(piece)
        self._digest.update(piece)
        self._count += len(piece)
        self._files.written(len(piece))

    def finish(self) -> FileInfo:
        """Checks what came and keeps it. Raises INVALID_CONTENT, OUT_OF_SPACE."""
        sha256 = self._digest.hexdigest()
        if self._count != self._size_bytes:
            self._refuse(f"{self._count} bytes came, {self._size_bytes} were announced")
        if self._sha256 not in ("", sha256):
            self._refuse(f"its SHA-256 is {sha256}, not {self._sha256}: it was changed on its way")
        with _full_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            file = self._files.keep(self.name, self._source_name, lambda _: None, sha256)
        self._open = False
        return file

    def abort(self) -> None:
        """Forgets it, also when it is finished and nobody was told. May be called again."""
        if self._open:
            self._open = False
            with contextlib.suppress(OSError):  # what could not be written need not be
                self._file.close()
            self._files.written(self._size_bytes - self._count)
        self._files.drop(self.name)

    def _refuse(self, why: str) -> None:
        refuse(reason_pb2.REASON_INVALID_CONTENT, f"the file is refused: {why}; send it again")


def _is_card(path: Path) -> bool:
    """A damaged one would be found for ever, and never fetched."""
    try:
        json_format.Parse(path.read_text(errors="replace"), FileInfo())
    except json_format.ParseError as error:
        log.warning("%s is damaged and goes: %s", path, error)
        return False
    return True


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PvcError(
            reason_pb2.REASON_OUT_OF_SPACE, "the node's file system for files is full"
        ) from error


def _plain(file_name: str) -> str:
    """A name that is safe to save a file under, on whatever system."""
    plain = _UNFIT.sub("_", file_name.replace("\\", "/").rpartition("/")[2]).lstrip(".-")
    return plain[-100:] or "image"
