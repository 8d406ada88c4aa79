"""Audit journals on disks that hang, are full or cannot be written: nobody waits for them but the
journal's own thread, and a strict gateway lets no change in meanwhile."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pvc.core.v1 import event_pb2, options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc.gateway.v1.gateway_pb2 import Gateway
from pvc_client import Cluster, errors
from services.gateway.hand import ENDED, NO_ROOM, Hand
from services.gateway.journal import Journal
from services.gateway.recorder import Recorder
from services.gateway.scribe import Scribe
from services.mesh.clock import SystemClock
from services.state.memory import MemoryStore
from tests.doors.world import World, world_in
from tests.gateway.asking import ask
from tests.gateway.test_journal import PATIENCE_S, done, entry, recorder, rows

SUCCEEDED, REFUSED = AuditEntry.OUTCOME_SUCCEEDED, AuditEntry.OUTCOME_REFUSED
SOON_S = 0.2


class Stuck:
    """A pipe in the place of the journal: full, and nobody reads it, so that no write returns."""

    def __init__(self, of: Recorder, patch: pytest.MonkeyPatch) -> None:
        self._patch, self._scribe = patch, scribe_of(of)
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        self._filling = fill(writer)
        os.set_blocking(writer, True)
        assert of.written(PATIENCE_S)
        self._scribe._journal.close()
        self._scribe._journal._file = writer
        patch.setattr("services.gateway.scribe.WAIT_S", SOON_S)

    def release(self) -> None:
        """Nobody will read it any more: writes fail."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
            self._patch.setattr("services.gateway.scribe.WAIT_S", PATIENCE_S)

    def drained(self) -> bytes:
        """Somebody reads it: what was written, once all is."""
        os.set_blocking(self._reader, False)
        read, end = b"", time.monotonic() + PATIENCE_S
        while not self._scribe.finish(0.01) or select.select([self._reader], [], [], 0)[0]:
            assert time.monotonic() < end
            with suppress(BlockingIOError):
                read += os.read(self._reader, 1 << 16)
        return read[self._filling :]


