"""Looks after the pools of one node: opens them, measures them, and tells when a file vanished or
one is strange.

It writes only the status of rows that no operation is working on, and removes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pvc.core.v1 import event_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Change, Conflict, Delete, Put, Snapshot, Store
from services.storage.core import converge
from services.storage.core.accept import Pool, Volume
from services.storage.core.converge import Finding, Seen
from services.storage.drivers.driver import Driver
from services.storage.workshop import disk_of, place_of

LOOK_PERIOD_S = 15.0
"""How often the folders are looked at when nothing happens."""
ROWS_PER_COMMIT = 100

log = logging.getLogger("pvc.storage")


class Agent:
    """Call `step` whenever the state changed and from time to time; it looks at folders only when
    that is due.
    """

    def __init__(self, store: Store, clock: Clock, driver: Driver, node: str) -> None:
        self._store = store
        self._clock = clock
        self._driver = driver
        self._node = node
        self._looked: dict[str, float] = {}

    def step(self) -> None:
        """Looks at every pool of the node that is due and that no operation works on."""
        snapshot = self._store.snapshot()
        busy = converge.busy_names(snapshot)
        for pool in snapshot.rows(Pool):
            if pool.spec.node == self._node and pool.name not in busy and self._is_due(pool):
                self._look(snapshot, pool, busy)

    def _is_due(self, pool: Pool) -> bool:
        last = self._looked.get(pool.meta.uid)
        changed = pool.status.generation != pool.meta.generation
        new = changed and pool.status.state != storage_pb2.PoolStatus.STATE_FAILED
        left = pool.meta.HasField("delete_time")
        return new or left or last is None or self._clock.monotonic() - last >= LOOK_PERIOD_S

    def _look(self, snapshot: Snapshot, pool: Pool, busy: frozenset[str]) -> None:
        self._looked[pool.meta.uid] = self._clock.monotonic()
        if converge.never_made(snapshot, pool):
            self._driver.close_pool(place_of(pool))
            says = f"pool {pool.name} is not made"
            return self._write([Finding(pool, says, converge.GIVEN_UP, removed=True)])
        seen = self._seen(pool)
        findings = [converge.pool_finding(snapshot, pool, seen)]
        if not seen.why:
            for volume in snapshot.rows(Volume, pool.name):
                if volume.name not in busy:
                    findings.append(self._volume_finding(pool, volume, seen))
        self._write([finding for finding in findings if finding is not None])

    def _seen(self, pool: Pool) -> Seen:
        place = place_of(pool)
        try:
            # A folder is taken once; later a missing mark means that its file system is away.
            facts = self._driver.open_pool(place, make=pool.status.generation == 0)
            files = {file.path: file.allocated_bytes for file in self._driver.list(place)}
        except PvcError as error:
            return Seen(error.message)
        return Seen("", facts.capacity_bytes, facts.available_bytes, files)

    def _volume_finding(self, pool: Pool, volume: Volume, seen: Seen) -> Finding | None:
        finding = converge.volume_finding(volume, seen.files or {})
        if finding is None and converge.unsettled(volume):
            try:
                facts = self._driver.stat(disk_of(pool, volume))
            except PvcError as error:
                log.warning("%s: cannot be read: %s", volume.name, error.message)
                return None
            return converge.settled(volume, facts.size_bytes)
        return finding

    def _write(self, findings: Sequence[Finding]) -> None:
        changes: list[Change] = []
        for finding in findings:
            changes += self._removal(finding.row) if finding.removed else [Put(finding.row)]
            if finding.says:
                log.info("%s (%s)", finding.says, finding.why)
                changes.append(self._event(finding))
        for start in range(0, len(changes), ROWS_PER_COMMIT):
            try:
                self._store.commit(changes[start : start + ROWS_PER_COMMIT])
            except Conflict as conflict:
                # Somebody else was there first; what is still true then is found again.
                log.debug("%s", conflict)
                self._looked.clear()

    def _removal(self, row: Pool | Volume) -> list[Change]:
        snapshots = self._store.snapshot().rows(storage_pb2.Snapshot, row.name)
        return [Delete(gone.name, gone.meta.etag) for gone in (row, *snapshots)]

    def _event(self, finding: Finding) -> Change:
        failed = finding.row.status.state in (
            storage_pb2.VolumeStatus.STATE_FAILED
            if isinstance(finding.row, Volume)
            else storage_pb2.PoolStatus.STATE_FAILED,
        )
        return rows.event(
            self._clock.new_id(),
            self._clock.now(),
            finding.row.name,
            finding.says,
            finding.why,
            cause=f"storage {self._node.removeprefix('nodes/')}",
            severity=event_pb2.Event.SEVERITY_ERROR if failed else event_pb2.Event.SEVERITY_INFO,
        )
