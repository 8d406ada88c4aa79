"""The coordinator at work: takes the lead if nobody has it, shows the state to `decide`, writes
what comes back.

All that it writes goes out under the lease that makes it the leader, so that a leader who is one no
longer writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1.cluster_pb2 import ClusterIdentity
from pvc.core.v1 import event_pb2, operation_pb2, reason_pb2
from pvc.gateway.v1 import audit_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.expire import ROWS_AT_ONCE, expired
from services.coordinator.core.leaving import belongings
from services.coordinator.core.limits import limits_of
from services.coordinator.core.nodes import is_restless
from services.coordinator.core.plan import (
    DecideCluster,
    DecideNode,
    DecideVm,
    FailOperation,
    ForgetNode,
    ForgetVm,
    Plan,
    Step,
    Unjudged,
    WriteOperation,
)
from services.coordinator.evidence import Evidence
from services.coordinator.lead import LEADER, Lead
from services.coordinator.picture import Pictures, world_of
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.loop import Read
from services.state.store import Change, Conflict, Delete, Lease, Put, Store

__all__ = ["LEADER", "PERIOD_S", "READS", "Coordinator", "sentence", "world_of"]

PERIOD_S = 0.25
"""How often it looks whether there is something to do: for what becomes due by time alone. A look
costs nothing while nothing changed and nothing is due."""
CALM_S = 5.0
RESTLESS_S = 0.25
"""The world is judged anew after this though nothing changed: while all is well, and while time
brings something about."""
TABLES = ("nodes", "vms", "pools", "pools/volumes", "networks", "clusters")
READS: tuple[Read, ...] = (*TABLES, rows.unfinished)

ROUNDS_MAX = 64
"""Rounds of one step until the plan is empty; more would mean that two rules fight."""
STEPS_TOLD = 3
TOGETHER = 16
"""Decisions about VMs that are written in one commit."""
EXPIRE_PERIOD_S = 30.0
EXPIRE_ROUNDS_MAX = 20
"""Commits of one round of tidying: more than the busiest cluster makes rows in a period."""

log = logging.getLogger("pvc.coordinator")

Operation = operation_pb2.Operation


class Coordinator:
    """One node's coordinator; `step` is called on every change and from time to time."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        """node: "nodes/n1"."""
        self._store = store
        self._clock = clock
        self._node = node
        self.lead = Lead(store, clock, node)
        """For others of this process that may act only while it leads."""
        self.evidence = Evidence()
        """Since when nodes are gone; for others of this process too."""
        self._pictures = Pictures()
        self._seen: tuple[object, ...] = ()
        self._due = clock.monotonic()
        self._expired_at = -EXPIRE_PERIOD_S
        self._complained: frozenset[tuple[str, str]] = frozenset()

    def step(self) -> None:
        """Leads one round, if nobody else leads."""
        snapshot, now = self._store.snapshot(), self._clock.monotonic()
        self.evidence.observe(snapshot, now, self._store.session())
        lease = self.lead.take()
        if lease is None:
            self._seen = ()
            return
        try:
            if not self._is_idle(lease):
                self._lead(lease)
            self._expire(lease)
        except PvcError as error:
            self._seen = ()
            if error.reason != reason_pb2.REASON_NOT_LEADER:
                raise
            self.lead.lost()
        except BaseException:
            self._seen = ()
            raise

    def _is_idle(self, lease: Lease) -> bool:
        """Nothing that decisions are made from changed, and no time is up."""
        snapshot = self._store.snapshot()
        tables = tuple(snapshot.tables.get(table) for table in TABLES)
        seen = (lease, snapshot.leases, *tables, self._pictures.stages(snapshot))
        same = len(seen) == len(self._seen) and all(
            a is b for a, b in zip(seen, self._seen, strict=True)
        )
        self._seen = seen
        return same and self._clock.monotonic() < self._due

    def _lead(self, lease: Lease) -> None:
        for _ in range(ROUNDS_MAX):
            plan = self._plan()
            steps = [step for step in plan if not isinstance(step, Unjudged)]
            if not steps:
                self._complain([step for step in plan if isinstance(step, Unjudged)])
                break
            if not all(self._written(some, lease) for some in together(steps)):
                self._seen = ()
                return  # what came first wakes us: it is decided again then
        else:
            last = "; ".join(sentence(step) for step in steps[:STEPS_TOLD])
            raise RuntimeError(f"the plan is not empty after {ROUNDS_MAX} rounds, at last: {last}")

    def _plan(self) -> Plan:
        snapshot, monotonic = self._store.snapshot(), self._clock.monotonic()
        self.evidence.observe(snapshot, monotonic, self._store.session())
        gone_s, outage = self.evidence.gone_s(monotonic), self.evidence.outage(monotonic)
        world = self._pictures.world(snapshot, gone_s, outage)
        restless = is_restless(world)
        self._due = monotonic + (RESTLESS_S if restless else CALM_S)
        return decide(self._clock.now(), world)

    def _complain(self, unjudged: Sequence[Unjudged]) -> None:
        """Of each row once, until it changes."""
        now = {(step.row.name, step.row.meta.etag): step.error for step in unjudged}
        for row, error in now.items():
            if row not in self._complained:
                log.error("%s cannot be judged: a mistake in the rules", row[0], exc_info=error)
        self._complained = frozenset(now)

    def _written(self, steps: Sequence[Step], lease: Lease) -> bool:
        """False when somebody was quicker. The steps after them must not be written then: one may
        say that those before it were done."""
        try:
            changes = [change for step in steps for change in self._changes(step)]
            self._store.commit(changes, held_by=lease)
        except Conflict as conflict:
            log.debug("%s; deciding again", conflict)
            # One row must not keep the others from being written.
            return len(steps) > 1 and self._each_written(steps, lease)
        except PvcError as error:
            if error.reason != reason_pb2.REASON_TOO_LARGE or len(steps) == 1:
                raise
            return self._each_written(steps, lease)
        for step in steps:
            told = log.info if is_told(step) else log.debug
            told("%s", sentence(step))
        return True

    def _each_written(self, steps: Sequence[Step], lease: Lease) -> bool:
        return all([self._written([step], lease) for step in steps])

    def _changes(self, step: Step) -> Sequence[Change]:
        match step:
            case DecideVm(row) | DecideNode(row):
                event = [self._event(row.name, step)] if is_told(step) else []
                storage = step.storage if isinstance(step, DecideVm) else ()
                return [Put(row), *map(Put, step.also), *self._storage(storage), *event]
            case DecideCluster(cluster, _, new):
                return [Put(cluster), *(() if new is None else (Put(self._named(new)),))]
            case WriteOperation(operation):
                return [Put(operation)]
            case ForgetVm(vm):
                kept = self._store.snapshot().rows(vm_pb2.VmSnapshot, vm.name)
                gone = [Delete(row.name, row.meta.etag) for row in kept]
                return [Delete(vm.name, vm.meta.etag), *gone]
            case ForgetNode(node, why, also):
                left = self._event(
                    node.name, DecideNode(node, "has left the cluster", why, also=also)
                )
                gone = belongings(self._store.snapshot(), node.name)
                return [Delete(node.name, node.meta.etag), *gone, *map(Put, also), left]
            case FailOperation(operation, reason, why):
                error = PvcError(reason, why)
                failed = operation_pb2.Operation.STATE_FAILED
                return [
                    Put(rows.enter_operation(operation, failed, self._clock.now(), error=error))
                ]

    def _storage(self, some: Sequence[storage_pb2.Volume | Operation]) -> list[Change]:
        return [Put(self._named(x) if isinstance(x, Operation) else self._known(x)) for x in some]

    def _known(self, volume: storage_pb2.Volume) -> storage_pb2.Volume:
        after = rows.copied(volume)
        after.meta.uid = after.meta.uid or self._clock.new_id()
        return after

    def _named(self, row: Operation) -> Operation:
        after = rows.copied(row)
        after.name = after.name or f"operations/{self._clock.new_id()}"
        after.meta.uid = after.meta.uid or self._clock.new_id()
        return after

    def _event(self, subject: str, step: DecideVm | DecideNode) -> Put:
        kind, _, name = subject.partition("/")
        asked = step.also[0] if step.also else getattr(step, "asked", None)
        by = f"coordinator {self._node.removeprefix('nodes/')}"
        return rows.event(
            self._clock.new_id(),
            self._clock.now(),
            subject,
            f"{kind[:-1]} {name} {step.what}",
            step.why,
            cause=asked.caller or by if asked is not None else by,
            severity=step.severity,
            operation=asked.name if asked is not None else "",
        )

    def _expire(self, lease: Lease) -> None:
        if self._clock.monotonic() - self._expired_at < EXPIRE_PERIOD_S:
            return
        self._expired_at = self._clock.monotonic()
        for _ in range(EXPIRE_ROUNDS_MAX):
            snapshot = self._store.snapshot()
            cluster = snapshot.find(ClusterIdentity, rows.THIS_CLUSTER) or ClusterIdentity()
            old = expired(
                self._clock.now(),
                snapshot.rows(operation_pb2.Operation),
                snapshot.rows(event_pb2.Event),
                snapshot.rows(operation_pb2.AnsweredRequest),
                snapshot.rows(audit_pb2.AuditEntry),
                limits_of(cluster.spec),
            )
            if old:
                self._store.commit([Delete(row.name, row.meta.etag) for row in old], held_by=lease)
            if len(old) < ROWS_AT_ONCE:
                return


