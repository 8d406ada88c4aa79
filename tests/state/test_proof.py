"""What a proof of a lease is worth, on real ZooKeeper servers: in time or not at all, and never
from a server that the others have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.mesh.errors import PvcError
from services.state.store import Lease
from services.state.zookeeper import ZookeeperStore
from tests.state.places import WAIT_S, ZookeeperPlace, eventually, refused
from tests.state.wire import Wire
from tests.state.zookeeper_server import ZookeeperServer, missing, started_ensemble

pytestmark = pytest.mark.real


@pytest.fixture
def place(zookeeper: ZookeeperServer) -> Iterator[ZookeeperPlace]:
    made = ZookeeperPlace(zookeeper)
    yield made
    made.close()


@pytest.fixture
def wire(zookeeper: ZookeeperServer) -> Iterator[Wire]:
    """A wire to the server, to be made to stall."""
    made = Wire(zookeeper.address)
    yield made
    made.close()


def test_a_proof_that_does_not_come_in_time_is_none(place: ZookeeperPlace, wire: Wire) -> None:
    """Whatever is answered late is not waited for; and when the session has ended meanwhile, the
    lease is not proven by what was known of it."""
    store = place.open(wire.address, session_timeout_s=3.0)
    other = place.open()
    lease = store.acquire("nodes/n1", "nodes/n1")
    assert lease is not None
    store.prove(lease, WAIT_S)
    wire.stall()
    with refused("STORE_UNAVAILABLE"):
        store.prove(lease, 0.3)
    with refused("STORE_UNAVAILABLE"):
        store.touch(0.3)
    eventually(lambda: not other.snapshot().leases)
    wire.flow()
    eventually(lambda: store._connection.up)
    with refused("NOT_LEADER"):
        store.prove(lease, WAIT_S)


def test_a_silent_server_is_left_for_another(tmp_path: Path) -> None:
    """A machine without power refuses nothing. The session must not die with it."""
    if why := missing():
        pytest.skip(why)
    servers = started_ensemble(tmp_path)
    wires = [Wire(server.address) for server in servers]
    place = ZookeeperPlace(servers[0], ",".join(wire.address for wire in wires))
    try:
        session_s = 60.0
        store = place.open(session_timeout_s=session_s)
        lease = store.acquire("nodes/n1", "nodes/n1")
        assert lease is not None
        (used,) = [wire for wire in wires if wire.used]
        used.stall()
        with refused("STORE_UNAVAILABLE"):
            store.prove(lease, 0.5)
        began = time.monotonic()
        eventually(lambda: proves(store, lease))
        assert time.monotonic() - began < session_s / 2, "else it stays for two thirds of that"
    finally:
        place.close()
        for end in (*wires, *servers):
            end.close() if isinstance(end, Wire) else end.kill()


def test_a_server_that_most_others_left_proves_nothing(tmp_path: Path) -> None:
    """It still leads for all it knows, and answers what it can answer alone."""
    if why := missing():
        pytest.skip(why)
    # Long enough a leader still, though it hears of no follower any more.
    servers = started_ensemble(tmp_path, ["syncLimit=60"])
    (leader,) = [s for s in servers if "Mode: leader" in s.ask("srvr")]
    others = [server for server in servers if server is not leader]
    place = ZookeeperPlace(leader)
    try:
        store = place.open()
        lease = store.acquire("nodes/n1", "nodes/n1")
        assert lease is not None
        store.prove(lease, WAIT_S)
        for server in others:
            server.freeze()
        store._connection.sync()
        store.touch(WAIT_S)
        assert store._connection.get(lease.path) is not None
        with refused("STORE_UNAVAILABLE"):
            store.prove(lease, 0.5)
        for server in others:
            server.thaw()
        eventually(lambda: proves(store, lease))
    finally:
        for server in servers:
            server.kill()
        place.close()


def proves(store: ZookeeperStore, lease: Lease) -> bool:
    try:
        store.prove(lease, 1.0)
    except PvcError:
        return False
    return True


def test_the_timeout_is_the_one_that_was_granted(tmp_path: Path) -> None:
    """Servers have limits of their own for what they are asked for."""
    if why := missing():
        pytest.skip(why)
    server = ZookeeperServer(tmp_path / "zk", lines=["minSessionTimeout=3000"])
    server.start()
    place = ZookeeperPlace(server)
    try:
        store = place.open(session_timeout_s=1.0)
        assert store.session_timeout_s == pytest.approx(3.0)
        assert store.proof_lag_s == pytest.approx(3.0 / 4 + 0.1)
    finally:
        place.close()
        server.kill()