@contextmanager
def hanging(of: Recorder, patch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """Within the block whatever is written to the journal does not return, until it is released."""
    stuck = Stuck(of, patch)
    try:
        yield stuck
    finally:
        stuck.release()


def fill(pipe: int) -> int:
    filled = 0
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                filled += os.write(pipe, b"x" * size)
    return filled


def scribe_of(of: Recorder) -> Scribe:
    assert of._scribe is not None
    return of._scribe


def recorder_of(world: World) -> Recorder:
    return world.doors._door._recorder


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_stuck(world: World) -> bool:
    return bool(scribe_of(recorder_of(world)).trouble)


def faults(store: Any) -> list[str]:
    return [fault for row in store.snapshot().rows(Gateway) for fault in row.faults]


def audited(world: World, target: str) -> AuditEntry:
    """The entry, once it is in the state."""
    found: list[AuditEntry] = []

    def is_there() -> bool:
        entries = world.store.snapshot().rows(AuditEntry)
        found.extend(x for x in entries if x.target == target)
        return bool(found)

    wait_until(is_there)
    return found[0]


def body(token_id: str) -> dict[str, str]:
    return {"token_id": token_id, "role": "ROLE_VIEWER"}


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not taken for a disk that hangs."""
    monkeypatch.setattr("services.gateway.scribe.WAIT_S", PATIENCE_S)


def test_calls_go_on_while_the_disk_hangs_and_their_number_is_told(
    tmp_path: Path, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_in(tmp_path) as world, hanging(recorder_of(world), monkeypatch) as stuck:
        with Cluster(world.grpc_address, token=world.secrets["eve"]) as eve:
            eve.tokens.create("one", options_pb2.ROLE_VIEWER)
            assert ask(world, "POST", "/v1/tokens", body("two")).status == 200
            with Cluster(f"unix:{world.socket}") as root:
                root.tokens.create("three", options_pb2.ROLE_VIEWER)
            assert len(list(eve.tokens.list())) == 6
            assert ask(world, "GET", "/v1/whoami").status == 200
        for target in ("tokens/one", "tokens/two", "tokens/three"):
            assert audited(world, target).outcome == SUCCEEDED, "it is in the state"
        wait_until(lambda: bool(faults(world.store)))
        (fault,) = faults(world.store)
        assert fault == (
            "the audit journal cannot be written, calls go on without it: a write of "
            f"{tmp_path}/audit.journal does not return"
        )
        told = [x.message for x in world.store.snapshot().rows(event_pb2.Event)]
        assert told.count("the audit journal cannot be written, calls go on without it") == 1
        stuck.release()
        wait_until(lambda: not faults(world.store))
        wait_until(lambda: any(x.count == 3 for x in world.store.snapshot().rows(AuditEntry)))
        told_of = [x for x in world.store.snapshot().rows(AuditEntry) if x.count > 1]
        (lost,) = told_of
        assert "could not be written down first" in lost.message and lost.caller == "nobody"
        assert lost.node == "nodes/n1" and lost.HasField("last_time")
        with Cluster(world.grpc_address, token=world.secrets["eve"]) as eve:
            eve.tokens.create("four", options_pb2.ROLE_VIEWER)
        audited(world, "tokens/four")
        assert recorder_of(world).written(PATIENCE_S)
        assert not Journal(tmp_path / "audit.journal").open().going, "the file is whole again"


def test_a_strict_gateway_lets_no_change_in_meanwhile(
    tmp_path: Path, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads, and downloads, go on; whoever is refused is told what to do, and that is seen."""
    with world_in(tmp_path, strict=True) as world:
        world.storage.files["files/f1"] = b"content"
        with (
            hanging(recorder_of(world), monkeypatch) as stuck,
            Cluster(world.grpc_address, token=world.secrets["eve"], timeout_s=PATIENCE_S) as eve,
        ):
            with pytest.raises(errors.AuditFailed) as refused:
                eve.tokens.create("one", options_pb2.ROLE_VIEWER)
            assert "nothing was done" in refused.value.message
            assert "see to the disk there, or ask another node's gateway" in refused.value.message
            answer = ask(world, "POST", "/v1/tokens", body("two"))
            assert (answer.status, answer.reason) == (503, "AUDIT_FAILED")
            with (
                Cluster(f"unix:{world.socket}", timeout_s=PATIENCE_S) as root,
                pytest.raises(errors.AuditFailed),
            ):
                root.tokens.create("three", options_pb2.ROLE_VIEWER)
            assert sorted(x.name for x in eve.tokens.list()) == [
                "tokens/ann", "tokens/bob", "tokens/eve",
            ]  # fmt: skip
            assert ask(world, "GET", "/v1/files/f1:download").status == 200
            assert next(eve.tokens.watch()).resource is not None
            found = audited(world, "tokens/two")
            assert (found.outcome, found.reason) == (REFUSED, "AUDIT_FAILED")
            wait_until(lambda: bool(faults(world.store)))
            assert "changes are refused" in faults(world.store)[0]
            stuck.release()
            wait_until(lambda: not is_stuck(world))
            eve.tokens.create("one", options_pb2.ROLE_VIEWER)
        wait_until(lambda: not faults(world.store))


def test_once_it_is_known_to_hang_nobody_waits_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes later is told at once, without a turn of the event loop."""
    with world_in(tmp_path) as world, hanging(recorder_of(world), monkeypatch):
        scribe = scribe_of(recorder_of(world))
        recorder_of(world).begin(entry(1))
        wait_until(lambda: bool(scribe.trouble))
        waiting = scribe.waited(recorder_of(world).begin(entry(2)))
        with pytest.raises(StopIteration) as answered:
            waiting.send(None)
        assert "does not return" in answered.value.value


def test_lines_keep_their_order(
    tmp_path: Path, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = recorder(MemoryStore(), tmp_path / "j")
    signs = []
    with hanging(keeper, monkeypatch) as stuck:
        for number in range(200):
            keeper.begin(entry(number))
            signs.append("begin")
            if number % 3 == 0:
                keeper.end(done(number))
                signs.append("ended")
        lines = stuck.drained().split(b"\n")[:-1]
    assert [line.split()[0].decode() for line in lines] == signs
    path = tmp_path / "drained"
    path.write_bytes(b"\n".join(lines) + b"\n")
    left = Journal(path).open()
    assert list(left.going) == [f"auditEntries/{n:05}" for n in range(200) if n % 3]
    assert list(left.ended) == [f"auditEntries/{n:05}" for n in range(0, 200, 3)]


def test_what_the_disk_had_of_a_gateway_that_was_killed_is_told(
    tmp_path: Path, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = MemoryStore(), tmp_path / "j"
    keeper = recorder(store, path)
    keeper.begin(entry(1))
    assert keeper.written(PATIENCE_S)
    with hanging(keeper, monkeypatch):
        keeper.begin(entry(2))
        keeper.end(done(1))
        second = recorder(store, path)
        second.step()
        assert rows(store) == {"vms/1": AuditEntry.OUTCOME_UNKNOWN}


def test_what_waits_for_the_disk_is_bounded_and_the_file_is_whole_afterwards(
    tmp_path: Path, patience: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.scribe.LINES_MAX", 5)
    store, path = MemoryStore(), tmp_path / "j"
    keeper = recorder(store, path)
    with hanging(keeper, monkeypatch) as stuck:
        lines = [keeper.begin(entry(number)) for number in range(40)]
        refused = [line for line in lines if line.done()]
        assert len(refused) in (34, 35), "one is written, five wait"
        assert {line.result() for line in refused} == {NO_ROOM}
        stuck.release()
        assert keeper.written(PATIENCE_S)
    keeper.step()
    assert keeper.written(PATIENCE_S)
    assert list(Journal(path).open().going) == [f"auditEntries/{n:05}" for n in range(40)]


def test_a_journal_that_hangs_when_it_is_read_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe lies in its place: to open it hangs until somebody writes. What is read late is told
    late."""
    monkeypatch.setattr("services.gateway.scribe.WAIT_S", SOON_S)
    monkeypatch.setattr("services.gateway.recorder.OPENING_S", SOON_S)
    store, path = MemoryStore(), tmp_path / "j"
    before = tmp_path / "before"
    journal = Journal(before)
    journal.open()
    journal.begin(entry(7))
    os.mkfifo(path)
    keeper = Recorder(store, SystemClock(), "nodes/n1", path)
    keeper.begin(entry(1))
    keeper.end(done(1))
    keeper.step()
    assert rows(store) == {"vms/1": SUCCEEDED}
    wait_until(lambda: bool(scribe_of(keeper).trouble))
    keeper.step()
    assert len(faults(store)) == 1
    path.write_bytes(before.read_bytes())
    assert keeper.written(PATIENCE_S)
    monkeypatch.setattr("services.gateway.scribe.WAIT_S", PATIENCE_S)
    keeper.step()
    assert rows(store) == {"vms/1": SUCCEEDED, "vms/7": AuditEntry.OUTCOME_UNKNOWN}
    assert path.is_file() and not faults(store)


class Disk:
    """`os` as the journal sees it, on a disk that fails, or never brings anything to rest."""

    def __init__(self) -> None:
        self.error = 0
        self.resting = threading.Event()
        """Something waits for it to come to rest."""
        self.at_rest = threading.Event()
        self.at_rest.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if self.error == errno.EROFS:
            raise OSError(self.error, os.strerror(self.error), str(path))
        return os.open(path, flags, mode)

    def write(self, descriptor: int, line: bytes) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return os.write(descriptor, line)

    def fdopen(self, descriptor: int, mode: str) -> Any:
        if self.error:
            os.close(descriptor)
            raise OSError(self.error, os.strerror(self.error))
        return os.fdopen(descriptor, mode)

    def fdatasync(self, descriptor: int) -> None:
        if not self.at_rest.is_set():
            self.resting.set()
            self.at_rest.wait()
        os.fdatasync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, patience: None) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr("services.gateway.journal.os", disk)
    yield disk
    disk.at_rest.set()


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("strict", [False, True])
def test_a_disk_that_cannot_be_written_refuses_changes_only_to_the_strict(
    problem: int, strict: bool, tmp_path: Path, disk: Disk
) -> None:
    with world_in(tmp_path, strict=strict) as world:
        disk.error = problem
        answer = ask(world, "POST", "/v1/tokens", body("one"))
        assert answer.status == (503 if strict else 200)
        if strict:
            assert os.strerror(problem) in answer.json["message"]
        assert ask(world, "GET", "/v1/tokens").status == 200
        wait_until(lambda: bool(faults(world.store)))
        assert os.strerror(problem) in faults(world.store)[0]
        disk.error = 0
        wait_until(lambda: not faults(world.store))
        assert ask(world, "POST", "/v1/tokens", body("two")).status == 200
        counted = [x for x in world.store.snapshot().rows(AuditEntry) if "first" in x.message]
        assert [x.count for x in counted] == ([] if strict else [1])


