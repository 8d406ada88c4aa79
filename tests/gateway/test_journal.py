"""The journal of a gateway through deaths: of the process between any two steps, of the disk, and
of the real program by SIGKILL."""

from __future__ import annotations

import errno
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pvc.core.v1 import event_pb2, options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from pvc_client import Cluster, errors
from services.gateway.journal import REWRITTEN_FROM_BYTES, Journal
from services.gateway.recorder import Recorder
from services.mesh.clock import SystemClock
from services.pvcd.init import init
from services.state.memory import MemoryStore
from tests.pvcd.test_init import written

PATIENCE_S = 60.0
SUCCEEDED, UNKNOWN = AuditEntry.OUTCOME_SUCCEEDED, AuditEntry.OUTCOME_UNKNOWN


def entry(number: int, **fields: Any) -> AuditEntry:
    fields = {"count": 1, **fields}
    return AuditEntry(name=f"auditEntries/{number:05}", target=f"vms/{number}", **fields)


def done(number: int) -> AuditEntry:
    return entry(number, outcome=SUCCEEDED)


def recorder(store: MemoryStore, path: Path) -> Recorder:
    made = Recorder(store, SystemClock(), "nodes/n1", path)
    assert made.written(PATIENCE_S), "what was left is read"
    return made


def rows(store: MemoryStore) -> dict[str, int]:
    return {row.target: row.outcome for row in store.snapshot().rows(AuditEntry)}


def test_a_process_that_dies_between_any_two_steps_loses_nothing(tmp_path: Path) -> None:
    """Two calls; death after each step; the next process tells how they ended, or that nobody
    knows. What a call did not come as far as the journal with was not done either."""
    expected = [
        {},
        {"vms/1": UNKNOWN},
        {"vms/1": UNKNOWN, "vms/2": UNKNOWN},
        {"vms/1": SUCCEEDED, "vms/2": UNKNOWN},
        {"vms/1": SUCCEEDED, "vms/2": UNKNOWN},
        {"vms/1": SUCCEEDED, "vms/2": SUCCEEDED},
        {"vms/1": SUCCEEDED, "vms/2": SUCCEEDED},
    ]
    for cut, outcome in enumerate(expected):
        store, path = MemoryStore(), tmp_path / str(cut) / "audit.journal"
        first = recorder(store, path)
        steps = (
            lambda r: r.begin(entry(1)),
            lambda r: r.begin(entry(2)),
            lambda r: r.end(done(1)),
            lambda r: r.step(),
            lambda r: r.end(done(2)),
            lambda r: r.step(),
        )
        for step in steps[:cut]:
            step(first)
        assert first.written(PATIENCE_S)
        second = recorder(store, path)
        second.step()
        assert rows(store) == outcome, cut
        revision = store.snapshot().revision
        third = recorder(store, path)
        third.step()
        assert store.snapshot().revision == revision, "nothing is written twice"


def test_a_commit_whose_answer_was_lost_is_not_written_again(tmp_path: Path) -> None:
    store = MemoryStore()
    first = recorder(store, tmp_path / "j")
    first.end(done(1))
    first._kept = lambda batch: None  # type: ignore[method-assign]
    first.step()
    assert first.written(PATIENCE_S)
    revision = store.snapshot().revision
    recorder(store, tmp_path / "j").step()
    assert store.snapshot().revision == revision and rows(store) == {"vms/1": SUCCEEDED}


def test_a_line_cut_anywhere_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.open()
    journal.begin(entry(1))
    whole = path.read_bytes()
    journal.end(done(1))
    after = path.read_bytes()
    for length in range(len(after) + 1):
        path.write_bytes(after[:length])
        left = Journal(path).open()
        assert len(left.going) == (len(whole) <= length < len(after)), length
        assert len(left.ended) == (length == len(after))


