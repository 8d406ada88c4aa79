"""How a watch ends, and how its reader goes on: each end has its reason, on every way in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.mesh import watches
from services.state import mirror
from services.state.store import ANY_VERSION, Delete
from tests.doors.world import World, world_in
from tests.watching.histories import ADDED, BOOKMARK, DELETED, Asked, History
from tests.watching.readers import WAYS, Broken, Stream
from tests.watching.stories import Reader, Writer, Written
from tests.watching.validators import complaints

KEPT = 50
BULK = 6000
"""Bytes of a row that many are made of."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(mirror, "COMMITS_KEPT", KEPT)
    monkeypatch.setattr(watches, "ARRIVAL_WAIT_S", 0.1)
    monkeypatch.setattr("services.gateway.lasting.RECHECK_S", 0.1)
    with world_in(tmp_path) as world:
        yield world


def opened(world: World, way: str, asked: Asked | None = None, token: str = "") -> Stream:
    return WAYS[way](world, token or world.secrets["ann"], asked or Asked())


def to_bookmark(stream: Stream) -> int:
    """Reads the beginning; gives its revision."""
    while (one := next(stream)).kind != BOOKMARK:
        continue
    return one.revision


def broken(world: World, way: str, asked: Asked) -> Broken:
    with pytest.raises(Broken) as caught:
        stream = opened(world, way, asked)
        try:
            next(stream)
        finally:
            stream.close()
    return caught.value


@pytest.mark.parametrize("way", WAYS)
def test_a_revision_that_is_forgotten_is_refused_and_one_begins_anew(
    world: World, way: str
) -> None:
    writer = Writer(world.store)
    for number in range(KEPT + 10):
        writer.write(Written("a", number, "web"))
    refused = broken(world, way, Asked(from_revision=5))
    assert refused.reason == "REVISION_TOO_OLD" and "begin again without" in refused.message
    assert refused.status in (None, grpc.StatusCode.OUT_OF_RANGE, 400)
    kept = world.store.snapshot().revision - KEPT
    stream = opened(world, way, Asked(from_revision=kept))
    assert next(stream).revision == kept + 1
    stream.close()
    assert to_bookmark(opened(world, way)) == kept + KEPT


@pytest.mark.parametrize("way", WAYS)
def test_a_revision_that_is_not_there_yet_is_refused_after_a_while(world: World, way: str) -> None:
    refused = broken(world, way, Asked(from_revision=10**9))
    assert refused.reason == "REVISION_TOO_OLD" and "not of this state" in refused.message


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_sleeps_costs_little_and_is_told_to_begin_anew(
    world: World, way: str
) -> None:
    """10,000 changes of 60 MB go by. What lies in buffers for it comes, in order; not more."""
    stream = opened(world, way)
    to_bookmark(stream)
    writer = Writer(world.store)
    text = "x" * BULK
    for number in range(250):
        writer.write(*(Written(f"v{one}", number, text) for one in range(40)))
    got, ended = drained(stream)
    assert ended == "REVISION_TOO_OLD"
    assert len(got) * BULK < 24 << 20, "all that waited for it was kept somewhere"
    stamps = [int(one.row.meta.labels["stamp"]) for one in got if one.row is not None]
    assert stamps == list(range(stamps[0], stamps[0] + len(stamps))), "nothing missing, in order"
    assert to_bookmark(opened(world, way)) == world.store.snapshot().revision


def drained(stream: Stream) -> tuple[list[Any], str]:
    """What still comes, and the reason for the end."""
    got = []
    try:
        while True:
            got.append(next(stream))
    except Broken as end:
        return got, end.reason
    finally:
        stream.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_revoked_token_ends_it(world: World, way: str) -> None:
    secret = world.add_token("short", 1)
    stream = opened(world, way, token=secret)
    to_bookmark(stream)
    world.store.commit([Delete("tokens/short", ANY_VERSION)])
    _, ended = drained(stream)
    assert ended == "UNAUTHENTICATED"


@pytest.mark.parametrize("way", WAYS)
def test_what_is_removed_and_made_again_between_two_reads_comes_as_both(
    world: World, way: str
) -> None:
    writer = Writer(world.store)
    writer.write(Written("a", 1, "web"))
    stream = opened(world, way)
    to_bookmark(stream)
    writer.write(Written("a", None, ""))
    writer.write(Written("a", 1, "web"))
    gone, made = next(stream), next(stream)
    stream.close()
    assert [gone.kind, made.kind] == [DELETED, ADDED]
    assert gone.row and made.row and gone.name == made.name == "vms/a"
    assert gone.row.meta.labels["stamp"] != made.row.meta.labels["stamp"]


@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_that_is_restarted_loses_nothing(world: World, way: str) -> None:
    """Twice, while somebody writes. The client goes on by itself; who reads otherwise is told that
    another try helps, and goes on from the last revision."""
    writer = Writer(world.store)
    token = world.secrets["ann"]
    reader = Reader(lambda asked: WAYS[way](world, token, asked), Asked(), patience=20)
    reader.start()
    going = threading.Event()
    writing = threading.Thread(target=written, args=(writer, going))
    writing.start()
    for _ in range(2):
        time.sleep(0.2)
        world.reopen()
    time.sleep(0.1)
    going.set()
    writing.join()
    writer.end()
    reader.join()
    assert complaints(History(writer.truth, tuple(reader.readings))) == []
    ends = {one.ended for one in reader.readings}
    assert ends <= {"", "UNREACHABLE"} and (way == "client" or "UNREACHABLE" in ends)


def written(writer: Writer, ended: threading.Event) -> None:
    """Two VMs with every commit, one of them in the next one too; not faster than a reader of an
    instant ago can resume."""
    number = 0
    while not ended.wait(0.02):
        number += 1
        both = Written("abc"[number % 3], number, "web"), Written("abc"[(number + 1) % 3], 1, "db")
        writer.write(*both)
