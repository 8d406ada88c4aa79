"""Runs operations of one service on one node: takes them up, does the work, writes the outcome.

A job may be cut at any point: by an error, a cancel, or the end of the process. What it did is on
its undo stack, or is safe to do again: an operation whose worker died is taken up again from its
beginning.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.message import Message

from pvc.core.v1 import operation_pb2, reason_pb2
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.log import bound
from services.mesh.loop import Read
from services.state.store import Change, Conflict, Put, Store

Operation = operation_pb2.Operation

ATTEMPTS_MAX = 3
"""A job whose worker died this often fails: it may be what kills the worker."""
PROGRESS_PERIOD_S = 0.5
"""Progress is written at most this often, except for a new stage."""
COMMIT_TRIES = 20
AWAY = reason_pb2.REASON_STORE_UNAVAILABLE

log = logging.getLogger("pvc.jobs")


class TakenOver(PvcError):
    """The session that the job was begun with is lost, or another node was given the operation."""


class Unwritten(PvcError):
    """The commit of an outcome did not answer: whether it was written is not known."""


class Task:
    """A running job's hold on its operation. Used by the job's thread alone."""

    def __init__(self, store: Store, clock: Clock, operation: Operation) -> None:
        self.store = store
        self.clock = clock
        self.name = operation.name
        self.target = operation.target
        self.node = operation.node
        self.caller = operation.caller
        self.attempt = operation.attempts
        self.undo = ExitStack()
        """What to do, last first, when the job fails or is cancelled. Dropped when it succeeds."""
        self._written_at = clock.monotonic()

    def request(self, kind: type[Any]) -> Any:
        """The request, as the message type that it was."""
        request = kind()
        unpacked = self.operation().request.Unpack(request)
        assert unpacked, f"{self.name} does not carry a {kind.DESCRIPTOR.full_name}"
        return request

    def stage(self, text: str, percent: int = 0) -> None:
        """Says what is done now, in the log too. Raises CANCELLED if somebody asked for that."""
        self.check()

        def change(operation: Operation) -> None:
            operation.stage = text
            operation.percent = max(operation.percent, percent)
            rows.log_line(operation, text, self.clock.now())

        self._update(change)

    def progress(self, percent: int) -> None:
        """Says how far it is, as often as worth it. Raises CANCELLED if somebody asked for it."""
        self.check()
        if self.clock.monotonic() - self._written_at < PROGRESS_PERIOD_S:
            return

        def change(operation: Operation) -> None:
            operation.percent = max(operation.percent, min(percent, 99))

        self._update(change)

    def log(self, text: str) -> None:
        """Adds a line to the operation's log."""
        self._update(lambda operation: rows.log_line(operation, text, self.clock.now()))

    def check(self) -> None:
        """Raises CANCELLED when somebody asked to cancel; call it wherever stopping is safe."""
        if self.operation().cancel_requested:
            raise PvcError(reason_pb2.REASON_CANCELLED, "cancelled by request")

    def operation(self) -> Operation:
        """The operation as it is now. Raises TakenOver when it is no longer this worker's."""
        operation = self.store.snapshot().find(Operation, self.name)
        mine = operation is not None and operation.node == self.node
        if operation is None or not mine or operation.worker != self.store.session():
            raise TakenOver(
                reason_pb2.REASON_INTERRUPTED, f"{self.name} is no longer this worker's"
            )
        return operation

    def moved(self) -> bool:
        """Another node was given the operation: this one was held for dead."""
        operation = self.store.snapshot().find(Operation, self.name)
        return operation is not None and operation.node != self.node

    def _update(self, change: Callable[[Operation], None]) -> None:
        for _ in range(COMMIT_TRIES):
            operation = rows.copied(self.operation())
            change(operation)
            try:
                self.store.commit([Put(operation)])
            except Conflict:
                continue
            self._written_at = self.clock.monotonic()
            return
        raise _contended(self.name)


def work_of(service: str) -> tuple[Read, ...]:
    """What has the workers of a service look for work."""
    return (lambda snapshot: rows.unfinished(snapshot, service),)


Job = Callable[[Task], "Outcome | Message | None"]
"""Does the work of one method; returns the result, or an Outcome with changes to commit as well."""


class Outcome:
    """A job's result together with rows to write in the same commit that ends the operation."""

    def __init__(self, result: Message | None, changes: Callable[[], list[Change]]) -> None:
        self.result = result
        self.changes = changes
        """Called for every try to commit, so that it reads the rows afresh."""


