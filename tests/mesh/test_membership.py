"""Whose certificate counts: a node that was removed gets nothing from any service, and what it had
open ends; members, and machines that were added anew, are let in."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pvc.compute.v1 import vm_service_pb2 as vm_api
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh import identity
from services.mesh.identity import Files
from services.mesh.membership import Members, Peer, refusal
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import ANY_VERSION, Delete, Put
from tests.mesh.contracts import services
from tests.mesh.serving import CLOCK, Host, Served, cluster, on_tls, served

DENIED = grpc.StatusCode.PERMISSION_DENIED
WAIT_S = 30
Node = cluster_pb2.Node
METHODS = [method for service in services() for method in service.methods]


def node(name: str, since: datetime | None = None) -> Put:
    row = Node(name=f"nodes/{name}")
    if since is not None:
        row.spec.certificates_since.FromDatetime(since)
    return Put(row)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.commit([node("n1"), node("n2"), node("n3")])
    return store


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return cluster(tmp_path / "n1")


@pytest.fixture
def running(store: MemoryStore, files: Files) -> Iterator[Served]:
    with served(store, on_tls(files)) as one:
        yield one


Channel = Callable[..., grpc.Channel]


@contextmanager
def certified(
    files: Files, address: str, name: str = "n3", issued: datetime | None = None
) -> Iterator[grpc.Channel]:
    """A channel of somebody who has a node's certificate."""
    authority = files.pair("ca")
    pair = identity.new_node(authority, name, ["127.0.0.1"], issued or datetime.now(UTC))
    credentials = grpc.ssl_channel_credentials(
        authority.certificate_pem, pair.key_pem, pair.certificate_pem
    )
    with grpc.secure_channel(address, credentials) as channel:
        yield channel


def removed(store: MemoryStore, name: str = "n3") -> None:
    store.commit([Delete(f"nodes/{name}", ANY_VERSION)])


def get(channel: grpc.Channel) -> Any:
    return api_grpc.NodeServiceStub(channel).GetNode(
        api.GetNodeRequest(name="nodes/n1"), timeout=WAIT_S
    )


def denied(ask: Callable[[], Any]) -> str:
    """What somebody is told who is turned away."""
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    assert caught.value.code() == DENIED, caught.value
    return str(caught.value.details())


def test_a_removed_node_is_turned_away_by_the_next_call(
    store: MemoryStore, running: Served, files: Files
) -> None:
    with certified(files, running.address) as channel:
        assert get(channel).name == "nodes/n1"
        removed(store)
        told = denied(lambda: get(channel))
    assert told == (
        "nodes/n3 is no member of this cluster: it was removed, and its certificate is of no use "
        "any more; to let the machine in again: pvc node add n3 ADDRESS"
    )
    with certified(files, running.address, "n2") as channel:
        assert get(channel).name == "nodes/n1", "the others go on"
    assert running.nodes.calls == 2, "the service was not even asked"


def ended(stream: Any) -> str:
    """Why the stream came to its end."""
    return denied(lambda: [None for _ in stream])


def test_what_a_removed_node_has_open_ends(
    store: MemoryStore, running: Served, files: Files
) -> None:
    with (
        certified(files, running.address) as theirs,
        certified(files, running.address, "n2") as others,
    ):
        watches = [
            api_grpc.NodeServiceStub(x).WatchNodes(api.WatchNodesRequest(), timeout=WAIT_S)
            for x in (theirs, others)
        ]
        for watch in watches:
            assert next(watch).node.name == "nodes/n1"
        removed(store)
        assert "no member" in ended(watches[0])
        seen = (change.node.name for change in watches[1])
        store.commit([node("n9")])
        assert "nodes/n9" in itertools.islice(seen, 10)
        watches[1].cancel()


def test_a_stream_of_requests_ends_too(store: MemoryStore, running: Served, files: Files) -> None:
    """Consoles and uploads: nothing that comes after the removal is taken."""
    with certified(files, running.address) as channel:

        def typed() -> Iterator[vm_api.AttachConsoleRequest]:
            yield vm_api.AttachConsoleRequest(name="vms/web", data=b"ls")
            running.nodes.go_on.wait(WAIT_S)

        console = vm_grpc.VmServiceStub(channel).AttachConsole(typed(), timeout=WAIT_S)
        assert next(console).data == b"LS"
        removed(store)
        assert "no member" in ended(console)
        running.nodes.go_on.set()


def test_an_upload_ends_too(store: MemoryStore, running: Served, files: Files) -> None:
    with certified(files, running.address) as channel:
        first = storage_api.UploadFileRequest(data=b"x")

        def parts() -> Iterator[storage_api.UploadFileRequest]:
            yield first
            removed(store)
            running.nodes.go_on.wait(WAIT_S)

        upload = storage_grpc.StorageServiceStub(channel).UploadFile
        assert "no member" in denied(lambda: upload(parts(), timeout=WAIT_S))
        running.nodes.go_on.set()


