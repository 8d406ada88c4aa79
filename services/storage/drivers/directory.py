"""Keeps volumes as files in a folder, with qemu-img. It removes nothing that it did not make
itself.

A pool's folder holds `.pvc-pool` (whose pool it is), `volumes/` and `tmp/`, or in a folder that
several nodes use `tmp-NODE/` for each. Whatever is made is made there, synced, and then linked to
its place, so that a volume's file is whole or not there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat as modes
import struct
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, refuse
from services.storage.drivers import qemu_img
from services.storage.drivers.driver import (
    Disk,
    DiskFacts,
    Format,
    Found,
    ImageFacts,
    Place,
    PoolFacts,
    Progress,
)
from services.storage.drivers.process import run, run_long

MARK = ".pvc-pool"
UNNOTICED = re.compile(rf"{re.escape(MARK)}(\.new.*)?|lost\+found")
"""What may lie in a folder that still counts as empty."""
TEMPORARY = "tmp"

QUICK_S = 60.0
"""For what takes milliseconds."""
SLOW_S = 1800.0
"""For what walks through an image's tables: minutes, on a full one of many TiB."""

MIB, GIB = 1 << 20, 1 << 30
INSPECT_LIMITS = {"as": 2 * GIB, "cpu": 30, "fsize": 0}
"""What looking at an image from outside may cost: memory and file sizes in bytes, seconds of
processor time.
"""
IMPORT_MEMORY = 4 * GIB
INSPECT_S = 120.0

UNSYNCED = ("-t", "unsafe")
"""Through the page cache without flushes: whatever is made is synced before it is seen."""

_QEMU_LOCKS = (100, 200)
"""First byte and length of the range in which QEMU locks an image that it has open."""

_STORAGE_FAILED = reason_pb2.REASON_STORAGE_FAILED


