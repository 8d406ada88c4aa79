"""The network agent of one node: brings the node's network to what the networks in the store want,
and says of each what came of it. The loop of the mesh calls `step`; nothing is kept between
calls."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pvc.compute.v1.vm_pb2 import Vm
from pvc.core.v1.event_pb2 import Event
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1.network_pb2 import AddressAssignment, Network, NetworkStatus
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.network.converge import Convergence, converge
from services.network.core.desired import (
    Lease,
    Place,
    Plan,
    assignments,
    bridge_of,
    desired,
    status,
    users,
)
from services.network.core.outcome import Attempt, Verdict, keeps, verdict
from services.network.core.plan import SetSysctl, sentence
from services.network.drivers.fabric import Fabric
from services.state.store import Change, Conflict, Delete, Put, Snapshot, Store

SERVICE = "network"

log = logging.getLogger("pvc.network")

Leases = Mapping[str, Sequence[Lease]]
"""By bridge."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one step came to know."""

    plan: Plan
    leases: Leases
    result: Convergence


class NetworkAgent:
    """Converges one node. `node` names it in the log and in operations: "nodes/n1"."""

    def __init__(self, store: Store, clock: Clock, fabric: Fabric, place: Place, node: str) -> None:
        self._store = store
        self._clock = clock
        self._fabric = fabric
        self._place = place
        self._node = node

    def step(self) -> None:
        """One round. Who gets which address is written before anybody can ask for it, and what came
        of all else afterwards. When another writer was quicker we look again in the next round."""
        snapshot = self._store.snapshot()
        vms = tuple(snapshot.rows(Vm))
        networks = [row for row in snapshot.rows(Network) if not is_leaving(row, vms)]
        leases = {bridge: self._leases(bridge) for bridge in map(bridge_of, networks)}
        plan = desired(networks, vms, leases, self._place)
        if not self._commit(intents(plan, leases)):
            return
        result = converge(self._fabric, bool(self._place.namespace), plan.wanted, self._node)
        self._commit(self._outcomes(Round(plan, leases, result)))

    def _leases(self, bridge: str) -> tuple[Lease, ...]:
        found = self._fabric.leases(bridge)
        return tuple(Lease(row.mac, row.address, row.expires) for row in found)

    def _commit(self, changes: Sequence[Change]) -> bool:
        """False when another writer was quicker; its change wakes the loop."""
        if not changes:
            return True
        try:
            self._store.commit(changes)
        except Conflict as conflict:
            log.info("%s/network: %s; looking again", self._node, conflict)
            return False
        return True

    def _outcomes(self, done: Round) -> list[Change]:
        """Written over the rows as they are by now: a spec may have changed while we worked."""
        snapshot = self._store.snapshot()
        after = dict(self._rows_after(snapshot, done))
        changes: list[Change] = []
        for row in snapshot.rows(Network):
            match after.get(row.name):
                case None:
                    changes.append(Delete(row.name, row.meta.etag))
                case changed if changed != row:
                    changes += [Put(changed), *self._event(row, changed)]
        return changes + self._operations(snapshot, after, done) + self._settings_events(done)

    def _rows_after(self, snapshot: Snapshot, done: Round) -> Iterable[tuple[str, Network]]:
        """The networks that remain, as they are to be said to be."""
        planned = {one.network.name: one for one in done.plan.networks}
        vms = tuple(snapshot.rows(Vm))
        for row in snapshot.rows(Network):
            after, bridge = rows.copied(row), bridge_of(row)
            if row.name in planned:
                why = done.result.of(bridge)
                leases = done.leases.get(bridge, ())
                after.status.CopyFrom(status(planned[row.name], self._place, leases, why))
            elif is_leaving(row, vms) and not done.result.of(bridge):
                continue
            if any(keeps(one, row) for one in self._open(snapshot, row.name)):
                after.meta.ClearField("delete_time")
            yield row.name, after

    def _open(self, snapshot: Snapshot, target: str = "") -> list[Operation]:
        """Operations that are ours to conclude."""
        return [
            row
            for row in snapshot.rows(Operation)
            if row.service == SERVICE
            and row.state not in rows.FINAL
            and row.node in ("", self._node)
            and target in ("", row.target)
        ]

    def _operations(
        self, snapshot: Snapshot, after: Mapping[str, Network], done: Round
    ) -> list[Change]:
        attempts = {
            one.network.name: Attempt(
                one.network.meta.generation, one.why or done.result.of(bridge_of(one.network))
            )
            for one in done.plan.networks
        }
        changes: list[Change] = []
        for operation in self._open(snapshot):
            row = after.get(operation.target)
            found = verdict(operation, row, attempts.get(operation.target))
            if found is not None:
                changes.append(Put(self._ended(operation, found, row)))
        return changes

    def _ended(self, operation: Operation, found: Verdict, row: Network | None) -> Operation:
        now = self._clock.now()
        error = PvcError(found.reason, found.text) if found.text else None
        running = rows.enter_operation(operation, Operation.STATE_RUNNING, now)
        result = row if error is None else None
        return rows.enter_operation(running, found.state, now, error=error, result=result)

    def _settings_events(self, done: Round) -> list[Change]:
        """The machine's own settings are not ours: whoever looks after them is to know."""
        if self._place.namespace:
            return []
        return [
            self._said(self._node, f"{self._node}: {sentence(step)}", step.why)
            for step in done.result.done
            if isinstance(step, SetSysctl)
        ]

    def _event(self, before: Network, after: Network) -> list[Change]:
        """Only when VMs can use it that could not, or the other way round."""
        was, now = before.status.state, after.status.state
        if was == now:
            return []
        ready = now == NetworkStatus.STATE_READY
        name = NetworkStatus.State.Name(now).removeprefix("STATE_")
        severity = Event.SEVERITY_INFO if ready else Event.SEVERITY_ERROR
        return [self._said(after.name, f"{after.name} is {name}", after.status.why, severity)]

    def _said(
        self,
        subject: str,
        message: str,
        why: str,
        severity: Event.Severity.ValueType = Event.SEVERITY_INFO,
    ) -> Change:
        cause = f"network {self._node.removeprefix('nodes/')}"
        event_id, now = self._clock.new_id(), self._clock.now()
        return rows.event(event_id, now, subject, message, why, cause=cause, severity=severity)


def is_leaving(network: Network, vms: Iterable[Vm]) -> bool:
    """Whether the network is to go. One that a VM came to use meanwhile stays until it is free."""
    return network.meta.HasField("delete_time") and not users(network.name, vms)


def intents(plan: Plan, leases: Leases) -> list[Change]:
    """The networks on which somebody gets or loses an address."""
    changes: list[Change] = []
    for one in plan.networks:
        given = assignments(one, leases.get(bridge_of(one.network), ()))
        if not one.why and who_has(given) != who_has(one.network.status.addresses):
            after = rows.copied(one.network)
            del after.status.addresses[:]
            after.status.addresses.extend(given)
            changes.append(Put(after))
    return changes


def who_has(given: Iterable[AddressAssignment]) -> list[tuple[str, str, str, str]]:
    """Without what the guests do with it."""
    return [(row.vm, row.nic, row.mac, row.address) for row in given]
