"""The ZooKeeper store in trouble, on a real server: cuts, stalls, crashes, lost sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kazoo.client import KazooClient

from pvc.core.v1 import store_pb2
from services.mesh.clock import SystemClock
from services.state import follower
from services.state.ensemble import Connection, Ensemble, Refused, Tls
from services.state.store import Conflict, Delete, Put
from services.state.znodes import escaped, lease_name, unescaped, version_after
from services.state.zookeeper import ZookeeperStore
from tests.ports import free_port
from tests.state.certificates import write_certificates
from tests.state.places import (
    WAIT_S,
    ZookeeperPlace,
    described,
    eventually,
    refused,
    steal,
    texts,
    vm,
)
from tests.state.wire import Cut, Wire
from tests.state.zookeeper_server import ZookeeperServer, missing, started_ensemble

pytestmark = pytest.mark.real


@pytest.fixture
def place(zookeeper: ZookeeperServer) -> Iterator[ZookeeperPlace]:
    made = ZookeeperPlace(zookeeper)
    yield made
    made.close()


@pytest.fixture
def wire(zookeeper: ZookeeperServer) -> Iterator[Wire]:
    """A wire to the server, to be cut."""
    made = Wire(zookeeper.address)
    yield made
    made.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ZookeeperServer]:
    """A server that the test may kill."""
    if why := missing():
        pytest.skip(why)
    server = ZookeeperServer(tmp_path / "zk")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def raw(zookeeper: ZookeeperServer) -> Iterator[KazooClient]:
    """A client of our own, to look behind the store."""
    client = KazooClient(zookeeper.address)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_a_commit_that_is_cut_off_is_found_out(place: ZookeeperPlace, wire: Wire, cut: Cut) -> None:
    """Whether or not the server got it: it is done once, and the writer is told so."""
    observer = place.open()
    store = place.open(wire.address)
    store.commit([Put(vm("web", "one"))])
    wire.cut_at_next_transaction(cut)
    revision = store.commit([described(store, "web", "two"), Put(vm("db", "new"))])
    wire.wait_cut()
    assert revision == 2
    assert texts(store) == {"vms/web": "two", "vms/db": "new"}
    observer.wait(2, WAIT_S)
    assert texts(observer) == texts(store)
    assert store.commit([described(store, "db", "newer")]) == 3
    observer.wait(3, WAIT_S)
    assert observer.snapshot().revision == 3


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_a_cut_commit_of_any_version_is_done_once(
    place: ZookeeperPlace, wire: Wire, cut: Cut
) -> None:
    """With ANY_VERSION no conflict would stop a second copy."""
    store = place.open(wire.address)
    wire.cut_at_next_transaction(cut)
    assert store.commit([Put(vm("web", "one", "*"))]) == 1
    wire.wait_cut()
    assert store.commit([]) == 1
    assert place.open().snapshot().revision == 1


def test_an_outcome_that_cannot_be_found_out_is_said(place: ZookeeperPlace, wire: Wire) -> None:
    """The server did it, and nothing is heard of it within the writer's patience."""
    store = place.open(wire.address, patience_s=2.0)
    wire.cut_at_next_transaction(Cut.AFTER, stall=True)
    with refused("STORE_UNAVAILABLE") as error:
        store.commit([Put(vm("web", "one"))])
    assert "could not be found out: read again" in error.value.message
    wire.flow()
    store.wait(1, WAIT_S)
    assert texts(store) == {"vms/web": "one"}


def test_a_cut_commit_of_a_lost_lease_is_refused(place: ZookeeperPlace, wire: Wire) -> None:
    store = place.open(wire.address)
    lease = store.acquire("leader", "a")
    assert lease is not None
    wire.cut_at_next_transaction(Cut.BEFORE)
    place.lose_session(store)
    with refused("NOT_LEADER"):
        store.commit([Put(vm("web"))], held_by=lease)
    assert place.open().snapshot().revision == 0


