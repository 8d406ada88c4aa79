"""The SQLite store on a real disk: durable, one process, whole or an error, good after trouble."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from services.mesh.errors import PvcError
from services.state.sqlite import SqliteStore
from services.state.sqlite_file import HISTORY_KEPT
from services.state.store import ANY_VERSION, Delete, Put
from tests.state.places import described, refused, texts, vm

SEED = 20260
SCRIPTS = Path(__file__).parent / "scripts"
ROOT = Path(__file__).parents[2]


def filled(path: Path, rows: int = 20) -> dict[str, str]:
    """A state with some history; returns what is in it."""
    store = SqliteStore(path)
    store.commit([Put(vm(f"vm-{number}", f"text {number}" * 20)) for number in range(rows)])
    for number in range(rows):
        store.commit([described(store, f"vm-{number}", f"changed {number}" * 20)])
    store.commit([Delete("vms/vm-0", ANY_VERSION)])
    there = texts(store)
    store.close()
    return there


def run(script: str, *args: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*prefix, sys.executable, str(SCRIPTS / script), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    there = filled(tmp_path / "state.db")
    store = SqliteStore(tmp_path / "state.db")
    assert texts(store) == there
    assert store.snapshot().revision == 22
    assert store.commit([Put(vm("next"))]) == 23
    store.close()


def test_a_watch_resumes_across_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.commit([Put(vm("web", "one")), Put(vm("db", "x"))])
    store.commit([described(store, "web", "two")])
    store.commit([Delete("vms/web", "2")])
    live = store.watch(0)
    before = [live.next(1) for _ in range(3)]
    store.close()
    again = SqliteStore(path)
    watch = again.watch(0)
    assert [watch.next(1) for _ in range(3)] == before
    assert watch.next(0.01) is None
    again.close()


def test_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.state.sqlite_file.HISTORY_KEPT", 5)
    filled(tmp_path / "state.db")
    store = SqliteStore(tmp_path / "state.db")
    assert store.watch(17).next(0.1) is not None
    with refused("REVISION_TOO_OLD"):
        store.watch(16)
    store.close()
    assert HISTORY_KEPT > 1000


def test_a_second_process_is_told_who_has_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    second = run("open_sqlite.py", str(tmp_path / "state.db"))
    output, errors = second.communicate(timeout=30)
    assert output.split() == ["IN_USE", str(os.getpid())], errors
    store.close()
    third = run("open_sqlite.py", str(tmp_path / "state.db"))
    output, errors = third.communicate(timeout=30)
    assert output.split() == ["opened", "0"], errors


def test_a_lock_that_a_dead_process_left_to_its_child_is_waited_for(tmp_path: Path) -> None:
    """Killed between the making of a child and that child's program."""
    first = run("die_with_child.py", str(tmp_path / "state.db"))
    assert first.stdout is not None
    child = int(first.stdout.readline())
    assert first.wait(60) == -signal.SIGKILL
    freed = threading.Timer(1.0, os.kill, (child, signal.SIGKILL))
    freed.start()
    store = SqliteStore(tmp_path / "state.db")
    freed.join()
    assert store.commit([Put(vm("web"))]) == 1
    store.close()
    first.communicate()


def test_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """Also after the file was opened again because of an error."""
    store = SqliteStore(tmp_path / "state.db")
    for _ in range(2):
        assert store._file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._file._db.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
        store._file.reopen()
    store.close()


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.commit([Put(vm("web"))])
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert set(modes) == {"state.db", "state.db-wal", "state.db-shm", "state.db.lock"}
    store.close()


def test_acknowledged_commits_survive_kill_9(tmp_path: Path) -> None:
    """A child commits as fast as it can and says what was acknowledged; it is killed after some, at
    random moments. Each commit writes two rows that must always agree."""
    chance = random.Random(SEED)
    path, acknowledged = tmp_path / "state.db", 0
    for _ in range(6):
        child = run("commit_forever.py", str(path))
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", child.communicate(timeout=10)[1]
        said = [child.stdout.readline() for _ in range(chance.randrange(1, 40))]
        time.sleep(chance.uniform(0.0, 0.02))
        child.send_signal(signal.SIGKILL)
        lines = [*said, *child.communicate(timeout=30)[0].splitlines(keepends=True)]
        whole = [int(line) for line in lines if line.endswith("\n")]
        acknowledged = max([acknowledged, *whole])
        store = SqliteStore(path)
        revision = store.snapshot().revision
        assert acknowledged <= revision <= acknowledged + 1
        assert texts(store) in ({}, {"vms/a": str(revision), "vms/b": str(revision)})
        watch = store.watch(max(0, revision - 50))
        seen = [watch.next(0.1) for _ in range(min(50, revision))]
        assert [commit.revision for commit in seen if commit] == list(
            range(max(0, revision - 50) + 1, revision + 1)
        )
        store.close()
    assert acknowledged > 20


