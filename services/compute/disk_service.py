"""Answers the storage service about volumes that VMs of this node have open. Nobody else may touch
those."""

from __future__ import annotations

import asyncio

from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.compute.open_disks import OpenVolumes
from services.mesh.desk import Context, Desk


class DiskService(api_grpc.DiskServiceServicer):
    """See the contract."""

    def __init__(self, desk: Desk, open_volumes: OpenVolumes) -> None:
        self._desk = desk
        self._open = open_volumes

    async def ResizeOpenVolume(
        self, request: api.ResizeOpenVolumeRequest, context: Context
    ) -> api.ResizeOpenVolumeResponse:
        """See the contract."""
        await self._desk.fresh(context)
        await asyncio.to_thread(self._open.resize, request.volume, request.size_bytes)
        return api.ResizeOpenVolumeResponse()

    async def SnapshotOpenVolumes(
        self, request: api.SnapshotOpenVolumesRequest, context: Context
    ) -> api.SnapshotOpenVolumesResponse:
        """See the contract."""
        await self._desk.fresh(context)
        quiesced = await asyncio.to_thread(
            self._open.snapshot, list(request.volumes), request.snapshot_id, request.quiesce
        )
        return api.SnapshotOpenVolumesResponse(quiesced=quiesced)

    async def DeleteOpenSnapshot(
        self, request: api.DeleteOpenSnapshotRequest, context: Context
    ) -> api.DeleteOpenSnapshotResponse:
        """See the contract."""
        await self._desk.fresh(context)
        await asyncio.to_thread(self._open.delete_snapshot, request.volume, request.snapshot_id)
        return api.DeleteOpenSnapshotResponse()
