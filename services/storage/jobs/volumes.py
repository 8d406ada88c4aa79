"""Long work that makes, changes and removes volumes.

What a job makes is claimed first: the row gets its path once it is known that nothing lies there,
so that a file at a claimed path is this volume's, whoever finds it, and one at an unclaimed path is
never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Job, Outcome, Task
from services.state.store import Change, Delete, Put
from services.storage.core import images, layout, usage, volumes
from services.storage.core.accept import (
    PREFIX,
    Pool,
    Volume,
    VolumeStatus,
    packed,
    usable_pool,
)
from services.storage.core.room import amount, check_room
from services.storage.drivers.driver import Disk, Format, PoolFacts
from services.storage.workshop import Workshop, disk_of

READY = VolumeStatus.STATE_READY
FAILED = VolumeStatus.STATE_FAILED

FORMATS: Mapping[int, Format] = {layout.QCOW2: "qcow2", layout.RAW: "raw", layout.VMDK: "vmdk"}


class VolumeJobs:
    """See the module."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    def methods(self) -> Mapping[str, Job]:
        """Method → job."""
        return {
            f"{PREFIX}CreateVolume": self.create,
            f"{PREFIX}ImportVolume": self.import_,
            f"{PREFIX}ResizeVolume": self.resize,
            f"{PREFIX}RenameVolume": self.rename,
            f"{PREFIX}DeleteVolume": self.delete,
        }

    def create(self, task: Task) -> Outcome:
        """Makes an empty volume, a copy on write, or a full copy."""
        volume = self._shop.row(Volume, task.target)
        task.undo.callback(self._unmake, volume.name)
        usable_pool(self._shop.store.snapshot(), layout.pool_of(volume.name))
        pool, facts = self._shop.open_pool(layout.pool_of(volume.name))
        snapshot = self._shop.store.snapshot()
        source = volumes.source_of(snapshot, volume.spec)
        needs = volumes.needed_bytes(snapshot, volume.spec, pool, source)
        check_room(pool, facts.capacity_bytes, facts.available_bytes, volume.spec.size_bytes, needs)
        if source is not None and (far := self._far(source)):
            return self._fetched(task, volume, pool, facts, source, far)
        disk = self._claim(pool, volume, volume.spec.size_bytes)
        self._fill(task, volume, disk, source)
        return self._made(pool, volume.name, disk)

    def _far(self, source: Volume) -> str:
        """The other node that alone can read the source; "" where this one can."""
        pool = self._shop.row(Pool, layout.pool_of(source.name))
        return pool.spec.node if pool.spec.node != self._shop.node else ""

    def _fetched(
        self, task: Task, volume: Volume, pool: Pool, room: PoolFacts, source: Volume, far: str
    ) -> Outcome:  # fmt: skip
        """A full copy of what lies on another node: as an image, written there and fetched."""
        snapshot_id = layout.id_of(volume.spec.source_snapshot)
        with (
            self._shop.exported(task, far, source.name, snapshot_id) as image,
            self._shop.brought(task, image.name) as (name, _),
        ):
            path, size = self._shop.files.path(name), volume.spec.size_bytes
            facts = self._shop.driver.inspect(path, "qcow2")
            images.check_facts(facts, layout.QCOW2, room.capacity_bytes)
            check_room(pool, room.capacity_bytes, room.available_bytes, size, facts.needs_bytes)
            disk = self._claim(pool, volume, size)
            task.stage(f"copying {volume.spec.source_snapshot or source.name} to {disk.path}")
            self._shop.driver.import_(disk, path, "qcow2", size, self._shop.follow(task))
        return self._made(pool, volume.name, disk)

    def _fill(self, task: Task, volume: Volume, disk: Disk, source: Volume | None) -> None:
        driver, size = self._shop.driver, volume.spec.size_bytes
        if source is None:
            task.stage(f"making {disk.path}")
            return driver.create(disk, size)
        from_pool, _ = self._shop.open_pool(layout.pool_of(source.name))
        base = disk_of(from_pool, source, self._shop.node)
        if volume.status.parent:
            task.stage(f"making {disk.path} on top of {source.name}")
            return driver.clone(disk, base, size)
        snapshot_id = layout.id_of(volume.spec.source_snapshot)
        task.stage(f"copying {volume.spec.source_snapshot or source.name} to {disk.path}")
        return driver.copy(disk, base, snapshot_id, size, self._shop.follow(task))

    def import_(self, task: Task) -> Outcome:
        """Checks an image from outside, then makes a volume of it."""
        request = task.request(storage_service_pb2.ImportVolumeRequest)
        volume = self._shop.row(Volume, task.target)
        task.undo.callback(self._unmake, volume.name)
        usable_pool(self._shop.store.snapshot(), layout.pool_of(volume.name))
        pool, room = self._shop.open_pool(layout.pool_of(volume.name))
        with self._shop.brought(task, request.file) as (name, file_bytes):
            return self._imported(task, request, volume, pool, room, name, file_bytes)

    def _imported(
        self, task: Task, request: storage_service_pb2.ImportVolumeRequest, volume: Volume,
        pool: Pool, room: PoolFacts, name: str, file_bytes: int,
    ) -> Outcome:  # fmt: skip
        """The volume of a file that lies here."""
        task.stage(f"checking {request.file}")
        head = self._shop.files.head(name, images.HEAD_BYTES)
        format = images.format_of(head, request.source_format)
        images.check_head(head, format, file_bytes)
        path = self._shop.files.path(name)
        facts = self._shop.driver.inspect(path, FORMATS[format])
        images.check_facts(facts, format, room.capacity_bytes)
        size = images.volume_size(facts.size_bytes, request.size_bytes)
        check_room(pool, room.capacity_bytes, room.available_bytes, size, facts.needs_bytes)
        disk = self._claim(pool, volume, size)
        task.stage(f"copying the {FORMATS[format]} image to {disk.path}")
        self._shop.driver.import_(disk, path, FORMATS[format], size, self._shop.follow(task))
        return self._made(pool, volume.name, disk)

    def _claim(self, pool: Pool, volume: Volume, size_bytes: int) -> Disk:
        """The volume's file, which from now on is ours to make and to remove.

        Raises ALREADY_EXISTS when a foreign file lies there.
        """
        disk = disk_of(pool, volume, self._shop.node)
        if volume.status.path:
            return disk
        if any(file.path == disk.path for file in self._shop.driver.list(disk.place)):
            refuse(
                reason_pb2.REASON_ALREADY_EXISTS,
                f"{disk.path} exists and is no volume's: move it away, or choose another id",
                "volume_id",
            )

        def take(row: Volume) -> None:
            row.status.path = disk.path
            row.spec.size_bytes = row.status.size_bytes = size_bytes

        if self._shop.change(Volume, volume.name, take) is None:
            self._shop.row(Volume, volume.name)
        return disk

    def _made(self, pool: Pool, name: str, disk: Disk) -> Outcome:
        """The volume as it turned out. Raises STORAGE_FAILED if that is not what was wanted."""
        facts = self._shop.driver.stat(disk)
        wanted = self._shop.row(Volume, name).spec.size_bytes
        if facts.size_bytes < wanted:
            refuse(
                reason_pb2.REASON_STORAGE_FAILED,
                f"{disk.path} came out with {facts.size_bytes} bytes instead of {wanted}",
            )

        def ready() -> Volume:
            after = rows.copied(self._shop.row(Volume, name))
            after.status.state = READY
            after.status.generation = after.meta.generation
            after.status.node = pool.spec.node
            after.status.size_bytes = after.spec.size_bytes = facts.size_bytes
            after.status.allocated_bytes = facts.allocated_bytes
            return after

        return Outcome(packed(ready()), lambda: [Put(ready())])

    def _unmake(self, name: str) -> None:
        """Removes what was made of a volume: its file, if that was claimed, then its row.

        When the file cannot be removed the row stays and says so.
        """
        volume = self._shop.store.snapshot().find(Volume, name)
        if volume is None:
            return
        if volume.status.path:
            try:
                _, _, disk = self._shop.volume_disk(name)
                self._shop.driver.delete(disk)
            except PvcError as error:
                why = f"making it failed, and so did removing it ({error.message}): delete it"
                self._shop.change(Volume, name, _set_state(FAILED, why))
                raise
        self._shop.drop(name)

    def resize(self, task: Task) -> Outcome:
        """Makes the volume larger, through its VM while that runs."""
        name, size = task.target, task.request(storage_service_pb2.ResizeVolumeRequest).size_bytes
        task.undo.callback(self._shop.change, Volume, name, _keep_size)
        volume, _, disk = self._shop.volume_disk(name)
        task.stage(f"growing {name} to {amount(size)}")
        self._shop.closed_or_open(
            name,
            lambda: self._shop.driver.resize(disk, size),
            lambda node: self._shop.open_volumes.resize(node, name, size),
        )
        facts = self._shop.driver.stat(disk)
        if facts.size_bytes != size:
            refuse(
                reason_pb2.REASON_STORAGE_FAILED,
                f"{disk.path} has {facts.size_bytes} bytes after it was grown to {size}",
            )

        def grown() -> Volume:
            after = rows.copied(self._shop.row(Volume, volume.name))
            after.spec.size_bytes = after.status.size_bytes = size
            after.status.generation = after.meta.generation
            return after

        return Outcome(packed(grown()), lambda: [Put(grown())])

    def rename(self, task: Task) -> Outcome:
        """Moves the file; then the old row and its snapshots' rows are exchanged for new ones at
        once.
        """
        request = task.request(storage_service_pb2.RenameVolumeRequest)
        old = task.target
        new = f"{layout.pool_of(old)}/volumes/{request.new_volume_id}"
        task.undo.callback(self._shop.drop, new)
        self._shop.row(Volume, new)
        volume, pool, disk = self._shop.volume_disk(old)
        volumes.check_movable(self._shop.store.snapshot(), old, besides=task.name)
        to = disk_of(pool, self._shop.row(Volume, new), self._shop.node)
        task.stage(f"moving {disk.path} to {to.path}")
        self._shop.driver.rename(disk, to)
        task.undo.callback(self._shop.driver.rename, to, disk)

        def renamed() -> Volume:
            after = rows.copied(self._shop.row(Volume, new))
            after.status.CopyFrom(volume.status)
            after.status.path = to.path
            after.status.generation = after.meta.generation
            return after

        return Outcome(packed(renamed()), lambda: [Put(renamed()), *self._moved(old, new)])

    def _moved(self, old: str, new: str) -> list[Change]:
        changes: list[Change] = [Delete(old, "*")]
        for row in self._shop.store.snapshot().rows(storage_pb2.Snapshot, old):
            after = rows.copied(row)
            after.name = f"{new}/snapshots/{layout.id_of(row.name)}"
            after.meta.etag = ""
            changes += [Delete(row.name, row.meta.etag), Put(after)]
        return changes

    def delete(self, task: Task) -> Outcome:
        """Removes the file, then the rows."""
        snapshot = self._shop.store.snapshot()
        name = task.target
        volume = snapshot.find(Volume, name)
        if volume is None:
            return Outcome(None, list)
        task.undo.callback(self._shop.change, Volume, name, _undeleted)
        usage.check_unattached(snapshot, name)
        usage.check_no_copies(snapshot, name)
        task.stage(f"removing {volume.status.path or name}")
        if volume.status.path:
            _, _, disk = self._shop.volume_disk(name)
            try:
                self._shop.driver.delete(disk)
            except PvcError as error:
                why = f"removing it failed ({error.message}): delete it again"
                if error.reason != reason_pb2.REASON_IN_USE:
                    task.undo.callback(self._shop.change, Volume, name, _set_state(FAILED, why))
                raise
        return Outcome(None, lambda: self._deleted(name))

    def _deleted(self, name: str) -> list[Change]:
        taken = self._shop.store.snapshot().rows(storage_pb2.Snapshot, name)
        return [Delete(name, "*"), *(Delete(row.name, row.meta.etag) for row in taken)]


def _set_state(state: VolumeStatus.State.ValueType, why: str) -> Callable[[Volume], None]:
    def change(row: Volume) -> None:
        row.status.state, row.status.why = state, why
        row.meta.ClearField("delete_time")

    return change


def _undeleted(row: Volume) -> None:
    """It stays what it was, unless something worse was found out."""
    if row.status.state == VolumeStatus.STATE_DELETING:
        _set_state(FAILED if row.status.why else READY, row.status.why)(row)


def _keep_size(row: Volume) -> None:
    row.spec.size_bytes = row.status.size_bytes
    row.status.generation = row.meta.generation