@pytest.mark.parametrize("strict", [False, True])
def test_a_sync_that_does_not_return_keeps_no_entry_from_the_state(
    strict: bool, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world_in(tmp_path, strict=strict) as world:
        assert ask(world, "POST", "/v1/tokens", body("one")).status == 200
        disk.at_rest.clear()
        assert ask(world, "POST", "/v1/tokens", body("two")).status == 200
        audited(world, "tokens/two")
        assert disk.resting.wait(PATIENCE_S)
        monkeypatch.setattr("services.gateway.scribe.SYNC_MAX_S", 0.01)
        wait_until(lambda: bool(faults(world.store)))
        assert "a sync of" in faults(world.store)[0]
        answer = ask(world, "POST", "/v1/tokens", body("three"))
        assert answer.status == (503 if strict else 200)
        monkeypatch.setattr("services.gateway.scribe.SYNC_MAX_S", PATIENCE_S)
        disk.at_rest.set()
        wait_until(lambda: not faults(world.store))
        assert ask(world, "POST", "/v1/tokens", body("four")).status == 200


def test_an_end_that_had_no_room_is_not_forgotten_for_what_the_state_knows(
    tmp_path: Path, disk: Disk
) -> None:
    """The call was let in and written down; that it ended, and is in the state, could not be."""
    store, path = MemoryStore(), tmp_path / "j"
    keeper = recorder(store, path)
    keeper.begin(entry(1))
    assert keeper.written(PATIENCE_S)
    disk.error = errno.ENOSPC
    keeper.end(done(1))
    keeper.step()
    assert keeper.written(PATIENCE_S) and rows(store) == {"vms/1": SUCCEEDED}
    disk.error = 0
    recorder(store, path).step()
    assert rows(store) == {"vms/1": SUCCEEDED}


def test_what_is_written_after_a_line_that_was_cut_short_can_be_read(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.begin(entry(1))
    journal.close()
    path.write_bytes(path.read_bytes() + b"begin half")
    disk.error = errno.EROFS
    store = MemoryStore()
    keeper = recorder(store, path)
    disk.error = 0
    keeper.begin(entry(2))
    assert keeper.written(PATIENCE_S)
    assert list(Journal(path).open().going) == ["auditEntries/00001", "auditEntries/00002"]


def test_a_hand_works_in_order_says_what_failed_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    hand = Hand("hand", 100, SystemClock())
    assert hand.busy_s() == 0.0 and hand.idle

    def mistaken() -> None:
        raise ValueError("a mistake")

    outcomes = [hand.give(lambda n=n: done.append(n)) for n in range(50)]  # type: ignore[misc]
    outcomes.append(hand.give(mistaken))
    assert hand.finish(PATIENCE_S) and done == list(range(50))
    assert [x.result(0) for x in outcomes] == [""] * 50 + ["ValueError('a mistake')"]
    assert "hand failed" in caplog.text
    hand.end()
    assert hand.give(mistaken).result(0) == ENDED
