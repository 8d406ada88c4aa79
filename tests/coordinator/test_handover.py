"""The lead goes where an administrator asks it to go, through the service and two real
coordinators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc_client import Cluster, errors
from services.coordinator.main import build
from services.mesh import rows
from services.mesh.desk import Call
from services.mesh.parts import Parts
from services.mesh.process import woken
from services.mesh.rows import THIS_CLUSTER
from services.mesh.server import Server
from services.pvcd.init import first_node
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put
from tests.mesh.serving import CLOCK, Host
from tests.state.places import eventually

NAMES = ("n1", "n2", "n3")


class Election:
    """Nodes n1 and n2 are coordinators, n3 is none; all hold their sessions."""

    def __init__(self, folder: Path) -> None:
        cluster = MemoryCluster()
        self.stores = {name: MemoryStore(cluster) for name in NAMES}
        self.host = Host()
        self._begin()
        self.stop: list[object] = []
        self.parts = {
            name: build(self.stores[name], CLOCK, f"nodes/{name}", "home") for name in NAMES
        }
        for name, parts in self.parts.items():
            self._start(name, parts)
        self.server = self.host.do(self._serve(folder / "c.sock"))
        self.client = Cluster(f"unix:{folder}/c.sock")

    def _begin(self) -> None:
        store = self.stores["n1"]
        for number, name in enumerate(NAMES):
            call = Call(CLOCK.now(), "test", f"nodes/{name}", CLOCK.new_id)
            row = first_node(call, f"10.0.0.{number}")
            row.spec.coordinator = name != "n3"
            row.decision.state = cluster_pb2.NODE_STATE_ONLINE
            row.status.session = self.stores[name].session()
            store.commit([Put(row)])
            self.stores[name].acquire(row.name, row.name)
        meta = rows.new_meta(call)
        store.commit([Put(cluster_pb2.ClusterIdentity(name=THIS_CLUSTER, meta=meta))])

    def _start(self, name: str, parts: Parts) -> None:
        for loop in parts.loops:
            if loop.name == "coordinator":
                self.stop += [woken(self.stores[name], loop), lambda loop=loop: loop.stop(60)]
                loop.start()

    async def _serve(self, path: Path) -> Server:
        server = Server(self.parts["n1"].servicers, CLOCK)
        server.listen_unix(path)
        await server.start()
        return server

    @property
    def leader(self) -> str:
        return self.stores["n1"].snapshot().leases.get("leader", "")

    def settled(self) -> str:
        """Who leads, once somebody does."""
        eventually(lambda: self.leader)
        return self.leader

    def close(self) -> None:
        self.client.close()
        for stop in self.stop:
            stop()  # type: ignore[operator]
        self.host.do(self.server.drain(0))
        self.host.close()


@pytest.fixture
def election(tmp_path: Path) -> Iterator[Election]:
    election = Election(tmp_path)
    try:
        yield election
    finally:
        election.close()


def test_the_lead_is_handed_over(election: Election) -> None:
    first = election.settled().removeprefix("nodes/")
    other = "n2" if first == "n1" else "n1"
    election.client.nodes.lead(other)
    assert election.leader == f"nodes/{other}"
    election.client.nodes.lead(other, away=True)
    assert election.leader == f"nodes/{first}"
    eventually(lambda: not has_wish(election))


def has_wish(election: Election) -> bool:
    row = election.stores["n1"].snapshot().find(cluster_pb2.ClusterIdentity, THIS_CLUSTER)
    assert row is not None
    return row.HasField("lead_request")


def test_a_leader_that_is_demoted_leads_no_more(election: Election) -> None:
    first = election.settled().removeprefix("nodes/")
    other = "n2" if first == "n1" else "n1"
    election.client.nodes.demote(first)
    eventually(lambda: election.leader == f"nodes/{other}")
    with pytest.raises(errors.WrongState, match="is the last coordinator that works"):
        election.client.nodes.demote(other)
    with pytest.raises(errors.WrongState, match="cannot be relieved of the lead"):
        election.client.nodes.lead(other, away=True)


def test_who_cannot_lead_is_not_asked_to(election: Election) -> None:
    leader = election.settled()
    with pytest.raises(errors.WrongState, match="is no coordinator; promote it first"):
        election.client.nodes.lead("n3")
    other = "n2" if leader == "nodes/n1" else "n1"
    election.stores[other].lose_session()
    with pytest.raises(errors.WrongState, match="and cannot lead"):
        election.client.nodes.lead(other)
    election.client.nodes.lead(leader.removeprefix("nodes/"))
    assert election.leader == leader, "nothing was to be done"


def test_a_lead_that_does_not_move_is_said(
    election: Election, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = election.settled()
    other = "n2" if leader == "nodes/n1" else "n1"
    monkeypatch.setattr("services.coordinator.node_service.LEAD_WAIT_S", 0.2)
    monkeypatch.setattr("services.coordinator.lead._suits", lambda wish, node: True)
    with pytest.raises(errors.Deadline, match=f"{leader} leads still after 0.2 s"):
        election.client.nodes.lead(other)
