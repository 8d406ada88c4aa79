"""The storage service over a real socket: the life of pools, volumes, snapshots and files, with
qemu-img at work.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.compute.v1 import vm_service_pb2, vm_service_pb2_grpc
from pvc.core.v1 import meta_pb2, operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh.calls import error_of
from services.mesh.channel import Peers
from services.mesh.clock import SystemClock
from services.mesh.errors import PvcError
from services.mesh.rows import FINAL
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import Put
from services.storage import service as storage_service
from services.storage.drivers.directory import DirectoryDriver
from services.storage.files import Files, Upload
from services.storage.main import StorageSettings, build, default_pool
from services.storage.open_volumes import ComputeVolumes
from tests.storage.benches import MIB, call

pytestmark = pytest.mark.real

POOL = "pools/local"
Operation = operation_pb2.Operation


class Client:
    """A caller, and a look behind the service."""

    def __init__(self, stub: Any, store: MemoryStore, folder: Path) -> None:
        self.stub = stub
        self.store = store
        self.folder = folder

    async def done(self, accepted: Awaitable[Operation]) -> Operation:
        """The operation when it has ended."""
        operation = await accepted
        while operation.state not in FINAL:
            await asyncio.sleep(0.01)
            found = self.store.snapshot().find(Operation, operation.name)
            assert found is not None
            operation = found
        return operation

    async def ok(self, accepted: Awaitable[Operation], kind: type[Any] | None = None) -> Any:
        """The result of an operation that must succeed."""
        operation = await self.done(accepted)
        assert operation.state == Operation.STATE_SUCCEEDED, operation.error.message
        assert operation.percent == 100
        if kind is None:
            return None
        result = kind()
        assert operation.result.Unpack(result)
        return result

    async def create(self, volume_id: str, **spec: Any) -> storage_pb2.Volume:
        volume = storage_pb2.Volume(spec=storage_pb2.VolumeSpec(**spec))
        request = api.CreateVolumeRequest(parent=POOL, volume_id=volume_id, volume=volume)
        made: storage_pb2.Volume = await self.ok(
            self.stub.CreateVolume(request), storage_pb2.Volume
        )
        return made

    async def upload(self, data: bytes, **first: Any) -> api.FileInfo:
        pieces = [data[at : at + MIB] for at in range(0, len(data), MIB)]
        head = api.UploadFileRequest(**{"size_bytes": len(data), **first})
        messages: Iterable[api.UploadFileRequest] = [
            head,
            *(api.UploadFileRequest(data=piece) for piece in pieces),
        ]
        info: api.FileInfo = await self.stub.UploadFile(iter(messages))
        return info

    async def download(self, name: str, offset: int = 0) -> bytes:
        request = api.DownloadFileRequest(name=name, offset=offset)
        return b"".join([piece.data async for piece in self.stub.DownloadFile(request)])

    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "state/files").iterdir())


async def refused(answer: Awaitable[Any]) -> PvcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await answer
    return error_of(error.value)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Client]:
    clock, store = SystemClock(), MemoryStore()
    settings = StorageSettings(
        "nodes/n1", folder / "state", str(folder / "pool"), MIB, files_reserve_bytes=MIB
    )
    store.commit([Put(default_pool(settings, clock))])
    peers = Peers("nodes/n1", {}, store)
    parts = build(settings, store, clock, peers, DirectoryDriver())
    server = Server(parts.servicers, clock)
    address = server.listen_unix(folder / "socket")
    await server.start()
    forget = [store.on_change(loop.wake) for loop in parts.loops]
    for loop in parts.loops:
        loop.start()
    channel = grpc.aio.insecure_channel(address)
    try:
        yield Client(api_grpc.StorageServiceStub(channel), store, folder)
    finally:
        await channel.close()
        await server.drain(0.1)
        for stop in forget:
            stop()
        for loop in parts.loops:
            assert await asyncio.to_thread(loop.stop, 10.0)
        for close in parts.close:
            close()


def story(test: Callable[[Client], Awaitable[None]]) -> Callable[[Path], None]:
    """Runs a test's coroutine with a service of its own."""

    def run(tmp_path: Path) -> None:
        async def main() -> None:
            async with asyncio.timeout(60), serving(tmp_path) as client:
                await test(client)

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@story
async def test_the_life_of_a_volume(client: Client) -> None:
    stub = client.stub
    made = await client.create("a", size_bytes=8 * MIB, description="first")
    assert made.status.state == storage_pb2.VolumeStatus.STATE_READY
    assert Path(made.status.path).is_file()
    got = await stub.GetVolume(api.GetVolumeRequest(name=made.name))
    assert got.spec.description == "first" and got.meta.etag
    grown = await client.ok(
        stub.ResizeVolume(api.ResizeVolumeRequest(name=made.name, size_bytes=16 * MIB)),
        storage_pb2.Volume,
    )
    assert grown.status.size_bytes == 16 * MIB
    renamed = await client.ok(
        stub.RenameVolume(api.RenameVolumeRequest(name=made.name, new_volume_id="b")),
        storage_pb2.Volume,
    )
    assert (renamed.name, renamed.meta.uid) == (f"{POOL}/volumes/b", made.meta.uid)
    listed = await stub.ListVolumes(api.ListVolumesRequest(parent=POOL))
    assert [volume.name for volume in listed.volumes] == [renamed.name]
    await client.ok(stub.DeleteVolume(api.DeleteVolumeRequest(name=renamed.name)))
    error = await refused(stub.GetVolume(api.GetVolumeRequest(name=renamed.name)))
    assert error.reason_name == "NOT_FOUND"
    assert not list((client.folder / "pool/volumes").iterdir())


