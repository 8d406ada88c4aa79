"""Proves the death of nodes: all means at once, the first that holds is written down.

Acts only for nodes in FENCING and only with the leader's lease. Never gives up, never waits, and
never decides what follows from a proof. Each write carries the version of the node's row that it
was made from: a node that came back has changed its row, and nothing is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2
from services.coordinator.controllers import Controllers, settings_in
from services.coordinator.core.proofs import (
    ASK_EVERY_S,
    Holds,
    Impossible,
    PowerTry,
    Verdict,
    Waits,
    attempt,
    by_watchdog,
    pause_after,
    power_barred,
    proven,
    same_controller,
)
from services.coordinator.drivers.storage_fence import StorageFence
from services.coordinator.runner import Answer, Failure, Line, Outcome, Runner
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.state.store import Change, Conflict, Lease, Put, Snapshot, Store

Node = cluster_pb2.Node
PERIOD_S = 0.25
WRITE_EVERY_S = 2.0
"""How often the attempts of a node are written at most."""

log = logging.getLogger("pvc.coordinator")


class Pursuit(Protocol):
    """One means against one node."""

    @property
    def means(self) -> cluster_pb2.ProofMeans.ValueType: ...

    @property
    def tries(self) -> int: ...

    def step(self, snapshot: Snapshot, node: Node) -> Verdict:
        """Goes on with it; never waits."""
        ...


class ByWatchdog:
    """Time alone. gone_s: node → for at least how long its session has been gone."""

    means = cluster_pb2.PROOF_MEANS_WATCHDOG
    tries = 0

    def __init__(self, gone_s: Callable[[Snapshot, Node], float]) -> None:
        self._gone_s = gone_s

    def step(self, snapshot: Snapshot, node: Node) -> Verdict:
        """See Pursuit."""
        return by_watchdog(node, self._gone_s(snapshot, node))


class _Repeated:
    """Calls that are made again and again, later and later, until one of them proves it."""

    def __init__(self, line: Line, clock: Clock) -> None:
        self.tries = 0
        self._line = line
        self._clock = clock
        self._due = 0.0
        self._why = "under way"

    def _ready(self) -> bool:
        return self._line.free and self._clock.monotonic() >= self._due

    def _again_after(self, seconds: float) -> None:
        self._due = self._clock.monotonic() + seconds

    def _failed(self, why: str) -> Waits:
        self.tries += 1
        self._why = why
        self._again_after(pause_after(self.tries))
        return Waits(why)


class ByPower(_Repeated):
    """Has the power cut, and asks until the controller says so; then all over again."""

    means = cluster_pb2.PROOF_MEANS_POWER

    def __init__(self, controllers: Controllers, line: Line, clock: Clock) -> None:
        super().__init__(line, clock)
        self._controllers = controllers
        self._try = PowerTry()
        self._was_on: bool | None = None
        """What its controller said before any command; None before it was asked."""

    def step(self, snapshot: Snapshot, node: Node) -> Verdict:
        """See Pursuit."""
        twin = same_controller(node, list(snapshot.rows(Node)))
        if (barred := power_barred(node, settings_in(snapshot, node), twin)) is not None:
            return barred
        outcome = self._line.outcome()
        if outcome is not None:
            return self._take_in(node, outcome)
        if self._ready():
            asks = self._try.commanded or self._is_to_look(node)
            verb = self._controllers.is_on if asks else self._controllers.off
            self._line.begin(lambda: verb(snapshot, node))
        return Waits(self._why)

    def _is_to_look(self, node: Node) -> bool:
        """Its agent had ended in order, and nobody hurries: was it switched off on purpose?"""
        return node.status.restarting and self._was_on is None

    def _take_in(self, node: Node, outcome: Outcome) -> Verdict:
        match outcome:
            case Failure(why):
                self._try = PowerTry()
                return self._failed(why)
            case Answer(on) if not self._try.commanded and self._is_to_look(node):
                self._was_on = bool(on)
            case Answer() if not self._try.commanded:
                self._try = self._try.after_command()
            case Answer(on):
                self._again_after(ASK_EVERY_S)
                match self._try.after_answer(on):
                    case PowerTry() as further:
                        self._try = further
                    case Waits(why):
                        self._try = PowerTry()
                        return self._failed(why)
                    case Holds(text):
                        return Holds(text, was_on=bool(self._was_on))
                    case verdict:
                        return verdict
        return Waits(self._why)


class ByStorage(_Repeated):
    """Has everything that its VMs can write to refuse it."""

    means = cluster_pb2.PROOF_MEANS_STORAGE

    def __init__(self, storage: StorageFence, line: Line, clock: Clock) -> None:
        super().__init__(line, clock)
        self._storage = storage
        self._refused: tuple[str, ...] = ()

    def step(self, snapshot: Snapshot, node: Node) -> Verdict:
        """See Pursuit."""
        clients = tuple(node.status.storage_clients)
        if why := self._storage.covers(written_on(snapshot, node)):
            return Impossible(why)
        if not clients:
            return Impossible("the addresses of its storage clients are not known")
        outcome = self._line.outcome()
        if outcome is not None:
            return self._take_in(outcome, clients)
        if self._ready():
            self._refused = clients
            self._line.begin(lambda: self._storage.fence(clients))
        return Waits(self._why)

    def _take_in(self, outcome: Outcome, clients: tuple[str, ...]) -> Verdict:
        match outcome:
            case Answer(True) if self._refused == clients:
                return Holds(f"all storage of its VMs refuses {', '.join(clients)}")
            case Answer():
                return self._failed("not all of the storage has confirmed that it refuses it")
            case Failure(why):
                return self._failed(why)


def written_on(snapshot: Snapshot, node: Node) -> Sequence[str]:
    """The volumes that VMs on the node can write to: of all that may run there."""
    found = set()
    for vm in snapshot.rows(vm_pb2.Vm):
        if node.name in (vm.decision.node, vm.status.node, vm.decision.migration.target):
            found |= {disk.volume for disk in vm.spec.disks if disk.volume}
            found |= {disk.volume for disk in vm.status.disks if disk.volume}
    return sorted(found)


@dataclass(slots=True)
class _Case:
    """One node that is being fenced."""

    session: str
    pursuits: Sequence[Pursuit]
    told: tuple[cluster_pb2.ProofAttempt, ...] = ()
    told_at: float = field(default=float("-inf"))


class Fencer:
    """`step` is called on every change and several times a second.

    lease: the leader's lease, or None while another leads. It may have ended: then nothing is
    written."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: str,
        lease: Callable[[], Lease | None],
        pursue: Callable[[Node], Sequence[Pursuit]],
    ) -> None:
        """node: our own, "nodes/n1". pursue: fresh pursuits of a node."""
        self._store = store
        self._clock = clock
        self._given_by = f"coordinator {node.removeprefix('nodes/')}"
        self._lease = lease
        self._pursue = pursue
        self._cases: dict[str, _Case] = {}

    def step(self) -> None:
        """Goes on with every node that is being fenced."""
        lease = self._lease()
        if lease is None:
            self._cases.clear()
            return
        snapshot = self._store.snapshot()
        nodes = {node.name: node for node in snapshot.rows(Node) if is_pursued(snapshot, node)}
        for name in self._cases.keys() - nodes.keys():
            del self._cases[name]
        for node in nodes.values():
            try:
                self._go_on(snapshot, node, lease)
            except Conflict as conflict:
                log.debug("%s; looking again", conflict)
            except PvcError:
                raise
            except Exception:
                log.exception("%s: a mistake in the fencer; the others go on", node.name)

    def _go_on(self, snapshot: Snapshot, node: Node, lease: Lease) -> None:
        case = self._cases.get(node.name)
        if case is None or case.session != node.decision.lost_session:
            case = _Case(node.decision.lost_session, self._pursue(node))
            self._cases[node.name] = case
        attempts = []
        for pursuit in case.pursuits:
            verdict = pursuit.step(snapshot, node)
            if isinstance(verdict, Holds):
                self._prove(node, pursuit, verdict, lease)
                return
            attempts.append(attempt(pursuit.means, pursuit.tries, verdict))
        self._tell(node, case, tuple(attempts), lease)

    def _prove(self, node: Node, pursuit: Pursuit, holds: Holds, lease: Lease) -> None:
        now = self._clock.now()
        row = rows.copied(node)
        proof = proven(node, pursuit.means, holds, self._given_by, now)
        row.decision.proof.CopyFrom(proof)
        self._store.commit([Put(row), self._event(node, holds.text)], held_by=lease)
        del self._cases[node.name]
        log.warning("%s is dead: %s", node.name, holds.text)

    def _tell(
        self,
        node: Node,
        case: _Case,
        attempts: tuple[cluster_pb2.ProofAttempt, ...],
        lease: Lease,
    ) -> None:
        now = self._clock.monotonic()
        if attempts == tuple(node.decision.attempts) or now < case.told_at + WRITE_EVERY_S:
            return
        row = rows.copied(node)
        del row.decision.attempts[:]
        row.decision.attempts.extend(attempts)
        self._store.commit([Put(row)], held_by=lease)
        case.told_at = now
        for one in attempts:
            means = cluster_pb2.ProofMeans.Name(one.means).removeprefix("PROOF_MEANS_").lower()
            log.info("%s: %s: %s (tries: %d)", node.name, means, one.why, one.tries)

    def _event(self, node: Node, text: str) -> Change:
        return rows.event(
            self._clock.new_id(),
            self._clock.now(),
            node.name,
            f"node {node.name.removeprefix('nodes/')} is dead",
            text,
            cause=self._given_by,
            severity=event_pb2.Event.SEVERITY_WARNING,
        )


def is_pursued(snapshot: Snapshot, node: Node) -> bool:
    """Its death is to be proven, it has not come back, and there is no proof yet."""
    decision = node.decision
    return (
        decision.state == cluster_pb2.NODE_STATE_FENCING
        and bool(decision.lost_session)
        and node.status.session == decision.lost_session
        and node.name not in snapshot.leases
        and decision.proof.session != decision.lost_session
    )


def pursuits(
    controllers: Controllers,
    storage: StorageFence,
    runner: Runner,
    clock: Clock,
    gone_s: Callable[[Snapshot, Node], float],
) -> Callable[[Node], Sequence[Pursuit]]:
    """All means there are, the quickest first."""

    def of(node: Node) -> Sequence[Pursuit]:
        power = Line(runner, clock, f"{node.name} power")
        fence = Line(runner, clock, f"{node.name} storage")
        return (
            ByWatchdog(gone_s),
            ByPower(controllers, power, clock),
            ByStorage(storage, fence, clock),
        )

    return of
