"""Long work on snapshots, and writing images for users to fetch."""

from __future__ import annotations

from collections.abc import Mapping

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2, storage_service_pb2
from services.mesh import rows
from services.mesh.desk import Call
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Job, Outcome, Task
from services.state.store import Delete, Put
from services.storage.core import layout, usage
from services.storage.core.accept import PREFIX, Volume, packed, ready_volume
from services.storage.core.room import contents_bytes
from services.storage.jobs.volumes import FORMATS
from services.storage.workshop import Workshop


class SnapshotJobs:
    """See the module."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    def methods(self) -> Mapping[str, Job]:
        """Method → job."""
        return {
            f"{PREFIX}CreateSnapshot": self.create,
            f"{PREFIX}DeleteSnapshot": self.delete,
            f"{PREFIX}RollbackSnapshot": self.rollback,
            f"{PREFIX}ExportVolume": self.export,
        }

    def create(self, task: Task) -> Outcome:
        """Takes the snapshot, in the place of what an earlier attempt may have left; then writes
        its row.
        """
        request = task.request(storage_service_pb2.CreateSnapshotRequest)
        volume, _, disk = self._shop.volume_disk(task.target)
        snapshot_id = request.snapshot_id
        task.undo.callback(self._remove, volume.name, snapshot_id)
        task.stage(f"taking {volume.name}/snapshots/{snapshot_id}")

        def closed() -> bool:
            self._shop.driver.snapshot(disk, snapshot_id)
            return False

        def opened(node: str) -> bool:
            emulator = self._shop.open_volumes
            if task.attempt > 1:
                emulator.delete_snapshot(node, volume.name, snapshot_id)
            try:
                return emulator.snapshot(node, volume.name, snapshot_id, request.quiesce)
            except PvcError:
                # Not looked for before: in a snapshot of a whole VM it may rightly be there.
                if snapshot_id not in self._shop.driver.stat(disk).snapshots:
                    raise
                emulator.delete_snapshot(node, volume.name, snapshot_id)
                return emulator.snapshot(node, volume.name, snapshot_id, request.quiesce)

        quiesced = self._shop.closed_or_open(volume.name, closed, opened)
        if snapshot_id not in self._shop.driver.stat(disk).snapshots:
            refuse(
                reason_pb2.REASON_STORAGE_FAILED,
                f"there is no snapshot {snapshot_id} in {disk.path} after it was taken",
            )
        taken = self._row(task, request, volume, quiesced)
        return Outcome(packed(taken), lambda: [Put(taken)])

    def _row(
        self,
        task: Task,
        request: storage_service_pb2.CreateSnapshotRequest,
        volume: Volume,
        quiesced: bool,
    ) -> storage_pb2.Snapshot:
        now = task.clock.now()
        call = Call(now, task.caller, self._shop.node, task.clock.new_id)
        return storage_pb2.Snapshot(
            name=f"{volume.name}/snapshots/{request.snapshot_id}",
            meta=rows.new_meta(call, request.snapshot.meta.labels),
            description=request.snapshot.description,
            size_bytes=volume.status.size_bytes,
            snapshot_time=now,
            quiesced=quiesced,
        )

    def _remove(self, volume: str, snapshot_id: str) -> None:
        _, _, disk = self._shop.volume_disk(volume)
        self._shop.closed_or_open(
            volume,
            lambda: self._shop.driver.delete_snapshot(disk, snapshot_id),
            lambda node: self._shop.open_volumes.delete_snapshot(node, volume, snapshot_id),
        )

    def delete(self, task: Task) -> Outcome:
        """Removes the snapshot from the image, then its row."""
        request = task.request(storage_service_pb2.DeleteSnapshotRequest)
        task.stage(f"removing {request.name}")
        self._remove(task.target, layout.id_of(request.name))
        return Outcome(None, lambda: [Delete(request.name, "*")])

    def rollback(self, task: Task) -> Outcome:
        """Puts a closed volume back, with the size that it had then."""
        request = task.request(storage_service_pb2.RollbackSnapshotRequest)
        volume, _, disk = self._shop.volume_disk(task.target)
        usage.check_closed(
            self._shop.store.snapshot(), volume.name, "shut it down first, then roll back"
        )
        task.stage(f"putting {volume.name} back to {layout.id_of(request.name)}")
        self._shop.driver.rollback(disk, layout.id_of(request.name))
        facts = self._shop.driver.stat(disk)

        def back() -> Volume:
            after = rows.copied(self._shop.row(Volume, volume.name))
            after.meta.generation += 1
            after.spec.size_bytes = after.status.size_bytes = facts.size_bytes
            after.status.generation = after.meta.generation
            return after

        return Outcome(packed(back()), lambda: [Put(back())])

    def export(self, task: Task) -> Outcome:
        """Writes the image into the folder of kept files.

        The file is named after the operation, so that a second attempt finds what the first one
        finished.
        """
        request = task.request(storage_service_pb2.ExportVolumeRequest)
        files = self._shop.files
        name = layout.file_name_for(self._shop.node, layout.id_of(task.name))
        _, _, disk = self._shop.volume_disk(task.target)
        snapshot = self._shop.store.snapshot()
        volume = ready_volume(snapshot, task.target)
        files.check_room(contents_bytes(snapshot, volume))
        task.undo.callback(files.drop, name)
        task.stage(f"writing {task.target} as {FORMATS[request.format]}")
        self._shop.driver.export(
            disk, request.snapshot_id, files.path(name), FORMATS[request.format], request.compress,
            self._shop.follow(task),
        )  # fmt: skip
        task.stage("computing its SHA-256")
        saved_as = "-".join(filter(None, (layout.id_of(volume.name), request.snapshot_id)))
        file = files.keep(name, f"{saved_as}.{FORMATS[request.format]}", self._shop.follow(task))
        return Outcome(file, list)
