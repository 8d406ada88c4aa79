"""Pools, volumes, their snapshots, and the files that volumes and images come from and go to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as pb
from pvc.storage.v1 import storage_service_pb2_grpc as grpc_pb
from pvc_client.errors import Internal, InvalidContent, Unavailable
from pvc_client.names import full_name, last_id, parent_of
from pvc_client.operations import Operations, Pending
from pvc_client.resources import Options, Resources, filled
from pvc_client.transport import Transport

Operation = operation_pb2.Operation
Pool = storage_pb2.Pool
PoolSpec = storage_pb2.PoolSpec
Volume = storage_pb2.Volume
VolumeSpec = storage_pb2.VolumeSpec
Snapshot = storage_pb2.Snapshot
FileInfo = pb.FileInfo
R = TypeVar("R", bound=Message)
Transferred = Callable[[int, int], None]
"""Told how many bytes of how many were transferred."""

PIECE_BYTES = 512 * 1024
DOWNLOAD_TRIES = 5


class _StorageResources(Resources[R]):
    """Collections of the storage service."""

    def __init__(
        self, transport: Transport, operations: Operations, kind: type[R], path: str
    ) -> None:
        self._storage = grpc_pb.StorageServiceStub(transport.channel)
        super().__init__(transport, self._storage, pb, kind, path)
        self._operations = operations

    def _begin(self, method: Any, request: Message, kind: type[Any]) -> Pending[Any]:
        return Pending(self._operations, self.transport.unary(method, request, Operation), kind)


class Pools(_StorageResources[Pool]):
    """Places to keep volumes in."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        super().__init__(transport, operations, Pool, "pools")

    def create(self, pool_id: str, spec: PoolSpec, **options: Unpack[Options]) -> Pending[Pool]:
        """Makes a pool; done when its node can use it."""
        request = pb.CreatePoolRequest(pool_id=pool_id, pool=Pool(spec=spec))
        return self._begin(self._storage.CreatePool, filled(request, options), Pool)

    def update(
        self, pool: Pool, update_mask: Sequence[str] = (), **options: Unpack[Options]
    ) -> Pool:
        """Takes over the fields of the mask ("spec.reserve_bytes") from `pool`; all that are set
        without one."""
        request = pb.UpdatePoolRequest(pool=pool, update_mask=FieldMask(paths=update_mask))
        return self.transport.unary(self._storage.UpdatePool, filled(request, options), Pool)

    def delete(
        self, pool: str, *, force: bool = False, **options: Unpack[Options]
    ) -> Pending[Message]:
        """Forgets a pool that holds no volumes. force: with its volumes, if it is FAILED for
        good."""
        request = pb.DeletePoolRequest(name=self.name(pool), force=force)
        return self._begin(self._storage.DeletePool, filled(request, options), Message)


