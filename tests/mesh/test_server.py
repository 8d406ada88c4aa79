"""Real servers: errors both ways, deadlines, TLS, drain, health, reflection, validation, logs."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pvc.compute.v1 import vm_service_pb2 as vm_api
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from services.mesh.calls import error_of
from services.mesh.errors import PvcError
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.mesh.serving import CLOCK, Host, Served, cluster, on_socket, on_tls, served

Stub = api_grpc.NodeServiceStub


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.commit([Put(cluster_pb2.Node(name=f"nodes/{name}")) for name in ("n1", "slow")])
    return store


@pytest.fixture
def running(store: MemoryStore, tmp_path: Path) -> Iterator[Served]:
    with served(store, on_socket(tmp_path)) as one:
        yield one


@pytest.fixture
def channel(running: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.address) as one:
        yield one


def get(channel: grpc.Channel, name: str, timeout: float | None = 10) -> cluster_pb2.Node:
    return Stub(channel).GetNode(api.GetNodeRequest(name=name), timeout=timeout)


def refusal(channel: grpc.Channel, name: str, timeout: float | None = 10) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        get(channel, name, timeout)
    return caught.value


def test_an_answer(channel: grpc.Channel) -> None:
    assert get(channel, "nodes/n1").name == "nodes/n1"


def test_errors_come_through_whole(channel: grpc.Channel) -> None:
    failed = refusal(channel, "nodes/gone")
    assert failed.code() == grpc.StatusCode.NOT_FOUND
    assert failed.details() == "nodes/gone does not exist"
    error = error_of(failed)
    assert (error.reason, error.field) == (reason_pb2.REASON_NOT_FOUND, "name")
    assert ("pvc-revision", "1") in failed.trailing_metadata()


def test_requests_are_checked_first(channel: grpc.Channel, running: Served) -> None:
    error = error_of(refusal(channel, "nodes/../etc"))
    assert (error.reason, error.field) == (reason_pb2.REASON_INVALID_FIELD, "name")
    assert running.nodes.calls == 0


def test_a_mistake_shows_only_an_id_that_the_log_has(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    failed = refusal(channel, "nodes/crash")
    error = error_of(failed)
    assert error.reason == reason_pb2.REASON_INTERNAL
    sent = f"{failed.details()}{failed.trailing_metadata()}"
    assert "secret" not in sent and "Traceback" not in sent
    records = [r for r in caplog.records if error.metadata["id"] in r.getMessage()]
    assert records and records[0].exc_info and "secret thing" in records[0].getMessage()


def test_a_very_long_error_still_fits_into_the_trailers(channel: grpc.Channel) -> None:
    failed = refusal(channel, "nodes/long")
    error = error_of(failed)
    assert (error.reason, error.field) == (reason_pb2.REASON_NO_NODE_FITS, "name")
    assert error.message.startswith("no node fits: ü…") and len(error.message) > 1000


def test_what_is_not_there_is_unimplemented(channel: grpc.Channel) -> None:
    stub = storage_grpc.StorageServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetVolume(storage_api.GetVolumeRequest(name="pools/a/volumes/b"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.WatchPools(storage_api.WatchPoolsRequest()))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_streams_of_requests_are_checked_message_by_message(channel: grpc.Channel) -> None:
    stub = vm_grpc.VmServiceStub(channel)
    typed = [vm_api.AttachConsoleRequest(name="vms/a"), vm_api.AttachConsoleRequest(data=b"ls")]
    assert [one.data for one in stub.AttachConsole(iter(typed))] == [b"", b"LS"]
    answers = stub.AttachConsole(iter([*typed, vm_api.AttachConsoleRequest(name="../x")]))
    assert [next(answers).data for _ in typed] == [b"", b"LS"]
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert error_of(caught.value).field == "name"
    upload = storage_grpc.StorageServiceStub(channel).UploadFile
    parts = [storage_api.UploadFileRequest(data=b"x" * 1000)] * 3
    assert upload(iter(parts)).size_bytes == 3000
    with pytest.raises(grpc.RpcError) as caught:
        upload(iter([*parts, storage_api.UploadFileRequest(sha256="nonsense")]))
    assert error_of(caught.value).field == "sha256"


def test_a_message_beyond_the_limit_is_refused(channel: grpc.Channel) -> None:
    stub = storage_grpc.StorageServiceStub(channel)
    for size, code in ((5 << 20, "INVALID_ARGUMENT"), (9 << 20, "RESOURCE_EXHAUSTED")):
        pool = storage_api.GetPoolRequest(name="x" * size)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetPool(pool)
        assert caught.value.code().name == code


def test_the_callers_deadline_ends_the_work(channel: grpc.Channel, running: Served) -> None:
    timeout_s = 0.1
    failed = refusal(channel, "nodes/slow", timeout=timeout_s)
    while not running.nodes.begun.is_set():  # it was over before the call had come in
        timeout_s *= 2
        failed = refusal(channel, "nodes/slow", timeout=timeout_s)
    assert failed.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert error_of(failed).reason == reason_pb2.REASON_DEADLINE
    assert running.nodes.cancelled.wait(60)


def test_who_sets_no_deadline_gets_the_servers(store: MemoryStore, tmp_path: Path) -> None:
    with (
        served(store, on_socket(tmp_path), deadline_s=0.1) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        error = error_of(refusal(channel, "nodes/slow", timeout=None))
        assert error.reason == reason_pb2.REASON_DEADLINE and "0.1 s" in error.message
        assert running.nodes.cancelled.wait(60)


def test_a_watch_that_is_left_ends_in_the_server(channel: grpc.Channel, running: Served) -> None:
    stream = Stub(channel).WatchNodes(api.WatchNodesRequest())
    assert next(stream).node.name == "nodes/n1"
    stream.cancel()
    assert running.nodes.cancelled.wait(60)


def test_a_watch_refuses_a_bad_filter(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(Stub(channel).WatchNodes(api.WatchNodesRequest(filter="nam = x")))
    assert error_of(caught.value).reason == reason_pb2.REASON_INVALID_QUERY


def test_health_and_reflection(channel: grpc.Channel, running: Served) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "pvc.coordinator.v1.NodeService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed = next(iter(stub.ServerReflectionInfo(iter([ask])))).list_services_response
    assert "pvc.coordinator.v1.NodeService" in {one.name for one in listed.service}


def test_drain_ends_watches_finishes_calls_and_takes_no_new_ones(
    channel: grpc.Channel, running: Served
) -> None:
    stream = Stub(channel).WatchNodes(api.WatchNodesRequest())
    next(stream)
    slow = Stub(channel).GetNode.future(api.GetNodeRequest(name="nodes/slow"), timeout=60)
    assert running.nodes.begun.wait(60)
    draining = running.host.begin(running.server.drain(10.0))
    with pytest.raises(grpc.RpcError) as caught:
        for _ in stream:
            pass
    error = error_of(caught.value)
    assert error.reason == reason_pb2.REASON_UNREACHABLE and "shutting down" in error.message
    with grpc.insecure_channel(running.address, [("grpc.use_local_subchannel_pool", 1)]) as new:
        assert refusal(new, "nodes/n1").code() == grpc.StatusCode.UNAVAILABLE
    assert not draining.done()
    running.nodes.go_on.set()
    assert slow.result().name == "nodes/slow"
    draining.result(60)


def test_drain_does_not_wait_longer_than_its_grace(channel: grpc.Channel, running: Served) -> None:
    slow = Stub(channel).GetNode.future(api.GetNodeRequest(name="nodes/slow"), timeout=600)
    assert running.nodes.begun.wait(60)
    running.host.do(running.server.drain(0.1))
    assert running.nodes.cancelled.wait(60)
    assert slow.exception() is not None


def test_sockets_are_for_their_owner_alone_and_may_be_left_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    store, path = MemoryStore(), tmp_path / "run" / "mesh.sock"
    with served(store, lambda server: server.listen_unix(path)):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with (
        served(store, lambda server: server.listen_unix(path)) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        assert refusal(channel, "nodes/x").code() == grpc.StatusCode.NOT_FOUND


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    files = cluster(tmp_path)
    with served(MemoryStore(), on_tls(files)) as running:
        host = Host()

        async def again() -> None:
            Server((), CLOCK).listen_tls(running.address, files.server_credentials(CLOCK.now()))

        with pytest.raises(PvcError, match=f"cannot listen on {running.address}") as caught:
            host.do(again())
        assert caught.value.reason == reason_pb2.REASON_INVALID_CONFIG
        host.close()


def secure(running: Served, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    return grpc.secure_channel(running.address, credentials)


def test_tls_lets_in_whom_the_cluster_knows(store: MemoryStore, tmp_path: Path) -> None:
    files = cluster(tmp_path / "n1")
    with served(store, on_tls(files)) as running:
        with secure(running, files.channel_credentials(CLOCK.now())) as channel:
            assert get(channel, "nodes/n1").name == "nodes/n1"
        authority = (tmp_path / "n1" / "ca.crt").read_bytes()
        with secure(running, grpc.ssl_channel_credentials(authority)) as channel:
            assert refusal(channel, "nodes/n1", 3).code() == grpc.StatusCode.UNAVAILABLE
        foreign = cluster(tmp_path / "foreign", name="test")
        _, certificate, key = foreign.checked()
        liar = grpc.ssl_channel_credentials(authority, key, certificate)
        with secure(running, liar) as channel:
            assert refusal(channel, "nodes/n1", 3).code() == grpc.StatusCode.UNAVAILABLE
        with secure(running, foreign.channel_credentials(CLOCK.now())) as channel:
            assert refusal(channel, "nodes/n1", 3).code() == grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(running.address) as channel:
            assert refusal(channel, "nodes/n1", 3).code() == grpc.StatusCode.UNAVAILABLE
        assert running.nodes.calls == 1


def test_a_call_is_one_line_in_the_log(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pvc.calls")
    get(channel, "nodes/n1")
    refusal(channel, "nodes/gone")
    lines = [r.getMessage() for r in caplog.records if r.name == "pvc.calls"]
    assert len(lines) == 2
    assert lines[0].startswith("NodeService/GetNode by local root: OK (")
    assert "NOT_FOUND: nodes/gone does not exist" in lines[1] and 'name="nodes/gone"' in lines[1]


def test_foreign_errors_become_errors_too() -> None:
    for code, reason in ((14, reason_pb2.REASON_UNREACHABLE), (2, reason_pb2.REASON_INTERNAL)):
        assert PvcError.from_status(status_pb2.Status(code=code, message="x")).reason == reason
