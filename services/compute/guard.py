"""Guards the node against itself: feeds its watchdog for as long as the node is known to hold its
session, and no longer. So the cluster knows when the machine has been reset.

When to feed is core.feeding's to say; what the cluster is told, Standing's. Feeding has a thread of
its own, in which nothing is waited for: what takes time there resets the machine.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.compute.core.feeding import Answer, Contact, Times
from services.compute.drivers.hypervisor import Hypervisor, Power
from services.compute.drivers.watchdog import Watchdog
from services.compute.standing import Standing
from services.mesh.clock import Clock
from services.mesh.errors import PvcError
from services.mesh.loop import Loop
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
        self._feeding = threading.Lock()
        """Held from the look at the clock until the device was fed; and while any of what follows
        is changed, so that no look is at what is no longer so."""
        self._times: Times | None = None
        """While it is armed."""
        self._lease: Lease | None = None
        self._contact = Contact()
        self._claimed: Lease | None = None
        """For this one the cluster is known to have been told."""
        self._promised = False
        """The cluster may have been told, and was not told otherwise since."""
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
        """Looks at the clock, and feeds at once. As long as nothing was promised it may always be
        fed. Never fails, as `step`."""
        with self._feeding:
            if self._device is None or self._times is None:
                return
            kept = self._claimed is not None and self._claimed is self._lease
            until = self._contact.feed_until(self._times)
            now = self._clock.monotonic()
            if self._promised and not (kept and now <= until):
                return
            try:
                self._device.feed()
                self._fed = now
            except OSError as error:
                self._complain(str(error))

    def _see_to_it(self) -> None:
        if self._device is None or not wanted(self._store.snapshot()):
            self._stand_down()
        elif self._is_armed():
            self._see_lease()
            self._keep_contact()
            due = self._claimed is not self._lease
            if due and self._contact.feed_until(self._armed_times()) >= self._clock.monotonic():
                self._claim()

    def last_resort(self) -> None:
        """Ends the VMs shortly before the machine is reset, so that they do not write to the
        last."""
        times = self._times
        if times is None or not self._promised:
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
            if told and self._device is not None and self._times is not None:
                self._device.disarm()
                self._times = None
        except (PvcError, OSError) as error:
            told = False
            log.warning("the cluster does not know that this agent ends on purpose: %s", error)
        if self._times is not None and not told:
            log.critical(
                "%s stays armed and resets this machine in at most %g s, unless the agent is back "
                "by then", self._name, self._times.watchdog_s,
            )  # fmt: skip

    def _is_armed(self) -> bool:
        now = self._clock.monotonic()
        if self._times is None:
            return now >= self._rearm and self._arm()
        if self._promised and now > self._fed + self._times.watchdog_s + BROKEN_S:
            self._give_up("it did not reset the machine when it should have")
            return False
        lag_s, session_s = self._store.proof_lag_s, self._store.session_timeout_s
        with self._feeding:
            self._times = replace(self._times, lag_s=lag_s, session_s=session_s)
        return True

    def _arm(self) -> bool:
        """To arm it is to feed it: so first whatever was promised of it, maybe by a process of this
        node that is no more, is taken back."""
        assert self._device is not None
        if not self._withdraw():
            return False
        try:
            actual_s = self._device.arm(self._timeout_s)
            times = Times(self._store.session_timeout_s, actual_s, self._store.proof_lag_s)
            if times.wrong:
                self._device.disarm()
        except OSError as error:
            return self._fault(f"it cannot be armed: {error}")
        if times.wrong:
            return self._fault(times.wrong)
        with self._feeding:
            self._fed, self._times, self._standing.faults = self._clock.monotonic(), times, ()
        log.info("%s is armed for %g s", self._name, actual_s)
        return True

    def _see_lease(self) -> None:
        lease = self._standing.lease
        if lease is not self._lease:
            with self._feeding:
                self._lease, self._contact = lease, Contact()

    def _keep_contact(self) -> None:
        """A proof of the lease when one is due, else a sign of life."""
        times, asked = self._armed_times(), self._clock.monotonic()
        if self._lease is None:
            return
        proof = self._contact.proof_is_due(asked, times)
        try:
            if proof:
                self._store.prove(self._lease, ANSWER_S)
            else:
                self._store.touch(ANSWER_S)
        except PvcError as error:
            if error.reason == reason_pb2.REASON_NOT_LEADER:
                with self._feeding:
                    self._contact = Contact()
            self._complain(error.message)
            return
        with self._feeding:
            self._contact = self._contact.heard(Answer(asked, self._clock.monotonic(), proof))
        if self._quiet:
            self._quiet = False
            log.info("the state answers again")

    def _claim(self) -> None:
        assert self._lease is not None
        times, lease = self._armed_times(), self._lease
        promise = cluster_pb2.WatchdogStatus(armed=True, session=lease.session, device=self._name)
        promise.timeout.FromMilliseconds(math.ceil(times.watchdog_s * 1000))
        with self._feeding:
            self._promised = True
        if self._standing.claim(lease, promise):
            with self._feeding:
                self._claimed = lease

    def _withdraw(self) -> bool:
        if not self._standing.withdraw():
            return False
        with self._feeding:
            self._promised, self._claimed = False, None
        return True

    def _stand_down(self) -> None:
        if self._times is None or not self._withdraw():
            return
        assert self._device is not None
        with self._feeding:
            self._times = None
            self._device.disarm()
        self._rearm = float("-inf")
        log.info("%s is disarmed: the cluster fences nobody now", self._name)

    def _give_up(self, why: str) -> None:
        """Promises nothing any more, and leaves it as it is."""
        if self._withdraw():
            with self._feeding:
                self._times = None
            self._fault(why)
            self._rearm = float("inf")

    def _fault(self, why: str) -> bool:
        self._rearm = self._clock.monotonic() + REARM_S
        self._standing.faults = (f"the watchdog {self._name}: {why}",)
        log.error("%s: %s", self._name, why)
        return False

    def _complain(self, why: str) -> None:
        if not self._quiet:
            self._quiet = True
            log.warning("the watchdog is fed only while the state answers: %s", why)

    def _armed_times(self) -> Times:
        assert self._times is not None
        return self._times


def wanted(snapshot: Snapshot) -> bool:
    """Nodes that fail are fenced now; else none need be reset."""
    row = snapshot.find(cluster_pb2.ClusterIdentity, "clusters/this")
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
