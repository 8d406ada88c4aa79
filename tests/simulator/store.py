"""The state store as the processes of a simulated cluster have it: one memory store shared by all,
each process with a connection that can be cut, a mirror that can be late, and a session that ends.

What a commit promises is kept (services.state.store); what only a network can do to it happens
here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_not

from services.mesh.errors import PvcError
from services.mesh.loop import parts_of
from services.state.changes import name_of
from services.state.lease import LocalLease, LocalLeases
from services.state.memory import MemoryCluster, MemoryStore
from services.state.mirror import unavailable
from services.state.store import Change, Conflict, Lease, Snapshot
from services.state.table import Row
from tests.simulator.engine import Engine, Event, Process

LATENCY_S = 0.005
"""From a commit to its being seen by the others, about."""
PATIENCE_S = 10.0
"""How long a call waits for a connection, as in services.state.zookeeper."""
PROOF_LAG_S = 1.1
"""How late the server that decides about sessions may hear of a sign of life; see Store."""
RECONNECT_S = 0.2
"""From the end of a cut to a connection."""

_NOBODYS = LocalLease(LocalLeases(lambda leases: None), "nobodys", "", "")

Observer = Callable[["SimStore", int, Sequence[Row]], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """What the state was from a time on."""

    time: float
    snapshot: Snapshot
    holdings: Mapping[str, Lease]
    """Lease → which holding of it is the one that is there."""


class Ensemble:
    """The servers of the store, and what they know: the truth."""

    def __init__(self, engine: Engine, seed: int, timeout_s: float) -> None:
        self.engine = engine
        self.timeout_s = timeout_s
        self.cluster = MemoryCluster()
        self.clients: list[SimStore] = []
        self.up = True
        self.seed = seed
        self.observe: Observer = lambda store, revision, rows: None
        """Told of every commit, with who made it."""
        self.session_began: Callable[[str, str], None] = lambda process, session: None
        self.session_ended: Callable[[str, str], None] = lambda process, session: None
        """Told of a process's name and session."""
        self._holdings: dict[str, Lease] = {}
        self.history: list[Moment] = [Moment(0.0, self.snapshot, {})]
        self.cluster.mirror.on_change(self._changed)

    @property
    def snapshot(self) -> Snapshot:
        """The truth."""
        return self.cluster.mirror.snapshot

    @property
    def newest(self) -> Moment:
        return self.history[-1]

    def past(self, seconds: float) -> Moment:
        """The truth so long ago."""
        then = self.engine.now - seconds
        for moment in reversed(self.history):
            if moment.time <= then:
                return moment
        return self.history[0]

    def held(self, lease: Lease) -> None:
        """A lease was acquired."""
        self._holdings[lease.name] = lease
        before = self.history[-1]
        self.history[-1] = Moment(before.time, before.snapshot, dict(self._holdings))

    def go_down(self, seconds: float) -> None:
        """The servers elect another leader: nobody is answered, no session ends meanwhile."""
        if not self.up:
            return
        self.up = False
        for client in self.clients:
            client.look()
        self.engine.after(seconds, self._come_up)

    def orphaned(self, process: Process) -> None:
        """The process died without anybody's hearing of it: its session ends in its time."""
        for client in self.clients:
            if client.belongs_to(process):
                client.look()

    def _come_up(self) -> None:
        self.up = True
        for client in self.clients:
            client.timer_restarts()
            client.look()

    def _changed(self) -> None:
        snapshot = self.snapshot
        leases = snapshot.leases
        if any(name not in leases for name in self._holdings):
            self._holdings = {k: v for k, v in self._holdings.items() if k in leases}
        self.history.append(Moment(self.engine.now, snapshot, dict(self._holdings)))
        for client in self.clients:
            client.news()


