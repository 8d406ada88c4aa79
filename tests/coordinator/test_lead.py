"""Who leads: election, hand-over on request, and since when nodes are gone."""

from __future__ import annotations

import pytest

from pvc.coordinator.v1 import cluster_pb2
from services.coordinator.core.world import Outage
from services.coordinator.evidence import GAP_S, Evidence
from services.coordinator.lead import LEADER, STAND_BACK_S, YIELD_S, Lead
from services.mesh import rows
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import ANY_VERSION, Delete, Put
from tests.coordinator.test_loop import ManualClock

Identity = cluster_pb2.ClusterIdentity
Node = cluster_pb2.Node


class Site:
    """Three coordinators, and what an administrator does."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.admin = MemoryStore(self.cluster)
        self.clock = ManualClock()
        self.stores = {name: MemoryStore(self.cluster) for name in ("n1", "n2", "n3")}
        self.leads = {
            name: Lead(store, self.clock, f"nodes/{name}") for name, store in self.stores.items()
        }
        changes = [Put(Node(name=f"nodes/{name}")) for name in self.stores]
        self.admin.commit([*changes, Put(Identity(name="clusters/this"))])

    def leader(self, *order: str) -> str:
        """Who leads once each has looked, in that order."""
        for name in order or self.leads:
            self.leads[name].take()
        return self.admin.snapshot().leases.get(LEADER, "").removeprefix("nodes/")

    def wish(self, node: str = "", away: str = "") -> None:
        row = rows.copied(self.admin.snapshot().find(Identity, "clusters/this") or Identity())
        row.lead_request.node = f"nodes/{node}" if node else ""
        row.lead_request.away = f"nodes/{away}" if away else ""
        row.lead_request.time.seconds = self.clock.seconds
        self.admin.commit([Put(row)])

    @property
    def wished(self) -> bool:
        row = self.admin.snapshot().find(Identity, "clusters/this")
        return row is not None and row.HasField("lead_request")

    def promote(self, *names: str) -> None:
        for row in list(self.admin.snapshot().rows(Node)):
            after = rows.copied(row)
            after.spec.coordinator = row.name.removeprefix("nodes/") in names
            self.admin.commit([Put(after)])


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_first_one_leads_and_keeps_it(site: Site) -> None:
    assert site.leader("n2", "n1", "n3") == "n2"
    assert site.leader("n1", "n3", "n2") == "n2"
    assert site.leads["n2"].lease is not None and site.leads["n1"].lease is None


def test_the_lead_goes_to_whom_it_was_asked_for(site: Site) -> None:
    site.leader("n1")
    site.wish("n3")
    assert site.leader("n1", "n2", "n1") == "", "the others leave it to n3"
    assert site.leader("n3") == "n3" and not site.wished
    assert site.leader("n1", "n2", "n3") == "n3"


def test_the_lead_goes_away_from_a_node(site: Site) -> None:
    site.leader("n1")
    site.wish(away="n1")
    assert site.leader("n1", "n1", "n2") == "n2" and not site.wished


def test_a_wish_that_is_true_already_is_forgotten(site: Site) -> None:
    site.leader("n1")
    site.wish("n1")
    assert site.leader("n1") == "n1" and not site.wished


def test_when_the_wished_one_does_not_come_another_leads(site: Site) -> None:
    site.leader("n1")
    site.wish("n3")
    assert site.leader("n1", "n2") == ""
    site.clock.seconds += int(YIELD_S)
    assert site.leader("n1", "n2") == "n2", "the one that gave it away waits longer"
    assert not site.wished
    assert site.leader("n2", "n1", "n3") == "n2", "the wish is over"


def test_alone_it_takes_the_lead_back(site: Site) -> None:
    site.leader("n1")
    site.wish("n3")
    assert site.leader("n1") == ""
    site.clock.seconds += int(STAND_BACK_S)
    assert site.leader("n1") == "n1" and not site.wished


def test_a_leader_that_dies_before_it_gave_way_makes_room_too(site: Site) -> None:
    site.leader("n1")
    site.wish("n3")
    site.stores["n1"].lose_session()
    assert site.leader("n2") == ""
    assert site.leader("n3") == "n3" and not site.wished


def test_only_coordinators_lead_where_there_are_any(site: Site) -> None:
    site.promote("n2")
    assert site.leader("n1", "n3") == ""
    assert site.leader("n2") == "n2"
    site.promote("n3")
    assert site.leader("n2", "n3") == "n3", "it is no coordinator any more"


def test_whoever_lost_its_session_leads_no_longer(site: Site) -> None:
    site.leader("n1")
    site.stores["n1"].lose_session()
    assert site.leader("n2") == "n2"
    assert site.leads["n1"].take() is None


def test_a_process_that_ends_gives_the_lead_away(site: Site) -> None:
    site.leader("n1")
    site.leads["n1"].close()
    assert site.leader("n2") == "n2"


# --- Since when nodes are gone.


def missing(store: MemoryStore, session: str = "s1", **decision: object) -> None:
    """n1's row, as it is while n1 is away."""
    there = store.snapshot().find(Node, "nodes/n1")
    row = Node(name="nodes/n1")
    row.meta.etag = there.meta.etag if there is not None else ""
    row.status.session = session
    row.decision.lost_session = str(decision.get("lost", ""))
    row.decision.lost_for.seconds = int(str(decision.get("known", 0)))
    store.commit([Put(row)])


