"""The store of a cluster, in ZooKeeper: reads from a mirror, each commit one transaction.

Every commit sets the head znode at the version that belongs to the revision that it was
decided on. So it happens only if nothing at all changed since, whichever process wrote: the rows
that it was checked against are the rows that are there, and revisions have no gaps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kazoo.exceptions import NodeExistsError

from pvc.core.v1 import store_pb2
from services.mesh.clock import Clock, SystemClock
from services.mesh.errors import PvcError
from services.state.changes import StoredRows, stored_rows
from services.state.ensemble import Connection, Cut, Ensemble, Refused
from services.state.follower import Follower
from services.state.lease import lease_lost
from services.state.mirror import Mirror, MirrorWatch, unavailable
from services.state.store import Change, Conflict, Lease, Snapshot
from services.state.znodes import Znodes
from services.state.zookeeper_lease import ZookeeperLease, ZookeeperLeases

MULTI_BYTES_MAX = 1_000_000
"""ZooKeeper's own limit (jute.maxbuffer) is 1,048,575; beyond it it just hangs up."""

_STEP_OVERHEAD_BYTES = 16
_STOP_TIMEOUT_S = 5.0
_LAG_SLACK_S = 0.1

log = logging.getLogger("pvc.state")


@dataclass(slots=True)
class _Attempt:
    """A commit on its way. unsure: the revision it may have become when an answer did not come."""

    changes: Sequence[Change]
    lease: ZookeeperLease | None
    id: str
    deadline: float
    unsure: int = 0
    current: bool = False
    """The mirror was seen to be as new as the state since this began: a conflict is one."""