class Jobs:
    """The worker. `step` takes up what is there for it; a loop calls it when the store changed."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        service: str,
        node: str,
        jobs: Mapping[str, Job],
        parallel: int = 4,
    ) -> None:
        """jobs: method name ("pvc.storage.v1.StorageService/CreateVolume") → what does it."""
        self._store = store
        self._clock = clock
        self._service = service
        self._node = node
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix=f"{service}-job")
        self._lock = threading.Lock()
        self._mine: set[str] = set()
        self._left: set[str] = set()
        """Ours, but nobody works on them any more: their outcomes could not be written."""

    def step(self) -> None:
        """Starts every operation of this service and node that nobody alive works on.

        Oldest first, and one at a time for each target.
        """
        for operation in self._waiting():
            with self._lock:
                if operation.name in self._mine:
                    continue
                if (taken := self._take(operation)) is None:
                    continue
                self._mine.add(taken.name)
                self._left.discard(taken.name)
            if taken.state not in rows.FINAL:
                self._pool.submit(self._run, taken)
            else:
                self._mine.discard(taken.name)

    def idle(self) -> bool:
        """No job runs."""
        with self._lock:
            return not self._mine

    def stop(self) -> None:
        """Takes up nothing more. What runs goes on until the process ends; it is begun again."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _waiting(self) -> list[Operation]:
        found: list[Operation] = []
        busy: set[str] = set()
        session = self._store.session()
        for operation in rows.unfinished(self._store.snapshot(), self._service):
            if operation.method not in self._jobs or operation.node != self._node:
                continue
            free = operation.worker != session or operation.name in self._left
            if operation.target not in busy and free:
                found.append(operation)
            busy.add(operation.target)
        return found

    def _take(self, operation: Operation) -> Operation | None:
        """The operation with our name on it, or None when another was quicker."""
        now = self._clock.now()
        if operation.attempts >= ATTEMPTS_MAX:
            error = PvcError(
                reason_pb2.REASON_INTERRUPTED,
                f"the worker died {operation.attempts} times while doing this; it was given up",
            )
            taken = rows.enter_operation(operation, Operation.STATE_FAILED, now, error=error)
        elif operation.cancel_requested and operation.state == Operation.STATE_PENDING:
            error = PvcError(reason_pb2.REASON_CANCELLED, "cancelled before it began")
            taken = rows.enter_operation(operation, Operation.STATE_CANCELLED, now, error=error)
        else:
            taken = rows.enter_operation(operation, Operation.STATE_RUNNING, now)
            taken.attempts += 1
            taken.worker = self._store.session()
        try:
            self._store.commit([Put(taken)])
        except Conflict:
            return None
        return taken

    def _run(self, operation: Operation) -> None:
        try:
            with bound(service=self._service, operation=operation.name):
                self._work(Task(self._store, self._clock, operation), operation.method)
        except PvcError as error:
            # The store is away or the operation is another's now: it is taken up again later.
            log.warning("%s: outcome not written: %s", operation.name, error.message)
            self._left.add(operation.name)
        except Exception:
            log.exception("%s: its worker failed; it is taken up again", operation.name)
            self._left.add(operation.name)
        finally:
            with self._lock:
                self._mine.discard(operation.name)

    def _work(self, task: Task, method: str) -> None:
        """Does the job and writes its outcome. Raises PvcError when that cannot be written."""
        try:
            self._succeed(task, self._jobs[method](task))
            return
        except Unwritten:
            # It may have been written all the same, so nothing of it may be undone.
            task.undo.pop_all()
            raise
        except PvcError as error:
            failure = error
        except Exception as error:
            log.exception("%s: %s failed", task.name, method)
            failure = PvcError(reason_pb2.REASON_INTERNAL, f"{task.name} failed: {error}")
        if task.moved():
            # The node that has it now goes on from what there is: undoing would take that away.
            task.undo.pop_all()
            raise TakenOver(failure.reason, f"{task.name} is another node's now") from failure
        failure = self._undone(task, failure)
        if isinstance(failure, TakenOver) or failure.reason == AWAY:
            raise failure
        self._fail(task, failure)

    def _succeed(self, task: Task, result: Outcome | Message | None) -> None:
        outcome = result if isinstance(result, Outcome) else Outcome(result, list)

        def ended(current: Operation) -> list[Change]:
            now, state = self._clock.now(), Operation.STATE_SUCCEEDED
            after = rows.enter_operation(current, state, now, result=outcome.result)
            return [Put(after), *outcome.changes()]

        self._write(task, ended)
        task.undo.pop_all()

    def _fail(self, task: Task, error: PvcError) -> None:
        cancelled = error.reason == reason_pb2.REASON_CANCELLED
        state = Operation.STATE_CANCELLED if cancelled else Operation.STATE_FAILED
        log.info("%s: %s: %s", task.name, error.reason_name, error.message)

        def ended(current: Operation) -> list[Change]:
            return [Put(rows.enter_operation(current, state, self._clock.now(), error=error))]

        self._write(task, ended)

    def _write(self, task: Task, ended: Callable[[Operation], list[Change]]) -> None:
        for _ in range(COMMIT_TRIES):
            changes = ended(task.operation())
            try:
                self._store.commit(changes)
            except Conflict:
                continue
            except PvcError as error:
                if error.reason == AWAY:
                    raise Unwritten(error.reason, error.message) from error
                raise
            return
        raise _contended(task.name)

    @staticmethod
    def _undone(task: Task, error: PvcError) -> PvcError:
        try:
            task.undo.close()
        except Exception as left:
            mistake = not isinstance(left, PvcError)
            log.error("%s: undo failed: %s", task.name, left, exc_info=mistake)
            error.message += f"; undoing it failed too ({left}), so something of it may remain"
        return error


def _contended(name: str) -> PvcError:
    return PvcError(reason_pb2.REASON_BUSY, f"others keep changing {name}; try again")


def request_of(operation: Operation) -> Message:
    """An operation's request, unpacked."""
    kind = symbol_database.Default().GetSymbol(operation.request.TypeName())
    request: Message = kind()
    operation.request.Unpack(request)
    return request
