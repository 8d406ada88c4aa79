"""Coordinators on a real ZooKeeper: how long the lead is without a holder. About 6 s."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.lead import LEADER
from services.coordinator.loop import PERIOD_S, READS, Coordinator
from services.mesh import rows
from services.mesh.clock import SystemClock
from services.mesh.loop import Loop
from services.mesh.process import woken
from services.state.store import Put
from services.state.zookeeper import ZookeeperStore
from tests.state.places import ZookeeperPlace, eventually
from tests.state.zookeeper_server import ZookeeperServer, missing

pytestmark = pytest.mark.real
Identity = cluster_pb2.ClusterIdentity
NAMES = ("n1", "n2", "n3")
SESSION_S = 4.0


class Site:
    """Three coordinators, each with a session and a loop of its own."""

    def __init__(self, place: ZookeeperPlace) -> None:
        self.admin = place.open()
        self.admin.commit(
            [
                Put(Identity(name="clusters/this")),
                *(Put(cluster_pb2.Node(name=f"nodes/{name}")) for name in NAMES),
            ]
        )
        self.stores: dict[str, ZookeeperStore] = {}
        self.loops: dict[str, Loop] = {}
        for name in NAMES:
            store = self.stores[name] = place.open(session_timeout_s=SESSION_S)
            step = Coordinator(store, SystemClock(), f"nodes/{name}").step
            self.loops[name] = Loop(name, step, PERIOD_S, READS)
            woken(store, self.loops[name])
            self.loops[name].start()

    @property
    def leader(self) -> str:
        return self.admin.snapshot().leases.get(LEADER, "").removeprefix("nodes/")

    def led_by(self, name: str, timeout_s: float) -> float:
        """Seconds until that one leads."""
        began = time.monotonic()
        eventually(lambda: self.leader == name, timeout_s)
        return time.monotonic() - began

    def wish(self, name: str) -> None:
        row = rows.copied(self.admin.snapshot().find(Identity, "clusters/this") or Identity())
        row.lead_request.node = f"nodes/{name}"
        self.admin.commit([Put(row)])

    def close(self) -> None:
        for loop in self.loops.values():
            loop.stop(5)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if why := missing():
        pytest.skip(why)
    server = ZookeeperServer(tmp_path / "zk")
    server.start()
    place = ZookeeperPlace(server)
    site = Site(place)
    yield site
    site.close()
    place.close()
    server.kill()


def test_the_lead_is_handed_over_within_a_second(site: Site) -> None:
    eventually(lambda: bool(site.leader))
    for _ in range(3):
        wished = next(name for name in NAMES if name != site.leader)
        site.wish(wished)
        assert site.led_by(wished, 1.0) < 1.0
        eventually(lambda: not wish_is_left(site))


def wish_is_left(site: Site) -> bool:
    row = site.admin.snapshot().find(Identity, "clusters/this")
    return row is not None and row.HasField("lead_request")


def test_a_leader_that_ends_is_followed_at_once(site: Site) -> None:
    eventually(lambda: bool(site.leader))
    first = site.leader
    began = time.monotonic()
    site.loops[first].stop(5)
    site.stores[first].close()
    eventually(lambda: site.leader not in ("", first), 2.0)
    assert time.monotonic() - began < 2.0, "it gave its leases away as it ended"
