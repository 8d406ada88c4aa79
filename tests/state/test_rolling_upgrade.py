"""Two versions side by side on one real ensemble: nobody writes what another node cannot read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import store_pb2
from services.state.store import Put, Store
from tests.state.places import ZookeeperPlace, described, eventually, refused, texts
from tests.state.zookeeper_server import ZookeeperServer

pytestmark = pytest.mark.real
NEWER = Path(__file__).parent / "scripts" / "newer_build.py"


class Newer:
    """A process of the build to come."""

    def __init__(self, place: ZookeeperPlace, address: str) -> None:
        arguments = [sys.executable, str(NEWER), address, place.root]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={
                "PYTHONPATH": ":".join(sys.path)
            },
        )  # fmt: skip

    def asked(self, line: str) -> str:
        """What it answers to an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0


@pytest.fixture
def place(zookeeper: ZookeeperServer) -> Iterator[ZookeeperPlace]:
    made = ZookeeperPlace(zookeeper)
    yield made
    made.close()


@pytest.fixture
def today(place: ZookeeperPlace) -> Store:
    """A node of today's build, which has told of itself."""
    store = place.open()
    tell(store, "n1", {})
    return store


@pytest.fixture
def newer(place: ZookeeperPlace, today: Store, zookeeper: ZookeeperServer) -> Iterator[Newer]:
    tell(today, "n2", {"vms": 2})
    process = Newer(place, zookeeper.address)
    yield process
    process.end()


def tell(store: Store, node: str, schemas: dict[str, int]) -> None:
    """Has a node say what it can read."""
    there = store.snapshot().find(cluster_pb2.Node, f"nodes/{node}")
    row = cluster_pb2.Node(name=f"nodes/{node}")
    row.meta.etag = there.meta.etag if there is not None else ""
    row.status.version = "2.0"
    row.status.schemas.update(schemas)
    store.commit([Put(row)])


def test_the_new_writes_what_the_old_can_read(today: Store, newer: Newer) -> None:
    assert newer.asked("put web HELLO") == "1"
    eventually(lambda: texts(today) == {"vms/web": "hello"})
    today.commit([described(today, "web", "changed by the old")])
    eventually(lambda: newer.asked("get web") == "CHANGED BY THE OLD")


def test_once_all_are_new_rows_are_kept_in_the_new_form(today: Store, newer: Newer) -> None:
    assert newer.asked("put web HELLO") == "1"
    tell(today, "n1", {"vms": 2})
    assert newer.asked("put web AGAIN") == "2"


def test_a_node_of_the_old_build_that_comes_back_late_says_why_it_cannot(
    today: Store, newer: Newer, place: ZookeeperPlace
) -> None:
    tell(today, "n1", {"vms": 2})
    newer.asked("put web HELLO")
    with refused("SCHEMA_TOO_NEW") as error:
        place.open()
    assert "vms/web" in error.value.message
    assert "newer version" in error.value.message


def test_kinds_of_rows_that_only_the_new_knows_are_let_be(place: ZookeeperPlace) -> None:
    store = place.open()
    entry = store_pb2.StoredCommit(revision=1, id="x")
    row = store_pb2.StoredRow(schema=1, value=b"whatever", revision=1)
    entry.changes.add(name="robots/r2", row=row)
    transaction = store._connection.transaction()
    transaction.set_data(store._znodes.head, b"1", version=0)
    transaction.create(store._znodes.entry(1), entry.SerializeToString())
    transaction.create(store._znodes.row("robots/r2"), row.SerializeToString())
    assert store._connection.carry_out(transaction, store._connection.deadline(5)) is None
    eventually(lambda: store.snapshot().revision == 1)
    assert place.open().snapshot().revision == 1
