"""A node that joins has a pool of its own, once."""

from __future__ import annotations

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import meta_pb2
from pvc.storage.v1 import storage_pb2
from services.state.memory import MemoryStore
from services.state.store import Delete, Put
from services.storage.core.pools import new_pool
from services.storage.first_pool import FirstPool


def made(name: str) -> storage_pb2.Pool:
    return new_pool(name, "/pools/local", "nodes/n2", meta_pb2.Meta(uid="u", generation=1))


def store_of(*nodes: str) -> MemoryStore:
    store = MemoryStore()
    store.commit([Put(new_pool("pools/local", "/pools/local", "nodes/n1", meta_pb2.Meta()))])
    for node in nodes:
        store.commit([Put(cluster_pb2.Node(name=f"nodes/{node}"))])
    return store


def pools(store: MemoryStore) -> dict[str, str]:
    return {row.name: row.spec.node for row in store.snapshot().rows(storage_pb2.Pool)}


def test_a_node_that_joined_gets_one_and_only_once() -> None:
    store = store_of("n1")
    first = FirstPool(store, "nodes/n2", made, lambda: True)
    first.step()
    assert len(pools(store)) == 1, "it has not joined yet"
    store.commit([Put(cluster_pb2.Node(name="nodes/n2"))])
    first.step()
    assert pools(store) == {"pools/local": "nodes/n1", "pools/local-n2": "nodes/n2"}
    store.commit([Delete("pools/local-n2", "*")])
    first.step()
    FirstPool(store, "nodes/n2", made, lambda: False).step()
    assert len(pools(store)) == 1, "whoever deleted it did not want it"


@pytest.mark.parametrize("nodes", [("n1",), ("n2",), ("n1", "n2")])
def test_a_single_node_and_one_that_has_a_pool_get_none(nodes: tuple[str, ...]) -> None:
    store = store_of(*nodes)
    FirstPool(store, "nodes/n1", made, lambda: True).step()
    assert len(pools(store)) == 1