@pytest.mark.parametrize("rubbish", [b"\0" * 5000, b"begin !!!!\n", b"ended AAAA\n", b"\xff\n\n"])
def test_rubbish_in_the_file_stops_nobody(
    rubbish: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.open()
    journal.begin(entry(1))
    path.write_bytes(rubbish + b"\n" + path.read_bytes())
    left = Journal(path).open()
    assert list(left.going) == ["auditEntries/00001"]
    assert "cannot be read" in caplog.text


def test_nobody_else_reads_it_and_it_stays_small(tmp_path: Path) -> None:
    store = MemoryStore()
    keeper = recorder(store, tmp_path / "gateway" / "j")
    lasting = entry(0)
    keeper.begin(lasting)
    for number in range(1, 4000):
        keeper.begin(entry(number, message="x" * 400))
        keeper.end(entry(number, message="x" * 400, outcome=SUCCEEDED))
        if number % 100 == 0:
            assert keeper.written(PATIENCE_S)
            keeper.step()
    assert keeper.written(PATIENCE_S)
    file = tmp_path / "gateway" / "j"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_size < 2 * REWRITTEN_FROM_BYTES
    assert list(Journal(file).open().going) == [lasting.name], "what goes on is not forgotten"


def test_a_full_disk_stops_nobody_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, path = MemoryStore(), tmp_path / "j"
    keeper = recorder(store, path)
    keeper.begin(entry(1))
    assert keeper.written(PATIENCE_S)
    write, full = os.write, threading.Event()

    def writing(descriptor: int, line: bytes) -> int:
        if not full.is_set():
            return write(descriptor, line)
        if len(line) > 30:  # there is room for half a line
            return write(descriptor, line[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("services.gateway.journal.os.write", writing)
    full.set()
    for number in range(2, 50):
        keeper.begin(entry(number))
        keeper.end(done(number))
    assert keeper.written(PATIENCE_S)
    keeper.step()
    keeper.step()
    complaints = [r for r in caplog.records if "cannot be written" in r.message]
    assert len(complaints) == 1 and complaints[0].levelno == logging.ERROR
    (told,) = store.snapshot().rows(event_pb2.Event)
    assert told.severity == event_pb2.Event.SEVERITY_ERROR and told.subject == "nodes/n1"
    assert len(rows(store)) == 48, "they are in the state all the same"
    assert keeper.written(PATIENCE_S)
    keeper.step()  # writes the file anew, if a step before could not
    assert keeper.written(PATIENCE_S)
    full.clear()
    keeper.end(done(1))
    assert keeper.written(PATIENCE_S)
    assert list(Journal(path).open().ended) == ["auditEntries/00001"], "lines are whole again"


def test_a_journal_that_cannot_be_made_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = MemoryStore()
    keeper = recorder(store, tmp_path / "file" / "j")
    keeper.begin(entry(1))
    keeper.end(done(1))
    assert keeper.written(PATIENCE_S)
    keeper.step()
    assert rows(store) == {"vms/1": SUCCEEDED} and "File exists" in caplog.text
    keeper.close()


# The real program.


class Gateway:
    """A gateway as a process of its own, with nothing beside it but a compute service that takes
    requests and never answers."""

    def __init__(self, folder: Path) -> None:
        self.file = written(folder, more='[gateway]\ngrpc_listen = ""\nrest_listen = ""\n')
        init(self.file)
        self.socket = f"unix:{folder}/run/pvc.sock"
        self._log = (folder / "log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "services.gateway", "--config", str(self.file)]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < end
            try:
                with Cluster(self.socket, timeout_s=1) as cluster:
                    cluster.whoami()
                    return
            except errors.PvcError:
                time.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(60)

    def entries(self, wanted: int) -> list[AuditEntry]:
        end = time.monotonic() + 60
        with Cluster(self.socket) as cluster:
            while len(found := list(cluster.audit.list())) < wanted:
                assert time.monotonic() < end, found
                time.sleep(0.1)
            return found


@contextmanager
def silent_compute(folder: Path) -> Iterator[threading.Event]:
    """Set when a request came."""
    came, leave = threading.Event(), threading.Event()

    def answer(request: bytes, context: Any) -> bytes:
        came.set()
        leave.wait(30)
        return b""

    class Silent(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Silent(),))
    (folder / "run" / "mesh").mkdir(parents=True, exist_ok=True)
    server.add_insecure_port(f"unix:{folder}/run/mesh/compute.sock")
    server.start()
    try:
        yield came
    finally:
        leave.set()
        server.stop(0)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path)
    yield gateway
    if gateway.process is not None and gateway.process.poll() is None:
        gateway.kill()


@pytest.mark.real
def test_a_gateway_killed_in_the_middle_of_a_call_tells_so(
    gateway: Gateway, tmp_path: Path
) -> None:
    with silent_compute(tmp_path) as came:
        gateway.start()
        with Cluster(gateway.socket) as cluster:
            asking = threading.Thread(target=asked, args=(cluster,), daemon=True)
            asking.start()
            assert came.wait(60)
            gateway.kill()
            asking.join(60)
        gateway.start()
        (found,) = gateway.entries(1)
    assert (found.target, found.request_id) == ("vms/web", "once")
    assert found.outcome == UNKNOWN and "gateway ended in the middle" in found.message
    assert found.caller == "local root" and not found.HasField("duration")


def asked(cluster: Cluster) -> None:
    with pytest.raises(errors.PvcError):
        cluster.vms.start("web", request_id="once")


@pytest.mark.real
def test_no_token_is_made_that_the_audit_log_does_not_know(gateway: Gateway) -> None:
    """Killed at any moment of a burst of requests: every token that exists has its entry."""
    chance = random.Random(4)
    for burst in range(3):
        gateway.start()
        timer = threading.Timer(chance.uniform(0.02, 1.4), gateway.kill)
        timer.start()
        with Cluster(gateway.socket, timeout_s=5) as cluster:
            for number in range(2000):
                try:
                    cluster.tokens.create(f"t{burst}-{number}", options_pb2.ROLE_VIEWER)
                except errors.PvcError:
                    break
        timer.join()
    gateway.start()
    with Cluster(gateway.socket) as cluster:
        made = {token.name for token in cluster.tokens.list()} - {"tokens/admin"}
        assert len(made) > 20
        found = gateway.entries(len(made))
    told = [entry.target for entry in found]
    assert made <= set(told) and len(told) == len(set(told))
    for one in found:
        assert one.outcome == SUCCEEDED or (one.outcome == UNKNOWN and one.message)
