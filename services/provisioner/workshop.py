"""What every job of the provisioner works with: the state, the other services, and the verbs that
bring volumes about and take them away. Every verb may be repeated, by another worker too."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, TypeVar

from google.protobuf.message import Message

from pvc.coordinator.v1 import coordinator_service_pb2 as coordinator
from pvc.core.v1 import operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage
from services.mesh import rows
from services.mesh.amend import amend
from services.mesh.clock import Clock
from services.mesh.errors import PvcError, refuse
from services.mesh.jobs import Task
from services.provisioner.core import facts
from services.provisioner.core.facts import Volume
from services.provisioner.neighbours import Neighbours
from services.provisioner.waiting import OnStep, Waiting
from services.state.store import Delete, Store

log = logging.getLogger("pvc.provisioner")

READY = storage_pb2.VolumeStatus.STATE_READY

Operation = operation_pb2.Operation
R = TypeVar("R", bound=Message)


class Part:
    """A part of an operation's way: from one percentage to another."""

    def __init__(self, task: Task, begin: int, end: int) -> None:
        self.task = task
        self._begin = begin
        self._end = end
        self._said = -1

    def at(self, fraction: float) -> None:
        """Says how far this part is, if that is new. Raises CANCELLED if somebody asked for it."""
        percent = int(self._begin + (self._end - self._begin) * fraction)
        if percent == self._said:
            self.task.check()
        else:
            self.task.progress(percent)
            self._said = percent


