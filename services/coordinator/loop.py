"""The coordinator at work: takes the lead if nobody has it, shows the state to `decide`, writes
what comes back.

All that it writes goes out under the lease that makes it the leader, so that a leader who is one no
longer writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2, operation_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from services.coordinator.core.decide import decide
from services.coordinator.core.expire import ROWS_AT_ONCE, expired
from services.coordinator.core.plan import (
    DecideNode,
    DecideVm,
    FailOperation,
    ForgetVm,
    Step,
    Unjudged,
    WriteOperation,
)
from services.coordinator.core.world import World
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Change, Conflict, Delete, Lease, Put, Snapshot, Store

LEADER = "leader"
ROUNDS_MAX = 64
"""Rounds of one step until the plan is empty; more would mean that two rules fight."""
EXPIRE_PERIOD_S = 30.0
EXPIRE_ROUNDS_MAX = 20
"""Commits of one round of tidying: more than the busiest cluster makes rows in a period."""

log = logging.getLogger("pvc.coordinator")


class Coordinator:
    """One node's coordinator; `step` is called on every change and from time to time."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        """node: "nodes/n1"."""
        self._store = store
        self._clock = clock
        self._node = node
        self._expired_at = -EXPIRE_PERIOD_S
        self._complained: frozenset[tuple[str, str]] = frozenset()

    def step(self) -> None:
        """Leads one round, if nobody else leads."""
        lease = self._store.acquire(LEADER, self._node)
        if lease is None:
            return
        for _ in range(ROUNDS_MAX):
            plan = decide(self._clock.now(), world_of(self._store.snapshot()))
            steps = [step for step in plan if not isinstance(step, Unjudged)]
            if not steps:
                self._complain([step for step in plan if isinstance(step, Unjudged)])
                break
            if not all(self._written(step, lease) for step in steps):
                break  # what came first wakes us: it is decided again then
        else:
            log.error("the plan is not empty after %d rounds; going on later", ROUNDS_MAX)
        self._expire(lease)

    def _complain(self, unjudged: Sequence[Unjudged]) -> None:
        """Of each row once, until it changes."""
        now = {(step.vm.name, step.vm.meta.etag): step.error for step in unjudged}
        for row, error in now.items():
            if row not in self._complained:
                log.error("%s cannot be judged: a mistake in the rules", row[0], exc_info=error)
        self._complained = frozenset(now)

    def _written(self, step: Step, lease: Lease) -> bool:
        """False when somebody was quicker. The steps after it must not be written then: one may
        say that those before it were done."""
        try:
            self._store.commit(self._changes(step), held_by=lease)
        except Conflict as conflict:
            log.debug("%s; deciding again", conflict)
            return False
        log.info("%s", sentence(step))
        return True

    def _changes(self, step: Step) -> Sequence[Change]:
        match step:
            case DecideVm(row) | DecideNode(row):
                return [Put(row), *map(Put, step.also), self._event(row.name, step)]
            case WriteOperation(operation):
                return [Put(operation)]
            case ForgetVm(vm):
                kept = self._store.snapshot().rows(vm_pb2.VmSnapshot, vm.name)
                gone = [Delete(row.name, row.meta.etag) for row in kept]
                return [Delete(vm.name, vm.meta.etag), *gone]
            case FailOperation(operation, reason, why):
                error = PvcError(reason, why)
                failed = operation_pb2.Operation.STATE_FAILED
                return [
                    Put(rows.enter_operation(operation, failed, self._clock.now(), error=error))
                ]

    def _event(self, subject: str, step: DecideVm | DecideNode) -> Put:
        kind, _, name = subject.partition("/")
        return rows.event(
            self._clock.new_id(),
            self._clock.now(),
            subject,
            f"{kind[:-1]} {name} {step.what}",
            step.why,
            cause=f"coordinator {self._node.removeprefix('nodes/')}",
            severity=step.severity,
        )

    def _expire(self, lease: Lease) -> None:
        if self._clock.monotonic() - self._expired_at < EXPIRE_PERIOD_S:
            return
        self._expired_at = self._clock.monotonic()
        for _ in range(EXPIRE_ROUNDS_MAX):
            snapshot = self._store.snapshot()
            old = expired(
                self._clock.now(),
                snapshot.rows(operation_pb2.Operation),
                snapshot.rows(event_pb2.Event),
                snapshot.rows(operation_pb2.AnsweredRequest),
            )
            if old:
                self._store.commit([Delete(row.name, row.meta.etag) for row in old], held_by=lease)
            if len(old) < ROWS_AT_ONCE:
                return


def world_of(snapshot: Snapshot) -> World:
    """What `decide` is shown of the state."""
    return World(
        nodes={node.name: node for node in snapshot.rows(cluster_pb2.Node)},
        vms={vm.name: vm for vm in snapshot.rows(vm_pb2.Vm)},
        present=frozenset(name for name in snapshot.leases if name.startswith("nodes/")),
        volume_nodes=dict(_volume_nodes(snapshot)),
        operations=tuple(
            operation
            for operation in snapshot.rows(operation_pb2.Operation)
            if operation.state not in rows.FINAL
        ),
    )


def _volume_nodes(snapshot: Snapshot) -> Sequence[tuple[str, str]]:
    pools = {pool.name: pool.spec.node for pool in snapshot.rows(storage_pb2.Pool)}
    named = [(v.name, v.name.partition("/volumes/")[0]) for v in snapshot.rows(storage_pb2.Volume)]
    return [(volume, pools[pool]) for volume, pool in named if pools.get(pool)]


def sentence(step: Step) -> str:
    """A step as the log tells it."""
    match step:
        case DecideVm(row, what, why) | DecideNode(row, what, why):
            return f"{row.name} {what} ({why})"
        case ForgetVm(vm, why):
            return f"{vm.name} forgotten ({why})"
        case WriteOperation(operation, why):
            return f"{operation.name} {operation.stage} ({why})"
        case FailOperation(operation, reason, why):
            return f"{operation.name} failed: {reason_pb2.Reason.Name(reason)} ({why})"
