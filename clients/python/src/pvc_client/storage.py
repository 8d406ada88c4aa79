# Made from aio/storage.py by tools/sync_client.py: change that one.
"""Pools, volumes and the snapshots of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from google.protobuf.message import Message

from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as pb
from pvc_client.contract import STORAGE, Options, mask
from pvc_client.names import full_name, last_id, parent_of
from pvc_client.operations import Pending, Working
from pvc_client.transport import Transport

Pool = storage_pb2.Pool
PoolSpec = storage_pb2.PoolSpec
Volume = storage_pb2.Volume
VolumeSpec = storage_pb2.VolumeSpec
Snapshot = storage_pb2.Snapshot
FileInfo = pb.FileInfo


class Pools(Working[Pool]):
    """Places to keep volumes in."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, STORAGE, Pool, "pools")

    def create(self, pool_id: str, spec: PoolSpec, **options: Unpack[Options]) -> Pending[Pool]:
        """Makes a pool; done when its node can use it."""
        pool = Pool(spec=spec)
        return self._begin(STORAGE["CreatePool"], Pool, options, pool_id=pool_id, pool=pool)

    def update(
        self, pool: Pool, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Pool:
        """Takes over the fields of the mask ("spec.reserve_bytes") from `pool`; all that are set
        without one."""
        method = STORAGE["UpdatePool"]
        updated: Pool = self._ask(method, options, pool=pool, update_mask=mask(update_mask))
        return updated

    def change(
        self, pool: str, change: Callable[[Pool], object], **options: Unpack[Options]
    ) -> Pool:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        def update(wanted: Pool, paths: Sequence[str]) -> Pool:
            return self.update(wanted, paths, **options)

        changed: Pool = self._changed(pool, change, update)
        return changed

    def delete(
        self, pool: str, *, force: bool = False, **options: Unpack[Options]
    ) -> Pending[Message]:
        """Forgets a pool that holds no volumes. force: with its volumes, if it is FAILED for
        good."""
        method = STORAGE["DeletePool"]
        return self._begin(method, Message, options, name=self.name(pool), force=force)


class VolumeSnapshots(Working[Snapshot]):
    """Snapshots of single volumes. One is named "local/web-root/before-upgrade"."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, STORAGE, Snapshot, "pools/volumes/snapshots")

    def create(
        self,
        name: str,
        description: str = "",
        *,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> Pending[Snapshot]:
        """Takes a snapshot. quiesce: freeze the guest's file systems for the moment."""
        full = self.name(name)
        return self._begin(
            STORAGE["CreateSnapshot"],
            Snapshot,
            options,
            parent=parent_of(full),
            snapshot_id=last_id(full),
            snapshot=Snapshot(description=description),
            quiesce=quiesce,
        )

    def delete(self, name: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes a snapshot."""
        method = STORAGE["DeleteSnapshot"]
        return self._begin(method, Message, options, name=self.name(name))

    def rollback(self, name: str, **options: Unpack[Options]) -> Pending[Volume]:
        """Puts the volume back to what it was; what was written since is lost."""
        method = STORAGE["RollbackSnapshot"]
        return self._begin(method, Volume, options, name=self.name(name))


class Volumes(Working[Volume]):
    """Virtual disks. One is named "local/web-root": its pool and its id."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, STORAGE, Volume, "pools/volumes")
        self.snapshots = VolumeSnapshots(transport)

    def create(self, name: str, spec: VolumeSpec, **options: Unpack[Options]) -> Pending[Volume]:
        """Makes a volume: empty, or from the source in its spec."""
        full = self.name(name)
        return self._begin(
            STORAGE["CreateVolume"],
            Volume,
            options,
            parent=parent_of(full),
            volume_id=last_id(full),
            volume=Volume(spec=spec),
        )

    def clone(self, source: str, name: str, **options: Unpack[Options]) -> Pending[Volume]:
        """Makes a volume that begins as a copy of another, or of a snapshot
        (POOL/VOLUME/SNAPSHOT)."""
        spec = VolumeSpec()
        if source.count("/") == 2 or "/snapshots/" in source:
            spec.source_snapshot = full_name("pools/volumes/snapshots", source)
        else:
            spec.source_volume = self.name(source)
        return self.create(name, spec, **options)

    def resize(self, name: str, size_bytes: int, **options: Unpack[Options]) -> Pending[Volume]:
        """Makes it larger, also while a VM runs on it."""
        fields = {"name": self.name(name), "size_bytes": size_bytes}
        return self._begin(STORAGE["ResizeVolume"], Volume, options, **fields)

    def rename(self, name: str, new_id: str, **options: Unpack[Options]) -> Pending[Volume]:
        """Gives a volume that no VM uses another id."""
        fields = {"name": self.name(name), "new_volume_id": new_id}
        return self._begin(STORAGE["RenameVolume"], Volume, options, **fields)

    def delete(
        self, name: str, *, force: bool = False, **options: Unpack[Options]
    ) -> Pending[Message]:
        """Removes it. force: with its snapshots."""
        method = STORAGE["DeleteVolume"]
        return self._begin(method, Message, options, name=self.name(name), force=force)

    def import_file(
        self,
        name: str,
        file: str,
        *,
        source_format: storage_pb2.ImageFormat.ValueType = storage_pb2.IMAGE_FORMAT_UNSPECIFIED,
        size_bytes: int = 0,
        **options: Unpack[Options],
    ) -> Pending[Volume]:
        """Makes a volume from an uploaded file (files/…)."""
        full = self.name(name)
        return self._begin(
            STORAGE["ImportVolume"],
            Volume,
            options,
            parent=parent_of(full),
            volume_id=last_id(full),
            file=full_name("files", file, "file"),
            source_format=source_format,
            size_bytes=size_bytes,
        )

    def export(
        self,
        name: str,
        *,
        format: storage_pb2.ImageFormat.ValueType = storage_pb2.IMAGE_FORMAT_UNSPECIFIED,
        compress: bool = False,
        snapshot_id: str = "",
        **options: Unpack[Options],
    ) -> Pending[FileInfo]:
        """Writes it as an image to download."""
        return self._begin(
            STORAGE["ExportVolume"],
            FileInfo,
            options,
            name=self.name(name),
            format=format,
            compress=compress,
            snapshot_id=snapshot_id,
        )
