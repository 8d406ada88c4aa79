"""The promises of a watch hold in random stories: through gRPC, the Python client, and both forms
of REST, on a state in memory and in a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from services.state.sqlite import SqliteStore
from tests.doors.world import World, world_in
from tests.watching.readers import WAYS
from tests.watching.stories import STORIES, Story, told
from tests.watching.validators import complaints


@pytest.fixture(scope="module", params=["memory", "SQLite"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("watching")
    store = SqliteStore(folder / "state.db") if request.param == "SQLite" else None
    with world_in(folder, store=store) as world:
        yield world


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=STORIES)
def test_every_promise_holds_in_any_story(world: World, way: str, story: Story) -> None:
    token = world.secrets["ann"]
    history = told(world.store, story, lambda asked: WAYS[way](world, token, asked))
    assert not complaints(history)
