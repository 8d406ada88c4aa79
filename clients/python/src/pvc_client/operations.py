"""Operations: long work that was asked for, and the handle that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from google.protobuf import empty_pb2, symbol_database
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pvc.coordinator.v1 import coordinator_service_pb2 as pb
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as grpc_pb
from pvc.core.v1 import operation_pb2
from pvc_client.errors import Deadline, Internal, Unavailable, from_status
from pvc_client.names import full_name
from pvc_client.resources import RECONNECT_PAUSE_S, RECONNECT_S, Resources
from pvc_client.transport import Transport

Operation = operation_pb2.Operation
R = TypeVar("R", bound=Message)
Progress = Callable[[Operation], None]

FINAL = frozenset({Operation.STATE_SUCCEEDED, Operation.STATE_FAILED, Operation.STATE_CANCELLED})
"""States in which an operation has ended."""

_KNOWN = (empty_pb2.Empty,)
"""What must be loaded for `unpacked` to find it."""
WAIT_SLICE_S = 20.0


class Operations(Resources[Operation]):
    """The cluster's operations."""

    def __init__(self, transport: Transport) -> None:
        stub = grpc_pb.OperationServiceStub(transport.channel)
        super().__init__(transport, stub, pb, Operation, "operations")
        self._operations = stub

    def cancel(self, name: str) -> Operation:
        """Asks the worker to stop and undo; answers at once."""
        request = pb.CancelOperationRequest(name=full_name("operations", name))
        return self.transport.unary(self._operations.CancelOperation, request, Operation)

    def wait(self, name: str, timeout_s: float) -> Operation:
        """The operation when it has ended or the timeout is over."""
        request = pb.WaitOperationRequest(name=full_name("operations", name))
        request.timeout.CopyFrom(Duration(nanos=int(timeout_s % 1 * 1e9), seconds=int(timeout_s)))
        stub = self._operations.WaitOperation
        return self.transport.unary(stub, request, Operation, timeout_s=timeout_s + 10)

    def pending(self, name: str) -> Pending[Message]:
        """A handle for an operation that was begun earlier or elsewhere."""
        return Pending(self, self.get(name), Message)


class Pending(Generic[R]):
    """Long work that was accepted. It goes on whether or not anybody waits for it."""

    def __init__(self, operations: Operations, operation: Operation, kind: type[R]) -> None:
        self._operations = operations
        self.operation = operation
        """As it was when last heard of."""
        self._kind = kind

    @property
    def name(self) -> str:
        """operations/{id}, to find it again."""
        return self.operation.name

    @property
    def done(self) -> bool:
        """Whether it had ended when last heard of."""
        return self.operation.state in FINAL

    def refresh(self) -> Operation:
        """Asks how it stands."""
        self.operation = self._operations.get(self.name)
        return self.operation

    def cancel(self) -> None:
        """Asks to stop and undo it."""
        self.operation = self._operations.cancel(self.name)

    def result(self, timeout: float | None = None, on_progress: Progress | None = None) -> R:
        """Waits for the end and gives what came out. Raises what it failed with, or Deadline.

        timeout: seconds; None waits as long as it takes. on_progress: called with the operation
        now and whenever it changes. A lost connection is taken up again, for a minute.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for operation in self._states(deadline, watch=on_progress is not None):
            self.operation = operation
            if on_progress is not None:
                on_progress(operation)
        return self._outcome()

    def _states(self, deadline: float | None, *, watch: bool) -> Iterator[Operation]:
        operation = self.operation
        yield operation
        heard = time.monotonic()
        while operation.state not in FINAL:
            slice_s = WAIT_SLICE_S
            if deadline is not None:
                slice_s = min(slice_s, deadline - time.monotonic())
                if slice_s <= 0:
                    raise Deadline(f"{self.name} goes on: {operation.stage}", operation=self.name)
            try:
                for operation in self._heard(slice_s, watch=watch):
                    yield operation
                heard = time.monotonic()
            except Unavailable:
                if time.monotonic() - heard > RECONNECT_S:
                    raise
                time.sleep(RECONNECT_PAUSE_S)

    def _heard(self, slice_s: float, *, watch: bool) -> Iterator[Operation]:
        """The operation as it changes, until it has ended or the slice of time is over."""
        if not watch:
            yield self._operations.wait(self.name, slice_s)
            return
        with suppress(Deadline):
            changes = self._operations.watch(filter=f'name = "{self.name}"', timeout_s=slice_s)
            for change in changes:
                if change.resource is not None:
                    yield change.resource
                    if change.resource.state in FINAL:
                        changes.close()
                        return
        yield self._operations.get(self.name)  # raises if there is none any more

    def _outcome(self) -> R:
        operation = self.operation
        if operation.state != Operation.STATE_SUCCEEDED:
            raise from_status(operation.error, operation=operation.name)
        return unpacked(operation, self._kind)


def unpacked(operation: Operation, kind: type[R]) -> R:
    """What came out of an operation; an empty message for those that leave nothing behind."""
    name = operation.result.TypeName() or "google.protobuf.Empty"
    result = symbol_database.Default().GetSymbol(name)() if kind is Message else kind()
    assert isinstance(result, kind)
    if operation.result.type_url and not operation.result.Unpack(result):
        raise Internal(f"{operation.name} gave a {operation.result.TypeName()} as its result")
    return result
