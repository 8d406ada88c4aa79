"""A node dies, or is cut off, in the middle of a call that came in at another node's door: the
caller hears soon that nobody answers and that another try may help, and what is asked again under
the same request_id is done once."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as vm_api
from pvc.compute.v1 import vm_service_pb2_grpc as vm_grpc
from pvc.coordinator.v1 import cluster_pb2
from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.storage.v1 import storage_service_pb2 as storage_api
from pvc.storage.v1 import storage_service_pb2_grpc as storage_grpc
from pvc_client import Cluster
from pvc_client.errors import Unreachable, from_rpc
from services.gateway.limits import Bounds
from services.mesh import identity
from services.mesh.channel import OPTIONS, Peers
from services.state.store import Put
from tests.doors.world import World
from tests.routing.far import FILE, OPERATION, VM, Far

HEARD_S = 60.0
"""Within which a caller hears of it, on the busiest machine; two pings of the mesh on others."""
HOW = {"killed": signal.SIGKILL, "cut off": signal.SIGSTOP}
Calls = Callable[[grpc.Channel, tuple[Any, ...]], Iterator[object]]


class Near(World):
    """This node's gateway, before services that are all on the far one."""

    def __init__(self, folder: Path, far: Far) -> None:
        super().__init__(folder, 0.0, Bounds(0, 0))
        node = cluster_pb2.Node(name="nodes/n2")
        node.decision.state = cluster_pb2.NODE_STATE_ONLINE
        for service in ("compute", "storage", "coordinator"):
            node.status.services.add(service=service, address=far.address)
        self.store.commit([Put(node), Put(vm_pb2.Vm(name=VM, decision={"node": "nodes/n2"}))])
        credentials = identity.Files(far.folder / "n1").channel_credentials(self.clock.now())
        self.way = Peers("nodes/n1", {}, self.store, credentials)
        self.doors._door._peers = self.way

    def close(self) -> None:
        self.run(self.way.close())
        super().close()


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    far = Far(tmp_path)
    far.start()
    yield far
    far.end()


