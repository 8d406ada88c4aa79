"""Fixtures: one real ZooKeeper server for the session, for each test an empty place for state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.state.store import Store
from tests import logs
from tests.state.places import MemoryPlace, Place, SqlitePlace, ZookeeperPlace
from tests.state.zookeeper_server import ZookeeperServer, missing

KINDS = ["memory", "sqlite", pytest.param("zookeeper", marks=pytest.mark.real)]


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperServer]:
    """A server that all tests share."""
    if why := missing():
        pytest.skip(why)
    server = ZookeeperServer(tmp_path_factory.mktemp("zookeeper"))
    try:
        with logs.followed(tmp_path_factory.getbasetemp(), "zookeeper*/log"):
            server.start()
            yield server
    finally:
        server.stop()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The same test on every implementation."""
    made: Place
    match request.param:
        case "memory":
            made = MemoryPlace()
        case "sqlite":
            made = SqlitePlace(tmp_path)
        case _:
            made = ZookeeperPlace(request.getfixturevalue("zookeeper"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def store(place: Place) -> Store:
    """The first store on the place."""
    return place.open()
