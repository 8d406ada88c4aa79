"""Calls between services: addresses, deadlines, errors, retries, reading one's own writes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh import calls, config
from services.mesh.calls import Revision, acting_for, may_repeat
from services.mesh.channel import Peers, peers_of
from services.mesh.desk import REVISION
from services.mesh.errors import PvcError
from services.state.memory import MemoryCluster, MemoryStore
from services.state.store import Put
from tests.mesh.serving import CLOCK, Served, cluster, on_socket, on_tls, served
from tests.mesh.stores import LateStore


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.commit([Put(cluster_pb2.Node(name="nodes/n1"))])
    return store


@pytest.fixture
def running(store: MemoryStore, tmp_path: Path) -> Iterator[Served]:
    with served(store, on_socket(tmp_path)) as one:
        yield one


@pytest.fixture
def peers(running: Served, store: MemoryStore) -> Iterator[Peers]:
    one = Peers("nodes/n1", {"coordinator": running.address, "storage": running.address}, store)
    yield one
    asyncio.run(one.close())


def nodes(peers: Peers) -> Any:
    return api_grpc.NodeServiceStub(peers.blocking("coordinator"))


def refused(peers: Peers, name: str, **options: Any) -> PvcError:
    with pytest.raises(PvcError) as caught:
        nodes(peers).GetNode(api.GetNodeRequest(name=name), **options)
    return caught.value


def test_an_answer_and_an_error(peers: Peers, running: Served) -> None:
    assert nodes(peers).GetNode(api.GetNodeRequest(name="nodes/n1")).name == "nodes/n1"
    error = refused(peers, "nodes/gone")
    assert (error.reason, error.field) == (reason_pb2.REASON_NOT_FOUND, "name")
    assert running.nodes.callers == ["node n1", "node n1"]


def test_calls_are_made_for_somebody(peers: Peers, running: Served) -> None:
    with acting_for("token ann"):
        nodes(peers).GetNode(api.GetNodeRequest(name="nodes/n1"))
    assert running.nodes.callers == ["token ann"]


def test_who_sets_no_deadline_has_one(
    peers: Peers, running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "DEADLINE_S", 0.1)
    error = refused(Peers("nodes/n1", peers._own, peers._store), "nodes/slow", timeout=0.1)
    assert error.reason == reason_pb2.REASON_DEADLINE


def test_default_deadline(running: Served, store: MemoryStore) -> None:
    rules = calls.BlockingCalls(Revision(), "x", deadline_s=0.1)
    with grpc.intercept_channel(grpc.insecure_channel(running.address), rules) as channel:
        with pytest.raises(PvcError) as caught:
            api_grpc.NodeServiceStub(channel).GetNode(api.GetNodeRequest(name="nodes/slow"))
        assert caught.value.reason == reason_pb2.REASON_DEADLINE


def test_reads_are_tried_again_while_the_store_is_away(peers: Peers, running: Served) -> None:
    running.nodes.away = 2
    assert nodes(peers).GetNode(api.GetNodeRequest(name="nodes/n1")).name == "nodes/n1"
    assert running.nodes.calls == 3


def test_tries_end(peers: Peers, running: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "RETRY_PAUSES_S", (0.01, 0.01))
    running.nodes.away = 99
    assert refused(peers, "nodes/n1").reason == reason_pb2.REASON_STORE_UNAVAILABLE
    assert running.nodes.calls == 3


def test_what_may_be_tried_again() -> None:
    away = PvcError(reason_pb2.REASON_UNREACHABLE, "")
    update = "/pvc.storage.v1.StorageService/UpdatePool"
    assert may_repeat("/pvc.storage.v1.StorageService/GetPool", None, away)
    assert not may_repeat(update, storage_api.UpdatePoolRequest(), away)
    assert may_repeat(update, storage_api.UpdatePoolRequest(request_id="1"), away)
    busy = PvcError(reason_pb2.REASON_BUSY, "")
    assert not may_repeat(update, storage_api.UpdatePoolRequest(request_id="1"), busy)


def test_a_service_that_is_not_there(tmp_path: Path, store: MemoryStore) -> None:
    peers = Peers("nodes/n1", {"coordinator": f"unix:{tmp_path}/none"}, store)
    error = refused(peers, "nodes/n1")
    assert error.reason == reason_pb2.REASON_UNREACHABLE


def test_a_service_that_comes_back_is_found_again(tmp_path: Path, store: MemoryStore) -> None:
    peers = Peers("nodes/n1", {"coordinator": f"unix:{tmp_path}/mesh.sock"}, store)
    for _ in range(2):
        with served(store, on_socket(tmp_path)):
            assert nodes(peers).GetNode(api.GetNodeRequest(name="nodes/n1")).name == "nodes/n1"


def test_streams_raise_errors_of_the_same_name(peers: Peers) -> None:
    with pytest.raises(PvcError) as caught:
        list(nodes(peers).WatchNodes(api.WatchNodesRequest(filter="nam = x")))
    assert caught.value.reason == reason_pb2.REASON_INVALID_QUERY
    stream = nodes(peers).WatchNodes(api.WatchNodesRequest())
    assert next(stream).node.name == "nodes/n1"
    stream.cancel()


def test_an_upload_raises_errors_of_the_same_name(peers: Peers) -> None:
    stub = storage_grpc.StorageServiceStub(peers.blocking("storage"))
    assert stub.UploadFile(iter([storage_api.UploadFileRequest(data=b"x")])).size_bytes == 1
    with pytest.raises(PvcError) as caught:
        stub.UploadFile(iter([storage_api.UploadFileRequest(sha256="x")]))
    assert (caught.value.reason, caught.value.field) == (reason_pb2.REASON_INVALID_FIELD, "sha256")


def test_handlers_have_the_same(running: Served, store: MemoryStore) -> None:
    async def story() -> None:
        peers = Peers("nodes/n1", {"coordinator": running.address}, store)
        stub: Any = api_grpc.NodeServiceStub(peers.calls("coordinator"))
        running.nodes.away = 2
        node = await stub.GetNode(api.GetNodeRequest(name="nodes/n1"))
        assert (node.name, running.nodes.calls) == ("nodes/n1", 3)
        with pytest.raises(PvcError, match="nodes/gone does not exist"):
            await stub.GetNode(api.GetNodeRequest(name="nodes/gone"))
        with pytest.raises(PvcError) as caught:
            await stub.GetNode(api.GetNodeRequest(name="nodes/slow"), timeout=0.1)
        assert caught.value.reason == reason_pb2.REASON_DEADLINE
        plain: Any = api_grpc.NodeServiceStub(peers.channel("coordinator"))
        with pytest.raises(grpc.aio.AioRpcError):
            await plain.GetNode(api.GetNodeRequest(name="nodes/gone"))
        await peers.close()

    asyncio.run(story())


def row(name: str, address: str, state: Any = cluster_pb2.NODE_STATE_ONLINE) -> cluster_pb2.Node:
    node = cluster_pb2.Node(name=f"nodes/{name}", decision={"state": state})
    node.status.services.add(service="coordinator", address=address)
    return node


def test_other_nodes_are_found_by_their_rows() -> None:
    store = MemoryStore()
    unknown = cluster_pb2.NODE_STATE_UNKNOWN
    rows = [row("n2", "10.0.0.2:1", unknown), row("n3", "10.0.0.3:1"), row("n4", "unix:/x")]
    store.commit([Put(one) for one in rows])
    peers = Peers("nodes/n1", {"storage": "unix:/s"}, store)
    assert peers._found("storage", "") == ("unix:/s", "n1")
    assert peers._found("coordinator", "") == ("10.0.0.3:1", "n3")
    assert peers._found("coordinator", "nodes/n2") == ("10.0.0.2:1", "n2")
    for service, node in (("coordinator", "nodes/n4"), ("compute", ""), ("storage", "nodes/n9")):
        with pytest.raises(PvcError, match=r"no .* service is known") as caught:
            peers.channel(service, node)
        assert caught.value.reason == reason_pb2.REASON_UNREACHABLE
    with pytest.raises(PvcError, match="certificate") as caught:
        peers.blocking("coordinator", "nodes/n3")
    assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG


def test_tls_between_nodes_insists_on_the_nodes_name(tmp_path: Path, store: MemoryStore) -> None:
    files = cluster(tmp_path)
    credentials = files.channel_credentials(CLOCK.now())
    with served(store, on_tls(files)) as running:
        there = MemoryStore()
        there.commit([Put(row("n1", running.address)), Put(row("n3", running.address))])
        peers = Peers("nodes/n2", {}, there, credentials)
        stub: Any = api_grpc.NodeServiceStub(peers.blocking("coordinator", "nodes/n1"))
        assert stub.GetNode(api.GetNodeRequest(name="nodes/n1")).name == "nodes/n1"
        impostor = Peers("nodes/n2", {}, there, credentials)
        stub = api_grpc.NodeServiceStub(impostor.blocking("coordinator", "nodes/n3"))
        with pytest.raises(PvcError) as caught:
            stub.GetNode(api.GetNodeRequest(name="nodes/n1"), timeout=60)
        assert caught.value.reason == reason_pb2.REASON_UNREACHABLE


def test_calls_show_the_certificate_that_was_renewed(tmp_path: Path, store: MemoryStore) -> None:
    """As when the one that the process began with has expired; here it is a foreign one."""
    files, foreign = cluster(tmp_path / "ours"), cluster(tmp_path / "theirs")
    there = MemoryStore()
    with served(store, on_tls(files)) as running:
        there.commit([Put(row("n1", running.address))])
        peers = Peers("nodes/n2", {}, there, foreign.channel_credentials(CLOCK.now()))
        request = api.GetNodeRequest(name="nodes/n1")
        stub: Any = api_grpc.NodeServiceStub(peers.blocking("coordinator", "nodes/n1"))
        with pytest.raises(PvcError):
            stub.GetNode(request, timeout=60)
        peers.renew(files.channel_credentials(CLOCK.now()))
        stub = api_grpc.NodeServiceStub(peers.blocking("coordinator", "nodes/n1"))
        assert stub.GetNode(request).name == "nodes/n1"


def test_peers_of_a_configuration(tmp_path: Path, store: MemoryStore) -> None:
    single = config.parse(f"[node]\nname = 'n1'\nrun_dir = '{tmp_path}'", "x")
    assert peers_of(single, store, CLOCK.now())._found("compute", "")[0].startswith("unix:")
    many = config.parse(f"[mesh]\nlisten = '127.0.0.1'\ntls_dir = '{tmp_path}'", "x")
    with pytest.raises(PvcError, match=r"cannot read .*ca.crt"):
        peers_of(many, store, CLOCK.now())
    cluster(tmp_path)
    assert peers_of(many, store, CLOCK.now())._credentials is not None


def test_a_client_reads_its_own_writes_through_another_process(tmp_path: Path) -> None:
    """Two services with a store each; the one that is read hears of commits 0.2 s late."""
    shared = MemoryCluster()
    quick, late = MemoryStore(shared), LateStore(shared, 0.2)
    quick.commit([Put(storage_pb2.Pool(name="pools/a"))])
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    with (
        served(quick, on_socket(tmp_path / "one")) as writer,
        served(late, on_socket(tmp_path / "two")) as reader,
    ):
        addresses = {"storage": writer.address, "coordinator": reader.address}
        peers = Peers("nodes/n1", addresses, MemoryStore())
        write: Any = storage_grpc.StorageServiceStub(peers.blocking("storage"))
        read: Any = storage_grpc.StorageServiceStub(peers.blocking("coordinator"))
        for turn in range(3):
            pool = storage_pb2.Pool(name="pools/a", spec={"description": f"turn {turn}"})
            written = write.UpdatePool(storage_api.UpdatePoolRequest(pool=pool))
            began = time.monotonic()
            seen = read.GetPool(storage_api.GetPoolRequest(name="pools/a"))
            assert seen.spec.description == written.spec.description
            assert time.monotonic() - began > 0.05
        plain: Any = storage_grpc.StorageServiceStub(grpc.insecure_channel(reader.address))
        write.UpdatePool(storage_api.UpdatePoolRequest(pool=pool))
        seen = plain.GetPool(storage_api.GetPoolRequest(name="pools/a"))
        assert int(seen.meta.etag) < peers.revision.newest


def test_a_revision_only_grows() -> None:
    floor = [5]
    revision = Revision(lambda: floor[0])
    assert revision.newest == 5
    threads = [
        threading.Thread(target=revision.saw, args=[((REVISION, str(number)),)])
        for number in range(200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    revision.saw(None)
    revision.saw(((REVISION, "nonsense"), ("other", "999")))
    assert revision.newest == 199
    floor[0] = 1000
    assert revision.newest == 1000
