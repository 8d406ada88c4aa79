"""Files that other nodes keep: their bytes, asked of the storage service there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.channel import Peers
from services.mesh.errors import refuse
from services.storage.core.layout import QCOW2, node_of_file

ANSWER_S = 30.0


class PeerFiles:
    """See FarFiles."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def read(self, name: str) -> Iterator[bytes]:
        """See FarFiles. An end before the end is an error of the call."""
        request = api.DownloadFileRequest(name=name)
        for answer in self._stub(node_of_file(name)).DownloadFile(request):
            yield answer.data

    def export(self, node: str, volume: str, snapshot_id: str, request_id: str) -> str:
        """See FarFiles."""
        request = api.ExportVolumeRequest(
            name=volume, snapshot_id=snapshot_id, format=QCOW2, request_id=request_id
        )
        asked = self._stub(node).ExportVolume(request, timeout=ANSWER_S)
        return str(asked.name)

    def delete(self, name: str) -> None:
        """See FarFiles."""
        request = api.DeleteFileRequest(name=name)
        self._stub(node_of_file(name)).DeleteFile(request, timeout=ANSWER_S)

    def _stub(self, node: str) -> Any:
        return api_grpc.StorageServiceStub(self._peers.blocking("storage", node))


class NoFarFiles:
    """Where there are no other nodes."""

    def read(self, name: str) -> Iterator[bytes]:
        """See FarFiles."""
        refuse(
            reason_pb2.REASON_UNREACHABLE,
            f"{name} is kept by {node_of_file(name)}, to which there is no way from here",
        )

    def export(self, node: str, volume: str, snapshot_id: str, request_id: str) -> str:
        """See FarFiles."""
        refuse(
            reason_pb2.REASON_UNREACHABLE,
            f"{volume} is on {node}, to which there is no way from here",
        )

    def delete(self, name: str) -> None:
        """See FarFiles."""
        self.read(name)