@story
async def test_clones_and_copies(client: Client) -> None:
    await client.create("base", size_bytes=8 * MIB, sealed=True)
    clone = await client.create("clone", source_volume=f"{POOL}/volumes/base")
    assert clone.status.parent == f"{POOL}/volumes/base"
    seen = call("qemu-img", "info", "-U", clone.status.path)
    assert "backing file: ../volumes/base.qcow2" in seen
    copy = await client.create(
        "copy", source_volume=clone.name, format=storage_pb2.IMAGE_FORMAT_RAW
    )
    assert copy.status.path.endswith("copy.raw") and copy.status.size_bytes == 8 * MIB
    error = await refused(
        client.stub.DeleteVolume(api.DeleteVolumeRequest(name=f"{POOL}/volumes/base"))
    )
    assert error.reason_name == "IN_USE" and "clone" in error.message


@story
async def test_the_life_of_a_snapshot(client: Client) -> None:
    stub = client.stub
    volume = await client.create("a", size_bytes=8 * MIB)
    call("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", volume.status.path)
    request = api.CreateSnapshotRequest(parent=volume.name, snapshot_id="one")
    request.snapshot.description = "before"
    taken = await client.ok(stub.CreateSnapshot(request), storage_pb2.Snapshot)
    assert (taken.description, taken.size_bytes) == ("before", 8 * MIB)
    call("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", volume.status.path)
    copy = await client.create("b", source_snapshot=taken.name)
    call("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 64k", copy.status.path)
    await client.ok(stub.RollbackSnapshot(api.RollbackSnapshotRequest(name=taken.name)))
    call("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 64k", volume.status.path)
    listed = await stub.ListSnapshots(api.ListSnapshotsRequest(parent=volume.name))
    assert [snapshot.name for snapshot in listed.snapshots] == [taken.name]
    assert (await stub.GetSnapshot(api.GetSnapshotRequest(name=taken.name))).description
    await client.ok(stub.DeleteSnapshot(api.DeleteSnapshotRequest(name=taken.name)))
    assert "Snapshot list" not in call("qemu-img", "info", volume.status.path)


@story
async def test_out_and_in_again(client: Client) -> None:
    stub = client.stub
    volume = await client.create("a", size_bytes=8 * MIB)
    call("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 64k", volume.status.path)
    for format in (
        storage_pb2.IMAGE_FORMAT_RAW,
        storage_pb2.IMAGE_FORMAT_QCOW2,
        storage_pb2.IMAGE_FORMAT_VMDK,
    ):
        file = await client.ok(
            stub.ExportVolume(api.ExportVolumeRequest(name=volume.name, format=format)),
            api.FileInfo,
        )
        data = await client.download(file.name)
        assert hashlib.sha256(data).hexdigest() == file.sha256
        assert await client.download(file.name, 1000) == data[1000:]
        again = await client.upload(data, sha256=file.sha256, source_name="../../a b.img")
        assert again.file_name == "a_b.img"
        request = api.ImportVolumeRequest(
            parent=POOL, volume_id=f"in{format}", file=again.name, sealed=True
        )
        back = await client.ok(stub.ImportVolume(request), storage_pb2.Volume)
        assert back.spec.sealed and back.spec.source_file == again.name
        assert back.status.size_bytes == 8 * MIB
        call("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 1M 64k", back.status.path)
        await stub.DeleteFile(api.DeleteFileRequest(name=file.name))
        await stub.DeleteFile(api.DeleteFileRequest(name=again.name))
    assert client.kept() == []


