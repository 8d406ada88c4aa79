"""Has the audit journal written by a thread of its own, and knows whether that can be done: a disk
that is full, read-only or hangs is in nobody's way but that thread's. Decides nothing about calls.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial

from services.gateway.hand import Hand, Outcome
from services.gateway.journal import AuditEntry, Journal
from services.mesh.clock import Clock

WAIT_S = 5.0
"""A call waits for its line so long at most; and for none once the disk has hung for so long."""
SYNC_MAX_S = 30.0
"""So long a busy disk may take to bring all to rest; then it hangs."""
OPENING_S = 5.0
CLOSING_S = 5.0
LINES_MAX = 10_000
"""Lines that wait for the disk."""


class Scribe:
    """Thread-safe."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._lines = Hand("audit-journal", LINES_MAX, clock)
        self._syncs = Hand("audit-sync", 1, clock)
        self._lock = threading.Lock()
        self._error = self._sync_error = ""
        self._missing = self._mended = 0
        """Lines that are not in the file; those of them that it can do without since it was
        written anew."""
        self._rewriting: Outcome | None = None

    def write(self, write: Callable[[Journal], None]) -> Outcome:
        """Writes after all that came before."""
        outcome = self._lines.give(partial(write, self._journal))
        outcome.add_done_callback(self._wrote)
        return outcome

    async def waited(self, line: Outcome) -> str:
        """ "" once the line is written, or why it is not: it cannot be, or not in time."""
        if not line.done() and not self._hang:
            await asyncio.wait((asyncio.wrap_future(line),), timeout=WAIT_S)
        return line.result() if line.done() else self._hang or _hanging("write", self._journal)

    def rewrite(self, going: Sequence[AuditEntry], ended: Sequence[AuditEntry]) -> None:
        """The file is anew, and has these alone, and what is written from now on."""
        with self._lock:
            missing = self._missing
        outcome = self._lines.give(partial(self._journal.rewrite, going, ended))
        self._rewriting = outcome
        outcome.add_done_callback(partial(self._rewrote, missing))

    def sync(self) -> None:
        """Begins to bring to rest what was written, unless that is going on."""
        if self._syncs.idle:
            self._syncs.give(self._journal.sync).add_done_callback(self._synced)

    @property
    def wants_rewrite(self) -> bool:
        """The file is large, or lacks lines; it may be time to try whether it can be written."""
        if self._rewriting is not None and not self._rewriting.done():
            return False
        with self._lock:
            lacking = bool(self._error) or self._missing > self._mended
        return lacking or self._journal.is_large

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._journal.size

    @property
    def trouble(self) -> str:
        """Why the journal cannot be written at the moment; "" when it can."""
        return self._hang or self._error or self.sync_trouble

    @property
    def sync_trouble(self) -> str:
        """Why what is written might not outlive a failure of the machine; "" when it does."""
        if self._syncs.busy_s() >= SYNC_MAX_S:
            return _hanging("sync", self._journal)
        return self._sync_error

    def finish(self, timeout_s: float) -> bool:
        """Waits until all is written; False if that takes longer."""
        return self._lines.finish(timeout_s) and self._syncs.finish(timeout_s)

    def close(self) -> None:
        """Writes what it has, if that does not take long."""
        self._lines.give(self._journal.close)
        self._lines.end()
        self._syncs.end()
        self.finish(CLOSING_S)

    @property
    def _hang(self) -> str:
        hangs = self._lines.busy_s() >= WAIT_S
        return _hanging("write", self._journal) if hangs else ""

    def _wrote(self, outcome: Outcome) -> None:
        with self._lock:
            self._error = outcome.result()
            self._missing += bool(self._error)

    def _rewrote(self, missing: int, outcome: Outcome) -> None:
        with self._lock:
            self._error = outcome.result()
            if not self._error:
                self._mended = missing

    def _synced(self, outcome: Outcome) -> None:
        with self._lock:
            self._sync_error = outcome.result()
            self._missing += bool(self._sync_error)


def _hanging(what: str, journal: Journal) -> str:
    return f"a {what} of {journal.path} does not return"
