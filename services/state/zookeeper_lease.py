"""Leases as ephemeral znodes.

A holding's znode has a name that is never used again, so a commit that checks it proves that this
very holding has not ended, whoever holds the lease now.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from kazoo.exceptions import NodeExistsError, NoNodeError

from services.mesh.clock import Clock
from services.state.ensemble import Connection, Cut, session_text
from services.state.follower import Follower
from services.state.lease import check_lease_name
from services.state.mirror import unavailable
from services.state.znodes import Znodes, escaped


@dataclass(frozen=True, slots=True, eq=False)
class ZookeeperLease:
    """A holding of a lease. path: its znode, there for exactly as long as it is held."""

    leases: ZookeeperLeases
    name: str
    holder: str
    path: str
    session: str

    def release(self) -> None:
        """See Lease.release. Raises PvcError STORE_UNAVAILABLE when ZooKeeper does not answer: then
        it ends with the session."""
        self.leases.release(self)


class ZookeeperLeases:
    """What this process acquires and releases."""

    def __init__(
        self,
        connection: Connection,
        znodes: Znodes,
        follower: Follower,
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._connection = connection
        self._znodes = znodes
        self._follower = follower
        self._clock = clock
        self._patience_s = patience_s
        self._acquiring = threading.Lock()
        self._held: dict[str, ZookeeperLease] = {}

    def acquire(self, name: str, holder: str, heir_of: str = "") -> ZookeeperLease | None:
        """See Store.acquire."""
        check_lease_name(name)
        if (known := self._known(name)) is not None:
            mine = self._held.get(name)
            if mine and mine.path == known and mine.holder == holder:
                return mine
            if not heir_of:
                return None
        path = self._znodes.lease(name, self._clock.new_id())
        wanted = ZookeeperLease(self, name, holder, path, self._connection.session)
        deadline = self._connection.deadline(self._patience_s)
        with self._acquiring:
            while self._connection.left_s(deadline):
                try:
                    if self._try(wanted, heir_of, deadline):
                        return self._current(wanted)
                except Cut:
                    self._connection.wait_up(deadline)
        raise unavailable(f"ZooKeeper does not answer, so the lease {name} was not acquired")

    def release(self, lease: ZookeeperLease) -> None:
        """Ends a holding, if it has not ended."""
        deadline = self._connection.deadline(self._patience_s)
        with self._acquiring:
            if self._held.get(lease.name) is lease:
                del self._held[lease.name]
        while self._connection.left_s(deadline):
            try:
                self._connection.delete_many([lease.path])
                self._follower.read_leases()
                return
            except Cut:
                self._connection.wait_up(deadline)
        raise unavailable(
            f"ZooKeeper does not answer: the lease {lease.name} ends when it gives up this session"
        )

    def _known(self, name: str) -> str | None:
        """The znode of the holding, as far as this process has heard; None when there may be none.

        Asked at every round of every loop that would like to lead, so it must cost nothing. It may
        be out of date: only a commit proves a lease, and whoever is told of its end tries again."""
        mine = self._held.get(name)
        if not self._connection.up or (mine and mine.session != self._connection.session):
            return None
        prefix = f"{escaped(name)}~"
        for child in self._follower.holdings():
            if child.startswith(prefix):
                return f"{self._znodes.leases}/{child}"
        return None

    def _try(self, wanted: ZookeeperLease, heir_of: str, deadline: float) -> bool:
        """True when the lease is held, by us or by another; False to try again."""
        version = self._turn(wanted.name)
        prefix = f"{escaped(wanted.name)}~"
        held = [child for child in self._follower.read_leases() if child.startswith(prefix)]
        paths = [f"{self._znodes.leases}/{child}" for child in held]
        if not all(self._passes_on(path, heir_of) for path in paths):
            return True
        transaction = self._connection.transaction()
        transaction.set_data(self._znodes.turn(wanted.name), b"", version=version)
        for path in paths:
            transaction.delete(path)
        transaction.create(wanted.path, wanted.holder.encode(), ephemeral=True)
        self._connection.carry_out(transaction, deadline)
        return False

    def _passes_on(self, path: str, heir_of: str) -> bool:
        """It is the dead session's, or gone by now: then the transaction fails, and the next one
        does without it."""
        if not heir_of or heir_of == self._connection.session:
            return False
        found = self._connection.get(path)
        return found is None or session_text(found[1].ephemeralOwner) == heir_of

    def _current(self, wanted: ZookeeperLease) -> ZookeeperLease | None:
        """The holding that is there now, if it is ours for the same holder."""
        there = {f"{self._znodes.leases}/{child}" for child in self._follower.read_leases()}
        if wanted.path in there:
            self._held[wanted.name] = wanted
            return wanted
        mine = self._held.get(wanted.name)
        return mine if mine and mine.path in there and mine.holder == wanted.holder else None

    def _turn(self, name: str) -> int:
        """The version of the znode that orders acquisitions: read before looking who holds it."""
        path = self._znodes.turn(name)
        found = self._connection.get(path)
        if found is None:
            transaction = self._connection.transaction()
            transaction.create(path, b"")
            refused = self._connection.carry_out(transaction, self._connection.deadline(5.0))
            assert refused is None or isinstance(refused.error, NodeExistsError | NoNodeError)
            return 0 if refused is None else self._turn(name)
        return int(found[1].version)