def together(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """The steps in the same order, those that follow each other and may be written in one commit
    together: no row is in it twice, and none of them says that others were done."""
    some: list[Step] = []
    touched: set[str] = set()
    for step in steps:
        rows_of_it = _touches(step)
        alone = not isinstance(step, DecideVm)
        if some and (alone or touched & rows_of_it or len(some) >= TOGETHER):
            yield some
            some, touched = [], set()
        some, touched = [*some, step], touched | rows_of_it
        if alone:
            yield some
            some, touched = [], set()
    if some:
        yield some


def _touches(step: Step) -> set[str]:
    match step:
        case DecideCluster(cluster):
            return {cluster.name}
        case DecideVm(row, storage=storage) if storage:
            return {row.name, *(x.name for x in (*step.also, *storage) if x.name)}
        case DecideVm(row) | DecideNode(row) | ForgetNode(row):
            return {row.name, *(operation.name for operation in step.also)}
        case WriteOperation(row) | FailOperation(row) | ForgetVm(row):
            return {row.name}


def is_told(step: Step) -> bool:
    """It is worth an event and a line of the log."""
    return not isinstance(step, DecideVm | DecideNode) or bool(step.what)


def sentence(step: Step) -> str:
    """A step as the log tells it."""
    match step:
        case DecideVm(row, what, why) | DecideNode(row, what, why):
            return f"{row.name} {what or 'noted'} ({why})"
        case DecideCluster(row, why):
            return f"{row.name} noted ({why})"
        case ForgetVm(row, why) | ForgetNode(row, why):
            return f"{row.name} forgotten ({why})"
        case WriteOperation(operation, why):
            return f"{operation.name} {operation.stage} ({why})"
        case FailOperation(operation, reason, why):
            return f"{operation.name} failed: {reason_pb2.Reason.Name(reason)} ({why})"
