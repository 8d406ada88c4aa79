"""The way to volumes that a VM has open: the compute service of the VM's node."""

from __future__ import annotations

from typing import Any

from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.mesh.channel import Peers

QUICK_S = 60.0
SNAPSHOT_S = 300.0
"""The guest stands still while the emulator writes a snapshot's tables; freezing takes time too."""


class ComputeVolumes:
    """See OpenVolumes. Raises PvcError as the compute service does, or UNREACHABLE, DEADLINE."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def resize(self, node: str, volume: str, size_bytes: int) -> None:
        """See OpenVolumes."""
        request = api.ResizeOpenVolumeRequest(volume=volume, size_bytes=size_bytes)
        self._stub(node).ResizeOpenVolume(request, timeout=QUICK_S)

    def snapshot(self, node: str, volume: str, snapshot_id: str, quiesce: bool) -> bool:
        """See OpenVolumes."""
        request = api.SnapshotOpenVolumesRequest(
            volumes=[volume], snapshot_id=snapshot_id, quiesce=quiesce
        )
        answer = self._stub(node).SnapshotOpenVolumes(request, timeout=SNAPSHOT_S)
        return bool(answer.quiesced)

    def delete_snapshot(self, node: str, volume: str, snapshot_id: str) -> None:
        """See OpenVolumes."""
        request = api.DeleteOpenSnapshotRequest(volume=volume, snapshot_id=snapshot_id)
        self._stub(node).DeleteOpenSnapshot(request, timeout=SNAPSHOT_S)

    def _stub(self, node: str) -> Any:
        return api_grpc.DiskServiceStub(self._peers.blocking("compute", node))
