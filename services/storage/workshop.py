"""What every job of the storage service works with: the state, the driver, the kept files, and the
way to volumes that a VM has open. It moves rows, and decides nothing that `core` can decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.amend import amend
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Task
from services.mesh.members import id_of
from services.state.store import Delete, Store
from services.storage.core import layout, usage
from services.storage.core.accept import Pool, Volume, usable_pool
from services.storage.drivers.driver import Disk, Driver, Format, Place, PoolFacts
from services.storage.far_files import NoFarFiles
from services.storage.files import Files

R = TypeVar("R", bound=Message)
T = TypeVar("T")


class OpenVolumes(Protocol):
    """Volumes that a VM's emulator has open: only the compute service of the VM's node can change
    them.
    """

    def resize(self, node: str, volume: str, size_bytes: int) -> None:
        """Makes an open volume larger."""
        ...

    def snapshot(self, node: str, volume: str, snapshot_id: str, quiesce: bool) -> bool:
        """Takes a snapshot inside an open volume; True if the guest's file systems were frozen."""
        ...

    def delete_snapshot(self, node: str, volume: str, snapshot_id: str) -> None:
        """Removes a snapshot inside an open volume. Not an error if there is none."""
        ...


class FarFiles(Protocol):
    """Files that other nodes keep."""

    def read(self, name: str) -> Iterator[bytes]:
        """A file's bytes, piece by piece. Raises NOT_FOUND, UNREACHABLE."""
        ...


def place_of(pool: Pool, node: str) -> Place:
    """A pool as the driver of a node knows it."""
    apart = id_of(node) if pool.spec.shared else ""
    return Place(pool.spec.directory.path, pool.meta.uid, pool.status.mark, apart)


def disk_of(pool: Pool, volume: Volume, node: str) -> Disk:
    """A volume as the driver of a node knows it."""
    path = layout.volume_path(pool.spec.directory.path, volume.name, volume.spec.format)
    return Disk(place_of(pool, node), path, cast(Format, layout.WORDS[volume.spec.format]))


@dataclass(frozen=True, slots=True)
class Workshop:
    """See the module."""

    store: Store
    clock: Clock
    driver: Driver
    open_volumes: OpenVolumes
    files: Files
    node: str
    far_files: FarFiles = field(default_factory=NoFarFiles)

    def open_pool(self, name: str) -> tuple[Pool, PoolFacts]:
        """The pool, checked just now to be there. Raises NOT_FOUND, WRONG_STATE, STORAGE_FAILED,
        INTERRUPTED when only another node can reach it: the work was begun there."""
        pool = self.store.snapshot().find(Pool, name)
        if pool is None:
            raise PvcError(reason_pb2.REASON_NOT_FOUND, f"{name} does not exist")
        if pool.meta.HasField("delete_time"):
            usable_pool(self.store.snapshot(), name)
        if pool.spec.node not in ("", self.node):
            refuse(
                reason_pb2.REASON_INTERRUPTED,
                f"{name} is on {pool.spec.node}, where this was begun: ask again when that node is "
                "back",
            )
        make = pool.status.generation == 0 and not pool.spec.shared
        return pool, self.driver.open_pool(self.place_of(pool), make)

    def place_of(self, pool: Pool) -> Place:
        """A pool as our driver knows it."""
        return place_of(pool, self.node)

    def row(self, kind: type[R], name: str) -> R:
        """The row that the request made or found.

        Raises INTERRUPTED when an earlier attempt undid it.
        """
        found = self.store.snapshot().find(kind, name)
        if found is None:
            refuse(
                reason_pb2.REASON_INTERRUPTED,
                f"{name} is gone: the worker died while it undid this; nothing remains, ask again",
            )
        return found

    def change(self, kind: type[R], name: str, change: Callable[[R], None]) -> R | None:
        """Commits a change of the row as it is now; None if there is no such row."""
        return amend(self.store, kind, name, change)

    def drop(self, name: str) -> None:
        """Removes a row, whatever it is now."""
        if self.store.snapshot().named(name) is not None:
            self.store.commit([Delete(name, "*")])

    def volume_disk(self, name: str) -> tuple[Volume, Pool, Disk]:
        """A volume with its pool, checked just now to be there, and its file."""
        volume = self.row(Volume, name)
        pool, _ = self.open_pool(layout.pool_of(name))
        return volume, pool, disk_of(pool, volume, self.node)

    def closed_or_open(self, volume: str, closed: Callable[[], T], opened: Callable[[str], T]) -> T:
        """Does `closed`, or `opened` with the node of the VM that has the volume open.

        A VM that starts or ends just then makes one of them fail; then it is the other's turn.
        """
        for last in (False, True):
            vm = usage.open_in(self.store.snapshot(), volume)
            if vm is not None:
                usage.check_settled(vm)
            try:
                return closed() if vm is None else opened(vm.status.node)
            except PvcError:
                now = usage.open_in(self.store.snapshot(), volume)
                if last or (now is None) == (vm is None):
                    raise
        raise AssertionError("not reached")

    @contextmanager
    def brought(self, task: Task, name: str) -> Iterator[tuple[str, int]]:
        """The name under which a kept file lies here, and its size; one of another node is fetched
        first, and removed after."""
        if layout.node_of_file(name) == self.node:
            yield name, self.files.find(name, "file").size_bytes
            return
        here = layout.file_name_for(self.node, layout.id_of(task.name))
        task.stage(f"fetching {name} from {layout.node_of_file(name)}")
        try:
            yield here, self.files.take(here, self.far_files.read(name), lambda _: task.check())
        finally:
            self.files.drop(here)

    def follow(self, task: Task) -> Callable[[float], None]:
        """What tells a driver's progress to the operation, and stops the driver when that was
        cancelled.
        """
        return lambda percent: task.progress(int(percent))
