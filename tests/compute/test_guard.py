"""The guard: it promises only what is so, feeds only by its promise, and the machine is always
reset in time."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import reason_pb2
from services.compute.drivers.watchdog import FakeWatchdog
from services.compute.guard import BROKEN_S, REARM_S, Guard
from services.compute.standing import Standing
from services.mesh.errors import PvcError
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Change, Conflict, Lease, Put
from tests.compute.world import NODE, ManualClock


class Line(MemoryStore):
    """A store that can be out of reach. lost: commits are done and not answered; busy: others write
    the row all the time."""

    cut = False
    lost = False
    busy = False

    def commit(self, changes: Sequence[Change], held_by: Lease | None = None) -> int:
        self._reach()
        if self.busy:
            raise Conflict(NODE)
        revision = super().commit(changes, held_by)
        if self.lost:
            raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "no answer")
        return revision

    def prove(self, lease: Lease, timeout_s: float) -> None:
        self._reach()
        super().prove(lease, timeout_s)

    def touch(self, timeout_s: float) -> None:
        self._reach()
        super().touch(timeout_s)

    def _reach(self) -> None:
        if self.cut:
            raise PvcError(reason_pb2.REASON_STORE_UNAVAILABLE, "it is cut off")


class Node:
    """A node with a watchdog, its agent's guard, and the state."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.shared = MemoryCluster()
        self.outside = MemoryStore(self.shared)
        self.outside.commit([Put(cluster_pb2.Node(name=NODE))])
        self.resets: list[float] = []
        self.killed: list[float] = []
        self.watchdog = FakeWatchdog(self.clock.monotonic, self.reset)
        self.start()

    def start(self) -> None:
        """A fresh agent."""
        self.store = Line(self.shared, session_timeout_s=6.0)
        self.standing = Standing(self.store, NODE)
        self.guard = Guard(self.store, self.clock, self.standing, self.watchdog, "/dev/w")
        self.guard.kill = lambda: self.killed.append(self.clock.seconds)

    def reset(self) -> None:
        self.resets.append(self.clock.seconds)

    def hold(self) -> None:
        """What Presence does."""
        self.standing.lease = self.store.acquire(NODE, NODE)

    def live(self, seconds: float, every: float = 0.5) -> None:
        for _ in range(round(seconds / every)):
            self.guard.step()
            self.guard.feed()
            self.guard.last_resort()
            self.clock.seconds += every
            self.watchdog.look()

    def promise(self) -> cluster_pb2.WatchdogStatus:
        row = self.outside.snapshot().find(cluster_pb2.Node, NODE)
        assert row is not None
        return row.status.watchdog

    def cluster_is(self, **spec: bool) -> None:
        there = self.outside.snapshot().find(cluster_pb2.ClusterIdentity, "clusters/this")
        row = cluster_pb2.ClusterIdentity(name="clusters/this")
        if there is not None:
            row.meta.CopyFrom(there.meta)
        row.spec.CopyFrom(cluster_pb2.ClusterSpec(**spec))
        self.outside.commit([Put(row)])


@pytest.fixture
def node() -> Node:
    return Node()


def test_it_arms_promises_and_feeds(node: Node) -> None:
    node.hold()
    node.live(60)
    told = node.promise()
    assert told.armed and told.session == node.store.session() and told.device == "/dev/w"
    assert 3.0 <= told.timeout.ToMilliseconds() / 1000 < 3.01
    assert node.resets == [] and node.killed == []


def test_it_promises_nothing_before_it_is_armed(node: Node) -> None:
    node.watchdog.broken = "no such device"
    node.hold()
    node.live(5)
    assert not node.promise().armed
    assert "no such device" in node.standing.faults[0]
    node.watchdog.broken = ""
    node.live(REARM_S + 1)
    assert node.promise().armed and node.standing.faults == ()


def test_before_it_promised_anything_it_may_always_feed(node: Node) -> None:
    """The agent of before left the lease behind, and its session takes a while to end."""
    node.live(30)
    assert node.resets == [] and node.watchdog.armed and not node.promise().armed
    node.hold()
    node.live(2)
    assert node.promise().armed


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.7])
def test_without_contact_the_vms_end_and_then_the_machine(node: Node, at: float) -> None:
    node.hold()
    node.live(10)
    node.clock.seconds += at
    cut_at = node.clock.seconds
    node.store.cut = True
    node.live(12, every=0.1)
    (reset,), killed = node.resets, node.killed
    assert cut_at + 2 < reset <= cut_at + 6, "not before it had to be, not after the session"
    assert len(killed) == 1 and reset - 0.8 <= killed[0] < reset


def test_contact_that_comes_back_in_time_is_enough(node: Node) -> None:
    node.hold()
    node.live(10)
    for _ in range(5):
        node.store.cut = True
        node.live(3)
        node.store.cut = False
        node.live(3)
    assert node.resets == [] and node.killed == []


