"""Waiting for other services' operations, as our own copy of the state tells of them.

Woken by every change of the state; asks nobody and decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pvc.core.v1 import operation_pb2, reason_pb2
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, refuse
from services.mesh.rows import FINAL
from services.provisioner.core import facts
from services.state.store import Store

Operation = operation_pb2.Operation
OnStep = Callable[[Operation], None]
"""Told of the operation at every look; may raise to stop waiting."""

STALL_S = 2400.0
"""An operation that nothing is heard of for so long has nobody who works on it. Longer than any
step of another service takes without a word."""
LOOK_S = 1.0
"""A look without any change of the state: for what time alone brings."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """See the module."""

    store: Store
    clock: Clock
    stall_s: float = STALL_S
    look_s: float = LOOK_S

    def end_of(self, name: str, on_step: OnStep) -> Operation:
        """The operation once it has ended, however it ended.

        Raises INTERRUPTED when it vanished, DEADLINE when nobody works on it, and what `on_step`
        raises.
        """
        last = b""
        with self._changes() as changed:
            since = self.clock.monotonic()
            while True:
                changed.clear()
                operation = self.store.snapshot().find(Operation, name)
                if operation is None:
                    refuse(reason_pb2.REASON_INTERRUPTED, f"{name} vanished before it ended")
                on_step(operation)
                if operation.state in FINAL:
                    return operation
                if (now_is := operation.SerializeToString()) != last:
                    last, since = now_is, self.clock.monotonic()
                if self.clock.monotonic() - since > self.stall_s:
                    raise _stalled(operation, self.stall_s)
                changed.wait(self.look_s)

    def success_of(self, name: str, on_step: OnStep) -> Operation:
        """The operation once it succeeded. Raises its error when it did not, and as `end_of`."""
        operation = self.end_of(name, on_step)
        if operation.state != Operation.STATE_SUCCEEDED:
            raise PvcError.from_status(operation.error)
        return operation

    def quiet(self, target: str, on_step: OnStep) -> None:
        """Returns once no operation works on the resource. Raises as `end_of`."""
        while True:
            operation = next(facts.unfinished(self.store.snapshot(), target), None)
            if operation is None:
                return
            self.end_of(operation.name, on_step)

    @contextmanager
    def _changes(self) -> Iterator[threading.Event]:
        changed = threading.Event()
        stop = self.store.on_change(changed.set)
        try:
            yield changed
        finally:
            stop()


def _stalled(operation: Operation, stall_s: float) -> PvcError:
    return PvcError(
        reason_pb2.REASON_DEADLINE,
        f"{operation.name} ({operation.method.rpartition('/')[2]} of {operation.target}) has said "
        f"nothing for {stall_s:g} s; see whether the node that works on it is up",
    )
