"""Switches fenced machines on again, where that was decided: asks, presses the switch, asks again,
and writes what came of it.

Acts only with the leader's lease, never waits, and decides nothing: core/power_on.py does. The
intent is in the node's row before anything is done; a leader that finds one that nothing came of
makes the same try again, which does no harm to a machine that is on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import event_pb2
from services.coordinator.controllers import Controllers, settings_in
from services.coordinator.core.power_on import (
    ASK_EVERY_S,
    Done,
    SwitchTry,
    answered,
    is_under_way,
)
from services.coordinator.core.proofs import power_barred, same_controller
from services.coordinator.core.world import short
from services.coordinator.runner import Failure, Line, Outcome, Runner
from services.mesh import rows
from services.mesh.clock import Clock
from services.state.store import Conflict, Lease, Put, Snapshot, Store

Node = cluster_pb2.Node
PERIOD_S = 1.0

log = logging.getLogger("pvc.coordinator")


@dataclass(slots=True)
class _Case:
    """One try that is under way."""

    mark: tuple[str, int, int]
    """Which one: the session that was lost, the request to be ready, the count of tries."""
    line: Line
    state: SwitchTry = field(default_factory=SwitchTry)
    due: float = 0.0


class Switcher:
    """`step` is called on every change and every second.

    lease: as of Fencer. gone_s: node → for at least how long its session has been gone."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        node: str,
        lease: Callable[[], Lease | None],
        controllers: Controllers,
        runner: Runner,
        gone_s: Callable[[Node], float],
    ) -> None:
        """node: our own, "nodes/n1"."""
        self._store = store
        self._clock = clock
        self._by = f"coordinator {short(node)}"
        self._lease = lease
        self._controllers = controllers
        self._runner = runner
        self._gone_s = gone_s
        self._cases: dict[str, _Case] = {}

    def step(self) -> None:
        """Goes on with every try that was decided."""
        lease = self._lease()
        if lease is None:
            self._cases.clear()
            return
        snapshot = self._store.snapshot()
        wanted = {
            node.name: node
            for node in snapshot.rows(Node)
            if is_under_way(node) and node.name not in snapshot.leases
        }
        for name in self._cases.keys() - wanted.keys():
            del self._cases[name]
        for node in wanted.values():
            done = self._go_on(snapshot, node)
            if done is not None:
                self._write(node, done, lease)

    def _go_on(self, snapshot: Snapshot, node: Node) -> Done | None:
        """What came of the try; None while nothing did."""
        case = self._case(node)
        twin = same_controller(node, list(snapshot.rows(Node)))
        if (barred := power_barred(node, settings_in(snapshot, node), twin)) is not None:
            return Done(barred.why, on=False)
        outcome = case.line.outcome()
        if outcome is not None and (done := self._take_in(case, outcome)) is not None:
            return done
        if case.line.free and self._clock.monotonic() >= case.due:
            press = case.state.seen_off and not case.state.commanded
            verb = self._controllers.on if press else self._controllers.is_on
            case.line.begin(lambda: verb(snapshot, node))
        return None

    def _case(self, node: Node) -> _Case:
        record = node.decision.power_on
        mark = (node.decision.lost_session, record.ready_request, record.tries)
        case = self._cases.get(node.name)
        if case is None or case.mark != mark:
            case = _Case(mark, Line(self._runner, self._clock, f"{node.name} switch"))
            self._cases[node.name] = case
        return case

    def _take_in(self, case: _Case, outcome: Outcome) -> Done | None:
        if isinstance(outcome, Failure):
            return Done(outcome.why, on=False)
        if case.state.seen_off and not case.state.commanded:
            case.state = case.state.after_command()
            return None
        match case.state.after_answer(outcome.value):
            case SwitchTry() as further:
                if case.state.commanded:
                    case.due = self._clock.monotonic() + ASK_EVERY_S
                case.state = further
                return None
            case done:
                return done

    def _write(self, node: Node, done: Done, lease: Lease) -> None:
        after = answered(node, done, self._gone_s(node))
        what = "has power" if done.on else "could not be switched on"
        event = rows.event(
            self._clock.new_id(),
            self._clock.now(),
            node.name,
            f"node {short(node.name)} {what}",
            done.why,
            cause=self._by,
            severity=event_pb2.Event.SEVERITY_INFO if done.on else event_pb2.Event.SEVERITY_WARNING,
        )
        try:
            self._store.commit([Put(after), event], held_by=lease)
        except Conflict as conflict:
            log.debug("%s; looking again", conflict)
        else:
            log.info("%s %s (%s)", node.name, what, done.why)
        self._cases.pop(node.name, None)