@pytest.fixture
def near(tmp_path: Path, far: Far) -> Iterator[Near]:
    near = Near(tmp_path / "near", far)
    yield near
    near.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the mesh's patience, for tests that need not prove how long that is."""
    patience = {"grpc.min_reconnect_backoff_ms", *(name for name, _ in OPTIONS if "ping" in name)}
    patience |= {"grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms"}
    options = tuple((k, v // 5 if k in patience else v) for k, v in OPTIONS)
    monkeypatch.setattr("services.mesh.channel.OPTIONS", options)


def watch(channel: grpc.Channel, metadata: Any) -> Iterator[object]:
    yield from vm_grpc.VmServiceStub(channel).WatchVms(vm_api.WatchVmsRequest(), metadata=metadata)


def follow(channel: grpc.Channel, metadata: Any) -> Iterator[object]:
    stub = vm_grpc.VmServiceStub(channel)
    yield from stub.ReadConsoleLog(vm_api.ReadConsoleLogRequest(name=VM), metadata=metadata)


def console(channel: grpc.Channel, metadata: Any) -> Iterator[object]:
    """Attached, and nothing is typed."""
    never = threading.Event()

    def typed() -> Iterator[Any]:
        yield vm_api.AttachConsoleRequest(name=VM)
        never.wait(30)

    try:
        yield from vm_grpc.VmServiceStub(channel).AttachConsole(typed(), metadata=metadata)
    finally:
        never.set()


def download(channel: grpc.Channel, metadata: Any) -> Iterator[object]:
    stub = storage_grpc.StorageServiceStub(channel)
    yield from stub.DownloadFile(storage_api.DownloadFileRequest(name=FILE), metadata=metadata)


def upload(channel: grpc.Channel, metadata: Any) -> Iterator[object]:
    """A file without end; every piece that went is told."""
    ended = threading.Event()

    def pieces() -> Iterator[Any]:
        yield storage_api.UploadFileRequest(sha256="0" * 64, size_bytes=1 << 40)
        while not ended.wait(0.01):
            yield storage_api.UploadFileRequest(data=bytes(65536))

    call = storage_grpc.StorageServiceStub(channel).UploadFile.future(pieces(), metadata=metadata)
    try:
        time.sleep(0.3)
        yield "half-way"
        yield call.result(30)
    finally:
        ended.set()


CALLS: dict[str, Calls] = {
    "a watch": watch,
    "a console log": follow,
    "a console": console,
    "a download": download,
    "an upload": upload,
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("call", CALLS)
def test_a_stream_ends_soon_and_says_that_another_try_may_help(
    quick: None, near: Near, far: Far, call: str, how: str
) -> None:
    metadata = (("authorization", f"Bearer {near.secrets['eve']}"),)
    with grpc.insecure_channel(near.grpc_address) as channel:
        answers = CALLS[call](channel, metadata)
        next(answers)
        far.send(HOW[how])
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            for _ in answers:
                continue
        assert time.monotonic() - began < HEARD_S
    told(from_rpc(caught.value))


def told(error: Exception) -> None:
    """It is of the kind that programs try again, and says so to people."""
    assert isinstance(error, Unreachable), error
    assert "try again" in str(error)


@pytest.mark.parametrize("how", HOW)
def test_a_call_that_waits_ends_soon_and_so_do_those_after_it(
    near: Near, far: Far, how: str
) -> None:
    metadata = (("authorization", f"Bearer {near.secrets['eve']}"),)
    with grpc.insecure_channel(near.grpc_address) as channel:
        stub = api_grpc.OperationServiceStub(channel)
        threading.Timer(0.3, far.send, [HOW[how]]).start()
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                stub.WaitOperation(api.WaitOperationRequest(name=OPERATION), metadata=metadata)
            assert time.monotonic() - began < HEARD_S
            told(from_rpc(caught.value))


@pytest.mark.parametrize("how", HOW)
def test_rest_says_the_same(quick: None, near: Near, far: Far, how: str) -> None:
    """A call, and a stream, whose last line it is."""
    followed = rest(near, "GET", f"/v1/{VM}:consoleLog")
    followed.readline()
    far.send(HOW[how])
    began = time.monotonic()
    error = json.loads(followed.read().splitlines()[-1])["error"]
    assert error["code"] == 14 and error["details"][0]["reason"] == "UNREACHABLE"
    answer = rest(near, "GET", f"/v1/{VM}")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(answer.read())["details"][0]["reason"] == "UNREACHABLE"
    assert time.monotonic() - began < 2 * HEARD_S


def rest(near: Near, verb: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", near.doors.rest_port, timeout=60)
    connection.request(verb, path, body, {"authorization": f"Bearer {near.secrets['eve']}"})
    return connection.getresponse()


@pytest.mark.parametrize("how", HOW)
def test_what_is_asked_again_when_the_node_is_back_is_done_once(
    quick: None, near: Near, far: Far, how: str
) -> None:
    """The answer to the first request is lost. Whether it was done nobody knows; asked again, it is
    the same operation, or one for the first time."""
    asked = vm_api.CreateVmRequest(vm_id="once", vm=vm_pb2.Vm(), request_id="one-and-only")
    metadata = (("authorization", f"Bearer {near.secrets['eve']}"),)
    with grpc.insecure_channel(near.grpc_address) as channel:
        stub = vm_grpc.VmServiceStub(channel)
        stub.ListVms(vm_api.ListVmsRequest(), metadata=metadata)  # there is a connection
        far.send(signal.SIGSTOP)
        lost = stub.CreateVm.future(asked, metadata=metadata)
        time.sleep(0.2)  # it is on its way, and lies in the stopped process's socket
        if how == "killed":
            far.send(signal.SIGKILL)
        with pytest.raises(grpc.RpcError) as caught:
            lost.result(HEARD_S)
        told(from_rpc(caught.value))
        if how == "killed":
            far.start()
        else:
            far.send(signal.SIGCONT)
        with Cluster(near.grpc_address, token=near.secrets["eve"]) as cluster:
            first = cluster.vms.create("once", vm_pb2.VmSpec(), request_id="one-and-only")
            again = cluster.vms.create("once", vm_pb2.VmSpec(), request_id="one-and-only")
            assert first.name == again.name
            assert [vm.name for vm in cluster.vms.list()] == [VM, "vms/once"]