def test_a_cut_commit_that_happened_before_its_lease_was_lost_is_done(
    place: ZookeeperPlace, wire: Wire, zookeeper: ZookeeperServer
) -> None:
    store = place.open(wire.address)
    lease = store.acquire("leader", "a")
    assert lease is not None
    wire.cut_at_next_transaction(Cut.AFTER, stall=True)
    client_id = store._connection._client.client_id
    answer: list[int] = []
    writer = threading.Thread(
        target=lambda: answer.append(store.commit([Put(vm("web"))], held_by=lease))
    )
    writer.start()
    wire.wait_cut()
    steal(zookeeper.address, client_id)
    wire.flow()
    writer.join(WAIT_S)
    assert answer == [1]
    with refused("NOT_LEADER"):
        store.commit([Put(vm("db"))], held_by=lease)


def test_anothers_commit_in_the_gap_is_a_conflict(place: ZookeeperPlace, wire: Wire) -> None:
    """Cut before it was sent on; meanwhile somebody else changes the row."""
    other = place.open()
    store = place.open(wire.address)
    other.commit([Put(vm("web", "one"))])
    store.wait(1, WAIT_S)
    mine = described(store, "web", "mine")
    wire.cut_at_next_transaction(Cut.BEFORE, stall=True)
    with ThreadPoolExecutor(1) as hand:
        writing = hand.submit(store.commit, [mine])
        wire.wait_cut()
        assert other.commit([described(other, "web", "theirs")]) == 2
        wire.flow()
        with pytest.raises(Conflict):
            writing.result(WAIT_S)
    assert texts(other) == {"vms/web": "theirs"}


def test_a_frozen_leader_cannot_write_when_it_wakes(place: ZookeeperPlace, wire: Wire) -> None:
    """Nothing reaches the server for longer than the session lasts; another takes over; then what
    was held back arrives."""
    store = place.open(wire.address, session_timeout_s=1.0)
    other = place.open()
    stale = store.acquire("leader", "a")
    assert stale is not None
    wire.stall()
    late: list[str] = []

    def write() -> None:
        with refused("NOT_LEADER"):
            store.commit([Put(vm("web", "stale"))], held_by=stale)
        late.append("refused")

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: other.acquire("leader", "b"))
    fresh = other.acquire("leader", "b")
    other.commit([Put(vm("web", "fresh"))], held_by=fresh)
    wire.flow()
    writer.join(WAIT_S)
    assert late == ["refused"]
    assert texts(other) == {"vms/web": "fresh"}
    store.wait(1, WAIT_S)
    assert texts(store) == {"vms/web": "fresh"}


