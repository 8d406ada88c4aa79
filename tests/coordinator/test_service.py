"""Waiting for operations, over a real socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.coordinator.v1 import coordinator_service_pb2 as api
from pvc.coordinator.v1 import coordinator_service_pb2_grpc as api_grpc
from pvc.core.v1 import operation_pb2
from services.coordinator.main import build
from services.mesh.calls import error_of
from services.mesh.clock import SystemClock
from services.mesh.parts import Parts
from services.mesh.server import Server
from services.state.memory import MemoryStore
from services.state.store import Put
from tests.mesh.serving import Host
from tests.state.places import WAIT_S, eventually

Operation = operation_pb2.Operation


class Site:
    """A coordinator service with one operation that runs."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        self.write(Operation.STATE_RUNNING)
        self.host = Host()
        parts = build(self.store, SystemClock(), "nodes/n1", "home")
        self.server = self.host.do(started(parts, directory / "c.sock"))
        self.channel = grpc.insecure_channel(f"unix:{directory / 'c.sock'}")
        self.operations: Any = api_grpc.OperationServiceStub(self.channel)

    def write(self, state: Operation.State.ValueType) -> None:
        there = self.store.snapshot().find(Operation, "operations/o")
        row = Operation(name="operations/o", state=state)
        row.meta.etag = there.meta.etag if there is not None else ""
        self.store.commit([Put(row)])

    def close(self) -> None:
        self.channel.close()
        self.host.do(self.server.drain(0.2))
        self.host.close()


async def started(parts: Parts, path: Path) -> Server:
    server = Server(parts.servicers, SystemClock())
    server.listen_unix(path)
    await server.start()
    return server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def listeners(store: MemoryStore) -> int:
    return len(store._cluster.mirror._listeners)


def await_listener(site: Site) -> None:
    """Until the service waits for the store to change."""
    eventually(lambda: listeners(site.store))


def test_it_returns_when_the_operation_ends(site: Site) -> None:
    call = site.operations.WaitOperation.future(api.WaitOperationRequest(name="operations/o"))
    await_listener(site)
    site.write(Operation.STATE_SUCCEEDED)
    assert call.result(WAIT_S).state == Operation.STATE_SUCCEEDED
    # Another process that is asked next must not answer from before the end.
    assert ("pvc-revision", str(site.store.snapshot().revision)) in call.trailing_metadata()
    assert listeners(site.store) == 0


def test_it_returns_as_it_is_when_the_time_is_over(site: Site) -> None:
    request = api.WaitOperationRequest(name="operations/o", timeout={"nanos": 100_000_000})
    assert site.operations.WaitOperation(request).state == Operation.STATE_RUNNING
    with pytest.raises(grpc.RpcError) as missing:
        site.operations.WaitOperation(api.WaitOperationRequest(name="operations/none"))
    assert error_of(missing.value).reason_name == "NOT_FOUND"


def test_who_goes_leaves_nothing_behind(site: Site) -> None:
    call = site.operations.WaitOperation.future(api.WaitOperationRequest(name="operations/o"))
    await_listener(site)
    call.cancel()
    eventually(lambda: not listeners(site.store))


def test_an_end_of_the_process_does_not_wait_for_who_waits(site: Site) -> None:
    """Asking again is safe, and finds the next process."""
    call = site.operations.WaitOperation.future(api.WaitOperationRequest(name="operations/o"))
    await_listener(site)
    began = time.monotonic()
    site.host.do(site.server.drain(2 * WAIT_S))
    assert time.monotonic() - began < WAIT_S
    with pytest.raises(grpc.RpcError) as ended:
        call.result()
    assert error_of(ended.value).reason_name == "UNREACHABLE"
