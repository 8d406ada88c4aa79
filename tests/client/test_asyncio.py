"""What only the asyncio client can do: many calls at once in one thread, and tasks that are
cancelled. The rest it does as the blocking one, see blocking.py."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1 import vm_service_pb2 as pb
from pvc.core.v1 import meta_pb2
from pvc.core.v1.operation_pb2 import Operation
from pvc.storage.v1 import storage_service_pb2 as storage_pb
from pvc_client import AsyncCluster, errors
from tests.client.servers import Scripted
from tests.doors.servicers import BANNER
from tests.doors.world import World, world_in

VmSpec = vm_pb2.VmSpec


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("asyncio"), work_s=0.2) as world:
        yield world


def run(world: World, program: Callable[[AsyncCluster], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        async with AsyncCluster(world.grpc_address, token=world.secrets["eve"]) as cluster:
            return await program(cluster)

    return asyncio.run(connected())


def test_it_reads_as_one_would_write_it(world: World) -> None:
    stages: list[str] = []

    async def program(c: AsyncCluster) -> None:
        await (await c.vms.create("web", VmSpec())).result(timeout=60)
        started = await c.vms.start("web")
        vm = await started.result(timeout=60, on_progress=lambda o: stages.append(o.stage))
        assert vm.status.state == vm_pb2.VM_STATE_RUNNING
        assert "vms/web" in [vm.name async for vm in c.vms.list()]
        async with c.vms.watch(filter='name = "vms/web"') as changes:
            async for change in changes:
                if change.kind == meta_pb2.CHANGE_KIND_BOOKMARK:
                    break
        async with c.vms.console("web") as console:
            assert await console.read() == BANNER
            console.write(b"hello")
            assert await console.read() == b"HELLO"
        assert b"line 5" in b"".join([piece async for piece in c.vms.console_log("web")])

    run(world, program)
    assert "starting the emulator" in stages


def test_many_are_waited_for_at_once(world: World) -> None:
    seen: set[str] = set()

    def progress(operation: Operation) -> None:
        """All go on when all have been seen half done: one after the other they never would."""
        seen.add(operation.target)
        if len(seen) == 10:
            world.vms.may_go_on.set()

    async def program(c: AsyncCluster) -> None:
        begun = [await c.vms.create(f"many-{n}", VmSpec()) for n in range(10)]
        async with asyncio.TaskGroup() as group:
            for pending in begun:
                group.create_task(pending.result(60, progress))

    with world.held():
        run(world, program)


def test_a_wait_that_is_cancelled_leaves_the_work_going_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def program(c: AsyncCluster) -> None:
        pending = await c.vms.create("left", VmSpec())
        with caplog.at_level(logging.WARNING, "pvc_client"), pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.1):
                await pending.result()
        notes = getattr(late.value.__context__, "__notes__", [])
        assert notes == [f"{pending.name} goes on: pvc.compute.v1.VmService/CreateVm of vms/left"]
        assert notes[0] in caplog.text
        again = await c.operations.pending(pending.name)
        world.vms.may_go_on.set()
        assert isinstance(await again.result(60), vm_pb2.Vm)

    with world.held():
        run(world, program)


def test_a_change_that_is_cancelled_on_its_way_is_mentioned_and_done_once() -> None:
    reached, ended = threading.Event(), threading.Event()

    def start(request: Any, context: grpc.ServicerContext) -> Operation:
        context.add_callback(ended.set)
        reached.set()
        assert ended.wait(60), "the call was not cancelled on the wire"
        return Operation(name="operations/1")

    async def program(c: AsyncCluster) -> None:
        asked = asyncio.create_task(c.vms.start("web", request_id="r1"))
        await asyncio.to_thread(reached.wait, 60)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError) as stop:
            await asked
        (note,) = stop.value.__notes__
        assert note == (
            "VmService/StartVm was on its way and may be done; the same with request_id='r1' is "
            "done once"
        )
        assert await asyncio.to_thread(ended.wait, 60)

    with Scripted({"StartVm": start}) as server:
        server.run(program)


@pytest.mark.parametrize("how", ["task", "close", "break"])
def test_a_watch_that_nobody_follows_any_more_ends_on_the_wire(how: str) -> None:
    ended = threading.Event()

    def watch(request: Any, context: grpc.ServicerContext) -> Iterator[pb.WatchVmsResponse]:
        context.add_callback(ended.set)
        yield pb.WatchVmsResponse(kind=meta_pb2.CHANGE_KIND_BOOKMARK, revision=1)
        ended.wait(60)

    async def program(c: AsyncCluster) -> None:
        changes = c.vms.watch()
        assert (await anext(changes)).resource is None
        follower = asyncio.create_task(anext(changes))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        if how == "task":
            follower.cancel()
            with pytest.raises(asyncio.CancelledError):
                await follower
        elif how == "close":
            changes.close()
            with pytest.raises(StopAsyncIteration):
                await follower
        else:
            async with changes:
                follower.cancel()
        assert await asyncio.to_thread(ended.wait, 60)

    with Scripted({"WatchVms": watch}) as server:
        server.run(program)


def test_a_download_that_is_cancelled_leaves_no_file(tmp_path: Path) -> None:
    ended = threading.Event()

    def download(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield storage_pb.DownloadFileResponse(data=b"half")
        ended.wait(60)

    async def program(c: AsyncCluster) -> None:
        half, path = asyncio.Event(), tmp_path / "disk.raw"
        file = storage_pb.FileInfo(name="files/f1", size_bytes=8)
        asked = asyncio.create_task(c.files.download(file, path, lambda *_: half.set()))
        await half.wait()
        assert [one.name for one in tmp_path.iterdir()] == ["disk.raw.part"]
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not list(tmp_path.iterdir())
        assert await asyncio.to_thread(ended.wait, 60)

    with Scripted({"DownloadFile": download}) as server:
        server.run(program)


def test_an_upload_that_is_refused_half_way_says_why(tmp_path: Path) -> None:
    path = tmp_path / "big.raw"
    path.write_bytes(bytes(30_000_000))

    def upload(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        next(requests)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room")

    async def program(c: AsyncCluster) -> None:
        with pytest.raises(errors.PvcError, match="no room"):
            await c.files.upload(path)

    with Scripted({"UploadFile": upload}) as server:
        server.run(program)
        with server.cluster() as cluster, pytest.raises(errors.PvcError, match="no room"):
            cluster.files.upload(path)


def test_what_goes_wrong_while_a_file_is_told_of_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x")

    def upload(requests: Iterator[Any], context: grpc.ServicerContext) -> storage_pb.FileInfo:
        list(requests)
        return storage_pb.FileInfo(name="files/f1")

    def told(done: int, size: int) -> None:
        raise ZeroDivisionError

    async def program(c: AsyncCluster) -> None:
        with pytest.raises(ZeroDivisionError):
            await c.files.upload(path, told)

    with Scripted({"UploadFile": upload}) as server:
        server.run(program)
        with server.cluster() as cluster, pytest.raises(ZeroDivisionError):
            cluster.files.upload(path, told)


def test_a_connection_that_was_closed_says_so(world: World) -> None:
    async def program(c: AsyncCluster) -> None:
        await c.whoami()
        await c.close()
        with pytest.raises(ValueError, match="closed"):
            await c.whoami()

    run(world, program)


def test_it_is_made_anywhere_and_opens_where_it_is_used(world: World) -> None:
    cluster = AsyncCluster(world.grpc_address, token=world.secrets["eve"])

    async def program() -> str:
        async with cluster:
            return (await cluster.whoami()).caller

    assert asyncio.run(program()) == "token eve"