@story
async def test_a_hostile_upload_becomes_no_volume(client: Client) -> None:
    path = client.folder / "evil"
    call(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-u",
        "-b",
        "/etc/passwd",
        "-F",
        "raw",
        path,
        "4M",
    )
    file = await client.upload(path.read_bytes())
    request = api.ImportVolumeRequest(parent=POOL, volume_id="evil", file=file.name)
    ended = await client.done(client.stub.ImportVolume(request))
    assert ended.state == Operation.STATE_FAILED
    error = PvcError.from_status(ended.error)
    assert (error.reason_name, error.field) == ("INVALID_CONTENT", "file")
    assert "continues another file" in error.message
    assert not list(client.store.snapshot().rows(storage_pb2.Volume))
    assert not list((client.folder / "pool/volumes").iterdir())


@story
async def test_uploads_that_are_not_what_they_said(client: Client) -> None:
    error = await refused(client.upload(b"abc", sha256="0" * 64))
    assert error.reason_name == "INVALID_CONTENT" and "SHA-256" in error.message
    error = await refused(client.upload(b"abc", size_bytes=2))
    assert error.reason_name == "INVALID_CONTENT" and "more than" in error.message
    error = await refused(client.upload(b"abc", size_bytes=4))
    assert error.reason_name == "INVALID_CONTENT" and "3 bytes came" in error.message
    error = await refused(client.upload(b"", size_bytes=0))
    assert (error.reason_name, error.field) == ("INVALID_FIELD", "size_bytes")
    error = await refused(client.upload(b"abc", size_bytes=60 << 40))
    assert error.reason_name == "OUT_OF_SPACE"
    assert client.kept() == []


@story
async def test_a_caller_who_goes_leaves_nothing(client: Client) -> None:
    sent = asyncio.Event()

    async def messages() -> AsyncIterator[api.UploadFileRequest]:
        yield api.UploadFileRequest(size_bytes=10 * MIB, data=b"x" * MIB)
        sent.set()
        await asyncio.sleep(60)

    call_ = client.stub.UploadFile(messages())
    await sent.wait()
    while not client.kept():
        await asyncio.sleep(0.01)
    call_.cancel()
    while client.kept():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("at", ["begin", "finish"])
def test_a_caller_who_leaves_while_the_disk_is_slow_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """What the disk was doing is waited for, and then taken back."""
    reached, go_on, over = threading.Event(), threading.Event(), threading.Event()
    owner: type[Any] = Files if at == "begin" else Upload
    really = getattr(owner, at)
    found: list[Files] = []

    def slow(self: Any, *given: Any) -> Any:
        found.append(self if at == "begin" else self._files)
        reached.set()
        assert go_on.wait(60)
        try:
            return really(self, *given)
        finally:
            over.set()

    monkeypatch.setattr(owner, at, slow)

    async def test(client: Client) -> None:
        call_ = asyncio.ensure_future(client.upload(b"abc"))
        assert await asyncio.to_thread(reached.wait, 60)
        call_.cancel()
        with suppress(asyncio.CancelledError):
            await call_
        for _ in range(3):  # What is asked later over the same connection is heard later.
            await client.stub.ListPools(api.ListPoolsRequest())
        go_on.set()
        assert await asyncio.to_thread(over.wait, 60)
        while (client.kept(), found[0]._promised) != ([], 0):
            await asyncio.sleep(0.01)

    story(test)(tmp_path)


def test_a_caller_who_sends_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_service, "UPLOAD_IDLE_S", 0.1)

    async def test(client: Client) -> None:
        async def messages() -> AsyncIterator[api.UploadFileRequest]:
            yield api.UploadFileRequest(size_bytes=10 * MIB, data=b"x" * MIB)
            await asyncio.sleep(20)

        error = await refused(client.stub.UploadFile(messages()))
        assert error.reason_name == "DEADLINE"
        assert client.kept() == []

    story(test)(tmp_path)


@story
async def test_files_that_are_not_there(client: Client) -> None:
    stub = client.stub
    for name in ("files/n1.x", "files/nothing", f"files/n1.{'0' * 26}", f"files/n2.{'0' * 26}"):
        error = await refused(stub.DeleteFile(api.DeleteFileRequest(name=name)))
        assert error.reason_name == "NOT_FOUND", name
    request = api.ImportVolumeRequest(parent=POOL, volume_id="a", file=f"files/n1.{'0' * 26}")
    error = await refused(stub.ImportVolume(request))
    assert (error.reason_name, error.field) == ("DANGLING_REFERENCE", "file")
    file = await client.upload(b"abc")
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await client.download(file.name, 4)
    assert error_of(late.value).field == "offset"
    assert await client.download(file.name, 3) == b""


