"""Pools, volumes and the snapshots of volumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from google.protobuf.message import Message

from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as pb
from pvc_client.aio.operations import AsyncPending, AsyncWorking
from pvc_client.aio.transport import AsyncTransport
from pvc_client.contract import STORAGE, Options, mask
from pvc_client.names import full_name, last_id, parent_of

Pool = storage_pb2.Pool
PoolSpec = storage_pb2.PoolSpec
Volume = storage_pb2.Volume
VolumeSpec = storage_pb2.VolumeSpec
Snapshot = storage_pb2.Snapshot
FileInfo = pb.FileInfo


class AsyncPools(AsyncWorking[Pool]):
    """Places to keep volumes in."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, STORAGE, Pool, "pools")

    async def create(
        self, pool_id: str, spec: PoolSpec, **options: Unpack[Options]
    ) -> AsyncPending[Pool]:
        """Makes a pool; done when its node can use it."""
        pool = Pool(spec=spec)
        return await self._begin(STORAGE["CreatePool"], Pool, options, pool_id=pool_id, pool=pool)

    async def update(
        self, pool: Pool, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Pool:
        """Takes over the fields of the mask ("spec.reserve_bytes") from `pool`; all that are set
        without one."""
        method = STORAGE["UpdatePool"]
        updated: Pool = await self._ask(method, options, pool=pool, update_mask=mask(update_mask))
        return updated

    async def change(
        self, pool: str, change: Callable[[Pool], object], **options: Unpack[Options]
    ) -> Pool:
        """Reads it, lets `change` alter what was read, and writes that, only if nobody else wrote
        meanwhile; else all of that again. `change` may thus be called more than once."""

        async def update(wanted: Pool, paths: Sequence[str]) -> Pool:
            return await self.update(wanted, paths, **options)

        changed: Pool = await self._changed(pool, change, update)
        return changed

    async def delete(
        self, pool: str, *, force: bool = False, **options: Unpack[Options]
    ) -> AsyncPending[Message]:
        """Forgets a pool that holds no volumes. force: with its volumes, if it is FAILED for
        good."""
        method = STORAGE["DeletePool"]
        return await self._begin(method, Message, options, name=self.name(pool), force=force)


class AsyncVolumeSnapshots(AsyncWorking[Snapshot]):
    """Snapshots of single volumes. One is named "local/web-root/before-upgrade"."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, STORAGE, Snapshot, "pools/volumes/snapshots")

    async def create(
        self,
        name: str,
        description: str = "",
        *,
        quiesce: bool = False,
        **options: Unpack[Options],
    ) -> AsyncPending[Snapshot]:
        """Takes a snapshot. quiesce: freeze the guest's file systems for the moment."""
        full = self.name(name)
        return await self._begin(
            STORAGE["CreateSnapshot"],
            Snapshot,
            options,
            parent=parent_of(full),
            snapshot_id=last_id(full),
            snapshot=Snapshot(description=description),
            quiesce=quiesce,
        )

    async def delete(self, name: str, **options: Unpack[Options]) -> AsyncPending[Message]:
        """Removes a snapshot."""
        method = STORAGE["DeleteSnapshot"]
        return await self._begin(method, Message, options, name=self.name(name))

    async def rollback(self, name: str, **options: Unpack[Options]) -> AsyncPending[Volume]:
        """Puts the volume back to what it was; what was written since is lost."""
        method = STORAGE["RollbackSnapshot"]
        return await self._begin(method, Volume, options, name=self.name(name))


class AsyncVolumes(AsyncWorking[Volume]):
    """Virtual disks. One is named "local/web-root": its pool and its id."""

    def __init__(self, transport: AsyncTransport) -> None:
        super().__init__(transport, STORAGE, Volume, "pools/volumes")
        self.snapshots = AsyncVolumeSnapshots(transport)

    async def create(
        self, name: str, spec: VolumeSpec, **options: Unpack[Options]
    ) -> AsyncPending[Volume]:
        """Makes a volume: empty, or from the source in its spec."""
        full = self.name(name)
        return await self._begin(
            STORAGE["CreateVolume"],
            Volume,
            options,
            parent=parent_of(full),
            volume_id=last_id(full),
            volume=Volume(spec=spec),
        )

    async def clone(
        self, source: str, name: str, **options: Unpack[Options]
    ) -> AsyncPending[Volume]:
        """Makes a volume that begins as a copy of another, or of a snapshot
        (POOL/VOLUME/SNAPSHOT)."""
        spec = VolumeSpec()
        if source.count("/") == 2 or "/snapshots/" in source:
            spec.source_snapshot = full_name("pools/volumes/snapshots", source)
        else:
            spec.source_volume = self.name(source)
        return await self.create(name, spec, **options)

    async def resize(
        self, name: str, size_bytes: int, **options: Unpack[Options]
    ) -> AsyncPending[Volume]:
        """Makes it larger, also while a VM runs on it."""
        fields = {"name": self.name(name), "size_bytes": size_bytes}
        return await self._begin(STORAGE["ResizeVolume"], Volume, options, **fields)

    async def rename(
        self, name: str, new_id: str, **options: Unpack[Options]
    ) -> AsyncPending[Volume]:
        """Gives a volume that no VM uses another id."""
        fields = {"name": self.name(name), "new_volume_id": new_id}
        return await self._begin(STORAGE["RenameVolume"], Volume, options, **fields)

    async def delete(
        self, name: str, *, force: bool = False, **options: Unpack[Options]
    ) -> AsyncPending[Message]:
        """Removes it. force: with its snapshots."""
        method = STORAGE["DeleteVolume"]
        return await self._begin(method, Message, options, name=self.name(name), force=force)

    async def import_file(
        self,
        name: str,
        file: str,
        *,
        source_format: storage_pb2.ImageFormat.ValueType = storage_pb2.IMAGE_FORMAT_UNSPECIFIED,
        size_bytes: int = 0,
        **options: Unpack[Options],
    ) -> AsyncPending[Volume]:
        """Makes a volume from an uploaded file (files/…)."""
        full = self.name(name)
        return await self._begin(
            STORAGE["ImportVolume"],
            Volume,
            options,
            parent=parent_of(full),
            volume_id=last_id(full),
            file=full_name("files", file, "file"),
            source_format=source_format,
            size_bytes=size_bytes,
        )

    async def export(
        self,
        name: str,
        *,
        format: storage_pb2.ImageFormat.ValueType = storage_pb2.IMAGE_FORMAT_UNSPECIFIED,
        compress: bool = False,
        snapshot_id: str = "",
        **options: Unpack[Options],
    ) -> AsyncPending[FileInfo]:
        """Writes it as an image to download."""
        return await self._begin(
            STORAGE["ExportVolume"],
            FileInfo,
            options,
            name=self.name(name),
            format=format,
            compress=compress,
            snapshot_id=snapshot_id,
        )