class DirectoryDriver:
    """See Driver."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[str, threading.Lock] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        """Folder → cache options of its file system; a folder is here once it has been swept."""

    def open_pool(self, place: Place, make: bool) -> PoolFacts:
        """See Driver."""
        folder = Path(place.path)
        with self._alone_at(place), _words_for(f"the folder {folder}"):
            if make and _owner(folder) is None:
                _occupy(folder, place)
            mark = _checked_mark(folder, place, make)
            temporary = _temporary(place)
            for name in (folder / "volumes", temporary):
                name.mkdir(mode=0o711, exist_ok=True)
            if place.path not in self._seen:
                _sweep(temporary)
                self._seen[place.path] = _cache_options(temporary)
            return _room(folder, mark)

    def clear(self, place: Place, nodes: Collection[str]) -> None:
        """See Driver."""
        kept = {f"{TEMPORARY}-{node}" for node in nodes}
        with self._alone_at(place), _words_for(f"the folder {place.path}"):
            for left in Path(place.path).glob(f"{TEMPORARY}-*"):
                if left.name not in kept:
                    _sweep(left)
                    with contextlib.suppress(OSError):  # foreign files stay
                        left.rmdir()

    def close_pool(self, place: Place) -> None:
        """See Driver."""
        folder = Path(place.path)
        with self._alone_at(place), _words_for(f"the folder {folder}"):
            owner = _owner(folder)
            if owner is None or owner.uid != place.uid:
                return
            left = [path for path in folder.glob(f"{TEMPORARY}*") if path.is_dir()]
            for temporary in left:
                _sweep(temporary)
            for made in (folder / "volumes", *left):
                with contextlib.suppress(FileNotFoundError, OSError):  # foreign files stay
                    made.rmdir()
            (folder / MARK).unlink()
            _sync(folder)
            self._seen.pop(place.path, None)

    def _alone_at(self, place: Place) -> threading.Lock:
        """One at a time for each folder: one that hangs keeps no other pool waiting."""
        with self._lock:
            return self._folders.setdefault(place.path, threading.Lock())

    def create(self, disk: Disk, size_bytes: int) -> None:
        """See Driver."""
        with self._being_made(disk) as path:
            if path:
                run(_ours(qemu_img.create(path, disk.format, size_bytes)), QUICK_S)

    def clone(self, disk: Disk, base: Disk, size_bytes: int) -> None:
        """See Driver."""
        if not Path(base.path).is_file():
            refuse(_STORAGE_FAILED, f"the base {base.path} is gone")
        with self._being_made(disk) as path:
            if path:
                # Both folders lie side by side, so the name is right in either.
                name = os.path.relpath(base.path, Path(path).parent)
                run(_ours(qemu_img.clone(path, name, base.format, size_bytes)), QUICK_S)

    def copy(
        self, disk: Disk, source: Disk, snapshot: str, size_bytes: int, progress: Progress
    ) -> None:
        """See Driver."""
        with self._being_made(disk) as path:
            if path:
                words = qemu_img.copy(
                    source.path, source.format, path, disk.format, self._cache(disk), snapshot
                )
                run_long(_ours(words), progress)
                _enlarge(path, disk.format, size_bytes)

    def import_(
        self, disk: Disk, path: str, format: Format, size_bytes: int, progress: Progress
    ) -> None:
        """See Driver."""
        # What cannot be larger than the disk and its tables is stopped when it tries.
        limits = {"as": IMPORT_MEMORY, "fsize": size_bytes + size_bytes // 256 + 64 * MIB}
        with self._being_made(disk) as to:
            if to:
                words = qemu_img.copy_foreign(path, format, to, disk.format, self._cache(disk))
                run_long(qemu_img.confined(words, limits), progress)
                _enlarge(to, disk.format, size_bytes)

    def export(
        self, source: Disk, snapshot: str, path: str, format: Format, compress: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        """See Driver."""
        part = Path(f"{path}.part")
        with _words_for(path):
            cache = _cache_options(part.parent)
            words = qemu_img.export(
                source.path, source.format, str(part), format, compress, cache, snapshot
            )
            try:
                run_long(_ours(words), progress)
                _sync(part)
                part.replace(path)
                _sync(part.parent)
            finally:
                part.unlink(missing_ok=True)

    def inspect(self, path: str, format: Format) -> ImageFacts:
        """See Driver."""
        try:
            described = _look(qemu_img.describe_foreign(path, format))
            checked = ""
            if format != "raw":
                # 2: damaged, 3: leaked clusters; 63: this format knows no check.
                checked = _look(qemu_img.check_foreign(path, format), accept=(0, 2, 3, 63))
            measured = _look(qemu_img.measure_foreign(path, format))
            return qemu_img.image_facts(described, checked, measured)
        except (PvcError, KeyError, ValueError) as error:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONTENT, f"the image cannot be read as {format}: {error}"
            ) from error

    def resize(self, disk: Disk, size_bytes: int) -> None:
        """See Driver."""
        if self.stat(disk).size_bytes != size_bytes:
            run(_ours(qemu_img.resize(disk.path, disk.format, size_bytes)), SLOW_S)

    def delete(self, disk: Disk) -> None:
        """See Driver."""
        path = Path(disk.path)
        with _words_for(disk.path):
            if not path.is_symlink() and not path.exists():
                return
            _check_unused(path)
            path.unlink(missing_ok=True)
            _sync(path.parent)

    def rename(self, disk: Disk, to: Disk) -> None:
        """See Driver."""
        old, new = Path(disk.path), Path(to.path)
        with _words_for(disk.path):
            if new.exists() and (not old.exists() or old.samefile(new)):
                old.unlink(missing_ok=True)  # cut between link and unlink, or done before
            else:
                _check_unused(old)
                os.link(old, new)
                old.unlink()
            _sync(new.parent)

    def snapshot(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        self.delete_snapshot(disk, snapshot)
        run(_ours(qemu_img.snapshot(disk.path, "-c", snapshot)), SLOW_S)

    def delete_snapshot(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        if snapshot in self.stat(disk).snapshots:
            run(_ours(qemu_img.snapshot(disk.path, "-d", snapshot)), SLOW_S)

    def rollback(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        ids = qemu_img.snapshot_ids(self._describe(disk))
        if snapshot not in ids:
            refuse(_STORAGE_FAILED, f"there is no snapshot {snapshot} in {disk.path}")
        run(_ours(qemu_img.mend(disk.path)), SLOW_S)
        # By its number: a name that looks like the number of another one would mean that one.
        run(_ours(qemu_img.snapshot(disk.path, "-a", ids[snapshot])), SLOW_S)

    def stat(self, disk: Disk) -> DiskFacts:
        """See Driver."""
        with _words_for(disk.path):
            try:
                there = Path(disk.path).lstat()
            except FileNotFoundError:
                raise PvcError(reason_pb2.REASON_NOT_FOUND, f"{disk.path} is gone") from None
            if not modes.S_ISREG(there.st_mode):
                refuse(_STORAGE_FAILED, f"{disk.path} is not a file")
        return qemu_img.disk_facts(self._describe(disk))

    def list(self, place: Place) -> tuple[Found, ...]:
        """See Driver."""
        with _words_for(place.path), os.scandir(f"{place.path}/volumes") as entries:
            found = [
                Found(entry.path, entry.stat(follow_symlinks=False).st_blocks * 512)
                for entry in entries
            ]
        return tuple(sorted(found, key=lambda file: file.path))

    @staticmethod
    def _describe(disk: Disk) -> str:
        return run(_ours(qemu_img.describe(disk.path, disk.format)), QUICK_S)

    def _cache(self, disk: Disk) -> tuple[str, ...]:
        return self._seen.get(disk.place.path, ())

    @contextlib.contextmanager
    def _being_made(self, disk: Disk) -> Iterator[str]:
        """The path to make the disk's file at; it appears at its place when the block ends well.

        "" when it is there already.
        """
        final = Path(disk.path)
        assert final.parent == Path(disk.place.path, "volumes"), f"{final} is not in its pool"
        temporary = _temporary(disk.place) / final.name
        with _words_for(disk.path):
            if final.is_symlink() or final.exists():
                yield ""
                return
            temporary.unlink(missing_ok=True)
            try:
                yield str(temporary)
                temporary.chmod(0o600)
                _sync(temporary)
                os.link(temporary, final)  # unlike rename, never over another file
                _sync(final.parent)
            finally:
                temporary.unlink(missing_ok=True)


def _look(words: list[str], accept: tuple[int, ...] = (0,)) -> str:
    return run(qemu_img.confined(words, INSPECT_LIMITS), INSPECT_S, accept)


def _ours(words: list[str]) -> list[str]:
    return qemu_img.confined(words, {})


def _enlarge(path: str, format: Format, size_bytes: int) -> None:
    made = qemu_img.disk_facts(run(_ours(qemu_img.describe(path, format)), QUICK_S))
    if made.size_bytes < size_bytes:
        run(_ours(qemu_img.resize(path, format, size_bytes)), QUICK_S)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a folder is, and the mark that it was given."""

    uid: str
    mark: str