@story
async def test_pools_come_and_go(client: Client) -> None:
    stub = client.stub
    pool = storage_pb2.Pool()
    pool.spec.directory.path = str(client.folder / "deep/second")
    request = api.CreatePoolRequest(pool_id="second", pool=pool)
    made = await client.ok(stub.CreatePool(request), storage_pb2.Pool)
    assert made.status.state == storage_pb2.PoolStatus.STATE_READY
    assert made.status.capacity_bytes > made.status.available_bytes > 0
    pool = storage_pb2.Pool(name=made.name, spec=storage_pb2.PoolSpec(description="slow"))
    updated = await stub.UpdatePool(api.UpdatePoolRequest(pool=pool))
    assert updated.spec.description == "slow" and updated.spec.directory.path
    listed = await stub.ListPools(api.ListPoolsRequest())
    assert [row.name for row in listed.pools] == [POOL, "pools/second"]
    assert (await stub.GetPool(api.GetPoolRequest(name=made.name))).spec.description == "slow"
    (client.folder / "deep/second/photo.jpg").write_text("mine")
    await client.ok(stub.DeletePool(api.DeletePoolRequest(name=made.name)))
    assert [path.name for path in (client.folder / "deep/second").iterdir()] == ["photo.jpg"]
    ended = await client.done(stub.CreatePool(request))
    assert ended.state == Operation.STATE_FAILED and "photo.jpg" in ended.error.message
    assert (await stub.ListPools(api.ListPoolsRequest())).total_size == 1


@story
async def test_a_request_is_repeated_and_tried_out(client: Client) -> None:
    volume = storage_pb2.Volume(spec=storage_pb2.VolumeSpec(size_bytes=MIB))
    request = api.CreateVolumeRequest(parent=POOL, volume_id="a", volume=volume, validate_only=True)
    tried = await client.stub.CreateVolume(request)
    assert tried.log[0].text == "make pools/local/volumes/a: 1 MiB, qcow2, empty"
    assert not tried.name and tried.stage.startswith("would be accepted: make ")
    assert not list(client.store.snapshot().rows(storage_pb2.Volume))
    request.validate_only, request.request_id = False, "0197-one"
    first = await client.stub.CreateVolume(request)
    second = await client.stub.CreateVolume(request)
    assert first.name == second.name
    await client.ok(client.stub.CreateVolume(request))
    assert len(list(client.store.snapshot().rows(Operation))) == 1


@story
async def test_watches_show_a_volume_come(client: Client) -> None:
    watch = client.stub.WatchVolumes(api.WatchVolumesRequest(parent=POOL))
    first = await anext(aiter(watch))
    assert first.kind == meta_pb2.CHANGE_KIND_BOOKMARK
    await client.create("a", size_bytes=MIB)
    states: list[int] = []
    async for change in watch:
        states.append(change.volume.status.state)
        if change.volume.status.state == storage_pb2.VolumeStatus.STATE_READY:
            break
    assert storage_pb2.VolumeStatus.STATE_CREATING in states
    watch.cancel()
    pools = client.stub.WatchPools(api.WatchPoolsRequest())
    assert (await anext(aiter(pools))).pool.name == POOL
    pools.cancel()


class Disks(vm_service_pb2_grpc.DiskServiceServicer):
    """A compute service that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def ResizeOpenVolume(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return vm_service_pb2.ResizeOpenVolumeResponse()

    async def SnapshotOpenVolumes(self, request: Any, context: Any) -> Any:
        self.asked.append(request)
        return vm_service_pb2.SnapshotOpenVolumesResponse(quiesced=True)

    async def DeleteOpenSnapshot(self, request: Any, context: Any) -> Any:
        raise PvcError(7 + 2, "no VM has it open")  # type: ignore[arg-type]


def test_open_volumes_are_reached_over_the_mesh(tmp_path: Path) -> None:
    async def main() -> None:
        disks = Disks()
        add = vm_service_pb2_grpc.add_DiskServiceServicer_to_server
        server = Server([(add, disks)], SystemClock())
        address = server.listen_unix(tmp_path / "compute")
        await server.start()
        peers = Peers("nodes/n1", {"compute": address}, MemoryStore())
        volumes = ComputeVolumes(peers)
        volume = f"{POOL}/volumes/a"
        await asyncio.to_thread(volumes.resize, "nodes/n1", volume, MIB)
        assert await asyncio.to_thread(volumes.snapshot, "nodes/n1", volume, "s", True)
        with pytest.raises(PvcError) as error:
            await asyncio.to_thread(volumes.delete_snapshot, "nodes/n1", volume, "s")
        assert error.value.reason_name == "WRONG_STATE"
        assert [request.DESCRIPTOR.name for request in disks.asked] == [
            "ResizeOpenVolumeRequest",
            "SnapshotOpenVolumesRequest",
        ]
        await peers.close()
        await server.drain(0.1)

    asyncio.run(main())
