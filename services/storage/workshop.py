"""What every job of the storage service works with: the state, the driver, the kept files, and the
way to volumes that a VM has open. It moves rows, and decides nothing that `core` can decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.amend import amend
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Task
from services.state.store import Delete, Store
from services.storage.core import layout, usage
from services.storage.core.accept import Pool, Volume, usable_pool
from services.storage.drivers.driver import Disk, Driver, Format, Place, PoolFacts
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


def place_of(pool: Pool) -> Place:
    """A pool as a driver knows it."""
    return Place(pool.spec.directory.path, pool.meta.uid)


def disk_of(pool: Pool, volume: Volume) -> Disk:
    """A volume as a driver knows it."""
    path = layout.volume_path(pool.spec.directory.path, volume.name, volume.spec.format)
    return Disk(place_of(pool), path, cast(Format, layout.WORDS[volume.spec.format]))


@dataclass(frozen=True, slots=True)
class Workshop:
    """See the module."""

    store: Store
    clock: Clock
    driver: Driver
    open_volumes: OpenVolumes
    files: Files
    node: str

    def open_pool(self, name: str) -> tuple[Pool, PoolFacts]:
        """The pool, checked just now to be there. Raises NOT_FOUND, WRONG_STATE, STORAGE_FAILED."""
        pool = self.store.snapshot().find(Pool, name)
        if pool is None:
            raise PvcError(reason_pb2.REASON_NOT_FOUND, f"{name} does not exist")
        if pool.meta.HasField("delete_time"):
            usable_pool(self.store.snapshot(), name)
        return pool, self.driver.open_pool(place_of(pool), make=pool.status.generation == 0)

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
        return volume, pool, disk_of(pool, volume)

    def closed_or_open(self, volume: str, closed: Callable[[], T], opened: Callable[[str], T]) -> T:
        """Does `closed`, or `opened` with the node of the VM that has the volume open.

        A VM that starts or ends just then makes one of them fail; then it is the other's turn.
        """
        for last in (False, True):
            vm = usage.open_in(self.store.snapshot(), volume)
            try:
                return closed() if vm is None else opened(vm.status.node)
            except PvcError:
                now = usage.open_in(self.store.snapshot(), volume)
                if last or (now is None) == (vm is None):
                    raise
        raise AssertionError("not reached")

    def follow(self, task: Task) -> Callable[[float], None]:
        """What tells a driver's progress to the operation, and stops the driver when that was
        cancelled.
        """
        return lambda percent: task.progress(int(percent))