def _owner(folder: Path) -> Owner | None:
    """The pool that the folder holds, None if it holds none."""
    try:
        said = json.loads((folder / MARK).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("pool"), str):
        refuse(_STORAGE_FAILED, f"{folder / MARK} is damaged: it must name the pool's uid")
    return Owner(said["pool"], str(said.get("mark", "")))


def _checked_mark(folder: Path, place: Place, make: bool) -> str:
    """The folder's mark. Raises STORAGE_FAILED unless the folder is the pool's."""
    owner = _owner(folder)
    if owner is None:
        refuse(
            _STORAGE_FAILED,
            f"{folder} does not hold this pool ({MARK} is missing in it): is its file system "
            "mounted?",
        )
    if owner.uid != place.uid:
        refuse(_STORAGE_FAILED, f"{folder} holds another pool (uid {owner.uid})")
    if place.mark and owner.mark != place.mark and not make:
        refuse(
            _STORAGE_FAILED,
            f"{folder} is not the folder that the pool was made in, but another one of that name: "
            "is the shared file system mounted there?",
        )
    return owner.mark


def _temporary(place: Place) -> Path:
    """Where this node makes things."""
    return Path(place.path, f"{TEMPORARY}-{place.node}" if place.node else TEMPORARY)


def _occupy(folder: Path, place: Place) -> None:
    """Makes the mark, once: another node may be doing the same."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    others = sorted(entry.name for entry in folder.iterdir() if not UNNOTICED.fullmatch(entry.name))
    if others:
        refuse(
            _STORAGE_FAILED,
            f"{folder} is not empty ({', '.join(others[:3])}{'…' if others[3:] else ''}): "
            "a pool needs a folder of its own",
        )
    new = folder / f"{MARK}.new{place.mark}"
    marked = {"mark": place.mark} if place.mark else {}
    new.write_text(json.dumps({"pool": place.uid} | marked) + "\n")
    _sync(new)
    with contextlib.suppress(FileExistsError):  # another was first; whose it is, is looked at now
        os.link(new, folder / MARK)
    new.unlink()
    _sync(folder)


def _sweep(folder: Path) -> None:
    for left in folder.iterdir():
        if left.is_file() or left.is_symlink():
            left.unlink(missing_ok=True)


def _cache_options(folder: Path) -> tuple[str, ...]:
    """Past the page cache where the file system can: a third of the time, and nothing left to write
    at the end.
    """
    probe = folder / ".probe"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_DIRECT, 0o600))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return UNSYNCED
    finally:
        probe.unlink(missing_ok=True)
    return ("-t", "none")


def _room(folder: Path, mark: str) -> PoolFacts:
    there = os.statvfs(folder)
    if there.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        refuse(_STORAGE_FAILED, f"{folder} cannot be written")
    return PoolFacts(there.f_blocks * there.f_frsize, there.f_bavail * there.f_frsize, mark)


def _check_unused(path: Path) -> None:
    """Raises IN_USE when a QEMU or qemu-img has the image open, for whatever purpose."""
    if not path.is_file():
        return
    start, length = _QEMU_LOCKS
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    with path.open("rb") as file:
        answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked)
    if struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK:
        refuse(reason_pb2.REASON_IN_USE, f"another process has {path} open")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _words_for(subject: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = reason_pb2.REASON_OUT_OF_SPACE if full else _STORAGE_FAILED
        raise PvcError(reason, f"{subject}: {error.strerror or error}") from error