def test_a_full_state_refuses_and_works_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.commit([Put(vm("web", "one"))])
    pages = store._file._db.execute("PRAGMA page_count").fetchone()[0]
    store._file._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with refused("OUT_OF_SPACE") as error:
        store.commit([Put(vm(f"vm-{number}", os.urandom(2000).hex())) for number in range(20)])
    assert "free some space" in error.value.message
    assert texts(store) == {"vms/web": "one"}
    assert store.snapshot().revision == 1
    assert store.commit([described(store, "web", "two")]) == 2
    store._file._db.execute("PRAGMA max_page_count = 1000000")
    assert store.commit([Put(vm("db", os.urandom(2000).hex() * 20))]) == 3
    store.close()
    again = SqliteStore(tmp_path / "state.db")
    assert again.snapshot().revision == 3
    again.close()


@pytest.mark.real
def test_a_full_file_system_refuses_and_works_again(tmp_path: Path) -> None:
    """On a real small file system, in a mount namespace of the child's own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    prefix = ("unshare", "--mount", "--propagation", "private")
    child = run("fill_disk.py", str(tmp_path / "disk"), prefix=prefix)
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert output.splitlines() == ["OUT_OF_SPACE", "still full: OUT_OF_SPACE", "works", "whole"]


@pytest.mark.real
def test_a_failing_disk_is_said_and_survived(tmp_path: Path) -> None:
    """The kernel refuses writes beyond a size (RLIMIT_FSIZE): SQLite sees an I/O error."""
    child = run("limit_file_size.py", str(tmp_path / "state.db"))
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    assert output.splitlines() == ["STORE_UNAVAILABLE", "works", "whole"]


def test_a_locked_state_refuses_and_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.state.sqlite_file._BUSY_TIMEOUT_S", 0.05)
    store = SqliteStore(tmp_path / "state.db")
    store.commit([Put(vm("web", "one"))])
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with refused("STORE_UNAVAILABLE") as error:
        store.commit([described(store, "web", "two")])
    assert "locked" in error.value.message
    assert texts(store) == {"vms/web": "one"}
    other.execute("ROLLBACK")
    other.close()
    assert store.commit([described(store, "web", "two")]) == 2
    store.close()


def test_another_programs_write_is_noticed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.commit([Put(vm("web", "one"))])
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("UPDATE meta SET revision = 7")
    other.close()
    with refused("STORE_UNAVAILABLE") as error:
        store.commit([described(store, "web", "two")])
    assert "another program" in error.value.message
    assert texts(store) == {"vms/web": "one"}
    store.close()


def test_truncated_anywhere_it_is_whole_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    there = filled(path)
    content = path.read_bytes()
    chance = random.Random(SEED)
    lengths = {0, 1, 99, 100, 4096, 8192, len(content) - 1, len(content) - 4096}
    lengths |= {chance.randrange(len(content)) for _ in range(30)}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        with refused("STORE_UNAVAILABLE") as error:
            SqliteStore(path)
        assert "backup" in error.value.message, (length, error.value.message)
        assert path.read_bytes() == content[:length], "what is left is not touched"
    path.write_bytes(content)
    store = SqliteStore(path)
    assert texts(store) == there
    store.close()


def test_damaged_anywhere_it_is_whole_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    there = filled(path, rows=200)
    content = path.read_bytes()
    chance = random.Random(SEED)
    found = 0
    for _ in range(60):
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            store = SqliteStore(path)
        except PvcError as error:
            assert error.reason_name == "STORE_UNAVAILABLE", repr(error)
            assert "backup" in error.message
            found += 1
        else:
            assert texts(store) == there, at
            store.close()
    assert found > 20


def test_a_missing_file_with_its_log_left_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    (tmp_path / "state.db-wal").write_bytes(b"x" * 100)
    with refused("STORE_UNAVAILABLE") as error:
        SqliteStore(path)
    assert "only its log" in error.value.message
    assert not path.exists()


def test_another_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    with refused("STORE_UNAVAILABLE") as error:
        SqliteStore(path)
    assert "no state of PVC" in error.value.message


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteStore(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 9")
    other.close()
    with refused("SCHEMA_TOO_NEW"):
        SqliteStore(path)


def test_a_half_made_file_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "state.db.new").write_bytes(b"half")
    store = SqliteStore(tmp_path / "state.db")
    assert store.commit([Put(vm("web"))]) == 1
    store.close()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with refused("STORE_UNAVAILABLE") as error:
        SqliteStore(tmp_path / "nowhere" / "state.db")
    assert "nowhere" in error.value.message
