"""Brings what was written down of calls into the state: journal first, state a second later, in few
commits. The doors tell it of calls; a loop of its own commits.

Where the journal cannot be written, as on a full disk, calls go on, loudly: who is to make room has
to come in. Where the state cannot be written, entries wait, in the journal too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pvc.core.v1 import event_pb2, meta_pb2
from pvc.gateway.v1 import audit_pb2
from services.gateway import audit
from services.gateway.crowds import Crowds
from services.gateway.journal import Journal
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.rows import copied, event
from services.state.store import ANY_VERSION, Put, Store

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


class Recorder:
    """Thread-safe. path: the journal; None for none (a gateway that keeps nothing on disk)."""

    def __init__(self, store: Store, clock: Clock, node: str, path: Path | None) -> None:
        self._store, self._clock, self._node = store, clock, node
        self._lock, self._committing = threading.Lock(), threading.Lock()
        self._crowds = Crowds()
        self._began: dict[str, float] = {}
        """When calls that go on were let in."""
        self._going: dict[str, AuditEntry] = {}
        self._shown: set[str] = set()
        """Those of them that are in the state already."""
        self._ended: dict[str, AuditEntry] = {}
        self._lost = 0
        self._broken = False
        self._complained_s = -COMPLAINT_PERIOD_S
        self._tidings: list[Put] = []
        """Events that go with the next commit."""
        self._journal = Journal(path) if path is not None else None
        self._written(self._take_over)

    def begin(self, entry: AuditEntry) -> None:
        """A call is let in: on disk when this returns."""
        with self._lock:
            self._going[entry.name] = entry
            self._began[entry.name] = self._clock.monotonic()
            self._written(lambda journal: journal.begin(entry))

    def end(self, entry: AuditEntry) -> None:
        """A call has ended, or was turned away; `entry` is complete."""
        with self._lock:
            begun = self._going.pop(entry.name, None) is not None
            self._began.pop(entry.name, None)
            if self._crowds.is_counted(entry, self._clock.monotonic()):
                if begun:  # or the next process would take it for unfinished
                    self._written(lambda journal: journal.keep([entry.name]))
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
            if self._lost:
                self._mark_lost()
            batch, tidings = list(self._batch()), tuple(self._tidings)
        self._written(Journal.sync)  # it may be slow, and nobody is to wait for it
        if not batch and not tidings:
            return
        self._store.commit([*map(Put, batch), *tidings])
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
        with self._lock:
            if self._journal is not None:
                self._journal.close()

    def _take_over(self, journal: Journal) -> None:
        """What the process before left: calls without an end have one that nobody knows."""
        left = journal.open()
        known = self._store.snapshot()
        for entry in left.ended.values():
            there = known.find(AuditEntry, entry.name)
            if there is None or there.outcome == AuditEntry.OUTCOME_RUNNING:
                self._ended[entry.name] = entry
        for entry in left.going.values():
            entry.outcome, entry.message = AuditEntry.OUTCOME_UNKNOWN, DIED
            journal.end(entry)
            self._ended[entry.name] = entry
            audit.write(entry)

    def _wait(self, entry: AuditEntry) -> None:
        if len(self._ended) >= WAITING_MAX:
            self._lost += 1
            self._written(lambda journal: journal.keep([entry.name]))
        else:
            self._written(lambda journal: journal.end(entry))
            self._ended[entry.name] = entry
        if self._journal is not None and self._journal.size > JOURNAL_BYTES:
            self._written(self._tidied)

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
        now = self._clock.now()
        entry = AuditEntry(
            name=f"auditEntries/{self._clock.new_id()}", node=self._node, time=now,
            meta=meta_pb2.Meta(create_time=now), caller="nobody", message=LOST,
            outcome=AuditEntry.OUTCOME_UNKNOWN, count=self._lost,
        )  # fmt: skip
        self._lost = 0
        self._ended = {entry.name: entry, **self._ended}
        self._written(lambda journal: journal.end(entry))

    def _kept(self, batch: list[AuditEntry]) -> None:
        ended = [row.name for row in batch if row.outcome != AuditEntry.OUTCOME_RUNNING]
        for name in ended:
            self._ended.pop(name, None)
        self._shown = (self._shown | {row.name for row in batch}) & self._going.keys()
        self._written(lambda journal: journal.keep(ended))
        self._written(self._tidied)

    def _tidied(self, journal: Journal) -> None:
        journal.tidy(self._going.values(), self._ended.values())

    def _written(self, write: Callable[[Journal], None]) -> None:
        """Writes to the journal; complains, from time to time, when it cannot be written."""
        if self._journal is None:
            return
        try:
            write(self._journal)
            self._broken = False
        except OSError as error:
            now_s = self._clock.monotonic()
            if self._broken and now_s - self._complained_s < COMPLAINT_PERIOD_S:
                return
            if not self._broken:
                self._tidings.append(self._event(error))
            self._broken, self._complained_s = True, now_s
            log.error("the audit journal cannot be written, calls go on without it: %s", error)

    def _event(self, error: OSError) -> Put:
        """What is seen where nobody reads the log."""
        return event(
            self._clock.new_id(), self._clock.now(), self._node,
            "the audit journal cannot be written, calls go on without it",
            str(error), cause=f"gateway {self._node.removeprefix('nodes/')}",
            severity=event_pb2.Event.SEVERITY_ERROR,
        )  # fmt: skip
