"""Where the state can be kept, seen alike by the tests: open a store, lose its session, close."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from kazoo.client import KazooClient

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import meta_pb2, reason_pb2
from services.mesh.errors import PvcError
from services.state.ensemble import Ensemble
from services.state.memory import MemoryCluster, MemoryStore
from services.state.sqlite import SqliteStore
from services.state.store import Put, Store
from services.state.zookeeper import ZookeeperStore
from tests.state.zookeeper_server import ZookeeperServer

WAIT_S = 60.0
"""For what must happen soon; a test that waits that long has failed."""

_roots = itertools.count(1)


class Place(Protocol):
    """A state somewhere, empty at first."""

    def open(self) -> Store:
        """A store on it, as one more process would have it."""
        ...

    def lose_session(self, store: Store) -> None:
        """Returns when everybody knows that the store's session has ended, without the store's
        doing."""
        ...

    def close(self) -> None: ...


class MemoryPlace:
    """In this process."""

    def __init__(self) -> None:
        self._cluster = MemoryCluster()

    def open(self) -> Store:
        return MemoryStore(self._cluster)

    def lose_session(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.lose_session()

    def close(self) -> None: ...


class SqlitePlace:
    """In a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.db"
        self._store: SqliteStore | None = None

    def open(self) -> Store:
        if self._store is not None:
            pytest.skip("one process owns an SQLite state: there is no second one")
        self._store = SqliteStore(self._path)
        return self._store

    def lose_session(self, store: Store) -> None:
        pytest.skip("a session on SQLite ends with its process only")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


class ZookeeperPlace:
    """In a real ZooKeeper, below a root that no other test uses."""

    def __init__(self, server: ZookeeperServer, address: str = "") -> None:
        self._address = address or server.address
        self.root = f"/test-{next(_roots)}"
        self._stores: list[ZookeeperStore] = []

    def open(
        self, address: str = "", session_timeout_s: float = 20.0, patience_s: float = 40.0
    ) -> ZookeeperStore:
        ensemble = Ensemble(address or self._address, self.root, session_timeout_s)
        store = ZookeeperStore(ensemble, patience_s=patience_s)
        self._stores.append(store)
        return store

    def lose_session(self, store: Store) -> None:
        """A second connection takes the session over and ends it, as the server would. The store
        takes it back when it is quicker, and then once more."""
        assert isinstance(store, ZookeeperStore)
        before, client_id = store.session(), store._connection._client.client_id
        end = time.monotonic() + WAIT_S
        while store.session() in ("", before):
            assert time.monotonic() < end, "the session does not end"
            if store.session() == before:
                steal(self._address, client_id)
            time.sleep(0.05)

    def close(self) -> None:
        for store in self._stores:
            store.close()


def steal(address: str, client_id: tuple[int, bytes]) -> None:
    """Takes a session over and ends it."""
    thief = KazooClient(address, client_id=client_id)
    thief.start(WAIT_S)
    thief.stop()
    thief.close()


def eventually(true: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    """Returns once the function gives something true."""
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def vm(name: str, description: str = "", etag: str = "") -> vm_pb2.Vm:
    """A row to write: "web" → vms/web."""
    return vm_pb2.Vm(
        name=f"vms/{name}",
        meta=meta_pb2.Meta(uid=name, etag=etag),
        spec=vm_pb2.VmSpec(description=description),
    )


def described(store: Store, name: str, description: str) -> Put:
    """The change that gives an existing VM another description."""
    row = vm_pb2.Vm()
    there = store.snapshot().find(vm_pb2.Vm, f"vms/{name}")
    assert there is not None
    row.CopyFrom(there)
    row.spec.description = description
    return Put(row)


def texts(store: Store) -> dict[str, str]:
    """VM → its description."""
    return {row.name: row.spec.description for row in store.snapshot().rows(vm_pb2.Vm)}


def refused(reason: str) -> pytest.RaisesExc[PvcError]:
    """Expects a PvcError of a reason."""
    wanted = reason_pb2.Reason.Value(f"REASON_{reason}")
    return pytest.RaisesExc(PvcError, check=lambda error: error.reason == wanted)