class SimStore:
    """Implements Store for one process."""

    def __init__(self, ensemble: Ensemble, process: Process, behind_s: float = 0.0) -> None:
        """behind_s: how old what it sees first is: it may have asked a server that lags."""
        self._ensemble = ensemble
        self._engine = ensemble.engine
        self._process = process
        self._random = random.Random(f"{ensemble.seed}/{process.name}/{len(ensemble.clients)}")
        self._inner = MemoryStore(ensemble.cluster)
        first = ensemble.past(behind_s)
        self._view, self._holdings = first.snapshot, first.holdings
        self._contacts: deque[float] = deque(maxlen=64)
        """When it was last answered."""
        self._arriving: Event | None = None
        self._expiry: Event | None = None
        self._expired = False
        self._silent = False
        self._closed = False
        self.cut = False
        self.late_s = 0.0
        """How much later than usual it hears of what others wrote."""
        self._lose: dict[int, float] = {}
        self._commits = 0
        self._held: dict[str, Lease] = {}
        self._listeners: list[Callable[[], None]] = []
        self._sleepers: list[Event] = []
        """Those that wait for a connection, or for news."""
        ensemble.clients.append(self)
        process.on_death.append(self._gone)
        ensemble.session_began(process.name, self._inner.session())
        self.news()

    # What the simulation does to it.

    @property
    def reachable(self) -> bool:
        """It would be answered now."""
        return not (self.cut or self._expired or self._silent) and self._ensemble.up

    @property
    def may_wait(self) -> bool:
        """A call may have to wait: for a connection, or for an answer that is going to be lost."""
        return (
            self._expired or self.cut or self._silent or not self._ensemble.up or bool(self._lose)
        )

    def set_cut(self, cut: bool) -> None:
        self.cut = cut
        self.look()

    def set_silent(self, silent: bool) -> None:
        """The process stands still: the store does not hear of it."""
        self._silent = silent
        self.look()

    def look(self) -> None:
        """Something may have changed about whether the store hears of it."""
        if self._closed:
            return
        if self.cut or self._silent or not self._process.alive:
            self._start_expiry()
        elif self._ensemble.up:
            self._engine.after(RECONNECT_S, self._reconnect)

    def expire(self) -> None:
        """The servers end its session."""
        if not self._ensemble.up:
            self._expiry = self._engine.after(self._ensemble.timeout_s, self.expire)
        elif not self._expired and not self._closed:
            self._expired = True
            self._cancel_expiry()
            session = self._inner.session()
            self._ensemble.session_ended(self._process.name, session)
            self._inner.close()
            if not self.cut and not self._silent and self._process.alive:
                self._engine.after(RECONNECT_S, self._reconnect)

    def lose_answer(self, commits: int, cut_s: float) -> None:
        """The so-many-th commit from now is carried out, and then the connection is cut."""
        self._lose[self._commits + commits] = cut_s

    def calm(self) -> None:
        """Nothing is held up or lost any more."""
        self.late_s = 0.0
        self._lose.clear()
        self.news()

    def timer_restarts(self) -> None:
        """A new leader of the servers gives every session its whole time."""
        if self._expiry is not None:
            self._cancel_expiry()
            self._expiry = self._engine.after(self._ensemble.timeout_s, self.expire)

    def news(self) -> None:
        """The truth changed: this process hears of it after a while."""
        if self.late_s:
            moment = self._ensemble.newest
            delay_s = self.late_s + self._latency()
            self._engine.after(delay_s, lambda: self._arrives(moment))
        elif self._arriving is None:
            self._arriving = self._engine.after(self._latency(), self._newest)

    def _latency(self) -> float:
        return LATENCY_S * (0.5 + self._random.random())

    def _newest(self) -> None:
        self._arriving = None
        if not self.late_s:
            self._arrives(self._ensemble.newest)

    def _arrives(self, moment: Moment) -> None:
        if not self.reachable or self._closed or self._process.frozen:
            return  # the connection brings it when it is back
        if moment.snapshot.revision >= self._view.revision:
            self._see(moment)
        else:  # its own commits brought newer rows, but no leases
            old = moment.snapshot.leases
            view = Snapshot(self._view.revision, self._view.tables, old)
            self._see(Moment(moment.time, view, moment.holdings))

    def _see(self, moment: Moment) -> None:
        snapshot, self._holdings = moment.snapshot, moment.holdings
        before, self._view = self._view, snapshot
        if before is snapshot:
            return
        leases = before.leases != snapshot.leases
        for loop in self._process.loops:
            reads = before.tables if loop.reads is None else loop.reads
            changed = any(map(is_not, parts_of(before, reads), parts_of(snapshot, reads)))
            if (leases and loop.reads != ()) or changed:
                loop.wake()
        for tell in self._listeners:
            tell()
        self._engine.hasten(self._sleepers)

    def _start_expiry(self) -> None:
        """It sends a sign of life every third of the timeout, and the server that decides hears of
        one after a while: it counts from the last that it has heard of."""
        if self._expiry is None and not self._expired:
            now, timeout_s = self._engine.now, self._ensemble.timeout_s
            lag_s = PROOF_LAG_S * min(1.0, self._random.random() * 1.5)
            known = now - lag_s - self._random.random() * timeout_s / 3
            heard = max((at for at in self._contacts if at <= now - lag_s), default=known)
            self._expiry = self._engine.at(max(known, heard) + timeout_s, self.expire)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _reconnect(self) -> None:
        if self.cut or self._silent or self._closed or not self._process.alive:
            return
        if not self._ensemble.up:
            return
        self._cancel_expiry()
        if self._expired:
            self._expired = False
            self._inner = MemoryStore(self._ensemble.cluster)
            self._ensemble.session_began(self._process.name, self._inner.session())
        self._contacts.append(self._engine.now)
        self._see(self._ensemble.newest)
        self._engine.hasten(self._sleepers)

    def _gone(self) -> None:
        """The process died; its session lives on for its time."""
        self._start_expiry()

    @property
    def writer(self) -> str:
        """Whose commits these are: "n1/compute"."""
        return self._process.name

    def holds(self, name: str) -> bool:
        """It truly holds that lease now."""
        try:
            self._ensemble.cluster.leases.check(self._held.get(name) or _NOBODYS)
        except PvcError:
            return False
        return True

    def remembered(self, name: str) -> Lease | None:
        """The lease of that name that it acquired last, held or not."""
        return self._held.get(name)

    def belongs_to(self, process: Process) -> bool:
        return self._process is process

    # What the process asks of it: see Store.

    def snapshot(self) -> Snapshot:
        """See Store."""
        return self._view

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        """See Store."""
        if not changes and held_by is None:
            return self._view.revision
        self._call("commit")
        before = self._ensemble.snapshot
        try:
            revision = self._inner.commit(changes, held_by)
        except Conflict:
            self.catch_up()
            raise
        finally:
            self._contacts.append(self._engine.now)
        if revision > before.revision:
            self._tell(before, changes, revision)
        self.catch_up()
        self._commits += 1
        if (cut_s := self._lose.pop(self._commits, None)) is not None:
            self._lost(cut_s, revision)
        self._process.gate("commit done")
        return revision

    def acquire(self, name: str, holder: str, heir_of: str = "") -> Lease | None:
        """See Store. What this process has heard of is answered at once, as in
        services.state.zookeeper_lease; it may be out of date."""
        mine, known = self._held.get(name), self._holdings.get(name)
        fresh = mine is None or mine.session == self._inner.session()
        if known is not None and fresh and self.reachable:
            if mine is known and mine.holder == holder:
                return mine
            if not heir_of:
                return None
        self._call("acquire")
        lease = self._inner.acquire(name, holder, heir_of)
        self._contacts.append(self._engine.now)
        if lease is not None:
            self._held[name] = lease
            self._ensemble.held(lease)
        newest = self._ensemble.newest
        self._holdings = newest.holdings
        if self._view.leases != newest.snapshot.leases:
            self._view = Snapshot(self._view.revision, self._view.tables, newest.snapshot.leases)
        self._process.gate("acquire done")
        return lease

    def prove(self, lease: Lease, timeout_s: float) -> None:
        """See Store."""
        self._call("prove", timeout_s)
        self._inner.prove(lease, timeout_s)
        self._contacts.append(self._engine.now)
        self._process.gate("prove done")

    def touch(self, timeout_s: float) -> None:
        """See Store."""
        self._call("touch", timeout_s)
        self._inner.touch(timeout_s)
        self._contacts.append(self._engine.now)
        self._process.gate("touch done")

    @property
    def session_timeout_s(self) -> float:
        """See Store."""
        return self._ensemble.timeout_s

    @property
    def proof_lag_s(self) -> float:
        """See Store."""
        return PROOF_LAG_S

    def session(self) -> str:
        """See Store."""
        return self._inner.session()

    def wait(self, revision: int, timeout_s: float) -> None:
        """See Store."""
        deadline = self._engine.now + timeout_s
        while self._view.revision < revision:
            if self._engine.now >= deadline:
                raise unavailable(f"revision {revision} has not come within {timeout_s:g} s")
            self._engine.sleep(LATENCY_S)

    def watch(self, after: int) -> SimWatch:
        """See Store. Tells that something came, not what."""
        return SimWatch(self, after)

    def rest(self, until: float) -> None:
        """The caller stands still until then, or until there is news."""
        self._engine.sleep_until(until, self._sleepers)
        self._process.gate("waiting")

    @property
    def time(self) -> float:
        return self._engine.now

    def on_change(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See Store."""
        self._listeners.append(wake)
        return lambda: self._listeners.remove(wake)

    def close(self) -> None:
        """See Store."""
        if not self._closed and not self._expired:
            self._closed = True
            self._cancel_expiry()
            self._ensemble.session_ended(self._process.name, self._inner.session())
            self._inner.close()

    def _call(self, what: str, patience_s: float = PATIENCE_S) -> None:
        """Returns once the servers can be asked. Raises STORE_UNAVAILABLE."""
        self._process.gate(what)
        deadline = self._engine.now + patience_s
        while not self.reachable:
            if self._closed or self._engine.now >= deadline or not self._engine.can_sleep():
                raise unavailable("the store does not answer, so nothing was written")
            self._engine.sleep_until(deadline, self._sleepers)
            self._process.gate(f"{what} again")

    def catch_up(self) -> None:
        """It sees the newest state."""
        newest, view = self._ensemble.newest, self._view
        if newest.snapshot.revision != view.revision:
            tables = newest.snapshot.tables
            seen = Snapshot(newest.snapshot.revision, tables, view.leases)
            self._see(Moment(newest.time, seen, self._holdings))

    def _tell(self, before: Snapshot, changes: Sequence[Change], revision: int) -> None:
        after = self._ensemble.snapshot
        names = [name_of(change) for change in changes]
        rows = [Row(name, after.named(name), before.named(name)) for name in names]
        self._ensemble.observe(self, revision, rows)

    def _lost(self, cut_s: float, revision: int) -> None:
        """The answer did not come: it is looked for until the patience is over."""
        self.set_cut(True)
        self._engine.after(cut_s, lambda: self.set_cut(False))
        deadline = self._engine.now + PATIENCE_S
        while not self.reachable and self._engine.can_sleep() and self._engine.now < deadline:
            self._engine.sleep_until(deadline, self._sleepers)
            self._process.gate("looking for the commit")
        if not self.reachable:
            raise unavailable(f"whether revision {revision} was written could not be found out")


class SimWatch:
    """For those who wait for a change, on a strand."""

    def __init__(self, store: SimStore, after: int) -> None:
        self._store = store
        self._after = after

    def next(self, timeout_s: float) -> None:
        """See Watch.next."""
        deadline = self._store.time + timeout_s
        while self._store.snapshot().revision <= self._after and self._store.time < deadline:
            self._store.rest(deadline)

    def close(self) -> None:
        """Nothing is held."""
