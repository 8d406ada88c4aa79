"""Guards the node against itself: feeds its watchdog for as long as the node is known to hold its
session, and no longer. So the cluster knows when the machine has been reset.

When to feed is core.feeding's to say; what the cluster is told, Standing's. Feeding has a thread of
its own, in which nothing is waited for: what takes time there resets the machine.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.compute.core.feeding import Answer, Contact, Times
from services.compute.drivers.hypervisor import Hypervisor, Power
from services.compute.drivers.watchdog import Watchdog
from services.compute.standing import Standing
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.loop import Loop
from services.mesh.rows import THIS_CLUSTER
from services.state.store import Lease, Snapshot, Store

REARM_S = 10.0
"""How long a watchdog that cannot be armed is left alone."""
BROKEN_S = 2.0
"""A machine that is there so long after it should have been reset has a broken watchdog."""
LAST_RESORT_PERIOD_S = 0.1
ANSWER_S = 1.0
"""How long an answer of the state is waited for before another server is asked."""
STOP_S = 5.0
KILLS_AT_ONCE = 16

log = logging.getLogger("pvc.guard")


@dataclass(frozen=True, slots=True)
class Known:
    """What feeding goes by."""

    times: Times | None = None
    """While it is armed."""
    lease: Lease | None = None
    contact: Contact = field(default_factory=Contact)
    claimed: Lease | None = None
    """For this one the cluster is known to have been told."""
    promised: bool = False
    """The cluster may have been told, and was not told otherwise since."""

    def may_feed(self, now: float) -> bool:
        """As long as nothing was promised it may always be fed."""
        if self.times is None or not self.promised:
            return self.times is not None
        kept = self.claimed is not None and self.claimed is self.lease
        return kept and now <= self.contact.feed_until(self.times)


class Guard:
    """`step`, `feed` and `last_resort` are called several times in the watchdog's timeout, each in
    a thread of its own.

    device: None where there is none; then it only tells, at the end, that the agent ends on
    purpose. timeout_s: 0 for half of the session's. kill: ends all VMs at once, without asking."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        standing: Standing,
        device: Watchdog | None = None,
        name: str = "",
        timeout_s: float = 0.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._standing = standing
        self._device = device
        self._name = name
        self._timeout_s = timeout_s or store.session_timeout_s / 2
        self.kill: Callable[[], None] = lambda: None
        self._known = Known()
        """Replaced as a whole, by `step` alone, and read once by each look."""
        self._fed = 0.0
        self._rearm = float("-inf")
        self._killed = False
        self._quiet = False
        """The loss of contact was logged."""
        period_s = self._timeout_s / 12
        self._loops = (
            Loop("guard", self.step, period_s, reads=()),
            Loop("guard-feed", self.feed, period_s, reads=()),
            Loop("guard-last-resort", self.last_resort, LAST_RESORT_PERIOD_S, reads=()),
        )

    def begin(self) -> None:
        """Starts its threads."""
        if self._device is not None:
            for loop in self._loops:
                loop.start()

    def step(self) -> None:
        """Sees to everything but feeding; may take as long as the state takes. Never fails: to be
        slowed down after failures would reset the machine."""
        try:
            self._see_to_it()
        except (PvcError, OSError) as error:
            self._complain(str(error))

    def feed(self) -> None:
        """Looks at the clock, and feeds at once. Never fails, as `step`."""
        now = self._clock.monotonic()
        if self._device is None or not self._known.may_feed(now):
            return
        try:
            self._device.feed()
            self._fed = now
        except OSError as error:
            self._complain(str(error))

    def _see_to_it(self) -> None:
        if self._device is None or not wanted(self._store.snapshot()):
            self._stand_down()
            return
        times = self._armed()
        if times is not None:
            self._see_lease()
            self._keep_contact(times)
            self._claim(times)

    def last_resort(self) -> None:
        """Ends the VMs shortly before the machine is reset, so that they do not write to the
        last."""
        times = self._known.times
        if times is None or not self._known.promised:
            return
        left_s = self._fed + times.watchdog_s - self._clock.monotonic()
        if left_s > times.last_resort_s:
            self._killed = False
        elif not self._killed:
            self._killed = True
            log.critical(
                "this node has no contact with the state and is reset by its watchdog in %.1f s: "
                "ending all VMs, they are started elsewhere",
                max(left_s, 0.0),
            )
            self.kill()

    def leave(self) -> None:
        """The process ends: tells the cluster, then lets the watchdog go. One that the cluster
        could not be told of stays armed: it was promised that it resets this machine."""
        for loop in self._loops:
            if self._device is not None:
                loop.stop(STOP_S)
        try:
            told = self._standing.leave()
            if told and self._device is not None and self._known.times is not None:
                self._know(times=None)
                self._device.disarm()
        except (PvcError, OSError) as error:
            told = False
            log.warning("the cluster does not know that this agent ends on purpose: %s", error)
        if self._known.times is not None and not told:
            log.critical(
                "%s stays armed and resets this machine in at most %g s, unless the agent is back "
                "by then", self._name, self._known.times.watchdog_s,
            )  # fmt: skip

    def _armed(self) -> Times | None:
        """Arms it if it is not. None while it cannot be used."""
        now, times = self._clock.monotonic(), self._known.times
        if times is None:
            return self._arm() if now >= self._rearm else None
        if self._known.promised and now > self._fed + times.watchdog_s + BROKEN_S:
            self._give_up("it did not reset the machine when it should have")
            return None
        lag_s, session_s = self._store.proof_lag_s, self._store.session_timeout_s
        times = replace(times, lag_s=lag_s, session_s=session_s)
        self._know(times=times)
        return times

    def _arm(self) -> Times | None:
        """To arm it is to feed it: so first whatever was promised of it, maybe by a process of this
        node that is no more, is taken back."""
        assert self._device is not None
        if not self._withdraw():
            return None
        try:
            actual_s = self._device.arm(self._timeout_s)
            times = Times(self._store.session_timeout_s, actual_s, self._store.proof_lag_s)
            if times.wrong:
                self._device.disarm()
        except OSError as error:
            self._fault(f"it cannot be armed: {error}")
            return None
        if times.wrong:
            self._fault(times.wrong)
            return None
        self._fed, self._standing.faults = self._clock.monotonic(), ()
        self._know(times=times)
        log.info("%s is armed for %g s", self._name, actual_s)
        return times

    def _see_lease(self) -> None:
        lease = self._standing.lease
        if lease is not self._known.lease:
            self._know(lease=lease, contact=Contact())

    def _keep_contact(self, times: Times) -> None:
        """A proof of the lease when one is due, else a sign of life."""
        asked, lease, contact = self._clock.monotonic(), self._known.lease, self._known.contact
        if lease is None:
            return
        proof = contact.proof_is_due(asked, times)
        try:
            if proof:
                self._store.prove(lease, ANSWER_S)
            else:
                self._store.touch(ANSWER_S)
        except PvcError as error:
            if error.reason == reason_pb2.REASON_NOT_LEADER:
                self._know(contact=Contact())
            self._complain(error.message)
            return
        self._know(contact=contact.heard(Answer(asked, self._clock.monotonic(), proof)))
        if self._quiet:
            self._quiet = False
            log.info("the state answers again")

    def _claim(self, times: Times) -> None:
        """Only while it could be fed by the rules too: the session then lives for the watchdog's
        timeout at least, so that even a feed that was allowed before the promise, and comes late,
        has the machine reset in time."""
        lease, until = self._known.lease, self._known.contact.feed_until(times)
        if lease is None or lease is self._known.claimed or until < self._clock.monotonic():
            return
        promise = cluster_pb2.WatchdogStatus(armed=True, session=lease.session, device=self._name)
        promise.timeout.FromMilliseconds(math.ceil(times.watchdog_s * 1000))
        self._know(promised=True)
        if self._standing.claim(lease, promise):
            self._know(claimed=lease)

    def _withdraw(self) -> bool:
        if self._standing.withdraw():
            self._know(promised=False, claimed=None)
            return True
        return False

    def _stand_down(self) -> None:
        if self._known.times is None or not self._withdraw():
            return
        assert self._device is not None
        self._know(times=None)
        self._device.disarm()
        self._rearm = float("-inf")
        log.info("%s is disarmed: the cluster fences nobody now", self._name)

    def _give_up(self, why: str) -> None:
        """Promises nothing any more, and leaves it as it is."""
        if self._withdraw():
            self._know(times=None)
            self._fault(why)
            self._rearm = float("inf")

    def _know(self, **news: Any) -> None:
        self._known = replace(self._known, **news)

    def _fault(self, why: str) -> None:
        self._rearm = self._clock.monotonic() + REARM_S
        self._standing.faults = (f"the watchdog {self._name}: {why}",)
        log.error("%s: %s", self._name, why)

    def _complain(self, why: str) -> None:
        if not self._quiet:
            self._quiet = True
            log.warning("the watchdog is fed only while the state answers: %s", why)


def wanted(snapshot: Snapshot) -> bool:
    """Nodes that fail are fenced now; else none need be reset."""
    row = snapshot.find(cluster_pb2.ClusterIdentity, THIS_CLUSTER)
    return row is None or not (row.spec.maintenance or row.spec.ha_disarmed)


def end_all(hypervisor: Hypervisor) -> None:
    """Ends all VMs of this node at once."""

    def end(vm: str) -> None:
        try:
            hypervisor.destroy(vm)
        except PvcError as error:
            log.error("vm %s goes on until the machine is reset: %s", vm, error.message)

    running = [x.vm for x in hypervisor.domains().values() if x.power is not Power.OFF]
    with ThreadPoolExecutor(KILLS_AT_ONCE) as hands:
        list(hands.map(end, running))
