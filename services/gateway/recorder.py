"""Brings what was written down of calls into the state: journal first, state a second later, in few
commits. The doors tell it of calls; a loop of its own commits.

Where the journal cannot be written, as on a disk that is full or hangs, calls go on, loudly: who is
to make room has to come in. A strict recorder lets no change in then. Where the state cannot be
written, entries wait, in the journal too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from pvc.core.v1 import event_pb2, meta_pb2, reason_pb2
from pvc.gateway.v1 import audit_pb2, gateway_pb2
from services.gateway import audit
from services.gateway.crowds import Crowds
from services.gateway.hand import Outcome
from services.gateway.journal import Journal
from services.gateway.scribe import OPENING_S, Scribe
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.rows import copied, event
from services.state.store import ANY_VERSION, Put, Snapshot, Store

log = logging.getLogger("pvc.audit")

AuditEntry = audit_pb2.AuditEntry

PERIOD_S = 1.0
"""Between two commits."""
LASTING_S = 5.0
"""A call that lasts longer is shown while it goes on."""
COMMIT_ENTRIES_MAX = 200
COMMIT_BYTES_MAX = 96 * 1024
WAITING_MAX = 10_000
"""Entries that wait for the state; those beyond are counted, and are in the log alone."""
JOURNAL_BYTES = 16 << 20
"""From this size on the journal is made smaller even when nothing comes into the state."""
COMPLAINT_PERIOD_S = 60.0
DIED = "the gateway ended in the middle of the call; whether it was done, the resource tells"
LOST = "the state could not be written for long; the log of the node has these calls"
UNWRITTEN = (
    "so many calls went on though they could not be written down first; each is here all the same, "
    "unless the gateway ended in the middle of it"
)


class Recorder:
    """Thread-safe, and waits for no disk. path: the journal; None for none (a gateway that keeps
    nothing on disk). strict: no change is let in that is not in the journal."""

    def __init__(
        self, store: Store, clock: Clock, node: str, path: Path | None, *, strict: bool = False
    ) -> None:
        self._store, self._clock, self._node, self._strict = store, clock, node, strict
        self._lock, self._committing = threading.Lock(), threading.Lock()
        self._crowds = Crowds()
        self._began: dict[str, float] = {}
        """When calls that go on were let in."""
        self._going: dict[str, AuditEntry] = {}
        self._shown: set[str] = set()
        """Those of them that are in the state already."""
        self._ended: dict[str, AuditEntry] = {}
        self._lost = 0
        self._unwritten: AuditEntry | None = None
        """Stands for the calls that went on without being in the journal."""
        self._broken = False
        self._complained_s = -COMPLAINT_PERIOD_S
        self._tidings: list[Put] = []
        """Events that go with the next commit."""
        self._scribe = Scribe(Journal(path), clock) if path is not None else None
        self._open()

    async def let_in(self, entry: AuditEntry, *, changes: bool) -> None:
        """A call is let in: it is in the journal when this returns, unless that takes too long or
        cannot be. changes: it may change something. Raises AUDIT_FAILED when it may not go on."""
        line = self.begin(entry)
        if self._scribe is None:
            return
        why = await self._scribe.waited(line)
        if self._strict and changes and (why := why or self._scribe.sync_trouble):
            raise _refused(self._node, why)
        if why:
            self._goes_on(entry)

    def begin(self, entry: AuditEntry) -> Outcome:
        """The same, and does not wait for the journal."""
        with self._lock:
            self._going[entry.name] = entry
            self._began[entry.name] = self._clock.monotonic()
            return self._write(lambda journal: journal.begin(entry))

    def end(self, entry: AuditEntry) -> None:
        """A call has ended, or was turned away; `entry` is complete."""
        with self._lock:
            begun = self._going.pop(entry.name, None) is not None
            self._began.pop(entry.name, None)
            if self._crowds.is_counted(entry, self._clock.monotonic()):
                if begun:  # or the next process would take it for unfinished
                    self._write(lambda journal: journal.keep([entry.name]))
                return
            self._wait(entry)
        audit.write(entry)

    def step(self) -> None:
        """Commits what waits, a bounded part of it. Raises PvcError while the state cannot be
        written."""
        with self._committing:
            self._commit()

    def settle(self) -> None:
        """What has ended by now is in the state when this returns, unless that cannot be written
        or it is more than one commit takes: who did something sees it among what was done."""
        with self._lock:
            if not self._ended:
                return
        try:
            self.step()
        except PvcError as error:
            log.info("audit entries are yet to come into the state: %s", error)

    def _commit(self) -> None:
        with self._lock:
            self._disperse()
            faults = self._look_after_journal()
            if self._lost:
                self._mark_lost()
            batch, tidings = list(self._batch()), tuple(self._tidings)
        if not batch and not tidings and not faults:
            return
        self._store.commit([*map(Put, batch), *tidings, *faults])
        with self._lock:
            self._kept(batch)
            del self._tidings[: len(tidings)]

    def close(self) -> None:
        """Commits what it can; the rest is for the next process."""
        with self._lock:
            self._disperse(everything=True)
        try:
            self.step()
        except PvcError as error:
            log.warning("audit entries wait for the next process: %s", error)
        if self._scribe is not None:
            self._scribe.close()

    def written(self, timeout_s: float) -> bool:
        """Waits until the journal has all it was given; False if that takes longer."""
        return self._scribe is None or self._scribe.finish(timeout_s)

    def _open(self) -> None:
        """What the process before left comes first, but a disk that hangs keeps nobody out."""
        if self._scribe is None:
            return
        try:
            self._scribe.write(self._take_over).result(OPENING_S)
        except TimeoutError:
            log.error("the audit journal cannot be read yet, calls go on without it")

    def _take_over(self, journal: Journal) -> None:
        """What the process before left: calls without an end have one that nobody knows."""
        left = journal.open()
        known = self._store.snapshot()
        ended = [entry for entry in left.ended.values() if _is_news(known, entry)]
        for entry in left.going.values():
            if _is_news(known, entry):
                entry.outcome, entry.message = AuditEntry.OUTCOME_UNKNOWN, DIED
                ended.append(entry)
                audit.write(entry)
        with self._lock:
            self._ended.update((entry.name, entry) for entry in ended)
        journal.rewrite((), ended)

    def _goes_on(self, entry: AuditEntry) -> None:
        """Counts a call that is not in the journal."""
        with self._lock:
            if self._unwritten is None:
                self._unwritten = self._standing_for(1, entry.time, UNWRITTEN)
            else:
                self._unwritten.count += 1
                self._unwritten.last_time.CopyFrom(entry.time)

    def _look_after_journal(self) -> list[Put]:
        """Complains while it cannot be written, tells afterwards what it has missed, and keeps it
        small and whole. Gives what the state is to know of it."""
        if self._scribe is None:
            return []
        self._scribe.sync()
        if trouble := self._scribe.trouble:
            self._complain(trouble)
        elif self._unwritten is not None:
            entry, self._unwritten = self._unwritten, None
            log.warning("%d calls went on without the audit journal", entry.count)
            self._wait(entry)
        self._broken = bool(trouble)
        self._tidy()
        return self._faults(trouble)

    def _wait(self, entry: AuditEntry) -> None:
        if len(self._ended) >= WAITING_MAX:
            self._lost += 1
            self._write(lambda journal: journal.keep([entry.name]))
        else:
            self._write(lambda journal: journal.end(entry))
            self._ended[entry.name] = entry
        if self._scribe is not None and self._scribe.size > JOURNAL_BYTES:
            self._tidy()

    def _disperse(self, *, everything: bool = False) -> None:
        """Crowds whose time is over become entries."""
        for entry in self._crowds.due(self._clock.monotonic(), everything=everything):
            self._wait(entry)
            audit.write(entry)

    def _batch(self) -> Iterator[AuditEntry]:
        """What the next commit takes."""
        room = COMMIT_BYTES_MAX
        for number, entry in enumerate(self._due()):
            room -= entry.ByteSize()
            if number >= COMMIT_ENTRIES_MAX or room < 0:
                return
            row = copied(entry)
            row.meta.etag = ANY_VERSION
            yield row

    def _due(self) -> Iterator[AuditEntry]:
        yield from self._ended.values()
        now_s = self._clock.monotonic()
        for name, entry in self._going.items():
            if name not in self._shown and now_s - self._began[name] >= LASTING_S:
                row = copied(entry)
                row.outcome = AuditEntry.OUTCOME_RUNNING
                yield row

    def _mark_lost(self) -> None:
        """One entry stands for those that could not wait; it comes first."""
        entry = self._standing_for(self._lost, self._clock.now(), LOST)
        self._lost = 0
        self._ended = {entry.name: entry, **self._ended}
        self._write(lambda journal: journal.end(entry))

    def _standing_for(self, count: int, time: Timestamp, message: str) -> AuditEntry:
        return AuditEntry(
            name=f"auditEntries/{self._clock.new_id()}", node=self._node, time=time,
            meta=meta_pb2.Meta(create_time=time), caller="nobody", message=message,
            outcome=AuditEntry.OUTCOME_UNKNOWN, count=count,
        )  # fmt: skip

    def _kept(self, batch: list[AuditEntry]) -> None:
        ended = [row.name for row in batch if row.outcome != AuditEntry.OUTCOME_RUNNING]
        for name in ended:
            self._ended.pop(name, None)
        self._shown = (self._shown | {row.name for row in batch}) & self._going.keys()
        if ended:
            self._write(lambda journal: journal.keep(ended))
        self._tidy()

    def _write(self, write: Callable[[Journal], None]) -> Outcome:
        if self._scribe is not None:
            return self._scribe.write(write)
        nothing: Outcome = Future()
        nothing.set_result("")
        return nothing

    def _tidy(self) -> None:
        if self._scribe is not None and self._scribe.wants_rewrite:
            self._scribe.rewrite(list(self._going.values()), list(self._ended.values()))

    def _complain(self, why: str) -> None:
        """In the log from time to time, and once where nobody reads the log."""
        now_s = self._clock.monotonic()
        if not self._broken:
            self._tidings.append(self._event(why))
        elif now_s - self._complained_s < COMPLAINT_PERIOD_S:
            return
        self._complained_s = now_s
        log.error("%s: %s", self._stance, why)

    def _faults(self, trouble: str) -> list[Put]:
        """What everybody is to see of the gateway, if that is not what they see."""
        name = f"gateways/{self._node.removeprefix('nodes/')}"
        faults = [f"{self._stance}: {trouble}"] if trouble else []
        row = self._store.snapshot().find(gateway_pb2.Gateway, name)
        if faults == list(row.faults if row is not None else ()):
            return []
        after = gateway_pb2.Gateway(name=name, faults=faults)
        after.meta.etag = ANY_VERSION
        return [Put(after)]

    @property
    def _stance(self) -> str:
        then = "changes are refused" if self._strict else "calls go on without it"
        return f"the audit journal cannot be written, {then}"

    def _event(self, why: str) -> Put:
        return event(
            self._clock.new_id(), self._clock.now(), self._node, self._stance, why,
            cause=f"gateway {self._node.removeprefix('nodes/')}",
            severity=event_pb2.Event.SEVERITY_ERROR,
        )  # fmt: skip


def _is_news(known: Snapshot, entry: AuditEntry) -> bool:
    """The state does not tell yet how this call ended."""
    there = known.find(AuditEntry, entry.name)
    return there is None or there.outcome == AuditEntry.OUTCOME_RUNNING


def _refused(node: str, why: str) -> PvcError:
    return PvcError(
        reason_pb2.REASON_AUDIT_FAILED,
        f"nothing was done: the gateway of {node} cannot write down who changes what ({why}), and "
        "lets no change in until it can ([audit] strict); see to the disk there, or ask another "
        "node's gateway",
    )
