"""The other services, as far as the provisioner asks them for work. Every call may be repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from pvc.compute.v1 import vm_service_pb2 as compute
from pvc.compute.v1 import vm_service_pb2_grpc as compute_grpc
from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as coordinator_grpc
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh.desk import CALLER, MIN_REVISION, REVISION
from services.mesh.errors import PvcError
from services.state.store import Store

Operation = operation_pb2.Operation
OnBytes = Callable[[int], None]
"""Told how many bytes of a file went; may raise PvcError to stop."""

ANSWER_S = 60.0
"""For an answer, also of a service that is just starting again."""
UPLOAD_S = 3600.0
FRESH_S = 10.0
TRIES = 3
PIECE_BYTES = 1 << 20


class Channels(Protocol):
    """Where the services are."""

    def channel(self, service: str, node: str = "") -> grpc.Channel:
        """A channel for calls that wait, to a service ("storage") on a certain node ("nodes/n1"),
        "" for any. Raises UNREACHABLE."""
        ...


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
    """See Neighbours."""

    def __init__(self, channels: Channels, store: Store) -> None:
        self._channels = channels
        self._store = store

    def begin(self, request: Message, caller: str, node: str = "") -> Operation:
        """See Neighbours. Tried again when the service went away; its request_id keeps it one."""
        service, stub, method = METHODS[type(request)]
        for attempt in range(1, TRIES + 1):
            try:
                with pvc_errors():
                    channel = self._channels.channel(service, node)
                    return self._call(getattr(stub(channel), method), request, caller)
            except PvcError as error:
                if error.reason != reason_pb2.REASON_UNREACHABLE or attempt == TRIES:
                    raise
        raise AssertionError("not reached")

    def _call(self, method: Any, request: Message, caller: str) -> Operation:
        metadata = (
            (CALLER, caller),
            (MIN_REVISION, str(self._store.snapshot().revision)),
        )
        answer, call = method.with_call(
            request, timeout=ANSWER_S, metadata=metadata, wait_for_ready=True
        )
        for key, value in call.trailing_metadata() or ():
            if key == REVISION:
                self._store.wait(int(value), FRESH_S)
        assert isinstance(answer, Operation)
        return answer

    def upload(
        self, file: BinaryIO, size: int, source_name: str, on_bytes: OnBytes, node: str
    ) -> str:
        """See Neighbours."""
        stub = storage_grpc.StorageServiceStub(self._channels.channel("storage", node))
        pieces = _Pieces(file, size, source_name, on_bytes)
        try:
            with pvc_errors():
                answer = stub.UploadFile(iter(pieces), timeout=UPLOAD_S, wait_for_ready=True)
        except PvcError as error:
            # The service only sees that too little came; what stopped it is known here.
            raise (pieces.stopped or error) from error
        return str(answer.name)

    def drop_file(self, name: str, node: str) -> None:
        """See Neighbours."""
        stub = storage_grpc.StorageServiceStub(self._channels.channel("storage", node))
        try:
            with pvc_errors():
                stub.DeleteFile(
                    storage.DeleteFileRequest(name=name), timeout=ANSWER_S, wait_for_ready=True
                )
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


@contextlib.contextmanager
def pvc_errors() -> Iterator[None]:
    """Raises what another service answered as the PvcError that it was there."""
    try:
        yield
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
        raise PvcError.from_status(status) from error
