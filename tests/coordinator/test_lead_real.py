"""Coordinators on a real ZooKeeper: the lead is never without a holder for as
long as a session lasts. About 6 s."""

from __future__ import annotations

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
SESSION_S = 60.0
SOON_S = SESSION_S / 2
"""Less than it takes to find out that a session has ended by itself."""


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


def test_the_lead_is_handed_over_at_once(site: Site) -> None:
    eventually(lambda: bool(site.leader))
    for _ in range(3):
        wished = next(name for name in NAMES if name != site.leader)
        site.wish(wished)
        eventually(lambda name=wished: site.leader == name, SOON_S)
        eventually(lambda: not wish_is_left(site))


def wish_is_left(site: Site) -> bool:
    row = site.admin.snapshot().find(Identity, "clusters/this")
    return row is not None and row.HasField("lead_request")


def test_a_leader_that_ends_is_followed_at_once(site: Site) -> None:
    eventually(lambda: bool(site.leader))
    first = site.leader
    site.loops[first].stop(5)
    site.stores[first].close()
    # It gave its leases away as it ended.
    eventually(lambda: site.leader not in ("", first), SOON_S)