def test_a_short_call_that_has_begun_may_end(
    store: MemoryStore, running: Served, files: Files
) -> None:
    """It may be in the middle of something."""
    store.commit([node("slow")])
    with certified(files, running.address) as channel:
        call = api_grpc.NodeServiceStub(channel).GetNode.future(
            api.GetNodeRequest(name="nodes/slow"), timeout=WAIT_S
        )
        assert running.nodes.begun.wait(WAIT_S)
        removed(store)
        assert "no member" in denied(lambda: get(channel))
        running.nodes.go_on.set()
        assert call.result().name == "nodes/slow"


def test_one_that_was_added_anew_comes_in_with_its_own_certificate_alone(
    store: MemoryStore, running: Served, files: Files
) -> None:
    removed(store)
    now = datetime.now(UTC)
    store.commit([node("n3", now)])
    with certified(files, running.address, issued=now - timedelta(days=3)) as channel:
        assert "of an earlier node n3" in denied(lambda: get(channel))
    with certified(files, running.address, issued=now + timedelta(seconds=2)) as channel:
        assert get(channel).name == "nodes/n1"


def test_clocks_of_nodes_may_differ() -> None:
    """By an hour: the certificate is issued by another machine than the node was added by."""
    store, now = MemoryStore(), datetime.now(UTC)
    store.commit([node("n1"), node("n3", now)])
    for ago, accepted in ((0, True), (59, True), (61, False)):
        peer = Peer("n3", now - timedelta(minutes=ago))
        assert (refusal(store.snapshot(), peer) is None) is accepted, ago


def test_a_node_that_is_leaving_is_a_member_until_it_has_left(
    store: MemoryStore, running: Served, files: Files
) -> None:
    row = store.snapshot().find(Node, "nodes/n3")
    assert row is not None
    after = Node()
    after.CopyFrom(row)
    after.spec.leaving = True
    after.decision.state = cluster_pb2.NODE_STATE_LEAVING
    store.commit([Put(after)])
    with certified(files, running.address) as channel:
        assert get(channel).name == "nodes/n1"


def test_before_the_first_node_nobody_is_turned_away(files: Files) -> None:
    store = MemoryStore()
    with served(store, on_tls(files)) as running, certified(files, running.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            get(channel)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        store.commit([node("n1")])
        assert "no member" in denied(lambda: get(channel))


def test_health_and_reflection_are_for_members(
    store: MemoryStore, running: Served, files: Files
) -> None:
    with certified(files, running.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        mirror = reflection_pb2_grpc.ServerReflectionStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S).status == 1
        assert next(mirror.ServerReflectionInfo(ask, timeout=WAIT_S)).list_services_response
        removed(store)
        denied(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S))
        again = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        denied(lambda: next(mirror.ServerReflectionInfo(again, timeout=WAIT_S)))


# --- Every method there is.


class All:
    """A server with every service of every contract, of which nothing is there."""

    def __init__(self, host: Host, store: MemoryStore, files: Files) -> None:
        async def start() -> tuple[Server, str]:
            server = Server(every_service(), CLOCK, members=Members(store))
            address = on_tls(files)(server)
            await server.start()
            return server, address

        self.server, self.address = host.do(start())


def every_service() -> Iterator[tuple[Any, object]]:
    for service in services():
        file = service.file.name.removesuffix(".proto").replace("/", ".")
        stubs = importlib.import_module(f"{file}_pb2_grpc")
        add = getattr(stubs, f"add_{service.name}Servicer_to_server")
        yield add, getattr(stubs, f"{service.name}Servicer")()


def outcome(channel: grpc.Channel, method: MethodDescriptor) -> grpc.StatusCode:
    """What comes of a call with an empty request."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    make: Any
    if method.client_streaming:
        make = channel.stream_stream if method.server_streaming else channel.stream_unary
    else:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
    given: Any = iter([b""]) if method.client_streaming else b""
    try:
        answer: Any = make(path)(given, timeout=WAIT_S)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def test_no_method_of_any_service_is_forgotten(store: MemoryStore, files: Files) -> None:
    """Known by the contracts: one that comes to them tomorrow is tried too."""
    host = Host()
    everything = All(host, store, files)
    assert len(METHODS) > 100
    try:
        with certified(files, everything.address) as channel:
            member = {outcome(channel, method) for method in METHODS}
            removed(store)
            stranger = {method.full_name: outcome(channel, method) for method in METHODS}
    finally:
        host.do(everything.server.drain(2.0))
        host.close()
    assert DENIED not in member and grpc.StatusCode.UNIMPLEMENTED in member
    assert {name for name, code in stranger.items() if code != DENIED} == set()


def test_the_time_of_issue_is_read_from_the_certificate(files: Files) -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    pair = identity.new_node(files.pair("ca"), "n7", [], moment)

    class Shown:
        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [pair.certificate_pem]}

    from services.mesh.membership import peer_of

    assert peer_of(Shown()) == Peer("n7", moment)  # type: ignore[arg-type]
    assert Timestamp(seconds=int(moment.timestamp())).ToDatetime(UTC) == moment
