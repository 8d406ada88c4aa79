"""The gate that mutations pass: once for a request id, never to validate, again on collision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.core.v1 import reason_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from pvc.storage.v1 import storage_service_pb2_grpc as api_grpc
from services.mesh import watches
from services.mesh.calls import error_of
from services.mesh.desk import CALLER, MIN_REVISION, REVISION, Desk, Mutation
from services.mesh.errors import PvcError
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.mesh.serving import CLOCK, Served, on_socket, served


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.commit([Put(storage_pb2.Pool(name="pools/a"))])
    return store


@pytest.fixture
def running(store: MemoryStore, tmp_path: Path) -> Iterator[Served]:
    with served(store, on_socket(tmp_path)) as one:
        yield one


@pytest.fixture
def stub(running: Served) -> Iterator[Any]:
    with grpc.insecure_channel(running.address) as channel:
        yield api_grpc.StorageServiceStub(channel)


def request(text: str = "x", etag: str = "", **fields: Any) -> api.UpdatePoolRequest:
    pool = storage_pb2.Pool(name="pools/a", meta={"etag": etag}, spec={"description": text})
    return api.UpdatePoolRequest(pool=pool, **fields)


def refusal(call: Callable[[], Any]) -> PvcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_of(caught.value)


def test_a_mutation_answers_with_what_was_written(stub: Any, store: MemoryStore) -> None:
    answer, call = stub.UpdatePool.with_call(request("x"), metadata=[(CALLER, "token ann")])
    there = store.snapshot().find(storage_pb2.Pool, "pools/a")
    assert answer == there
    assert answer.meta.etag == "2" and answer.spec.description == "x by token ann"
    assert (REVISION, "2") in call.trailing_metadata()


def test_the_same_request_id_is_done_once(stub: Any, store: MemoryStore, running: Served) -> None:
    first = stub.UpdatePool(request(request_id="one"))
    revision = store.snapshot().revision
    again = stub.UpdatePool(request(request_id="one"))
    assert again.spec == first.spec
    assert (store.snapshot().revision, running.pools.planned) == (revision, 1)


def test_a_request_id_with_another_request_is_refused(stub: Any) -> None:
    stub.UpdatePool(request("x", request_id="one"))
    error = refusal(lambda: stub.UpdatePool(request("y", request_id="one")))
    assert (error.reason, error.field) == (reason_pb2.REASON_REQUEST_ID_REUSED, "request_id")


def test_request_ids_are_each_callers_own(stub: Any, running: Served) -> None:
    for caller in ("token ann", "token bob"):
        stub.UpdatePool(request(request_id="one"), metadata=[(CALLER, caller)])
    assert running.pools.planned == 2


def test_validate_only_changes_nothing(stub: Any, store: MemoryStore) -> None:
    answer = stub.UpdatePool(request("new", validate_only=True, request_id="one"))
    assert answer.spec.description == "new by local root"
    assert store.snapshot().revision == 1
    error = refusal(lambda: stub.UpdatePool(request(etag="9", validate_only=True)))
    assert (error.reason, error.field) == (reason_pb2.REASON_ETAG_MISMATCH, "pool.meta.etag")
    stub.UpdatePool(request("new", request_id="one"))
    assert store.snapshot().revision == 2


def test_what_collides_is_planned_again(
    stub: Any, store: MemoryStore, running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = running.pools.plan

    def beaten(snapshot: Any, request_: Any, call: Any) -> Any:
        mutation = plan(snapshot, request_, call)
        if running.pools.planned < 4:
            there = storage_pb2.Pool()
            there.CopyFrom(snapshot.find(storage_pb2.Pool, "pools/a"))
            store.commit([Put(there)])
        return mutation

    monkeypatch.setattr(running.pools, "plan", beaten)
    assert stub.UpdatePool(request("x")).spec.description == "x by local root"
    assert running.pools.planned == 4


def test_what_always_collides_is_busy(
    stub: Any, store: MemoryStore, running: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = running.pools.plan

    def beaten(snapshot: Any, request_: Any, call: Any) -> Any:
        there = storage_pb2.Pool()
        there.CopyFrom(snapshot.find(storage_pb2.Pool, "pools/a"))
        store.commit([Put(there)])
        return plan(snapshot, request_, call)

    monkeypatch.setattr(running.pools, "plan", beaten)
    assert refusal(lambda: stub.UpdatePool(request())).reason == reason_pb2.REASON_BUSY


def test_a_revision_that_never_comes_is_refused(stub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.mesh.desk.FRESHNESS_WAIT_S", 0.1)
    get = api.GetPoolRequest(name="pools/a")
    error = refusal(lambda: stub.GetPool(get, metadata=[(MIN_REVISION, "99")]))
    assert error.reason == reason_pb2.REASON_STORE_UNAVAILABLE
    for text in ("x", "-1", "9" * 40, "١"):
        if text.isascii():
            error = refusal(lambda text=text: stub.GetPool(get, metadata=[(MIN_REVISION, text)]))
            assert error.reason == reason_pb2.REASON_INVALID_FIELD
    assert watches.ARRIVAL_WAIT_S > 1


def test_masks_on_get(stub: Any) -> None:
    pool = stub.GetPool(api.GetPoolRequest(name="pools/a", read_mask={"paths": ["name"]}))
    assert pool == storage_pb2.Pool(name="pools/a")
    bad = api.GetPoolRequest(name="pools/a", read_mask={"paths": ["nam"]})
    assert refusal(lambda: stub.GetPool(bad)).field == "read_mask"


class Anybody:
    """As much of a call's context as a desk looks at."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ((CALLER, "token ann"),)

    def set_trailing_metadata(self, _metadata: object) -> None:
        pass


def test_services_that_ask_each_other_do_not_wait_for_the_same_threads(store: MemoryStore) -> None:
    """All in one process, and more callers than the event loop has threads."""
    answer = storage_pb2.Pool(name="pools/a")
    inner, outer = (Desk(store, CLOCK, "nodes/n1") for _ in range(2))
    context: Any = Anybody()

    async def everybody() -> list[storage_pb2.Pool]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))

        def asking(*_: Any) -> Mutation:
            asked = inner.mutate(
                request(), storage_pb2.Pool, lambda *_: Mutation((), answer), context
            )
            asyncio.run_coroutine_threadsafe(asked, loop).result(60)
            return Mutation((), answer)

        calls = [outer.mutate(request(), storage_pb2.Pool, asking, context) for _ in range(20)]
        return await asyncio.gather(*calls)

    assert len(asyncio.run(everybody())) == 20
