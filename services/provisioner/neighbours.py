"""The other services, as far as the provisioner asks them for work. Every call may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import grpc
from google.protobuf.message import Message

from pvc.compute.v1 import vm_service_pb2 as compute
from pvc.compute.v1 import vm_service_pb2_grpc as compute_grpc
from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as coordinator_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh.calls import acting_for
from services.mesh.channel import Peers
from services.mesh.errors import PvcError
from services.state.store import Store

Operation = operation_pb2.Operation
OnBytes = Callable[[int], None]
"""Told how many bytes of a file went; may raise PvcError to stop."""

ANSWER_S = 60.0
"""For an answer, also of a service that is just starting again."""
UPLOAD_S = 3600.0
FRESH_S = 10.0
PIECE_BYTES = 1 << 20


class Neighbours(Protocol):
    """What the jobs ask of other services. All raise PvcError."""

    def begin(self, request: Message, caller: str, node: str = "") -> Operation:
        """Asks for work; which service and method follows from the request's type. The operation
        is in our own snapshot when this returns."""
        ...

    def upload(
        self, file: BinaryIO, size: int, source_name: str, on_bytes: OnBytes, node: str
    ) -> str:
        """Brings a file to the storage service of a node; returns its name."""
        ...

    def drop_file(self, name: str, node: str) -> None:
        """Removes an uploaded file. Not an error if there is none."""
        ...


METHODS: Mapping[type[Message], tuple[str, Callable[[grpc.Channel], Any], str]] = {
    storage.CreateVolumeRequest: ("storage", storage_grpc.StorageServiceStub, "CreateVolume"),
    storage.ImportVolumeRequest: ("storage", storage_grpc.StorageServiceStub, "ImportVolume"),
    storage.DeleteVolumeRequest: ("storage", storage_grpc.StorageServiceStub, "DeleteVolume"),
    compute.CreateVmRequest: ("compute", compute_grpc.VmServiceStub, "CreateVm"),
    compute.DeleteVmRequest: ("compute", compute_grpc.VmServiceStub, "DeleteVm"),
    coordinator.CancelOperationRequest: (
        "coordinator",
        coordinator_grpc.OperationServiceStub,
        "CancelOperation",
    ),
}
"""Request → the service, its stub, the method that takes the request."""


class GrpcNeighbours:
    """See Neighbours. A service that is just starting again is waited for."""

    def __init__(self, peers: Peers, store: Store) -> None:
        self._peers = peers
        self._store = store

    def begin(self, request: Message, caller: str, node: str = "") -> Operation:
        """See Neighbours."""
        service, stub, method = METHODS[type(request)]
        call = getattr(stub(self._peers.blocking(service, node)), method)
        with acting_for(caller):
            answer = call(request, timeout=ANSWER_S, wait_for_ready=True)
        assert isinstance(answer, Operation)
        self._store.wait(self._peers.revision.newest, FRESH_S)
        return answer

    def upload(
        self, file: BinaryIO, size: int, source_name: str, on_bytes: OnBytes, node: str
    ) -> str:
        """See Neighbours."""
        stub = storage_grpc.StorageServiceStub(self._peers.blocking("storage", node))
        pieces = _Pieces(file, size, source_name, on_bytes)
        try:
            answer = stub.UploadFile(iter(pieces), timeout=UPLOAD_S, wait_for_ready=True)
        except PvcError as error:
            # The service only sees that too little came; what stopped it is known here.
            raise (pieces.stopped or error) from error
        return str(answer.name)

    def drop_file(self, name: str, node: str) -> None:
        """See Neighbours."""
        stub = storage_grpc.StorageServiceStub(self._peers.blocking("storage", node))
        request = storage.DeleteFileRequest(name=name)
        try:
            stub.DeleteFile(request, timeout=ANSWER_S, wait_for_ready=True)
        except PvcError as error:
            if error.reason != reason_pb2.REASON_NOT_FOUND:
                raise


class _Pieces:
    """A file as messages. gRPC reads them in a thread of its own, where nothing may be raised."""

    def __init__(self, file: BinaryIO, size: int, source_name: str, on_bytes: OnBytes) -> None:
        self.stopped: Exception | None = None
        self._file = file
        self._first = storage.UploadFileRequest(size_bytes=size, source_name=source_name)
        self._on_bytes = on_bytes

    def __iter__(self) -> Iterator[storage.UploadFileRequest]:
        sent, message = 0, self._first
        try:
            while piece := self._file.read(PIECE_BYTES):
                self._on_bytes(sent)
                message.data = piece
                yield message
                sent, message = sent + len(piece), storage.UploadFileRequest()
        except (PvcError, OSError) as error:
            self.stopped = error
