# Made from aio/operations.py by tools/sync_client.py: change that one.
"""Operations: long work that was asked for, and the handle that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from google.protobuf import empty_pb2, symbol_database
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pvc.core.v1 import operation_pb2
from pvc_client import wire
from pvc_client.contract import OPERATIONS, Method, Options, load_all
from pvc_client.errors import Deadline, Internal, Unavailable, from_status, mention
from pvc_client.resources import RECONNECT_PAUSE_S, RECONNECT_S, Resources
from pvc_client.transport import Transport

Operation = operation_pb2.Operation
R = TypeVar("R", bound=Message)
K = TypeVar("K", bound=Message)
Progress = Callable[[Operation], None]

FINAL = frozenset({Operation.STATE_SUCCEEDED, Operation.STATE_FAILED, Operation.STATE_CANCELLED})
"""States in which an operation has ended."""

_KNOWN = (empty_pb2.Empty,)
"""What must be loaded for `unpacked` to find it."""
WAIT_SLICE_S = 20.0


class Operations(Resources[Operation]):
    """The cluster's operations."""

    def __init__(self, transport: Transport) -> None:
        load_all()  # they hold the requests and results of all services
        super().__init__(transport, OPERATIONS, Operation, "operations")

    def cancel(self, name: str) -> Operation:
        """Asks the worker to stop and undo; answers at once."""
        method = OPERATIONS["CancelOperation"]
        operation: Operation = self._ask(method, name=self.name(name))
        return operation

    def wait(self, name: str, timeout_s: float) -> Operation:
        """The operation when it has ended or the timeout is over."""
        method = OPERATIONS["WaitOperation"]
        timeout = Duration(seconds=int(timeout_s), nanos=int(timeout_s % 1 * 1e9))
        request = method.request(name=self.name(name), timeout=timeout)
        operation: Operation = self.transport.unary(method, request, timeout_s=timeout_s + 10)
        return operation

    def pending(self, name: str) -> Pending[Message]:
        """A handle for an operation that was begun earlier or elsewhere."""
        return Pending(self.transport, self.get(name), Message)


class Pending(Generic[R]):
    """Long work that was accepted. It goes on whether or not anybody waits for it."""

    def __init__(self, transport: Transport, operation: Operation, kind: type[R]) -> None:
        self._transport = transport
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
        self.operation = Operations(self._transport).get(self.name)
        return self.operation

    def cancel(self) -> None:
        """Asks to stop and undo it."""
        self.operation = Operations(self._transport).cancel(self.name)

    def result(self, timeout: float | None = None, on_progress: Progress | None = None) -> R:
        """Waits for the end and gives what came out. Raises what it failed with, or Deadline.

        timeout: seconds; None waits as long as it takes. on_progress: called with the operation
        now and whenever it changes. A lost connection is taken up again, for a minute.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if on_progress is not None:
            on_progress(self.operation)
        try:
            self._wait(deadline, on_progress)
        except wire.Interrupted as stop:
            mention(stop, f"{self.name} goes on: {self.operation.method} of {self._target}")
            raise
        return self._outcome()

    @property
    def _target(self) -> str:
        return self.operation.target or "the cluster"

    def _wait(self, deadline: float | None, told: Progress | None) -> None:
        """Until it has ended. Raises Deadline."""
        heard = time.monotonic()
        while not self.done:
            slice_s = WAIT_SLICE_S
            if deadline is not None:
                slice_s = min(slice_s, deadline - time.monotonic())
                if slice_s <= 0:
                    raise Deadline(
                        f"{self.name} goes on: {self.operation.stage}", operation=self.name
                    )
            try:
                self._listen(slice_s, told)
                heard = time.monotonic()
            except Unavailable:
                if time.monotonic() - heard > RECONNECT_S:
                    raise
                wire.sleep(RECONNECT_PAUSE_S)

    def _listen(self, slice_s: float, told: Progress | None) -> None:
        """Takes in how it changes, until it has ended or the slice of time is over."""
        operations = Operations(self._transport)
        if told is None:
            self.operation = operations.wait(self.name, slice_s)
            return
        watched = operations.watch(filter=f'name = "{self.name}"', timeout_s=slice_s)
        with suppress(Deadline), watched as changes:
            for change in changes:
                if change.resource is not None:
                    self._hear(change.resource, told)
                if self.done:
                    return
        self._hear(operations.get(self.name), told)  # raises if there is none any more

    def _hear(self, operation: Operation, told: Progress | None) -> None:
        changed, self.operation = operation != self.operation, operation
        if changed and told is not None:
            told(operation)

    def _outcome(self) -> R:
        operation = self.operation
        if operation.state != Operation.STATE_SUCCEEDED:
            raise from_status(operation.error, operation=operation.name)
        return unpacked(operation, self._kind)


class Working(Resources[R]):
    """A collection with methods that begin long work."""

    def _begin(
        self, method: Method, kind: type[K], options: Options, /, **fields: Any
    ) -> Pending[K]:
        """Begins it. kind: what comes out; Message for nothing."""
        started = self._ask(method, options, **fields)
        return Pending(self.transport, started, kind)


def unpacked(operation: Operation, kind: type[R]) -> R:
    """What came out of an operation; an empty message for those that leave nothing behind."""
    name = operation.result.TypeName() or "google.protobuf.Empty"
    result = symbol_database.Default().GetSymbol(name)() if kind is Message else kind()
    assert isinstance(result, kind)
    if operation.result.type_url and not operation.result.Unpack(result):
        raise Internal(f"{operation.name} gave a {operation.result.TypeName()} as its result")
    return result
