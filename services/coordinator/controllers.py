"""The controllers of the nodes' power: how one is reached, and whether it may be believed.

A controller is asked from time to time while its node works, so that nobody trusts it blindly on
the day it is needed. Only asks; what switches a node off is the fencer, and on the switcher.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2, secret_pb2
from services.coordinator.core.node_edits import secret_name
from services.coordinator.core.proofs import same_controller, settings_of
from services.coordinator.core.world import WORKING
from services.coordinator.drivers.power import PowerDriver, PowerTarget
from services.coordinator.runner import Answer, Failure, Line, Outcome, Runner
from services.mesh import rows
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.sealing import unseal
from services.state.store import Conflict, Lease, Put, Snapshot, Store

Node = cluster_pb2.Node
CHECK_EVERY_S = 300.0
RECHECK_S = 15.0
"""A controller that says "off" is asked again after this, longer than it takes to see that a node
has died: then it was right."""
RENEW_S = 3600.0
"""How old the time of a check that found nothing new may become."""
PERIOD_S = 5.0

log = logging.getLogger("pvc.coordinator")


def settings_in(snapshot: Snapshot, node: Node) -> str:
    """See settings_of."""
    row = snapshot.find(secret_pb2.Secret, secret_name(node.name))
    return settings_of(node.spec.power_control, row.sealed if row is not None else b"")


class Controllers:
    """How the controllers of the nodes are reached. key: gives the cluster's key; called when a
    password has to be opened, and may raise PvcError."""

    def __init__(
        self,
        drivers: Mapping[cluster_pb2.PowerControl.Protocol.ValueType, PowerDriver],
        key: Callable[[], bytes],
    ) -> None:
        self._drivers = drivers
        self._key = key

    def is_on(self, snapshot: Snapshot, node: Node) -> bool:
        """Asks; takes seconds. Raises PvcError POWER_FAILED, or INVALID_CONFIG when the password
        cannot be opened."""
        return self._driver(node).is_on(self._target(snapshot, node))

    def off(self, snapshot: Snapshot, node: Node) -> None:
        """Has the power cut. Raises as `is_on`."""
        self._driver(node).off(self._target(snapshot, node))

    def on(self, snapshot: Snapshot, node: Node) -> None:
        """Has the machine switched on. Raises as `is_on`."""
        self._driver(node).on(self._target(snapshot, node))

    def _driver(self, node: Node) -> PowerDriver:
        protocol = node.spec.power_control.protocol
        driver = self._drivers.get(protocol)
        if driver is None:
            word = cluster_pb2.PowerControl.Protocol.Name(protocol)
            raise PvcError(
                reason_pb2.REASON_NOT_SUPPORTED,
                f"{node.name}: there is no driver for {word}: set spec.power_control.protocol",
            )
        return driver

    def _target(self, snapshot: Snapshot, node: Node) -> PowerTarget:
        control, name = node.spec.power_control, secret_name(node.name)
        row = snapshot.find(secret_pb2.Secret, name)
        return PowerTarget(
            address=control.address,
            user=control.user,
            password=unseal(self._key(), name, row.sealed) if row is not None else "",
            system=control.system,
            certificate=control.certificate,
        )


@dataclass(slots=True)
class _Watched:
    """One node's controller."""

    line: Line
    settings: str = ""
    session: str = ""
    """Of the node, when the question under way was asked."""
    due: float = 0.0
    off_in: str = ""
    """The session in which it said "off" already."""


