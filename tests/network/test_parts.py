"""The service as a process hosts it: a loop that converges, and answers over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from pvc.core.v1.meta_pb2 import CHANGE_KIND_PRESENT
from pvc.core.v1.operation_pb2 import Operation
from pvc.network.v1 import network_service_pb2 as api
from pvc.network.v1.network_pb2 import Network, NetworkStatus
from pvc.network.v1.network_service_pb2_grpc import NetworkServiceStub
from services.mesh.clock import SystemClock
from services.mesh.parts import Parts
from services.network.converge import clean_up
from services.network.main import build, fabric_of, prepare
from services.network.settings import NetworkSettings
from services.state.memory import MemoryStore
from tests.network.benches import RealBench, wait_for
from tests.network.worlds import network


def test_the_settings_have_their_defaults() -> None:
    assert NetworkSettings().path == Path("/run/pvc/network")
    assert NetworkSettings(namespace="pvc-demo").path == Path("/run/pvc/network-pvc-demo")
    place = NetworkSettings(folder="/run/x", uplink="eth1").place
    assert (place.namespace, place.folder, place.uplink) == ("", "/run/x/servers", "eth1")


@pytest.mark.real
def test_a_network_is_made_and_removed_over_a_socket(real: RealBench) -> None:
    settings = NetworkSettings(namespace=real.namespace, folder=str(real.folder))
    store = MemoryStore()
    parts = build(store, SystemClock(), "nodes/n1", settings)
    (loop,) = parts.loops
    store.on_change(loop.wake)
    prepare(settings)
    assert [link.name for link in real.fabric.links()] == ["lo"]
    loop.start()
    try:
        asyncio.run(talk(parts, store))
    finally:
        assert loop.stop(60)
    assert clean_up(fabric_of(settings), True, "n1") == ()


async def talk(parts: Parts, store: MemoryStore) -> None:
    server = grpc.aio.server()
    for add, servicer in parts.servicers:
        add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = NetworkServiceStub(channel)
        request = api.CreateNetworkRequest(network_id="default", network=network())
        await ended(store, await stub.CreateNetwork(request, timeout=60))
        name = api.GetNetworkRequest(name="networks/default")
        row: Network = await stub.GetNetwork(name, timeout=60)
        assert row.status.state == NetworkStatus.STATE_READY
        ready = api.ListNetworksRequest(filter="status.state = STATE_READY")
        assert [one.name for one in (await stub.ListNetworks(ready, timeout=60)).networks] == [
            "networks/default"
        ]
        async for change in stub.WatchNetworks(api.WatchNetworksRequest(), timeout=60):
            assert (change.kind, change.network.name) == (CHANGE_KIND_PRESENT, row.name)
            break
        gone = await stub.DeleteNetwork(api.DeleteNetworkRequest(name=row.name), timeout=60)
        await ended(store, gone)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetNetwork(name, timeout=60)
    await server.stop(1)


async def ended(store: MemoryStore, operation: Operation) -> None:
    def succeeded() -> bool:
        row = store.snapshot().find(Operation, operation.name)
        return row is not None and row.state == Operation.STATE_SUCCEEDED

    await asyncio.to_thread(wait_for, succeeded, f"the end of {operation.method}")
