"""The network agent of one node: brings the node's network to what the networks in the store want,
and says of each what came of it: its own part, and the whole where it speaks for all nodes. The
loop of the mesh calls `step`; nothing is kept between calls."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pvc.compute.v1.vm_pb2 import Vm
from pvc.coordinator.v1.cluster_pb2 import Node
from pvc.core.v1.event_pb2 import Event
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1.network_pb2 import Network, NetworkStatus
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.loop import Read
from services.mesh.members import NODES, id_of, known, present, speaker
from services.network.converge import Convergence, converge
from services.network.core.desired import (
    GUESTS,
    Lease,
    NetworkPlan,
    Place,
    Plan,
    bridge_of,
    desired,
    users,
)
from services.network.core.outcome import Attempt, Verdict, keeps, verdict
from services.network.core.overlay import Standing, underlay_of
from services.network.core.plan import SetSysctl, sentence
from services.network.core.telling import assignments, note_leases, part, sum_up, who_has
from services.network.drivers.fabric import Fabric, FabricError
from services.state.store import Change, Conflict, Delete, Put, Snapshot, Store

SERVICE = "network"
READS: tuple[Read, ...] = (
    "networks",
    lambda snapshot: snapshot.extract(NODES),
    lambda snapshot: snapshot.extract(GUESTS),
    lambda snapshot: rows.unfinished(snapshot, SERVICE),
)
"""What has it look again: of VMs only what networks depend on, which most changes do not touch."""

log = logging.getLogger("pvc.network")

Leases = Mapping[str, Sequence[Lease]]
"""By bridge."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one step came to know."""

    plan: Plan
    leases: Leases
    standing: Standing
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
        vms = snapshot.extract(GUESTS)
        networks = [row for row in snapshot.rows(Network) if not is_leaving(row, vms)]
        leases = {bridge: self._leases(bridge) for bridge in map(bridge_of, networks)}
        standing = self._standing(snapshot)
        plan = desired(networks, vms, leases, self._place, standing)
        if not self._commit(intents(plan, standing)):
            return
        result = converge(self._fabric, bool(self._place.namespace), plan.wanted, self._node)
        self._commit(self._outcomes(Round(plan, leases, standing, result)))

    def _standing(self, snapshot: Snapshot) -> Standing:
        address = self._place.address
        mtu = self._path_mtu(address) if address else 0
        nodes = snapshot.rows(Node)
        speaks = (
            row.name for row in snapshot.rows(Network) if speaks_for(snapshot, row, self._node)
        )
        underlay = underlay_of(nodes, self._node, address, mtu)
        return Standing(self._node, frozenset(speaks), underlay)

    def _path_mtu(self, address: str) -> int:
        try:
            return self._fabric.path_mtu(address)
        except FabricError as error:
            log.warning("%s/network: %s", self._node, error)
            return 0

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
        vms = snapshot.extract(GUESTS)
        for row in snapshot.rows(Network):
            after = rows.copied(row)
            if row.name in planned:
                self._tell(snapshot, after, planned[row.name], done)
            elif self._may_go(row, vms, done) and self._left(snapshot, after):
                continue
            if any(keeps(one, row) for one in self._open(snapshot, row.name)):
                after.meta.ClearField("delete_time")
            yield row.name, after

    def _tell(self, snapshot: Snapshot, after: Network, plan: NetworkPlan, done: Round) -> None:
        """Writes into the row, as it is by now, what came of its plan."""
        bridge = bridge_of(after)
        own = part(plan, self._place, done.standing, done.result.of(bridge))
        if after.status.nodes.get(id_of(self._node)) != own:
            after.status.nodes[id_of(self._node)].CopyFrom(own)
        note_leases(after, done.leases.get(bridge, ()))
        if speaks_for(snapshot, after, self._node):
            forget_gone(snapshot, after)
            sum_up(after, plan, own, present(snapshot))

    @staticmethod
    def _may_go(row: Network, vms: Sequence[Vm], done: Round) -> bool:
        """It is to go, and nothing of it is left on this node."""
        return is_leaving(row, vms) and not done.result.of(bridge_of(row))

    def _left(self, snapshot: Snapshot, after: Network) -> bool:
        """Takes this node's part out of a network that is to go; True when nobody's is left, and
        the row is this node's to remove."""
        after.status.nodes.pop(id_of(self._node), None)
        others = {f"nodes/{node}" for node in after.status.nodes} & present(snapshot)
        return not others and speaks_for(snapshot, after, self._node)

    def _open(self, snapshot: Snapshot, target: str = "") -> list[Operation]:
        """Operations that are ours to conclude."""
        return [
            row
            for row in rows.unfinished(snapshot, SERVICE)
            if row.node in ("", self._node) and target in ("", row.target)
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
        return [*self._event_here(before, after), *self._event_whole(before, after)]

    def _event_here(self, before: Network, after: Network) -> list[Change]:
        """Where there are other nodes, one of them is told of by itself."""
        here, there = (row.status.nodes.get(id_of(self._node)) for row in (before, after))
        was, is_ = here is None or here.ready, there is None or there.ready
        if was == is_ or len(after.status.nodes) < 2:
            return []
        can = "can" if is_ else "cannot"
        severity = Event.SEVERITY_INFO if is_ else Event.SEVERITY_ERROR
        text, why = f"{after.name} {can} be used on {id_of(self._node)}", there.why if there else ""
        return [self._said(after.name, text, why, severity)]

    def _event_whole(self, before: Network, after: Network) -> list[Change]:
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


def speaks_for(snapshot: Snapshot, network: Network, node: str) -> bool:
    """Whether this node's agent writes what is true of the network as a whole: the first by name of
    the nodes where VMs can use it, or of all."""
    able = {f"nodes/{name}" for name, part in network.status.nodes.items() if part.ready}
    return speaker(snapshot, node, able) == node


def forget_gone(snapshot: Snapshot, network: Network) -> None:
    """Takes the parts of nodes that the cluster has no more out of a copy of the row."""
    there = known(snapshot)
    for node in [node for node in network.status.nodes if there and f"nodes/{node}" not in there]:
        del network.status.nodes[node]


def intents(plan: Plan, standing: Standing) -> list[Change]:
    """The networks on which somebody gets or loses an address. That guests of others are gone is
    written by whoever speaks for the network."""
    changes: list[Change] = []
    for one in plan.networks:
        given, before = assignments(one), one.network.status.addresses
        new = {row.mac for row in given} - {row.mac for row in before}
        ours = new or standing.speaks_for(one.network.name)
        if not one.why and ours and who_has(given) != who_has(before):
            after = rows.copied(one.network)
            del after.status.addresses[:]
            after.status.addresses.extend(given)
            changes.append(Put(after))
    return changes