class ControllerChecks:
    """Asks the controllers of nodes that work, and writes what came of it; `step` is called from
    time to time, acts only with the leader's lease, and never waits."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        controllers: Controllers,
        runner: Runner,
        lease: Callable[[], Lease | None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._controllers = controllers
        self._runner = runner
        self._lease = lease
        self._watched: dict[str, _Watched] = {}

    def step(self) -> None:
        """Asks who is due, takes in who answered."""
        lease = self._lease()
        if lease is None:
            self._watched.clear()
            return
        snapshot = self._store.snapshot()
        working = {node.name: node for node in snapshot.rows(Node) if works(snapshot, node)}
        for name in self._watched.keys() - working.keys():
            del self._watched[name]
        for node in working.values():
            if node.spec.HasField("power_control"):
                self._see_to(snapshot, node, lease)
            elif node.decision.HasField("controller"):
                self._write(node, cluster_pb2.ControllerCheck(), lease)

    def _see_to(self, snapshot: Snapshot, node: Node, lease: Lease) -> None:
        watched = self._watched.get(node.name)
        if watched is None:
            line = Line(self._runner, self._clock, f"{node.name} check")
            watched = self._watched[node.name] = _Watched(line)
        outcome = watched.line.outcome()
        settings = settings_in(snapshot, node)
        asked_now = (settings, node.status.session) == (watched.settings, watched.session)
        if outcome is not None and asked_now:
            self._take_in(snapshot, node, watched, outcome, lease)
        now = self._clock.monotonic()
        if watched.line.free and (now >= watched.due or settings != watched.settings):
            watched.settings, watched.session = settings, node.status.session
            watched.due = now + CHECK_EVERY_S
            watched.line.begin(lambda: self._controllers.is_on(snapshot, node))

    def _take_in(
        self, snapshot: Snapshot, node: Node, watched: _Watched, outcome: Outcome, lease: Lease
    ) -> None:
        before = node.decision.controller
        check = cluster_pb2.ControllerCheck(settings=watched.settings)
        known = before.trusted and before.settings == watched.settings
        twin = same_controller(node, list(snapshot.rows(Node)))
        match outcome:
            case _ if twin:
                check.why = f"{twin} has the same controller: one of the two is wrong"
            case Answer(True):
                check.trusted = True
            case Answer():
                if watched.off_in != watched.session:
                    watched.off_in = watched.session
                    watched.due = self._clock.monotonic() + RECHECK_S
                    return
                check.why = "it says that the power is off, and the node works: it is another's"
            case Failure(why):
                check.trusted, check.why = known, why
        if check.trusted:
            watched.off_in = ""
        self._write(node, check, lease)

    def _write(self, node: Node, check: cluster_pb2.ControllerCheck, lease: Lease) -> None:
        before, now = node.decision.controller, self._clock.now()
        fresh = now.seconds - before.time.seconds < RENEW_S
        if fresh and _facts(before) == _facts(check):
            return
        row = rows.copied(node)
        if check.settings:
            check.time.CopyFrom(now)
            row.decision.controller.CopyFrom(check)
        else:
            row.decision.ClearField("controller")
        try:
            self._store.commit([Put(row), *_told(row, check, before, self._clock)], held_by=lease)
        except Conflict:
            self._watched.pop(node.name, None)  # the next round asks again


def works(snapshot: Snapshot, node: Node) -> bool:
    """It holds its session, and is not about to be fenced."""
    return node.decision.state in WORKING and node.name in snapshot.leases


def _facts(check: cluster_pb2.ControllerCheck) -> tuple[bool, str, str]:
    return check.trusted, check.why, check.settings


def _told(
    node: Node,
    check: cluster_pb2.ControllerCheck,
    before: cluster_pb2.ControllerCheck,
    clock: Clock,
) -> list[Put]:
    """An event when the controller came to be believed, or no longer is."""
    if check.trusted == before.trusted and (check.trusted or check.why == before.why):
        return []
    node_id = node.name.removeprefix("nodes/")
    verb = "is trusted" if check.trusted else "is not trusted"
    why = check.why or "it says that the power of the working node is on"
    log.info("%s: the controller of its power %s (%s)", node.name, verb, why)
    return [
        rows.event(
            clock.new_id(), clock.now(), node.name,
            f"node {node_id}: the controller of its power {verb}", why, cause="coordinator",
        )
    ]  # fmt: skip
