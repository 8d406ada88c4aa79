"""What every job of the storage service works with: the state, the driver, the kept files, and the
way to volumes that a VM has open. It moves rows, and decides nothing that `core` can decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from google.protobuf.message import Message

from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_service_pb2
from services.mesh.amend import amend
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Task
from services.mesh.members import id_of
from services.mesh.rows import FINAL
from services.state.store import Delete, Store
from services.storage.core import layout, usage
from services.storage.core.accept import Pool, Volume, usable_pool
from services.storage.drivers.driver import Disk, Driver, Format, Place, PoolFacts
from services.storage.far_files import NoFarFiles
from services.storage.files import Files

R = TypeVar("R", bound=Message)
T = TypeVar("T")
Operation = operation_pb2.Operation

log = logging.getLogger("pvc.storage")


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

    def export(self, node: str, volume: str, snapshot_id: str, request_id: str) -> str:
        """Asks another node to write one of its volumes, or a snapshot of it, as a qcow2 image.
        Gives the operation that does it."""
        ...

    def delete(self, name: str) -> None:
        """Removes a file."""
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

    @contextmanager
    def exported(
        self, task: Task, node: str, volume: str, snapshot_id: str
    ) -> Iterator[storage_service_pb2.FileInfo]:
        """An image of a volume that another node keeps, for as long as it is needed. One that was
        left by a worker's death goes when its day is over."""
        asked = f"{layout.id_of(task.name)}-{task.attempt}"
        task.stage(f"having {node} write {volume} as an image")
        name = self.far_files.export(node, volume, snapshot_id, asked)
        try:
            file = storage_service_pb2.FileInfo()
            self._awaited(task, name).result.Unpack(file)
        except BaseException:
            self.change(Operation, name, _cancel)
            raise
        try:
            yield file
        finally:
            try:
                self.far_files.delete(file.name)
            except PvcError as error:
                log.warning("%s stays until its day is over: %s", file.name, error.message)

    def _awaited(self, task: Task, name: str) -> Operation:
        """Another operation, once it has succeeded. Raises what it failed with."""
        while True:
            snapshot = self.store.snapshot()
            other = snapshot.find(Operation, name)
            if other is not None and other.state == Operation.STATE_SUCCEEDED:
                return other
            if other is not None and other.state in FINAL:
                raise PvcError.from_status(other.error)
            task.check()
            watch = self.store.watch(snapshot.revision)
            try:
                watch.next(1.0)
            finally:
                watch.close()

    def follow(self, task: Task) -> Callable[[float], None]:
        """What tells a driver's progress to the operation, and stops the driver when that was
        cancelled.
        """
        return lambda percent: task.progress(int(percent))


def _cancel(operation: Operation) -> None:
    if operation.state not in FINAL:
        operation.cancel_requested = True
