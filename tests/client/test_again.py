"""When the client asks again, when it must not, and how it goes on with another node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as pb
from pvc.core.v1.operation_pb2 import Operation
from pvc.gateway.v1 import access_service_pb2 as access_pb
from pvc.storage.v1 import storage_service_pb2 as storage_pb
from pvc.storage.v1.storage_pb2 import VolumeSpec
from pvc_client import Cluster, errors
from tests.client.blocking import blocking
from tests.client.servers import Scripted, refused
from tests.contract.three import Three, three_running
from tests.contract.whole import MIB
from tests.doors.world import world_in

Unavailable = grpc.StatusCode.UNAVAILABLE
Exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(params=[Cluster, blocking], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Any:
    return request.param


def failing(times: int, answer: Any, *refusal: Any) -> Callable[..., Any]:
    """Refuses so often, then answers."""
    left = iter(range(times))

    def method(request: Any, context: grpc.ServicerContext) -> Any:
        if next(left, None) is not None:
            refused(context, *refusal)
        return answer

    return method


def test_a_change_is_asked_again_under_the_same_id(connect: Any) -> None:
    start = failing(2, Operation(name="operations/1"), Unavailable, "STORE_UNAVAILABLE")
    with Scripted({"StartVm": start}) as server, connect(server.address) as cluster:
        assert cluster.vms.start("web").name == "operations/1"
        ids = [request.request_id for _, request in server.asked]
    assert len(ids) == 3 and len(set(ids)) == 1 and ids[0]


def test_what_is_good_for_once_is_asked_once(connect: Any) -> None:
    never = failing(99, None, Unavailable, "UNREACHABLE")
    with Scripted({"JoinNode": never, "DeleteFile": never}) as server:
        with connect(server.address) as cluster:
            with pytest.raises(errors.Unreachable):
                cluster.nodes.join("n9", b"s", "request", "2.0")
            with pytest.raises(errors.Unreachable):
                cluster.files.delete("f1")
        assert [name for name, _ in server.asked] == ["JoinNode", "DeleteFile"]


def test_it_does_not_ask_for_ever(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for half in ("", "aio."):
        monkeypatch.setattr(f"pvc_client.{half}transport.RETRY_FIRST_S", 0.001)
    never = failing(99, None, Unavailable, "UNREACHABLE")
    with Scripted({"GetVm": never}) as server, connect(server.address) as cluster:
        with pytest.raises(errors.Unreachable):
            cluster.vms.get("web")
        assert len(server.asked) == 5


def test_a_refusal_is_no_reason_to_ask_again(connect: Any) -> None:
    never = failing(99, None, grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE")
    with Scripted({"StartVm": never}) as server, connect(server.address) as cluster:
        with pytest.raises(errors.WrongState):
            cluster.vms.start("web")
        assert len(server.asked) == 1


def test_who_asks_too_often_waits_as_long_as_the_server_says(connect: Any) -> None:
    get = failing(2, vm_pb2.Vm(name="vms/web"), Exhausted, "RATE_LIMITED", 0.15)
    with Scripted({"GetVm": get}) as server, connect(server.address) as cluster:
        began = time.monotonic()
        assert cluster.vms.get("web").name == "vms/web"
        assert time.monotonic() - began >= 0.3


def test_who_would_have_to_wait_too_long_is_told_at_once(connect: Any) -> None:
    get = failing(99, None, Exhausted, "RATE_LIMITED", 30.0)
    with Scripted({"GetVm": get}) as server, connect(server.address, timeout_s=5) as cluster:
        with pytest.raises(errors.RateLimited) as limited:
            cluster.vms.get("web")
        assert limited.value.retry_after_s == 30.0
        assert len(server.asked) == 1


def test_the_gateway_says_when_to_come_again(connect: Any, tmp_path: Path) -> None:
    with (
        world_in(tmp_path, tries_per_s=0.01) as world,
        connect(world.grpc_address, timeout_s=20) as cluster,
    ):
        for _ in range(20):
            with pytest.raises(errors.PvcError) as refusal:
                cluster.nodes.join("n9", b"s" * 32, "request", "2.0")
            if isinstance(refusal.value, errors.RateLimited):
                break
        assert isinstance(refusal.value, errors.RateLimited)
        assert refusal.value.retry_after_s and 20 < refusal.value.retry_after_s <= 100


def test_what_a_node_that_is_gone_was_asked_another_one_answers(connect: Any) -> None:
    start = failing(0, Operation(name="operations/1"))
    with Scripted({"StartVm": start}) as one, Scripted({"StartVm": start}) as other:
        with connect(f"{one.address},{other.address}") as cluster:
            cluster.vms.start("web")
            one.stop()
            cluster.vms.start("db")
        assert [request.name for _, request in one.asked] == ["vms/web"]
        assert [request.name for _, request in other.asked] == ["vms/db"]


def test_a_node_without_its_store_is_left(connect: Any) -> None:
    lost = failing(99, None, Unavailable, "STORE_UNAVAILABLE")
    get = failing(0, vm_pb2.Vm(name="vms/web"))
    with Scripted({"GetVm": lost}) as one, Scripted({"GetVm": get}) as other:
        with connect([one.address, other.address]) as cluster:
            for _ in range(3):
                assert cluster.vms.get("web").name == "vms/web"
        assert len(one.asked) == 1 and len(other.asked) == 3


def test_an_upload_looks_for_a_node_that_answers_first(connect: Any, tmp_path: Path) -> None:
    def upload(pieces: Iterator[Any], context: grpc.ServicerContext) -> storage_pb.FileInfo:
        return storage_pb.FileInfo(name="files/f1", size_bytes=sum(len(p.data) for p in pieces))

    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(3_000_000))
    script = {"UploadFile": upload, "WhoAmI": failing(0, access_pb.WhoAmIResponse())}
    with Scripted(script) as server, connect(f"127.0.0.1:1,{server.address}") as cluster:
        assert cluster.files.upload(path).size_bytes == 3_000_000


def test_a_download_goes_on_at_another_node(connect: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    cut: list[Scripted] = []

    def half(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield storage_pb.DownloadFileResponse(data=content[:10_000])
        threading.Thread(target=cut[0].stop).start()
        time.sleep(5)

    def rest(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield storage_pb.DownloadFileResponse(data=content[request.offset :])

    with Scripted({"DownloadFile": half}) as one, Scripted({"DownloadFile": rest}) as other:
        cut.append(one)
        with connect([one.address, other.address]) as cluster:
            file = storage_pb.FileInfo(name="files/f1", size_bytes=len(content))
            cluster.files.download(file, tmp_path / "disk.raw")
        assert [request.offset for _, request in other.asked] == [10_000]
    assert (tmp_path / "disk.raw").read_bytes() == content


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((Unavailable, "UNREACHABLE"), errors.Unreachable),
        ((Exhausted, "RATE_LIMITED", 0.01), errors.RateLimited),
    ],
)
def test_a_console_is_not_begun_twice(connect: Any, refusal: Any, kind: Any) -> None:
    def attach(typed: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        next(typed)
        refused(context, *refusal)
        yield pb.AttachConsoleResponse()

    with Scripted({"AttachConsole": attach}) as server, connect(server.address) as cluster:
        with pytest.raises(kind), cluster.vms.console("web") as console:
            console.write(b"reboot\r")
            console.read()
        assert len(server.asked) == 1


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    with three_running(tmp_path) as three:
        yield three


def test_a_node_dies_in_the_middle_and_nobody_minds(three: Three, connect: Any) -> None:
    """Waiting, watching and new calls go on; work that another node does ends."""
    doors = [f"127.0.0.1:{three[node].doors.grpc_port}" for node in ("n3", "n2")]
    may_go_on, stages = threading.Event(), []
    three["n2"].disks.before_call = lambda verb: may_go_on.wait(60)
    with connect(",".join(doors), token=three["n1"].secrets["eve"]) as cluster:
        changes = cluster.volumes.watch()
        while next(changes).resource is not None:
            pass
        made = cluster.volumes.create("local-n2/long", VolumeSpec(size_bytes=2 * MIB))
        assert cluster.transport.address == doors[0]
        killed = threading.Timer(0.3, lambda: (three.kill("n3"), may_go_on.set()))
        killed.start()
        volume = made.result(60, lambda operation: stages.append(operation.state))
        assert volume.name == "pools/local-n2/volumes/long"
        assert stages[-1] == Operation.STATE_SUCCEEDED
        assert next(changes).resource.name == volume.name
        assert cluster.status().leader
        assert cluster.transport.address == doors[1]
        killed.join()
