"""Files that other nodes keep: their bytes, asked of the storage service there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.channel import Peers
from services.mesh.errors import refuse
from services.storage.core.layout import node_of_file


class PeerFiles:
    """See FarFiles."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def read(self, name: str) -> Iterator[bytes]:
        """See FarFiles. An end before the end is an error of the call."""
        channel = self._peers.blocking("storage", node_of_file(name))
        request = api.DownloadFileRequest(name=name)
        for answer in api_grpc.StorageServiceStub(channel).DownloadFile(request):
            yield answer.data


class NoFarFiles:
    """Where there are no other nodes."""

    def read(self, name: str) -> NoReturn:
        """See FarFiles."""
        refuse(
            reason_pb2.REASON_UNREACHABLE,
            f"{name} is kept by {node_of_file(name)}, to which there is no way from here",
        )