def test_it_counts_from_when_it_saw_that_the_session_was_gone() -> None:
    store, evidence = MemoryStore(), Evidence()
    missing(store)
    for second in range(100, 105):
        evidence.observe(store.snapshot(), second, "mine")
    assert evidence.gone_s(104.5) == {"nodes/n1": 4.5}
    store.acquire("nodes/n1", "nodes/n1")
    evidence.observe(store.snapshot(), 105, "mine")
    assert evidence.gone_s(105) == {}


def test_it_goes_on_from_what_leaders_before_it_knew() -> None:
    store, evidence = MemoryStore(), Evidence()
    missing(store, lost="s1", known=30)
    evidence.observe(store.snapshot(), 100, "mine")
    assert evidence.gone_s(101) == {"nodes/n1": 31.0}
    missing(store, lost="s1", known=2)
    evidence.observe(store.snapshot(), 101, "mine")
    assert evidence.gone_s(101) == {"nodes/n1": 31.0}, "what it knew was more"


def test_another_session_is_another_absence() -> None:
    store, evidence = MemoryStore(), Evidence()
    missing(store, lost="s1", known=30)
    evidence.observe(store.snapshot(), 100, "mine")
    missing(store, session="s2", lost="s1", known=30)
    evidence.observe(store.snapshot(), 101, "mine")
    assert evidence.gone_s(101) == {"nodes/n1": 0.0}


def test_who_did_not_look_for_long_or_was_cut_off_knows_nothing_of_it() -> None:
    """The node may have come and gone meanwhile."""
    for later, session in ((100 + GAP_S + 0.1, "mine"), (101, "another")):
        store, evidence = MemoryStore(), Evidence()
        missing(store)
        evidence.observe(store.snapshot(), 100, "mine")
        evidence.observe(store.snapshot(), later, session)
        assert evidence.gone_s(later) == {"nodes/n1": 0.0}


def test_when_nobody_looks_any_more_it_says_nothing() -> None:
    """Others ask it too, while the loop that looks may hang."""
    store, evidence = MemoryStore(), Evidence()
    missing(store, lost="s1", known=30)
    evidence.observe(store.snapshot(), 100, "mine")
    row = store.snapshot().find(Node, "nodes/n1")
    assert row is not None
    late = 100 + GAP_S + 0.1
    assert evidence.gone_s(late) == {} and evidence.gone_for(row, late) == 0.0


def test_it_knows_when_most_were_gone() -> None:
    store, evidence = MemoryStore(), Evidence()
    online = cluster_pb2.NODE_STATE_ONLINE
    for name in ("n1", "n2", "n3"):
        row = Node(name=f"nodes/{name}", decision=cluster_pb2.NodeDecision(state=online))
        store.commit([Put(row)])
        store.acquire(row.name, row.name)
    evidence.observe(store.snapshot(), 100, "mine")
    assert evidence.outage(100) is None
    store.lose_session()
    for second in (101, 102, 103):
        evidence.observe(store.snapshot(), second, "mine")
    store.acquire("nodes/n1", "nodes/n1")
    store.acquire("nodes/n2", "nodes/n2")
    evidence.observe(store.snapshot(), 104, "mine")
    assert evidence.outage(105) == Outage(began_s=4.0, ended_s=2.0)


def test_a_node_that_never_came_is_not_gone() -> None:
    store, evidence = MemoryStore(), Evidence()
    missing(store, session="")
    evidence.observe(store.snapshot(), 100, "mine")
    assert evidence.gone_s(100) == {}
    store.commit([Delete("nodes/n1", ANY_VERSION)])
    evidence.observe(store.snapshot(), 101, "mine")
    assert evidence.gone_s(101) == {}


def test_it_tells_of_the_very_session_that_was_lost() -> None:
    store, evidence = MemoryStore(), Evidence()
    missing(store, lost="s1", known=30)
    evidence.observe(store.snapshot(), 100, "mine")
    row = store.snapshot().find(Node, "nodes/n1")
    assert row is not None and evidence.gone_for(row, 101) == 31.0
    other = rows.copied(row)
    other.decision.lost_session = "s0"
    assert evidence.gone_for(other, 101) == 0.0
