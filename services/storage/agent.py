"""Looks after the pools of one node, and those that it shares with others: opens them, measures
them, and tells when a file vanished or one is strange. Of a shared pool it writes its own part, and
the rest where it speaks for all.

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
from services.storage.core import converge, sharing
from services.storage.core.accept import Pool, Volume
from services.storage.core.converge import Finding, Seen
from services.storage.drivers.driver import Driver, Place
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
            ours = pool.spec.shared or pool.spec.node == self._node
            if ours and pool.name not in busy and self._is_due(snapshot, pool):
                self._look(snapshot, pool, busy)

    def _is_due(self, snapshot: Snapshot, pool: Pool) -> bool:
        last = self._looked.get(pool.meta.uid)
        if last is None or self._clock.monotonic() - last >= LOOK_PERIOD_S:
            return True
        changed = pool.status.generation != pool.meta.generation
        new = changed and pool.status.state != storage_pb2.PoolStatus.STATE_FAILED
        left = pool.meta.HasField("delete_time")
        return (new or left) and sharing.speaks(snapshot, pool, self._node)

    def _look(self, snapshot: Snapshot, pool: Pool, busy: frozenset[str]) -> None:
        self._looked[pool.meta.uid] = self._clock.monotonic()
        place = place_of(pool, self._node)
        if converge.never_made(snapshot, pool):
            if not sharing.speaks(snapshot, pool, self._node):
                return None
            self._driver.close_pool(place)
            says = f"pool {pool.name} is not made"
            return self._write([Finding(pool, says, converge.GIVEN_UP, removed=True)])
        seen = self._seen(pool, place)
        if pool.spec.shared and (part := converge.part_finding(pool, seen, self._node)) is not None:
            # First it is said, and then asked who speaks for all: that depends on it.
            self._looked.pop(pool.meta.uid)
            return self._write([part])
        if not sharing.speaks(snapshot, pool, self._node):
            return None
        findings = [converge.pool_finding(snapshot, pool, seen, self._node)]
        if not seen.why:
            self._clear(snapshot, place)
            for volume in snapshot.rows(Volume, pool.name):
                if volume.name not in busy:
                    findings.append(self._volume_finding(pool, volume, seen))
        return self._write([finding for finding in findings if finding is not None])

    def _clear(self, snapshot: Snapshot, place: Place) -> None:
        """What dead nodes were making when they died is nobody's."""
        lasting = sharing.lasting(snapshot)
        if not place.node or place.node not in lasting:
            return
        try:
            self._driver.clear(place, lasting)
        except PvcError as error:
            log.warning("what dead nodes left in %s stays: %s", place.path, error.message)

    def _seen(self, pool: Pool, place: Place) -> Seen:
        try:
            # A folder is taken once; later a missing mark means that its file system is away.
            make = pool.status.generation == 0 and not pool.spec.shared
            facts = self._driver.open_pool(place, make)
            files = {file.path: file.allocated_bytes for file in self._driver.list(place)}
        except PvcError as error:
            return Seen(error.message)
        return Seen("", facts.capacity_bytes, facts.available_bytes, files, facts.mark)

    def _volume_finding(self, pool: Pool, volume: Volume, seen: Seen) -> Finding | None:
        finding = converge.volume_finding(volume, seen.files or {})
        if finding is None and converge.unsettled(volume):
            try:
                facts = self._driver.stat(disk_of(pool, volume, self._node))
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
        failed = finding.wrong or finding.row.status.state in (
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
