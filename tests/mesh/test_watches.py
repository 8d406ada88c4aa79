"""Watches: the opening snapshot, changes through a filter, resuming, bookmarks, slow readers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.compute.v1.vm_service_pb2 import WatchVmsRequest, WatchVmsResponse
from pvc.core.v1 import meta_pb2, reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1.storage_service_pb2 import WatchVolumesRequest, WatchVolumesResponse
from services.mesh import watches
from services.mesh.errors import PvcError
from services.state import mirror
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from tests.mesh.vms import changed, store_with, vm

KINDS = {number: name for name, number in meta_pb2.ChangeKind.items()}


def watch(store: MemoryStore, **request: Any) -> AsyncGenerator[WatchVmsResponse, None]:
    period = request.pop("period", 60.0)
    asked = WatchVmsRequest(**request)
    return watches.follow(store, vm_pb2.Vm, asked, WatchVmsResponse, period)


def said(change: WatchVmsResponse) -> str:
    """A change as one line: "ADDED vms/a @3"."""
    kind = KINDS[change.kind].removeprefix("CHANGE_KIND_")
    return " ".join(x for x in (kind, change.vm.name, f"@{change.revision}") if x)


async def taken(stream: AsyncGenerator[WatchVmsResponse, None], count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [said(await anext(stream)) for _ in range(count)]


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def delete(store: MemoryStore, name: str) -> None:
    store.commit([Delete(name, "*")])


def test_snapshot_then_changes() -> None:
    async def story() -> None:
        store = store_with(vm("a"), vm("b"))
        stream = watch(store)
        assert await taken(stream, 3) == ["PRESENT vms/a @0", "PRESENT vms/b @0", "BOOKMARK @1"]
        store.commit([Put(vm("c"))])
        changed(store, "vms/a", 99)
        delete(store, "vms/b")
        assert await taken(stream, 3) == [
            "ADDED vms/c @2",
            "MODIFIED vms/a @3",
            "DELETED vms/b @4",
        ]
        await stream.aclose()

    run(story)


def test_rows_that_begin_and_cease_to_match() -> None:
    async def story() -> None:
        store = store_with(vm("a", 100), vm("b", 5000))
        stream = watch(store, filter="spec.memory.memory_mib > 1000")
        assert await taken(stream, 2) == ["PRESENT vms/b @0", "BOOKMARK @1"]
        changed(store, "vms/a", 200)
        changed(store, "vms/a", 2000)
        changed(store, "vms/a", 3000)
        changed(store, "vms/a", 300)
        delete(store, "vms/a")
        changed(store, "vms/b", 9000)
        assert await taken(stream, 4) == [
            "ADDED vms/a @3",
            "MODIFIED vms/a @4",
            "DELETED vms/a @5",
            "MODIFIED vms/b @7",
        ]
        await stream.aclose()

    run(story)


def test_a_deleted_row_is_carried_as_it_last_was() -> None:
    async def story() -> None:
        store = store_with(vm("a", 4000))
        stream = watch(store, filter="spec.memory.memory_mib > 1000")
        await taken(stream, 2)
        changed(store, "vms/a", 10)
        gone = await anext(stream)
        assert gone.vm.spec.memory.memory_mib == 4000
        await stream.aclose()

    run(story)


def test_resuming_misses_nothing_even_inside_a_commit() -> None:
    async def story() -> None:
        store = store_with(vm("a"))
        store.commit([Put(vm("b")), Put(vm("c")), Put(vm("d"))])
        store.commit([Put(vm("e"))])
        stream = watch(store, from_revision=1)
        lines = await taken(stream, 5)
        assert lines == [
            *("ADDED vms/b @1", "ADDED vms/c @1", "ADDED vms/d @2"),
            *("ADDED vms/e @3", "BOOKMARK @3"),
        ]
        await stream.aclose()
        again = watch(store, from_revision=2)
        assert await taken(again, 1) == ["ADDED vms/e @3"]
        await again.aclose()

    run(story)


def test_a_watch_from_a_lists_revision_waits_for_a_process_that_lags() -> None:
    async def story() -> None:
        store = store_with(vm("a"))
        stream = watch(store, from_revision=2)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        assert not first.done()
        store.commit([Put(vm("b"))])
        assert said(await first) == "BOOKMARK @2"
        await stream.aclose()

    run(story)


def refused(stream: AsyncGenerator[Any, None]) -> PvcError:
    async def story() -> PvcError:
        with pytest.raises(PvcError) as caught:
            async for _ in stream:
                pass
        return caught.value

    return asyncio.run(story())


def test_revisions_that_are_not_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "COMMITS_KEPT", 3)
    monkeypatch.setattr(watches, "ARRIVAL_WAIT_S", 0.05)
    store = store_with(vm("a"))
    for memory_mib in range(6):
        changed(store, "vms/a", memory_mib)
    for revision in (1, 3, 99):
        error = refused(watch(store, from_revision=revision))
        assert error.reason == reason_pb2.REASON_REVISION_TOO_OLD


def test_a_reader_that_is_too_slow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "COMMITS_KEPT", 3)

    async def story() -> None:
        store = store_with(vm("a"))
        stream = watch(store)
        await taken(stream, 2)
        for memory_mib in range(8):
            changed(store, "vms/a", memory_mib)
        with pytest.raises(PvcError, match="not kept") as caught:
            await taken(stream, 1)
        assert caught.value.reason == reason_pb2.REASON_REVISION_TOO_OLD

    run(story)


@pytest.mark.parametrize(
    "request_", [{"filter": "nam = x"}, {"read_mask": {"paths": ["nam"]}}, {"filter": "("}]
)
def test_bad_requests_are_refused_before_anything_is_sent(request_: dict[str, Any]) -> None:
    assert refused(watch(store_with(vm("a")), **request_)).field in ("filter", "read_mask")


def test_bookmarks_come_when_it_is_quiet() -> None:
    async def story() -> None:
        store = store_with(vm("a", 1), vm("b", 5000))
        stream = watch(store, filter="spec.memory.memory_mib > 1000", period=0.1)
        await taken(stream, 2)
        changed(store, "vms/a", 2)
        changed(store, "vms/a", 3)
        assert await taken(stream, 2) == ["BOOKMARK @3", "BOOKMARK @3"]
        await stream.aclose()

    run(story)


def test_masks_and_parents_hold_for_watches_too() -> None:
    async def story() -> None:
        store = MemoryStore()
        store.commit([Put(storage_pb2.Pool(name=f"pools/{pool}")) for pool in "ab"])
        request = WatchVolumesRequest(parent="pools/a", read_mask={"paths": ["name"]})
        stream = watches.follow(store, storage_pb2.Volume, request, WatchVolumesResponse)
        assert (await anext(stream)).kind == meta_pb2.CHANGE_KIND_BOOKMARK
        for pool in "ba":
            volume = storage_pb2.Volume(name=f"pools/{pool}/volumes/v")
            volume.spec.size_bytes = 1 << 20
            store.commit([Put(volume)])
        change = await anext(stream)
        assert change.volume == storage_pb2.Volume(name="pools/a/volumes/v")
        await stream.aclose()

    run(story)
    missing = WatchVolumesRequest(parent="pools/x")
    stream = watches.follow(MemoryStore(), storage_pb2.Volume, missing, WatchVolumesResponse)
    assert refused(stream).reason == reason_pb2.REASON_NOT_FOUND


def test_a_hundred_watchers_take_no_threads_and_leave_nothing() -> None:
    async def story() -> None:
        store = store_with(vm("a"))
        threads = threading.active_count()
        streams = [watch(store) for _ in range(100)]
        for stream in streams:
            await taken(stream, 2)
        waiting = [asyncio.ensure_future(taken(stream, 50)) for stream in streams]
        writer = threading.Thread(
            target=lambda: [changed(store, "vms/a", memory_mib) for memory_mib in range(50)]
        )
        writer.start()
        lines = await asyncio.gather(*waiting)
        writer.join()
        assert threading.active_count() == threads
        assert all(line == [f"MODIFIED vms/a @{r}" for r in range(2, 52)] for line in lines)
        for stream in streams:
            await stream.aclose()
        assert not store._cluster.mirror._listeners

    run(story)


def test_a_closed_store_ends_the_stream() -> None:
    async def story() -> None:
        store = store_with(vm("a"))
        stream = watch(store, period=0.1)
        await taken(stream, 2)
        store._cluster.mirror.close()
        with pytest.raises(PvcError, match="closed") as caught:
            await taken(stream, 3)
        assert caught.value.reason == reason_pb2.REASON_STORE_UNAVAILABLE

    run(story)