class ZookeeperStore:
    """See Store. patience_s: how long a write waits for a connection before it gives up.

    Raises PvcError STORE_UNAVAILABLE when no server answers within `start_timeout_s`.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        clock: Clock | None = None,
        patience_s: float = 10.0,
        start_timeout_s: float = 15.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self._patience_s = patience_s
        self._znodes = Znodes(ensemble.root)
        self._mirror = Mirror()
        self._writing = threading.Lock()
        self._closed = False
        self._tick_s = ensemble.tick_s
        self._connection = Connection(ensemble, self._clock, self._on_state)
        self._follower = Follower(self._connection, self._znodes, self._mirror)
        self._leases = ZookeeperLeases(
            self._connection, self._znodes, self._follower, self._clock, patience_s
        )
        self._connection.start(start_timeout_s)
        try:
            self._begin()
        except BaseException as error:
            self._connection.stop()
            if isinstance(error, Cut):
                raise unavailable(f"{error} while the state was loaded; try again") from error
            raise

    def snapshot(self) -> Snapshot:
        """See Store."""
        return self._mirror.snapshot

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """See Store."""
        assert held_by is None or isinstance(held_by, ZookeeperLease)
        deadline = self._connection.deadline(self._patience_s)
        attempt = _Attempt(changes, held_by, self._clock.new_id(), deadline)
        if not changes and held_by is None:
            return self._mirror.snapshot.revision
        if not self._writing.acquire(timeout=self._patience_s):
            raise self._gave_up(attempt)
        try:
            return self._carry_through(attempt)
        finally:
            self._writing.release()

    def wait(self, revision: int, timeout_s: float) -> None:
        """See Store."""
        self._mirror.wait(revision, timeout_s)

    def watch(self, after: int) -> MirrorWatch:
        """See Store."""
        return self._mirror.watch(after)

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store."""
        return self._mirror.on_change(wake)

    def acquire(self, name: str, holder: str, heir_of: str = "") -> ZookeeperLease | None:
        """See Store."""
        self._check_open()
        return self._leases.acquire(name, holder, heir_of)

    def prove(self, lease: Lease, timeout_s: float) -> None:
        """See Store. A transaction that only checks: most servers must agree to it, so a server
        that leads no longer, or is cut off from the one that does, cannot answer it. (ZooKeeper's
        own `sync` is answered by the server that leads alone, without asking the others.)"""
        assert isinstance(lease, ZookeeperLease)
        self._check_open()
        transaction = self._connection.transaction()
        transaction.check(lease.path, version=0)
        with self._in_time():
            refused = self._connection.carry_out(transaction, self._connection.deadline(timeout_s))
        if refused is not None or lease.session != self._connection.session:
            raise lease_lost(lease.name)

    def touch(self, timeout_s: float) -> None:
        """See Store."""
        self._check_open()
        with self._in_time():
            self._connection.get(self._znodes.root, timeout_s=timeout_s)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            yield
        except Cut as cut:
            if cut.silent:
                self._connection.try_another()
            raise unavailable(str(cut)) from cut

    @property
    def session_timeout_s(self) -> float:
        """See Store."""
        return self._connection.session_timeout_s

    @property
    def proof_lag_s(self) -> float:
        """See Store. Servers tell the one that leads of signs of life when it asks, every half
        tick. Sessions shorter than two ticks are not granted unless a server is told to."""
        tick_s = self._tick_s or self.session_timeout_s / 2
        return tick_s / 2 + _LAG_SLACK_S

    def session(self) -> str:
        """See Store."""
        return self._connection.session

    def close(self) -> None:
        """See Store."""
        if self._closed:
            return
        self._closed = True
        self._mirror.close()
        self._follower.stop(_STOP_TIMEOUT_S)
        self._connection.stop()

    def _on_state(self) -> None:
        self._follower.wake()

    def _begin(self) -> None:
        """Makes an empty state if there is none, and loads it."""
        if self._connection.get(self._znodes.head) is None:
            transaction = self._connection.transaction()
            z = self._znodes
            for path in (z.root, z.rows, z.log, z.leases, z.turns):
                transaction.create(path, b"")
            transaction.create(z.head, b"0")
            deadline = self._connection.deadline(self._patience_s)
            refused = self._connection.carry_out(transaction, deadline)
            if refused is not None and not isinstance(refused.error, NodeExistsError):
                raise unavailable(f"cannot make the state at {z.root}: {refused.error!r}")
            self._connection.sync()
        self._follower.start()

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("the state was closed: this process is ending; nothing was written")

    def _carry_through(self, attempt: _Attempt) -> int:
        """Tries until the commit is done, refused, or the time is over.

        While it is unsure whether it happened, only the same commit for the same revision is sent
        again: at most one of the copies can count, and the log tells whether one did.
        """
        while self._connection.left_s(attempt.deadline):
            self._check_open()
            try:
                verdict = self._try(attempt)
                if isinstance(verdict, int):
                    return verdict
                if attempt.unsure and self._happened(attempt):
                    return attempt.unsure
                if isinstance(verdict, Exception):
                    raise verdict
            except Cut as cut:
                log.warning("a commit waits: %s", cut)
                self._connection.wait_up(attempt.deadline)
        raise self._gave_up(attempt)

    def _try(self, attempt: _Attempt) -> int | Exception | None:
        """The revision, what refuses the commit, or None to look and try again."""
        before = self._mirror.snapshot
        revision = before.revision + 1
        if attempt.unsure not in (0, revision):
            return None
        try:
            rows = stored_rows(before, attempt.changes, revision)
        except Conflict as conflict:
            return conflict if self._is_current(attempt) else None
        if attempt.changes and not rows and not self._is_current(attempt):
            return None
        transaction = self._transaction(attempt, before, rows)
        if rows:
            refused = self._send(attempt, transaction, revision)
        elif transaction.operations:
            refused = self._connection.carry_out(transaction, attempt.deadline)
        else:
            return before.revision
        if refused is not None:
            return self._why(attempt, refused)
        if rows:
            size = sum(row.ByteSize() for row in rows.values() if row)
            self._follower.take(revision, rows, size)
        return revision if rows else before.revision

    def _is_current(self, attempt: _Attempt) -> bool:
        """Whether the mirror can be trusted to refuse; if not, it can the next time."""
        if attempt.current:
            return True
        self._follower.catch_up(sync=True)
        attempt.current = True
        return False

    def _send(self, attempt: _Attempt, transaction: Any, revision: int) -> Refused | None:
        """Unsure from before it is sent until the answer; if that is yes, for good."""
        before, attempt.unsure = attempt.unsure, revision
        try:
            refused = self._connection.carry_out(transaction, attempt.deadline)
        except Cut as cut:
            if not cut.sent:
                attempt.unsure = before
            raise
        if refused is not None:
            attempt.unsure = before
        return refused

    def _why(self, attempt: _Attempt, refused: Refused) -> Exception | None:
        """What a refused step means: ours are in the order lease, head, log, rows."""
        leases = 0 if attempt.lease is None else 1
        if refused.index < leases:
            assert attempt.lease is not None
            return lease_lost(attempt.lease.name)
        if refused.index < leases + 2:
            self._follower.catch_up()
            attempt.current = True
            return None
        log.error("a row in ZooKeeper is not what the log says (%r): loading all", refused.error)
        self._follower.load()
        return None

    def _happened(self, attempt: _Attempt) -> bool:
        """Whether a commit whose answer did not come is in the log. Not there yet: stays unsure."""
        self._follower.catch_up(sync=True)
        attempt.current = True
        entry = self._connection.get(self._znodes.entry(attempt.unsure))
        if entry is not None:
            if store_pb2.StoredCommit.FromString(entry[0]).id == attempt.id:
                return True
            attempt.unsure = 0
        elif self._mirror.snapshot.revision >= attempt.unsure:
            raise self._gave_up(attempt)
        return False

    def _transaction(self, attempt: _Attempt, before: Snapshot, rows: StoredRows) -> Any:
        """One transaction: the lease is held, nothing else was committed, the log, the rows."""
        z, transaction = self._znodes, self._connection.transaction()
        if attempt.lease is not None:
            transaction.check(attempt.lease.path, version=0)
        if not rows:
            return transaction
        revision = before.revision + 1
        version = self._follower.head_version(before.revision)
        transaction.set_data(z.head, str(revision).encode(), version=version)
        transaction.create(z.entry(revision), _log_entry(attempt.id, revision, rows))
        for name, row in rows.items():
            if row is None:
                transaction.delete(z.row(name))
            elif before.named(name) is None:
                transaction.create(z.row(name), row.SerializeToString())
            else:
                transaction.set_data(z.row(name), row.SerializeToString())
        _check_size(transaction)
        return transaction

    def _gave_up(self, attempt: _Attempt) -> PvcError:
        if attempt.unsure:
            return unavailable(
                f"the connection to ZooKeeper broke while revision {attempt.unsure} was written, "
                "and whether it was could not be found out: read again before acting"
            )
        return unavailable(
            f"ZooKeeper did not answer within {self._patience_s:g} s, so nothing was written: see "
            "whether most of its servers run and can be reached, and try again"
        )


def _log_entry(commit_id: str, revision: int, rows: StoredRows) -> bytes:
    commit = store_pb2.StoredCommit(revision=revision, id=commit_id)
    for name, row in rows.items():
        commit.changes.add(name=name, row=row)
    return commit.SerializeToString()


def _check_size(transaction: Any) -> None:
    size = sum(len(step.serialize()) + _STEP_OVERHEAD_BYTES for step in transaction.operations)
    assert size <= MULTI_BYTES_MAX, f"a transaction of {size} bytes: see COMMIT_BYTES_MAX"