def test_without_a_server_reads_go_on_and_writes_say_so(
    own_server: ZookeeperServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ZookeeperPlace(own_server)
    store = place.open()
    store.commit([Put(vm("web", "one"))])
    own_server.kill()
    with monkeypatch.context() as hurried:
        for impatient in (store, store._leases):
            hurried.setattr(impatient, "_patience_s", 0.5)
        with refused("STORE_UNAVAILABLE"):
            store.commit([described(store, "web", "two")])
        with refused("STORE_UNAVAILABLE"):
            store.acquire("leader", "a")
    assert texts(store) == {"vms/web": "one"}
    own_server.start()
    eventually(lambda: store._connection.up)
    assert store.commit([described(store, "web", "three")]) == 2, "and the refused one never comes"
    place.close()


def test_acknowledged_commits_survive_a_killed_server(own_server: ZookeeperServer) -> None:
    """kill -9 while two threads write; the server comes back on its data; nothing is lost, nothing
    counts twice, leases and sessions live on."""
    place = ZookeeperPlace(own_server)
    store = place.open(session_timeout_s=30.0, patience_s=40.0)
    session, lease = store.session(), store.acquire("leader", "a")
    store.commit([Put(vm("a", "0")), Put(vm("b", "0"))])
    done = {"a": 0, "b": 0}
    stop = threading.Event()

    def write(name: str) -> None:
        while not stop.is_set():
            store.commit([described(store, name, str(done[name] + 1))], held_by=lease)
            done[name] += 1

    writers = [threading.Thread(target=write, args=(name,)) for name in done]
    for writer in writers:
        writer.start()
    for _ in range(2):
        time.sleep(0.3)
        own_server.kill()
        own_server.start()
    eventually(lambda: store._connection.up)
    time.sleep(0.2)
    stop.set()
    for writer in writers:
        writer.join(WAIT_S)
    expected = {f"vms/{name}": str(count) for name, count in done.items()}
    assert texts(store) == expected
    assert store.session() == session
    fresh = place.open()
    assert texts(fresh) == expected
    assert fresh.snapshot().revision == 1 + sum(done.values())
    place.close()


def test_an_ensemble_that_loses_its_leader_loses_nothing(tmp_path: Path) -> None:
    """Three servers; two processes write; whichever server leads is killed, twice."""
    if why := missing():
        pytest.skip(why)
    servers = started_ensemble(tmp_path)
    place = ZookeeperPlace(servers[0], ",".join(server.address for server in servers))
    try:
        stores = [place.open(session_timeout_s=20.0, patience_s=40.0) for _ in range(2)]
        for number, store in enumerate(stores):
            store.commit([Put(vm(f"vm-{number}", "0"))])
        lease = stores[0].acquire("leader", "a")
        stop, done = threading.Event(), [0, 0]

        def write(number: int) -> None:
            while not stop.is_set():
                change = described(stores[number], f"vm-{number}", str(done[number] + 1))
                stores[number].commit([change], held_by=lease if number == 0 else None)
                done[number] += 1

        with ThreadPoolExecutor(2) as threads:
            writers = [threads.submit(write, number) for number in (0, 1)]
            for _ in range(2):
                all_go_on(done)
                (leader,) = [s for s in servers if "Mode: leader" in s.ask("srvr")]
                leader.kill()
                all_go_on(done)
                leader.start()
            stop.set()
            for writer in writers:
                writer.result(WAIT_S)
        fresh = place.open()
        assert texts(fresh) == {f"vms/vm-{number}": str(done[number]) for number in (0, 1)}
        assert fresh.snapshot().revision == 2 + sum(done)
    finally:
        place.close()
        for server in servers:
            server.kill()


def all_go_on(done: list[int]) -> None:
    """Returns when everyone has committed some more. An election mostly takes half a second."""
    before = list(done)
    eventually(lambda: all(d > b + 5 for d, b in zip(done, before, strict=True)))


def test_a_mirror_behind_the_log_loads_everything(
    place: ZookeeperPlace, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOG_KEPT", 5)
    monkeypatch.setattr(follower, "TRIM_EVERY", 1)
    writer, late = place.open(), place.open(wire.address, session_timeout_s=20.0)
    writer.commit([Put(vm("web", "0")), Put(vm("gone"))])
    late.wait(1, WAIT_S)
    watch = late.watch(1)
    wire.stall()
    writer.commit([Delete("vms/gone", "1")])
    for number in range(1, 20):
        writer.commit([described(writer, "web", str(number))])
    eventually(lambda: log_entries(writer)[0] >= 16)
    wire.flow()
    late.wait(21, WAIT_S)
    assert texts(late) == {"vms/web": "19"}
    with refused("REVISION_TOO_OLD"):
        watch.next(1)
    assert late.commit([described(late, "web", "mine")]) == 22


def log_entries(store: ZookeeperStore) -> list[int]:
    return sorted(int(entry) for entry in store._connection.children(store._znodes.log))


def test_the_log_is_bounded_in_bytes(
    place: ZookeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOG_BYTES_KEPT", 20_000)
    monkeypatch.setattr(follower, "TRIM_EVERY", 1)
    store = place.open()
    store.commit([Put(vm("web", "x" * 6000))])
    for number in range(10):
        store.commit([described(store, "web", str(number) * 6000)])
    eventually(lambda: len(log_entries(store)) == 3)
    assert texts(place.open()) == texts(store)


def test_loading_while_others_write_is_consistent(place: ZookeeperPlace) -> None:
    """Each commit moves a mark from one row to another: every load sees exactly one."""
    writer = place.open()
    writer.commit([Put(vm(f"vm-{number:03}")) for number in range(200)])
    writer.commit([described(writer, "vm-000", "mark")])
    stop = threading.Event()

    def move() -> None:
        at = 0
        while not stop.is_set():
            to = (at + 37) % 200
            writer.commit(
                [described(writer, f"vm-{at:03}", ""), described(writer, f"vm-{to:03}", "mark")]
            )
            at = to

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(5):
            marks = [name for name, text in texts(place.open()).items() if text]
            assert len(marks) == 1
    finally:
        stop.set()
        mover.join()


def test_a_stranger_in_the_rows_is_put_right_or_said(
    place: ZookeeperPlace, raw: KazooClient
) -> None:
    """Somebody deleted a row's znode by hand: the mirror believes it is there."""
    store = place.open()
    store.commit([Put(vm("web", "one")), Put(vm("db"))])
    raw.delete(f"{place.root}/rows/vms:web")
    with pytest.raises(Conflict):
        store.commit([described(store, "web", "two")])
    assert texts(store) == {"vms/db": ""}
    assert store.commit([Put(vm("web", "again"))]) == 2


def test_damage_and_newer_rows_are_said_at_the_start(
    place: ZookeeperPlace, raw: KazooClient
) -> None:
    store = place.open()
    store.commit([Put(vm("web"))])
    row = store_pb2.StoredRow(schema=99, value=b"", revision=1)
    raw.set(f"{place.root}/rows/vms:web", row.SerializeToString())
    with refused("SCHEMA_TOO_NEW"):
        place.open()
    raw.set(f"{place.root}/rows/vms:web", b"\xff\xff")
    with refused("STORE_UNAVAILABLE") as error:
        place.open()
    assert "damaged" in error.value.message


def test_a_state_that_vanished_is_not_taken_for_an_empty_one(
    place: ZookeeperPlace, raw: KazooClient
) -> None:
    store = place.open()
    store.commit([Put(vm("web", "one"))])
    raw.delete(f"{place.root}/head")
    with refused("STORE_UNAVAILABLE") as error:
        store.commit([described(store, "web", "two")])
    assert "holds no state" in error.value.message
    assert texts(store) == {"vms/web": "one"}


def test_a_state_that_went_back_is_loaded_again(place: ZookeeperPlace, raw: KazooClient) -> None:
    """As after a restored backup: revision 2 never was."""
    store = place.open()
    store.commit([Put(vm("web", "one"))])
    older, _ = raw.get(f"{place.root}/rows/vms:web")
    store.commit([described(store, "web", "two")])
    watch = store.watch(2)
    with raw.transaction() as restore:
        restore.set_data(f"{place.root}/rows/vms:web", older)
        restore.delete(f"{place.root}/log/2")
        restore.set_data(f"{place.root}/head", b"1")
    eventually(lambda: store.snapshot().revision == 1)
    assert texts(store) == {"vms/web": "one"}
    with refused("REVISION_TOO_OLD"):
        watch.next(1)
    assert store.commit([described(store, "web", "other two")]) == 2
    assert texts(place.open()) == {"vms/web": "other two"}


def test_many_processes_start_an_empty_state_at_once(place: ZookeeperPlace) -> None:
    stores: list[ZookeeperStore] = []
    threads = [threading.Thread(target=lambda: stores.append(place.open())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.snapshot().revision for store in stores] == [0, 0, 0, 0]
    assert stores[0].commit([Put(vm("web"))]) == 1
    for store in stores:
        store.wait(1, WAIT_S)


def test_one_of_many_gets_a_lease(place: ZookeeperPlace) -> None:
    stores = [place.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            got = list(threads.map(lambda s: s.acquire("leader", s.session()), stores))
            (lease,) = [lease for lease in got if lease is not None]
            lease.release()


def test_asking_for_a_lease_again_asks_nobody(
    place: ZookeeperPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader, other = place.open(), place.open()
    lease = leader.acquire("leader", "n1")
    eventually(lambda: "leader" in other.snapshot().leases)
    with monkeypatch.context() as cut:
        for store in (leader, other):
            cut.setattr(store._connection, "_sent", None)
        assert leader.acquire("leader", "n1") is lease
        assert leader.acquire("leader", "n2") is None
        assert other.acquire("leader", "n2") is None
    assert lease is not None
    lease.release()
    eventually(lambda: other.acquire("leader", "n2"))


def test_a_lost_session_is_another_and_its_watches_go_on(place: ZookeeperPlace) -> None:
    store, other = place.open(), place.open()
    watch = store.watch(0)
    before = store.session()
    place.lose_session(store)
    assert store.session() != before
    other.commit([Put(vm("web", "one"))])
    commit = watch.next(WAIT_S)
    assert commit is not None
    assert commit.revision == 1


def test_credentials_shut_others_out(zookeeper: ZookeeperServer, place: ZookeeperPlace) -> None:
    root = f"{place.root}-private"
    mine = ZookeeperStore(Ensemble(zookeeper.address, root, credentials="pvc:secret"))
    mine.commit([Put(vm("web"))])
    for credentials in ("", "pvc:wrong"):
        with refused("STORE_UNAVAILABLE") as error:
            ZookeeperStore(Ensemble(zookeeper.address, root, credentials=credentials))
        assert "credentials" in error.value.message
    again = ZookeeperStore(Ensemble(zookeeper.address, root, credentials="pvc:secret"))
    assert texts(again) == {"vms/web": ""}
    assert "secret" not in repr(Ensemble("x", credentials="pvc:secret"))
    again.close()
    mine.close()


def test_mutual_tls(tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    port = free_port()
    pem = write_certificates(tmp_path)
    server = ZookeeperServer(
        tmp_path / "zk",
        lines=[
            f"secureClientPort={port}",
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            "authProvider.x509=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
            "ssl.clientAuth=need",
            f"ssl.keyStore.location={pem.both}",
            "ssl.keyStore.type=PEM",
            f"ssl.trustStore.location={pem.ca}",
            "ssl.trustStore.type=PEM",
        ],
    )
    server.start()
    try:
        tls = Tls(pem.ca, pem.certificate, pem.key)
        ensemble = Ensemble(f"127.0.0.1:{port}", credentials="pvc:secret", tls=tls)
        store = ZookeeperStore(ensemble)
        assert store.commit([Put(vm("web", "through TLS"))]) == 1
        store.close()
        with refused("STORE_UNAVAILABLE"):
            ZookeeperStore(Ensemble(f"127.0.0.1:{port}"), start_timeout_s=1.0)
    finally:
        server.stop()


def test_no_server_is_said_at_the_start() -> None:
    with refused("STORE_UNAVAILABLE") as error:
        ZookeeperStore(Ensemble("127.0.0.1:1"), start_timeout_s=0.3)
    assert "127.0.0.1:1" in error.value.message


def test_a_refused_step_is_named(zookeeper: ZookeeperServer) -> None:
    connection = Connection(Ensemble(zookeeper.address), SystemClock(), lambda: None)
    connection.start(5)
    transaction = connection.transaction()
    transaction.create("/refused", b"")
    transaction.delete("/nowhere")
    transaction.create("/refused-too", b"")
    refusal = connection.carry_out(transaction, connection.deadline(5))
    assert isinstance(refusal, Refused)
    assert refusal.index == 1
    assert connection.get("/refused") is None
    connection.stop()


def test_names_and_versions() -> None:
    for name in ("vms/web", "pools/a/volumes/b.c-d_e"):
        assert unescaped(escaped(name)) == name
        assert "/" not in escaped(name)
    assert lease_name("nodes:n1~0123") == "nodes/n1"
    assert version_after(5, 3) == 8
    assert version_after((1 << 31) - 1, 1) == -(1 << 31)
    assert version_after(-1, 1) == 0