class VolumeSnapshots(_StorageResources[Snapshot]):
    """Snapshots of single volumes. One is named "local/web-root/before-upgrade"."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        super().__init__(transport, operations, Snapshot, "pools/volumes/snapshots")

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
        request = pb.CreateSnapshotRequest(
            parent=parent_of(full),
            snapshot_id=last_id(full),
            snapshot=Snapshot(description=description),
            quiesce=quiesce,
        )
        return self._begin(self._storage.CreateSnapshot, filled(request, options), Snapshot)

    def delete(self, name: str, **options: Unpack[Options]) -> Pending[Message]:
        """Removes a snapshot."""
        request = pb.DeleteSnapshotRequest(name=self.name(name))
        return self._begin(self._storage.DeleteSnapshot, filled(request, options), Message)

    def rollback(self, name: str, **options: Unpack[Options]) -> Pending[Volume]:
        """Puts the volume back to what it was; what was written since is lost."""
        request = pb.RollbackSnapshotRequest(name=self.name(name))
        return self._begin(self._storage.RollbackSnapshot, filled(request, options), Volume)


class Volumes(_StorageResources[Volume]):
    """Virtual disks. One is named "local/web-root": its pool and its id."""

    def __init__(self, transport: Transport, operations: Operations) -> None:
        super().__init__(transport, operations, Volume, "pools/volumes")
        self.snapshots = VolumeSnapshots(transport, operations)

    def create(self, name: str, spec: VolumeSpec, **options: Unpack[Options]) -> Pending[Volume]:
        """Makes a volume: empty, or from the source in its spec."""
        full = self.name(name)
        request = pb.CreateVolumeRequest(
            parent=parent_of(full), volume_id=last_id(full), volume=Volume(spec=spec)
        )
        return self._begin(self._storage.CreateVolume, filled(request, options), Volume)

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
        request = pb.ResizeVolumeRequest(name=self.name(name), size_bytes=size_bytes)
        return self._begin(self._storage.ResizeVolume, filled(request, options), Volume)

    def rename(self, name: str, new_id: str, **options: Unpack[Options]) -> Pending[Volume]:
        """Gives a volume that no VM uses another id."""
        request = pb.RenameVolumeRequest(name=self.name(name), new_volume_id=new_id)
        return self._begin(self._storage.RenameVolume, filled(request, options), Volume)

    def delete(
        self, name: str, *, force: bool = False, **options: Unpack[Options]
    ) -> Pending[Message]:
        """Removes it. force: with its snapshots."""
        request = pb.DeleteVolumeRequest(name=self.name(name), force=force)
        return self._begin(self._storage.DeleteVolume, filled(request, options), Message)

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
        request = pb.ImportVolumeRequest(
            parent=parent_of(full),
            volume_id=last_id(full),
            file=full_name("files", file, "file"),
            source_format=source_format,
            size_bytes=size_bytes,
        )
        return self._begin(self._storage.ImportVolume, filled(request, options), Volume)

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
        request = pb.ExportVolumeRequest(
            name=self.name(name), format=format, compress=compress, snapshot_id=snapshot_id
        )
        return self._begin(self._storage.ExportVolume, filled(request, options), FileInfo)


class Files:
    """Files on their way in or out. The cluster keeps each for a day."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._storage = grpc_pb.StorageServiceStub(transport.channel)

    def upload(self, path: str | Path, on_transfer: Transferred | None = None) -> FileInfo:
        """Sends a file, checked by its hash on arrival. Raises InvalidContent for what is no file,
        or empty."""
        path = Path(path)
        if not path.is_file() or not path.stat().st_size:
            raise InvalidContent(f"{path} is empty, or not a plain file: it cannot be an image")
        requests = _pieces(path, on_transfer or _untold)
        return self.transport.send(self._storage.UploadFile, requests, FileInfo)

    def download(
        self, file: FileInfo, path: str | Path, on_transfer: Transferred | None = None
    ) -> None:
        """Fetches a file; goes on where it was after a break. Raises Internal if its hash is wrong.

        `path` appears when the file is whole.
        """
        path = Path(path)
        partial = path.with_name(path.name + ".part")
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as target:
                self._fetch(file, target, digest, on_transfer or _untold)
            if file.sha256 and digest.hexdigest() != file.sha256:
                raise Internal(f"{file.name} arrived damaged; download it again")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Removes a file before its day is over."""
        request = pb.DeleteFileRequest(name=full_name("files", name))
        self.transport.unary(self._storage.DeleteFile, request, pb.DeleteFileResponse)

    def _fetch(self, file: FileInfo, target: BinaryIO, digest: Any, told: Transferred) -> None:
        tries = 0
        while (offset := target.tell()) < file.size_bytes or tries == 0:
            request = pb.DownloadFileRequest(name=file.name, offset=offset)
            tries += 1
            try:
                for piece in self.transport.stream(
                    self._storage.DownloadFile, request, pb.DownloadFileResponse
                ):
                    target.write(piece.data)
                    digest.update(piece.data)
                    told(target.tell(), file.size_bytes)
            except Unavailable:
                if tries == DOWNLOAD_TRIES:
                    raise
            else:
                break


def _pieces(path: Path, told: Transferred) -> Iterator[pb.UploadFileRequest]:
    size = path.stat().st_size
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        yield pb.UploadFileRequest(size_bytes=size, sha256=digest, source_name=path.name)
        source.seek(0)
        while piece := source.read(PIECE_BYTES):
            yield pb.UploadFileRequest(data=piece)
            told(source.tell(), size)


def _untold(_done: int, _size: int) -> None:
    """For callers that do not want to know."""
