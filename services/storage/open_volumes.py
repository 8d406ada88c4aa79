"""The way to volumes that a VM has open: the compute service of the VM's node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from pvc.compute.v1 import vm_service_pb2 as api
from pvc.compute.v1 import vm_service_pb2_grpc as api_grpc
from services.mesh.errors import PvcError

QUICK_S = 60.0
SNAPSHOT_S = 300.0
"""The emulator stops the guest while it writes an internal snapshot's tables; freezing it takes
time too.
"""

Channel = Callable[[str], grpc.Channel]
"""Node ("nodes/n1") → a channel to its compute service, for calls that wait."""


class ComputeVolumes:
    """See OpenVolumes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def resize(self, node: str, volume: str, size_bytes: int) -> None:
        """See OpenVolumes."""
        request = api.ResizeOpenVolumeRequest(volume=volume, size_bytes=size_bytes)
        with _pvc_errors():
            self._stub(node).ResizeOpenVolume(request, timeout=QUICK_S)

    def snapshot(self, node: str, volume: str, snapshot_id: str, quiesce: bool) -> bool:
        """See OpenVolumes."""
        request = api.SnapshotOpenVolumesRequest(
            volumes=[volume], snapshot_id=snapshot_id, quiesce=quiesce
        )
        with _pvc_errors():
            answer = self._stub(node).SnapshotOpenVolumes(request, timeout=SNAPSHOT_S)
        return bool(answer.quiesced)

    def delete_snapshot(self, node: str, volume: str, snapshot_id: str) -> None:
        """See OpenVolumes."""
        request = api.DeleteOpenSnapshotRequest(volume=volume, snapshot_id=snapshot_id)
        with _pvc_errors():
            self._stub(node).DeleteOpenSnapshot(request, timeout=SNAPSHOT_S)

    def _stub(self, node: str) -> Any:
        return api_grpc.DiskServiceStub(self._channel(node))


@contextlib.contextmanager
def _pvc_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            status = status_pb2.Status(code=error.code().value[0], message=error.details())
        raise PvcError.from_status(status) from error
