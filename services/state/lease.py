"""Leases of stores that live in one process: who holds what, for as long as that process lives.

Keeps no rows, and is not for a cluster: there a lease is a znode.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.state.store import Lease

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def check_lease_name(name: str) -> None:
    """Lease names are chosen by PVC itself, so another form is a mistake in it."""
    assert _NAME.fullmatch(name), f"{name!r} cannot be the name of a lease"


def lease_lost(name: str) -> PvcError:
    """The writer's lease has ended."""
    return PvcError(
        reason_pb2.REASON_NOT_LEADER,
        f"the lease {name} is no longer held, so nothing was written: acquire it again first",
    )


@dataclass(frozen=True, slots=True, eq=False)
class LocalLease:
    """A lease in LocalLeases. Two of the same name are never the same lease."""

    leases: LocalLeases
    name: str
    holder: str
    session: str

    def release(self) -> None:
        """See Lease.release."""
        self.leases.drop(self)


class LocalLeases:
    """Who holds what. `publish` is called under the lock with lease → holder after every change."""

    def __init__(self, publish: Callable[[Mapping[str, str]], None]) -> None:
        self._lock = threading.RLock()
        self._publish = publish
        self._held: dict[str, LocalLease] = {}

    def acquire(self, name: str, holder: str, session: str, heir_of: str = "") -> LocalLease | None:
        """See Store.acquire."""
        check_lease_name(name)
        with self._lock:
            there = self._held.get(name)
            if there is not None and (there.session != heir_of or heir_of == session):
                return there if (there.session, there.holder) == (session, holder) else None
            lease = LocalLease(self, name, holder, session)
            self._held[name] = lease
            self._tell()
            return lease

    def check(self, lease: Lease | None) -> None:
        """Raises PvcError NOT_LEADER unless that very lease is still held; None passes."""
        with self._lock:
            if lease is not None and self._held.get(lease.name) is not lease:
                raise lease_lost(lease.name)

    def prove(self, lease: Lease, session: str) -> None:
        """Raises PvcError NOT_LEADER unless that very lease is held by that session."""
        self.check(lease)
        if lease.session != session:
            raise lease_lost(lease.name)

    def drop(self, lease: LocalLease) -> None:
        """Ends a lease if it is still held."""
        with self._lock:
            if self._held.get(lease.name) is lease:
                del self._held[lease.name]
                self._tell()

    def end_session(self, session: str) -> None:
        """Ends all leases of a session."""
        with self._lock:
            for lease in [x for x in self._held.values() if x.session == session]:
                del self._held[lease.name]
            self._tell()

    def _tell(self) -> None:
        self._publish({name: lease.holder for name, lease in self._held.items()})
