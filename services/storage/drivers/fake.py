"""A driver that keeps disks in memory and misbehaves as it is told: for tests and the simulator.

It passes the suite of the real one. Faults are scripted by verb; nothing happens by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from enum import Enum

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError, refuse
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


class Fault(Enum):
    """What a scripted verb does instead of its work."""

    FULL = "the file system is full"
    FAIL = "the tool fails"
    DIE_BEFORE = "the process ends before anything is done"
    DIE_AFTER = "the process ends when it is done"
    LIE = "says that it is done, and is not"
    SLOW = "tells progress, and never comes to an end by itself"


class Died(BaseException):
    """The process has ended: nothing after it runs, not even what catches errors."""


@dataclass(slots=True)
class FakeDisk:
    """A disk in memory. Contents are a short text."""

    format: Format
    size_bytes: int
    content: str = ""
    base: str = ""
    snapshots: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(slots=True)
class FakeFolder:
    """A folder: whose it is, and what lies in it. Foreign files have no FakeDisk."""

    owner: str | None = None
    mark: str = ""
    unfinished: set[str] = field(default_factory=set)
    """Nodes that left something behind which they were making."""
    disks: dict[str, FakeDisk | None] = field(default_factory=dict)
    foreign: bool = False
    mounted: bool = True


class FakeDriver:
    """See Driver.

    `faults` maps a verb to what its next calls do; `open_paths` holds disks that a VM has open.
    """

    def __init__(
        self, capacity_bytes: int = 1 << 40, folders: dict[str, FakeFolder] | None = None
    ) -> None:
        """folders: those of another node's driver too, where a file system is shared."""
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.folders: dict[str, FakeFolder] = {} if folders is None else folders
        self.images: dict[str, tuple[ImageFacts, str]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.open_paths: set[str] = set()
        self.calls: list[str] = []
        self.before_call: Callable[[str], None] = lambda verb: None

    def open_pool(self, place: Place, make: bool) -> PoolFacts:
        """See Driver."""
        self._begin("open_pool")
        folder = self.folders.get(place.path, FakeFolder())
        owner = folder.owner if folder.mounted else None
        if owner is None and make and not folder.foreign and folder.mounted:
            folder.owner = owner = place.uid
            folder.mark = place.mark
            self.folders[place.path] = folder
        if owner is None:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"{place.path} does not hold this pool")
        if owner != place.uid:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"{place.path} holds another pool")
        if place.mark and folder.mark != place.mark and not make:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"{place.path} is another folder")
        self._end("open_pool")
        free = self.capacity_bytes - self.used_bytes
        return PoolFacts(self.capacity_bytes, free, folder.mark)

    def clear(self, place: Place, nodes: Collection[str]) -> None:
        """See Driver."""
        self._begin("clear")
        self._folder(place).unfinished &= set(nodes)
        self._end("clear")

    def close_pool(self, place: Place) -> None:
        """See Driver."""
        self._begin("close_pool")
        folder = self.folders.get(place.path)
        if folder is not None and folder.owner == place.uid:
            folder.owner = None
            folder.foreign = bool(folder.disks)
        self._end("close_pool")

    def create(self, disk: Disk, size_bytes: int) -> None:
        """See Driver."""
        self._make("create", disk, FakeDisk(disk.format, size_bytes))

    def clone(self, disk: Disk, base: Disk, size_bytes: int) -> None:
        """See Driver."""
        content = self._disk(base).content
        self._make("clone", disk, FakeDisk("qcow2", size_bytes, content, base.path))

    def copy(
        self, disk: Disk, source: Disk, snapshot: str, size_bytes: int, progress: Progress
    ) -> None:
        """See Driver."""
        size, content = self._contents(source, snapshot)
        made = FakeDisk(disk.format, max(size, size_bytes), content)
        self._make("copy", disk, made, progress)

    def import_(
        self, disk: Disk, path: str, format: Format, size_bytes: int, progress: Progress
    ) -> None:
        """See Driver."""
        facts, content = self.images[path]
        made = FakeDisk(disk.format, max(facts.size_bytes, size_bytes), content)
        self._make("import_", disk, made, progress)

    def export(
        self, source: Disk, snapshot: str, path: str, format: Format, compress: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        """See Driver."""
        lying = self._begin("export", progress)
        size, content = self._contents(source, snapshot)
        if not lying:
            self.images[path] = (ImageFacts(format, size, size, "", (), False, False), content)
        self._end("export")

    def inspect(self, path: str, format: Format) -> ImageFacts:
        """See Driver."""
        self._begin("inspect")
        facts, _ = self.images.get(path, (None, ""))
        if facts is None or facts.format != format:
            refuse(reason_pb2.REASON_INVALID_CONTENT, f"the image cannot be read as {format}")
        return facts

    def resize(self, disk: Disk, size_bytes: int) -> None:
        """See Driver."""
        if not self._change("resize", disk):
            there = self._disk(disk)
            if size_bytes < there.size_bytes:
                refuse(reason_pb2.REASON_STORAGE_FAILED, "a disk is never made smaller")
            there.size_bytes = size_bytes
        self._end("resize")

    def delete(self, disk: Disk) -> None:
        """See Driver."""
        if not self._begin("delete"):
            self._check_closed(disk)
            self._folder(disk.place).disks.pop(disk.path, None)
        self._end("delete")

    def rename(self, disk: Disk, to: Disk) -> None:
        """See Driver."""
        self._begin("rename")
        disks = self._folder(disk.place).disks
        if disk.path in disks:
            self._check_closed(disk)
            if to.path in disks:
                refuse(reason_pb2.REASON_STORAGE_FAILED, f"{to.path}: File exists")
            disks[to.path] = disks.pop(disk.path)
        elif to.path not in disks:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"{disk.path}: No such file or directory")
        self._end("rename")

    def snapshot(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        if not self._change("snapshot", disk):
            there = self._disk(disk)
            there.snapshots[snapshot] = (there.size_bytes, there.content)
        self._end("snapshot")

    def delete_snapshot(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        if not self._change("delete_snapshot", disk):
            self._disk(disk).snapshots.pop(snapshot, None)
        self._end("delete_snapshot")

    def rollback(self, disk: Disk, snapshot: str) -> None:
        """See Driver."""
        if not self._change("rollback", disk):
            there = self._disk(disk)
            there.size_bytes, there.content = self._contents(disk, snapshot)
        self._end("rollback")

    def stat(self, disk: Disk) -> DiskFacts:
        """See Driver."""
        self._begin("stat")
        there = self._disk(disk)
        return DiskFacts(there.size_bytes, self._allocated(there), tuple(there.snapshots))

    def list(self, place: Place) -> tuple[Found, ...]:
        """See Driver."""
        self._begin("list")
        disks = self._folder(place).disks
        return tuple(Found(path, self._allocated(disks[path])) for path in sorted(disks))

    def disk_at(self, path: str) -> FakeDisk | None:
        """The disk at a path, for tests; None if there is none."""
        for folder in self.folders.values():
            if path in folder.disks:
                return folder.disks[path]
        return None

    @staticmethod
    def _allocated(disk: FakeDisk | None) -> int:
        return (1 << 18) + 4096 * len(disk.content) if disk is not None else 4096

    def _make(
        self, verb: str, disk: Disk, made: FakeDisk, progress: Progress | None = None
    ) -> None:
        folder = self._folder(disk.place)
        lying = self._begin(verb, progress)
        if disk.path not in folder.disks and not lying:
            folder.disks[disk.path] = replace(made, snapshots={})
        self._end(verb)

    def _change(self, verb: str, disk: Disk) -> bool:
        lying = self._begin(verb)
        self._check_closed(disk)
        self._disk(disk)
        return lying

    def _check_closed(self, disk: Disk) -> None:
        if disk.path in self.open_paths:
            refuse(reason_pb2.REASON_IN_USE, f"another process has {disk.path} open")

    def _contents(self, disk: Disk, snapshot: str) -> tuple[int, str]:
        there = self._disk(disk)
        if not snapshot:
            self._check_closed(disk)
            return there.size_bytes, there.content
        if snapshot not in there.snapshots:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"there is no snapshot {snapshot}")
        return there.snapshots[snapshot]

    def _folder(self, place: Place) -> FakeFolder:
        folder = self.folders.get(place.path)
        if folder is None or not folder.mounted:
            refuse(reason_pb2.REASON_STORAGE_FAILED, f"{place.path}: No such file or directory")
        return folder

    def _disk(self, disk: Disk) -> FakeDisk:
        there = self._folder(disk.place).disks.get(disk.path)
        if there is None:
            raise PvcError(reason_pb2.REASON_NOT_FOUND, f"{disk.path} is gone")
        return there

    def _begin(self, verb: str, progress: Progress | None = None) -> bool:
        """Does what the script says happens before the work; True to leave the work out."""
        self.calls.append(verb)
        self.before_call(verb)
        if progress is not None:
            progress(50.0)
        match self.faults.get(verb, [None])[0]:
            case Fault.DIE_BEFORE:
                self._next_fault(verb)
                raise Died(verb)
            case Fault.FULL:
                self._next_fault(verb)
                refuse(reason_pb2.REASON_OUT_OF_SPACE, "No space left on device")
            case Fault.FAIL:
                self._next_fault(verb)
                refuse(reason_pb2.REASON_STORAGE_FAILED, f"{verb} failed")
            case Fault.SLOW if progress is not None:
                while self.faults.get(verb):
                    progress(50.0)
            case Fault.LIE:
                self._next_fault(verb)
                return True
        return False

    def _end(self, verb: str) -> None:
        if self.faults.get(verb, [None])[0] is Fault.DIE_AFTER:
            self._next_fault(verb)
            raise Died(verb)

    def _next_fault(self, verb: str) -> None:
        self.faults[verb].pop(0)
        if not self.faults[verb]:
            del self.faults[verb]