def test_a_lost_session_is_not_fed_for(node: Node) -> None:
    node.hold()
    node.live(10)
    ended = node.clock.seconds
    node.store.lose_session()
    node.live(6, every=0.1)
    assert len(node.resets) == 1 and node.resets[0] <= ended + 3.01


@pytest.mark.parametrize("trouble", ["lost", "busy"])
def test_a_new_session_is_promised_before_it_is_fed_for(node: Node, trouble: str) -> None:
    node.hold()
    node.live(10)
    before = node.promise().session
    node.store.lose_session()
    node.hold()
    fed = node.watchdog.deadline
    setattr(node.store, trouble, True)
    node.live(1.5)
    assert node.watchdog.deadline == fed, "whether the cluster knows is not known"
    setattr(node.store, trouble, False)
    node.live(10)
    assert node.promise().session not in ("", before) and node.resets == []


def test_a_fresh_agent_takes_the_old_promise_back_before_it_touches_the_watchdog(
    node: Node,
) -> None:
    node.hold()
    node.live(10)
    fed = node.watchdog.deadline
    node.start()
    node.store.cut = True
    node.live(1)
    assert node.watchdog.deadline == fed and node.promise().armed
    node.store.cut = False
    node.guard.step()
    node.guard.feed()
    assert not node.promise().armed and node.watchdog.deadline > fed
    node.hold()
    node.live(20)
    assert node.resets == [] and not node.promise().armed, "another still holds the lease"


def test_while_nobody_is_fenced_it_is_disarmed(node: Node) -> None:
    node.hold()
    for spec in ({"maintenance": True}, {"ha_disarmed": True}):
        node.cluster_is()
        node.live(5)
        assert node.watchdog.armed and node.promise().armed
        node.cluster_is(**spec)
        node.store.cut = True
        node.live(1)
        assert node.watchdog.armed, "the cluster still counts on it"
        node.store.cut = False
        node.live(1)
        assert not node.watchdog.armed and not node.promise().armed
        node.live(20)
    assert node.resets == []


def test_an_agent_that_ends_says_so_and_lets_it_go(node: Node) -> None:
    node.hold()
    node.live(10)
    node.guard.leave()
    row = node.outside.snapshot().find(cluster_pb2.Node, NODE)
    assert row is not None and row.status.restarting and not row.status.HasField("watchdog")
    assert not node.watchdog.armed


def test_an_agent_that_cannot_say_that_it_ends_leaves_it_armed(node: Node) -> None:
    """The cluster was promised that this machine is reset, and may act on it."""
    node.hold()
    node.live(10)
    node.store.cut = True
    node.guard.leave()
    assert node.watchdog.armed and node.promise().armed


def test_a_row_that_is_written_all_the_time_is_no_excuse(node: Node) -> None:
    node.hold()
    node.live(10)
    node.store.busy = True
    node.guard.leave()
    assert node.watchdog.armed and node.promise().armed


def test_without_a_watchdog_it_only_says_that_it_ends(node: Node) -> None:
    guard = Guard(node.store, node.clock, node.standing)
    node.hold()
    guard.begin()
    guard.step()
    guard.leave()
    row = node.outside.snapshot().find(cluster_pb2.Node, NODE)
    assert row is not None and row.status.restarting


def test_a_watchdog_that_is_too_slow_is_a_fault(node: Node) -> None:
    node.watchdog.least_s = 30.0
    node.hold()
    node.live(5)
    assert not node.watchdog.armed and not node.promise().armed
    assert "cannot be set to less than 30 s" in node.standing.faults[0]


def test_a_watchdog_that_does_not_fire_is_never_counted_on_again(node: Node) -> None:
    node.hold()
    node.live(10)
    node.store.cut = True
    node.watchdog.look = lambda: None  # type: ignore[method-assign]
    node.live(8 + BROKEN_S)
    node.store.cut = False
    node.live(60)
    assert not node.promise().armed
    assert "did not reset the machine" in node.standing.faults[0]


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_machine_is_reset_in_time(seed: int) -> None:
    """Pauses and cuts at random; the session ends six seconds after the last word that came
    through. From the promise on, the node may live until then and three seconds more."""
    chance, node = random.Random(seed), Node()
    node.hold()
    node.live(5)
    heard = node.clock.seconds
    for _ in range(400):
        node.store.cut = chance.random() < (0.9 if node.store.cut else 0.05)
        if not node.store.cut and node.clock.seconds <= heard + 6:
            heard = node.clock.seconds
        elif node.clock.seconds > heard + 6 and node.standing.lease is not None:
            node.store.lose_session()
            node.standing.lease = None
        node.guard.step()
        node.guard.feed()
        node.clock.seconds += chance.choice([0.1, 0.5, 0.5, 1.0, chance.uniform(0, 9)])
        node.watchdog.look()
        if node.resets:
            return
        assert node.watchdog.deadline <= heard + 6 + 3