def holding(task: Task) -> OnStep:
    """Waits on for as long as the operation is this worker's, though it may be cancelled."""

    def on_step(operation: Operation) -> None:
        task.operation()

    return on_step


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be made a volume of: opened when it is needed, under a name for people."""

    open: Callable[[], BinaryIO]
    size: int
    name: str
    format: storage_pb2.ImageFormat.ValueType


def source_of_bytes(content: bytes, name: str) -> Source:
    """Raw bytes as a Source."""
    return Source(lambda: BytesIO(content), len(content), name, storage_pb2.IMAGE_FORMAT_RAW)


@dataclass(frozen=True, slots=True)
class Workshop:
    """See the module."""

    store: Store
    clock: Clock
    neighbours: Neighbours
    waiting: Waiting

    # --- Rows of our own.

    def change(self, kind: type[R], name: str, change: Callable[[R], None]) -> R | None:
        """Commits a change of the row as it is now; None if there is no such row."""
        return amend(self.store, kind, name, change)

    def drop(self, name: str) -> None:
        """Removes a row, whatever it is now."""
        self.store.commit([Delete(name, "*")])

    def ours(self, task: Task) -> bool:
        """The operation is still this worker's: another's things are not ours to undo."""
        operation = self.store.snapshot().find(Operation, task.name)
        return operation is not None and operation.worker == self.store.session()

    # --- Work of others.

    def ask(self, task: Task, request: Message, step: str, node: str = "") -> Operation:
        """Begins work under a request id that this attempt alone uses, whoever sends it again."""
        request.request_id = (  # type: ignore[attr-defined]
            f"{facts.id_of(task.name)}-{task.attempt}-{step}"
        )
        return self.neighbours.begin(request, task.caller, node)

    def follow(self, part: Part) -> OnStep:
        """What passes the progress of another's operation on, and has it stopped when ours is
        cancelled."""
        said = ""

        def on_step(operation: Operation) -> None:
            nonlocal said
            try:
                if operation.stage and operation.stage != said:
                    said = operation.stage
                    part.task.log(f"{facts.id_of(operation.target)}: {said}")
                part.at(operation.percent / 100)
            except PvcError as error:
                if error.reason == reason_pb2.REASON_CANCELLED:
                    self._stop(part.task, operation)
                raise

        return on_step

    def _stop(self, task: Task, operation: Operation) -> None:
        """Has another's operation cancelled, and waits until it is undone."""
        if operation.state in rows.FINAL:
            return
        self.neighbours.begin(coordinator.CancelOperationRequest(name=operation.name), task.caller)
        self.waiting.end_of(operation.name, holding(task))

    # --- Volumes.

    def node_of(self, pool: str) -> str:
        """The node whose pool it is; "" when any will do."""
        row = self.store.snapshot().find(storage_pb2.Pool, pool)
        return row.spec.node if row is not None else ""

    def make_volume(
        self, part: Part, name: str, mark: str, begin: Callable[[], Operation]
    ) -> Volume:
        """The volume of that name with our mark, made by `begin` unless an earlier attempt did.

        Raises ALREADY_EXISTS when it is another's, and what making it raised.
        """
        on_step = self.follow(part)
        self.waiting.quiet(name, on_step)
        if self.store.snapshot().find(Volume, name) is None:
            self._begun(name, mark, begin, on_step)
        volume = self.store.snapshot().find(Volume, name)
        if volume is None:
            refuse(reason_pb2.REASON_INTERRUPTED, f"somebody removed {name} as it was made")
        if volume.spec.description != mark:
            text = f"{name} exists, and was made by somebody else: delete it, and ask again"
            refuse(reason_pb2.REASON_ALREADY_EXISTS, text)
        if volume.status.state != READY:
            text = f"{name} cannot be used: {volume.status.why}"
            refuse(reason_pb2.REASON_STORAGE_FAILED, text)
        return volume

    def _begun(self, name: str, mark: str, begin: Callable[[], Operation], on_step: OnStep) -> None:
        try:
            operation = begin()
        except PvcError as error:
            if error.reason != reason_pb2.REASON_ALREADY_EXISTS:
                raise
            # An answer that got lost, or an earlier attempt's request that came late.
            made = facts.making_of(self.store.snapshot(), name, mark)
            if made is None:
                raise
            operation = made
        self.waiting.success_of(operation.name, on_step)

    def import_volume(
        self, task: Task, span: tuple[int, int], request: storage.ImportVolumeRequest,
        source: Source | None = None,
    ) -> Volume:  # fmt: skip
        """A volume of an uploaded file, or of `source`, which is uploaded first and removed after.
        The node that keeps the file is asked, whichever does the work.

        request: without request_id, its description is our mark.
        """
        begin, end = span
        uploaded = begin + (end - begin) // 3 if source is not None else begin
        name = f"{request.parent}/volumes/{request.volume_id}"
        node = facts.node_of_file(request.file) or self.node_of(request.parent)
        sent: list[str] = []

        def bring() -> Operation:
            if source is not None:
                request.file = self._upload(Part(task, begin, uploaded), source, node)
                request.source_format = source.format
                sent.append(request.file)
            step = hashlib.sha256(f"{name}{request.file}".encode()).hexdigest()[:16]
            return self.ask(task, request, f"import-{step}", node)

        try:
            return self.make_volume(Part(task, uploaded, end), name, request.description, bring)
        finally:
            for file in sent:
                self._drop_file(file, node)

    def _drop_file(self, file: str, node: str) -> None:
        """What cannot be removed now, because it is read or its service is away, lives a day."""
        try:
            self.neighbours.drop_file(file, node)
        except PvcError as error:
            log.warning("%s stays until its day is over: %s", file, error.message)

    def _upload(self, part: Part, source: Source, node: str) -> str:
        def on_bytes(sent: int) -> None:
            part.at(sent / max(source.size, 1))

        with source.open() as file:
            return self.neighbours.upload(file, source.size, source.name, on_bytes, node)

    def remove_volume(self, task: Task, name: str, mark: str = "", step: str = "") -> None:
        """Removes a volume, if it is there; with a mark only one that bears it."""
        self.waiting.quiet(name, holding(task))
        volume = self.store.snapshot().find(Volume, name)
        if volume is None or (mark and volume.spec.description != mark):
            return
        request = storage.DeleteVolumeRequest(name=name, force=True)
        node = self.node_of(facts.pool_of(name))
        try:
            operation = self.ask(task, request, step or f"remove-{facts.id_of(name)}", node)
            self.waiting.success_of(operation.name, holding(task))
        except PvcError as error:
            if error.reason != reason_pb2.REASON_NOT_FOUND:
                raise
