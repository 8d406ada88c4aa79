"""What is kept in memory of the cluster: by watches that break, begin anew, and bring much."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pvc.compute.v1.vm_pb2 import Vm, VmSnapshot
from pvc_client.errors import PermissionDenied, Unavailable
from shell import live as live_module
from shell.live import Link, Live, Rows
from shell.prompt.kinds import KINDS, Kind

PRESENT, MODIFIED, DELETED, BOOKMARK = 1, 3, 4, 5


def vm(name: str, state: int = 3, node: str = "n1") -> Vm:
    row = Vm(name=f"vms/{name}")
    row.status.state = state  # type: ignore[assignment]
    row.decision.node = f"nodes/{node}"
    return row


def change(kind: int, row: Any = None) -> Any:
    return SimpleNamespace(kind=kind, resource=row, revision=1)


class Stream:
    """A watch that is fed by the test."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.closed = threading.Event()

    def tell(self, kind: int, *rows: Any) -> None:
        for row in rows or (None,):
            self._queue.put(change(kind, row))

    def fail(self, error: Exception) -> None:
        self._queue.put(error)

    def __iter__(self) -> Iterator[Any]:
        while (one := self._queue.get()) is not None:
            if isinstance(one, Exception):
                raise one
            yield one

    def close(self) -> None:
        self.closed.set()
        self._queue.put(None)


class Scripted:
    """A source of streams, one after the other."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.refusals: list[Exception] = []
        self.asked = 0

    def watch(self, kind: Kind) -> Stream:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        self.streams.append(Stream())
        return self.streams[-1]

    def list(self, kind: Kind) -> Iterable[Any]:
        self.asked += 1
        return [VmSnapshot(name=f"vms/{kind.parent}/snapshots/s{self.asked}", description="old")]


def until(met: Callable[[], Any], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest.fixture
def live(source: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setattr(live_module, "PAUSE_FIRST_S", 0.01)
    made = Live(source)
    yield made
    made.close()


def test_names_are_there_without_waiting_and_come_behind(live: Live, source: Scripted) -> None:
    rows = live.rows("vms")
    assert rows.best("", 9) == [] and not rows.known
    until(lambda: source.streams)
    source.streams[0].tell(PRESENT, vm("web"), vm("db", 1, "n2"))
    source.streams[0].tell(BOOKMARK)
    until(lambda: rows.known)
    assert rows.best("", 9) == ["db", "web"]
    told = rows.find("db")
    assert told is not None and told.help == "stopped  n2"
    assert rows.row("web").decision.node == "nodes/n1"
    assert live.link is Link.UP and source.asked == 1


def test_changes_are_followed(live: Live, source: Scripted) -> None:
    rows = live.rows("vms")
    until(lambda: source.streams)
    source.streams[0].tell(PRESENT, vm("web"), vm("db"))
    source.streams[0].tell(BOOKMARK)
    source.streams[0].tell(MODIFIED, vm("web", 1))
    source.streams[0].tell(DELETED, vm("db"))
    source.streams[0].tell(2, vm("new"))
    until(lambda: rows.find("new"))
    assert rows.best("", 9) == ["new", "web"] and len(rows) == 2
    assert +rows.states == {"stopped": 1, "running": 1}


def test_what_broke_is_begun_anew_and_what_went_meanwhile_is_gone(
    live: Live, source: Scripted
) -> None:
    rows = live.rows("vms")
    until(lambda: source.streams)
    source.streams[0].tell(PRESENT, vm("web"), vm("db"))
    source.streams[0].tell(BOOKMARK)
    until(lambda: rows.known)
    source.streams[0].fail(Unavailable("away"))
    until(lambda: len(source.streams) == 2)
    assert rows.best("", 9) == ["db", "web"], "the last known names are completed meanwhile"
    source.streams[1].tell(PRESENT, vm("web"))
    source.streams[1].tell(BOOKMARK)
    until(lambda: rows.best("", 9) == ["web"])
    assert len(rows) == 1 and live.link is Link.UP


def test_a_lost_connection_is_told(live: Live, source: Scripted) -> None:
    source.refusals = [Unavailable("away")] * 3
    live.rows("vms")
    until(lambda: live.link is Link.LOST)
    until(lambda: source.streams)
    source.streams[0].tell(BOOKMARK)
    until(lambda: live.link is Link.UP)


def test_what_is_refused_is_not_asked_for_all_the_time(live: Live, source: Scripted) -> None:
    source.refusals = [PermissionDenied("not yours")] * 5
    live.rows("vms")
    until(lambda: live.link is Link.REFUSED)
    time.sleep(0.1)
    assert source.asked == 1 and live.refused == "not yours"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "KEPT_MAX", 10)
    rows = Rows(KINDS["vms"])
    for n in range(25):
        rows.put(vm(f"vm-{n:02}"))
    assert len(rows.best("", 100)) == 10 and len(rows) == 25
    rows.drop(vm("vm-03"))
    rows.put(vm("vm-99"))
    assert rows.find("vm-99") is not None and len(rows.best("", 100)) == 10


def test_closing_ends_every_watch(source: Scripted) -> None:
    live = Live(source)
    for collection in ("vms", "nodes"):
        live.rows(collection)
    until(lambda: len(source.streams) == 2)
    live.close()
    assert all(stream.closed.wait(60) for stream in source.streams)
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("live-")])


def test_every_kind_has_fields_that_are_there_and_a_few_words() -> None:
    from google.protobuf.field_mask_pb2 import FieldMask

    for kind in KINDS.values():
        row = kind.type()()
        assert FieldMask(paths=kind.mask).IsValidForDescriptor(row.DESCRIPTOR), kind.collection
        assert isinstance(kind.told(row), str)


def test_ten_thousand_rows_take_little_memory_and_time() -> None:
    rows = Rows(KINDS["vms"])
    began = time.process_time()
    for n in range(10_000):
        rows.put(vm(f"vm-{n:05}", n % 4))
    rows.complete()
    assert time.process_time() - began < 10.0
    kept = sum(len(told.packed) + len(told.help) for told in rows.all().values())
    assert kept < 1_000_000


def test_what_cannot_be_watched_is_listed_again_only_when_somebody_looks(
    live: Live, source: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LISTED_S", 0.01)
    rows = live.rows("vms.snapshots:web")
    until(lambda: rows.best("", 9) == ["s1"])
    told = rows.find("s1")
    assert told is not None and told.help == "old"
    time.sleep(0.2)
    assert source.asked == 1
    until(lambda: live.rows("vms.snapshots:web").best("", 9) == ["s2"])
