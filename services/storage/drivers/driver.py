"""What the storage agent asks of a driver: repeatable verbs on one pool or one volume at a time.

Implemented by `directory` and by `fake`; one suite proves both. A driver never decides, never
retries, and never sees the state store. Done twice, a verb leaves what it leaves done once.

All verbs raise PvcError: OUT_OF_SPACE when the file system is full, IN_USE when another process has
the image open, DEADLINE when a tool hangs, STORAGE_FAILED with the tool's own words for the rest.
After an error of a verb that makes something, nothing of it is left. What a `Progress` raises stops
the work and comes out unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, Protocol

Format = Literal["qcow2", "raw", "vmdk"]
"""How a file lays out the blocks of a disk.

Always said by the caller; nothing is guessed from contents.
"""

Progress = Callable[[float], None]
"""Called several times a second with what is done, 0 to 100, as long as the work goes on."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pool: its folder (absolute), and the uid that the folder must carry.

    mark: what it must carry besides; "" for whatever it does. node: the id of the node that looks
    at a folder which others use too; "" for a folder of this node alone. What is being made lies
    apart for each node."""

    path: str
    uid: str
    mark: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume's file. `path` is absolute and lies inside the place."""

    place: Place
    path: str
    format: Format


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """The file system of a pool, in bytes, and the mark that the folder carries."""

    capacity_bytes: int
    available_bytes: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A volume as it is: its size as the guest sees it, and the room that it takes."""

    size_bytes: int
    allocated_bytes: int
    snapshots: tuple[str, ...] = ()
    """Ids of the snapshots inside the image."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something that lies where the volumes of a pool lie."""

    path: str
    allocated_bytes: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image from outside, as the tool reads it without following any reference in it."""

    format: str
    size_bytes: int
    """As its guest would see it."""
    needs_bytes: int
    """Room that its contents take at most, once they are a volume."""
    backing: str
    """The file that it says it continues; "" for none."""
    references: tuple[str, ...]
    """Other files that it says its blocks are in."""
    encrypted: bool
    corrupt: bool


class Driver(Protocol):
    """See the module."""

    def open_pool(self, place: Place, make: bool) -> PoolFacts:
        """Checks that the folder is this pool's and can be written. `make`: takes an empty or
        missing folder, and gives it the place's mark; one that is this pool's already keeps its
        own.

        What an earlier process of this node left unfinished is removed the first time. Raises
        STORAGE_FAILED with the reason why the pool cannot be used.
        """
        ...

    def clear(self, place: Place, nodes: Collection[str]) -> None:
        """Removes what other nodes than these left unfinished in a folder that is used by
        several."""
        ...

    def close_pool(self, place: Place) -> None:
        """Takes PVC's own marks out of a folder. Whatever else lies in it stays."""
        ...

    def create(self, disk: Disk, size_bytes: int) -> None:
        """An empty disk."""
        ...

    def clone(self, disk: Disk, base: Disk, size_bytes: int) -> None:
        """A copy on write (qcow2) of a base that is not written any more."""
        ...

    def copy(
        self, disk: Disk, source: Disk, snapshot: str, size_bytes: int, progress: Progress
    ) -> None:
        """A full copy of a closed disk, or of a snapshot ("" for none) inside a disk that may be
        open.
        """
        ...

    def import_(
        self, disk: Disk, path: str, format: Format, size_bytes: int, progress: Progress
    ) -> None:
        """A disk with the contents of an image from outside, which `inspect` has seen."""
        ...

    def export(
        self, source: Disk, snapshot: str, path: str, format: Format, compress: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        """Writes a closed disk, or a snapshot ("" for none) inside a disk that may be open, as an
        image.

        `path` appears when it is whole.
        """
        ...

    def inspect(self, path: str, format: Format) -> ImageFacts:
        """What an image from outside is. Raises INVALID_CONTENT when it is not of this format."""
        ...

    def resize(self, disk: Disk, size_bytes: int) -> None:
        """Makes a closed disk larger; one that has the size already is left as it is."""
        ...

    def delete(self, disk: Disk) -> None:
        """Removes the file. Not an error if there is none."""
        ...

    def rename(self, disk: Disk, to: Disk) -> None:
        """Moves the file; never over another one. Not an error if it is done already."""
        ...

    def snapshot(self, disk: Disk, snapshot: str) -> None:
        """Takes a snapshot inside a closed disk, in the place of one of that name."""
        ...

    def delete_snapshot(self, disk: Disk, snapshot: str) -> None:
        """Removes a snapshot inside a closed disk. Not an error if there is none."""
        ...

    def rollback(self, disk: Disk, snapshot: str) -> None:
        """Makes a closed disk what it was."""
        ...

    def stat(self, disk: Disk) -> DiskFacts:
        """What a disk is, open or not. Raises NOT_FOUND if there is no file."""
        ...

    def list(self, place: Place) -> tuple[Found, ...]:
        """Everything that lies where the volumes lie, by path."""
        ...
