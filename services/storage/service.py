"""Answers of the storage service.

Changes go through the pure functions in `core`; the bytes of files pass through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.desk import Context, Desk, Plan
from services.mesh.errors import PvcError, refuse
from services.storage.core import pools, snapshots, usage, volumes
from services.storage.files import Files, Upload

UPLOAD_IDLE_S = 60.0
"""An upload of which nothing came for so long is given up."""

Operation = operation_pb2.Operation
T = TypeVar("T")


class StorageService(api_grpc.StorageServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk, files: Files) -> None:
        self._desk = desk
        self._files = files

    async def GetPool(self, request: Any, context: Context) -> storage_pb2.Pool:
        """See the contract."""
        return await self._desk.get(storage_pb2.Pool, request, context)

    async def ListPools(self, request: Any, context: Context) -> api.ListPoolsResponse:
        """See the contract."""
        return await self._desk.list(storage_pb2.Pool, request, api.ListPoolsResponse, context)

    async def WatchPools(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchPoolsResponse]:
        """See the contract."""
        changes = self._desk.watch(storage_pb2.Pool, request, api.WatchPoolsResponse, context)
        async for change in changes:
            yield change

    async def CreatePool(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, pools.create_pool, context)

    async def UpdatePool(self, request: Any, context: Context) -> storage_pb2.Pool:
        """See the contract."""
        return await self._desk.mutate(request, storage_pb2.Pool, pools.update_pool, context)

    async def DeletePool(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, pools.delete_pool, context)

    async def GetVolume(self, request: Any, context: Context) -> storage_pb2.Volume:
        """See the contract."""
        return await self._desk.get(storage_pb2.Volume, request, context)

    async def ListVolumes(self, request: Any, context: Context) -> api.ListVolumesResponse:
        """See the contract."""
        return await self._desk.list(storage_pb2.Volume, request, api.ListVolumesResponse, context)

    async def WatchVolumes(
        self, request: Any, context: Context
    ) -> AsyncIterator[api.WatchVolumesResponse]:
        """See the contract."""
        changes = self._desk.watch(storage_pb2.Volume, request, api.WatchVolumesResponse, context)
        async for change in changes:
            yield change

    async def CreateVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, volumes.create_volume, context)

    async def ResizeVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, volumes.resize_volume, context)

    async def RenameVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, volumes.rename_volume, context)

    async def DeleteVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, volumes.delete_volume, context)

    async def ImportVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        try:
            file = await asyncio.to_thread(self._files.find, request.file, "file")
        except PvcError as error:
            # The contract's word for a field that names what is not there.
            refuse(reason_pb2.REASON_DANGLING_REFERENCE, error.message, "file")
        plan = partial(volumes.import_volume, file=file)
        return await self._accept(request, plan, context)

    async def ExportVolume(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, volumes.export_volume, context)

    async def GetSnapshot(self, request: Any, context: Context) -> storage_pb2.Snapshot:
        """See the contract."""
        return await self._desk.get(storage_pb2.Snapshot, request, context)

    async def ListSnapshots(self, request: Any, context: Context) -> api.ListSnapshotsResponse:
        """See the contract."""
        return await self._desk.list(
            storage_pb2.Snapshot, request, api.ListSnapshotsResponse, context
        )

    async def CreateSnapshot(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, snapshots.create_snapshot, context)

    async def DeleteSnapshot(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, snapshots.delete_snapshot, context)

    async def RollbackSnapshot(self, request: Any, context: Context) -> Operation:
        """See the contract."""
        return await self._accept(request, snapshots.rollback_snapshot, context)

    async def UploadFile(
        self, requests: AsyncIterator[api.UploadFileRequest], context: Context
    ) -> api.FileInfo:
        """See the contract. A caller who goes away leaves nothing behind."""
        pieces = aiter(requests)
        first = await _next(pieces)
        if first is None:
            refuse(reason_pb2.REASON_INVALID_FIELD, "no message came", "size_bytes")
        upload = await self._begun(first)
        try:
            piece: api.UploadFileRequest | None = first
            while piece is not None:
                await _whole(partial(upload.write, piece.data))
                piece = await _next(pieces)
            return await _whole(upload.finish)
        except BaseException:
            await asyncio.to_thread(upload.abort)
            raise

    async def _begun(self, first: api.UploadFileRequest) -> Upload:
        begin = partial(self._files.begin, first.size_bytes, first.sha256, first.source_name)
        begun: list[Upload] = []
        try:
            await _whole(lambda: begun.append(begin()))
        except asyncio.CancelledError:
            for upload in begun:
                upload.abort()
            raise
        return begun[0]

    async def DownloadFile(
        self, request: api.DownloadFileRequest, context: Context
    ) -> AsyncIterator[api.DownloadFileResponse]:
        """See the contract."""
        file = await asyncio.to_thread(self._files.find, request.name)
        if request.offset > file.size_bytes:
            refuse(
                reason_pb2.REASON_INVALID_FIELD,
                f"{file.name} has {file.size_bytes} bytes; there is none at {request.offset}",
                "offset",
            )
        pieces = self._files.read(file.name, request.offset)
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield api.DownloadFileResponse(data=piece)

    async def DeleteFile(
        self, request: api.DeleteFileRequest, context: Context
    ) -> api.DeleteFileResponse:
        """See the contract."""
        operation = usage.importing(await self._desk.fresh(context), request.name)
        if operation is not None:
            refuse(
                reason_pb2.REASON_BUSY,
                f"{request.name} is being imported by {operation.name}: wait for its end, or "
                "cancel it",
                "name",
            )
        await asyncio.to_thread(self._files.delete, request.name)
        return api.DeleteFileResponse()

    async def _accept(self, request: Any, plan: Plan, context: Context) -> Operation:
        return await self._desk.mutate(request, Operation, plan, context)


async def _whole(work: Callable[[], T]) -> T:
    """What `work` gives, done in a thread. A caller who goes away meanwhile is let go only when it
    is done: nothing may be taken away from under it."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait((doing,))
        doing.exception()  # nobody is left to hear of it
        raise


async def _next(
    pieces: AsyncIterator[api.UploadFileRequest],
) -> api.UploadFileRequest | None:
    """The next message; None when there are no more. Raises DEADLINE."""
    try:
        return await asyncio.wait_for(anext(pieces), UPLOAD_IDLE_S)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise PvcError(
            reason_pb2.REASON_DEADLINE,
            f"nothing came for {UPLOAD_IDLE_S:g} s; begin the upload again",
        ) from None
