"""The promises hold where every process has a mirror of its own: two nodes on a real ZooKeeper, the
services and the gateway of each, and a writer, five sessions in all. The reader changes the node
with every stream."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from services.mesh.errors import PvcError
from services.state.store import Store
from tests.doors.world import World, world_in
from tests.state.places import ZookeeperPlace
from tests.state.zookeeper_server import ZookeeperServer
from tests.watching.histories import Asked, History
from tests.watching.readers import WAYS, Stream
from tests.watching.stories import STORIES, Reader, Story, Writer, Written, told
from tests.watching.validators import complaints

pytestmark = pytest.mark.real


class Nodes:
    """Two of them, and whoever writes."""

    def __init__(self, stack: ExitStack, server: ZookeeperServer, folder: Path) -> None:
        place = ZookeeperPlace(server)
        stack.callback(place.close)
        self.writer: Store = place.open()
        self.worlds: list[World] = []
        secrets: dict[str, str] = {}
        for name in ("n1", "n2"):
            (folder / name).mkdir()
            service, door = place.open(), place.open()
            world = stack.enter_context(
                world_in(folder / name, store=service, door_store=door, secrets=secrets)
            )
            self.worlds.append(world)
            secrets = world.secrets
        self._turns = itertools.cycle(self.worlds)

    def open(self, way: str, asked: Asked) -> Stream:
        """A stream at the door of the one and of the other, by turns."""
        world = next(self._turns)
        return WAYS[way](world, world.secrets["ann"], asked)


@pytest.fixture(scope="module")
def nodes(zookeeper: ZookeeperServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack, zookeeper, tmp_path_factory.mktemp("nodes"))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=STORIES)
def test_every_promise_holds_from_node_to_node(nodes: Nodes, way: str, story: Story) -> None:
    history = told(nodes.writer, story, lambda asked: nodes.open(way, asked))
    assert not complaints(history)


@pytest.mark.parametrize("way", ["gRPC", "NDJSON"])
def test_a_state_that_is_away_for_a_while_holds_a_watch_up_and_breaks_no_promise(
    nodes: Nodes, zookeeper: ZookeeperServer, way: str
) -> None:
    writer = Writer(nodes.writer)
    asked = Asked(at_least=writer.truth.begin)
    reader = Reader(lambda asked: nodes.open(way, asked), asked, [5, 5], patience=5)
    reader.start()
    writing = threading.Thread(target=written, args=(writer, 60))
    writing.start()
    time.sleep(0.1)
    zookeeper.stop()
    zookeeper.start()
    writing.join()
    writer.end()
    reader.join()
    assert complaints(History(writer.truth, tuple(reader.readings))) == []


def written(writer: Writer, commits: int) -> None:
    """Commits, each tried again until it is done."""
    for number in range(commits):
        both = Written("abc"[number % 3], number, "web"), Written("abc"[(number + 1) % 3], 1, "db")
        while True:
            try:
                writer.write(*both)
                break
            except PvcError as error:
                assert error.reason_name == "STORE_UNAVAILABLE"
                writer.settle()
        time.sleep(0.005)
