"""The Python client against real servers: a program's view of the cluster, in both halves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as vm_pb
from pvc.core.v1 import meta_pb2, options_pb2, reason_pb2
from pvc_client import Cluster, PvcError, errors
from pvc_client.names import full_name, parent_of, short_name
from pvc_client.resources import Changes
from tests.client.blocking import blocking
from tests.doors.servicers import BANNER
from tests.doors.world import World, world_in

VmSpec = vm_pb2.VmSpec


@pytest.fixture(scope="module", params=[Cluster, blocking], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def world(connect: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("client")) as world:
        yield world


@pytest.fixture
def cluster(world: World, connect: Any) -> Iterator[Any]:
    with connect(world.grpc_address, token=world.secrets["eve"], timeout_s=60) as cluster:
        yield cluster


def test_a_program_of_ten_lines(cluster: Cluster) -> None:
    seen: list[str] = []
    made = cluster.vms.create("ten", VmSpec(description="x")).result(timeout=60)
    assert made.name == "vms/ten"
    vm = cluster.vms.start("ten").result(
        timeout=60, on_progress=lambda operation: seen.append(operation.stage)
    )
    assert vm.status.state == vm_pb2.VM_STATE_RUNNING
    assert [stage for stage in seen if stage][-1] == "starting the emulator"
    assert "choosing a node" in seen


def test_every_reason_is_a_class_of_the_same_name() -> None:
    reasons = {
        value.name.removeprefix("REASON_"): value
        for value in reason_pb2.Reason.DESCRIPTOR.values
        if value.number
    }
    assert set(errors.BY_REASON) == set(reasons)
    for reason, kind in errors.BY_REASON.items():
        assert kind.__name__ == reason.title().replace("_", "")
        code = reasons[reason].GetOptions().Extensions[options_pb2.code]
        assert issubclass(kind, errors.InvalidRequest) == (code == 3), reason
        assert issubclass(kind, errors.Unavailable) == (code == 14), reason


def test_errors_arrive_as_classes(cluster: Cluster) -> None:
    with pytest.raises(errors.NotFound) as found:
        cluster.vms.get("nowhere")
    assert "vms/nowhere" in found.value.message
    with pytest.raises(errors.AlreadyExists) as twice:
        cluster.vms.create("twice", VmSpec()).result(60)
        cluster.vms.create("twice", VmSpec())
    assert twice.value.field == "vm_id"


def test_a_failed_operation_raises_its_own_error(cluster: Cluster) -> None:
    cluster.vms.create("bad", VmSpec())
    pending = cluster.vms.start("bad")
    with pytest.raises(errors.HypervisorFailed, match="no such machine") as failed:
        pending.result(timeout=60)
    assert failed.value.operation == pending.name


def test_waiting_ends_with_the_timeout_and_the_work_goes_on(
    connect: Any,
    tmp_path: Path,
) -> None:
    with world_in(tmp_path) as slow, connect(f"unix:{slow.socket}") as cluster, slow.held():
        pending = cluster.vms.create("slow", VmSpec())
        with pytest.raises(errors.Deadline) as late:
            pending.result(timeout=0.1)
        assert late.value.operation == pending.name
        again = cluster.operations.pending(pending.name)
        slow.vms.may_go_on.set()
        assert again.result(timeout=60).name == "vms/slow"  # type: ignore[attr-defined]


def test_a_cancelled_operation_raises_cancelled(connect: Any, tmp_path: Path) -> None:
    with world_in(tmp_path) as slow, connect(f"unix:{slow.socket}") as cluster:
        with slow.held():
            pending = cluster.vms.create("slow", VmSpec())
            pending.cancel()
        with pytest.raises(errors.Cancelled):
            pending.result(timeout=60)


def test_lists_page_by_themselves(cluster: Cluster) -> None:
    for number in range(7):
        cluster.vms.create(f"page-{number}", VmSpec(tags=["paged"]))
    pages = cluster.vms.list(filter="spec.tags:paged", page_size=3)
    assert [vm.name for vm in pages] == [f"vms/page-{n}" for n in range(7)]
    assert pages.total_size == 7


def test_a_watch_tells_what_is_then_what_happens(cluster: Cluster) -> None:
    cluster.vms.create("watched", VmSpec()).result(60)
    changes = cluster.vms.watch(filter='name = "vms/watched"')
    first = next(changes)
    assert first.kind == meta_pb2.CHANGE_KIND_PRESENT
    assert first.resource is not None and first.resource.name == "vms/watched"
    assert next(changes).kind == meta_pb2.CHANGE_KIND_BOOKMARK
    cluster.vms.delete("watched").result(60)
    deleted = next(changes)
    assert deleted.kind == meta_pb2.CHANGE_KIND_DELETED
    assert deleted.revision > first.revision
    changes.close()
    assert list(changes) == []


def test_own_writes_are_read_back(cluster: Cluster) -> None:
    cluster.vms.create("mine", VmSpec())
    assert cluster.transport._revision > 0
    assert cluster.vms.get("mine").name == "vms/mine"


def test_a_mutation_without_a_request_id_gets_one(cluster: Cluster, world: World) -> None:
    cluster.vms.create("counted", VmSpec())
    assert len(world.vms.requests[-1].request_id) == 32


def test_a_repeated_request_is_done_once(cluster: Cluster) -> None:
    first = cluster.vms.create("once", VmSpec(), request_id="r1")
    assert cluster.vms.create("once", VmSpec(), request_id="r1").name == first.name
    with pytest.raises(errors.RequestIdReused):
        cluster.vms.create("once", VmSpec(description="other"), request_id="r1")


def test_the_console_echoes_and_ends(cluster: Cluster) -> None:
    cluster.vms.create("talk", VmSpec()).result(60)
    with cluster.vms.console("talk") as console:
        assert console.read() == BANNER
        console.write(b"hello\r")
        assert console.read() == b"HELLO\r"
        console.write(b"\x04")
        assert console.read() == b""


def test_a_console_closed_by_another_thread_ends_the_reader(cluster: Cluster) -> None:
    cluster.vms.create("cut", VmSpec()).result(60)
    console = cluster.vms.console("cut")
    console.read()
    threading.Timer(0.1, console.close).start()
    assert console.read() == b""


def test_files_go_up_and_come_down_whole(cluster: Cluster, tmp_path: Path) -> None:
    source, target, told = tmp_path / "disk.raw", tmp_path / "back.raw", []
    source.write_bytes(bytes(range(256)) * 5000)
    file = cluster.files.upload(source, lambda done, size: told.append((done, size)))
    assert told[-1] == (1_280_000, 1_280_000)
    cluster.files.download(file, target)
    assert target.read_bytes() == source.read_bytes()
    file.sha256 = "0" * 64
    with pytest.raises(errors.Internal, match="damaged"):
        cluster.files.download(file, tmp_path / "other.raw")
    assert not list(tmp_path.glob("other*"))


def test_a_cluster_that_is_not_there_is_unreachable(connect: Any) -> None:
    with (
        connect("127.0.0.1:1", timeout_s=20) as cluster,
        pytest.raises(errors.Unreachable, match=r"127\.0\.0\.1:1 does not answer"),
    ):
        cluster.status()


def test_without_a_token_nobody_comes_in(connect: Any, world: World) -> None:
    with connect(world.grpc_address) as cluster, pytest.raises(errors.Unauthenticated):
        cluster.whoami()


def test_the_socket_is_root(connect: Any, world: World) -> None:
    with connect(f"unix:{world.socket}") as cluster:
        me = cluster.whoami()
    assert (me.caller, me.role, me.cluster) == ("local root", options_pb2.ROLE_ADMIN, "test")
    assert world.socket.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "short", "full"),
    [
        ("vms", "web", "vms/web"),
        ("vms", "vms/web", "vms/web"),
        ("pools/volumes", "local/web-root", "pools/local/volumes/web-root"),
        ("pools/volumes", "pools/local/volumes/x", "pools/local/volumes/x"),
        ("pools/volumes/snapshots", "a/b/c", "pools/a/volumes/b/snapshots/c"),
    ],
)
def test_short_names(path: str, short: str, full: str) -> None:
    assert full_name(path, short) == full
    assert full_name(path, short_name(full)) == full


def test_a_name_with_too_few_parts_is_refused() -> None:
    with pytest.raises(errors.InvalidField, match="POOL/VOLUME"):
        full_name("pools/volumes", "web-root")
    assert parent_of("pools/a/volumes/b") == "pools/a"
    assert parent_of("vms/a") == ""


def test_an_option_that_a_request_lacks_is_a_mistake(cluster: Cluster) -> None:
    with pytest.raises(TypeError):
        cluster.vms.create("x", VmSpec(), etag="1")
    assert issubclass(errors.NotFound, PvcError)


class Scripted:
    """Streams that break where they are told to."""

    def __init__(self, *streams: list[Any]) -> None:
        self.streams = list(streams)
        self.began_after: list[int] = []

    def open(self, after: int) -> Any:
        self.began_after.append(after)
        return self.answers(self.streams.pop(0))

    @staticmethod
    def answers(script: list[Any]) -> Iterator[Any]:
        for one in script:
            if isinstance(one, Exception):
                raise one
            kind, name, revision, *etag = one
            vm = vm_pb2.Vm(name=name, meta={"etag": etag[0]}) if name else None
            yield vm_pb.WatchVmsResponse(kind=kind, vm=vm, revision=revision)


BROKEN = errors.Unreachable("gone")
HERE, ADDED, CHANGED, MARK = (
    meta_pb2.CHANGE_KIND_PRESENT,
    meta_pb2.CHANGE_KIND_ADDED,
    meta_pb2.CHANGE_KIND_MODIFIED,
    meta_pb2.CHANGE_KIND_BOOKMARK,
)


def names(changes: Changes[Any]) -> list[tuple[str, int]]:
    return [(c.resource.name if c.resource else "", c.revision) for c in changes]


def test_a_broken_watch_goes_on_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc_client.resources.RECONNECT_PAUSE_S", 0.0)
    script = Scripted(
        [(HERE, "vms/a", 0, "5"), (MARK, "", 5), (CHANGED, "vms/a", 6, "6"),
         (ADDED, "vms/b", 6, "7"), (CHANGED, "vms/a", 6, "7"), BROKEN],
        [BROKEN],
        # The commit 7 was cut in the middle: what came of it is not told again.
        [(ADDED, "vms/b", 6, "7"), (CHANGED, "vms/a", 6, "7"), (ADDED, "vms/d", 7, "7"),
         (CHANGED, "vms/b", 8, "8")],
    )  # fmt: skip
    seen: list[int] = []
    changes: Changes[Any] = Changes(script.open, "vm", 0, seen.append)
    assert names(changes) == [
        ("vms/a", 0), ("", 5), ("vms/a", 6), ("vms/b", 6), ("vms/a", 6), ("vms/d", 7), ("vms/b", 8),
    ]  # fmt: skip
    assert script.began_after == [0, 6, 6]
    assert max(seen) == 8  # later calls are answered from there on


def test_a_watch_that_breaks_in_its_beginning_says_so() -> None:
    changes: Changes[Any] = Changes(
        Scripted([(HERE, "vms/a", 5, "5"), BROKEN]).open, "vm", 0, lambda _: None
    )
    assert next(changes).revision == 5
    with pytest.raises(errors.Unreachable):
        next(changes)


def test_a_watch_does_not_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvc_client.resources.RECONNECT_PAUSE_S", 0.01)
    monkeypatch.setattr("pvc_client.resources.RECONNECT_S", 0.05)
    script = Scripted([(MARK, "", 5), BROKEN], *([BROKEN] for _ in range(100)))
    changes: Changes[Any] = Changes(script.open, "vm", 0, lambda _: None)
    next(changes)
    with pytest.raises(errors.Unreachable):
        next(changes)
    assert 1 < len(script.began_after) < 50


def test_waiting_and_watching_survive_a_restart_of_the_doors(connect: Any, tmp_path: Path) -> None:
    with (
        world_in(tmp_path, work_s=0.5) as world,
        connect(world.grpc_address, token=world.secrets["eve"]) as cluster,
    ):
        pending = cluster.vms.create("long", VmSpec())
        changes = cluster.vms.watch(filter='name = "vms/long"')
        assert [next(changes).kind for _ in range(2)] == [HERE, MARK]
        threading.Timer(0.2, world.reopen).start()
        seen: list[str] = []
        assert pending.result(20, lambda o: seen.append(o.stage)).name == "vms/long"
        assert "starting the emulator" in seen
        cluster.vms.start("long")
        assert next(changes).kind == CHANGED


def test_threads_share_a_connection(world: World, connect: Any) -> None:
    made: list[str] = []
    with connect(world.grpc_address, token=world.secrets["eve"]) as shared:

        def work(number: int) -> None:
            shared.vms.create(f"shared-{number}", VmSpec()).result(20)
            made.extend(vm.name for vm in shared.vms.list(filter=f'name = "vms/shared-{number}"'))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(made) == [f"vms/shared-{number}" for number in range(8)]
