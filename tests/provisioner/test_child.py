"""A child process: lines, failure, deadline, cancel, and nothing of it left in any case."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from services.provisioner.drivers.child import (
    ChildCancelled,
    ChildFailed,
    build_environment,
    contained,
    run_child,
)

# A shell whose child leaves its session, as a daemon does, and tells its process id.
RUNAWAY = ("sh", "-c", "setsid sleep 600 & echo started; wait")


def never() -> bool:
    return False


def sleepers(marker: str) -> list[str]:
    """Processes whose environment holds the marker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It ended in between, or is another user's and so none of ours.
            continue
    return found


def gone(marker: str) -> bool:
    """True once no such process is left; a killed one takes a moment."""
    deadline = time.monotonic() + 60
    while sleepers(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_lines_come_whole_and_in_order() -> None:
    lines: list[str] = []
    script = "printf 'a\\nb\\rc'; printf ' d\\n\\n' >&2; printf '\\377 end'"
    run_child(("sh", "-c", script), timeout_s=60, cancelled=never, on_line=lines.append)
    assert lines == ["a", "b", "c d", "\ufffd end"]


def test_input_is_given() -> None:
    lines: list[str] = []
    run_child(("cat",), timeout_s=60, cancelled=never, on_line=lines.append, stdin=b"in\n")
    assert lines == ["in"]


def test_failure_tells_status_and_last_words() -> None:
    with pytest.raises(ChildFailed, match="status 3: why"):
        run_child(("sh", "-c", "echo why >&2; exit 3"), timeout_s=60, cancelled=never)
    with pytest.raises(ChildFailed, match="cannot be started"):
        run_child(("/does/not/exist",), timeout_s=60, cancelled=never)


def test_too_long_is_ended() -> None:
    with pytest.raises(ChildFailed, match="took too long"):
        run_child(("sleep", "60"), timeout_s=0.3, cancelled=never)


def test_an_error_in_the_listener_ends_the_child() -> None:
    def listen(line: str) -> None:
        raise ZeroDivisionError

    environment = {"PATH": os.environ["PATH"], "MARK": (mark := uuid.uuid4().hex)}
    with pytest.raises(ZeroDivisionError):
        run_child(
            ("sh", "-c", "echo x; exec sleep 60"),
            timeout_s=60,
            cancelled=never,
            on_line=listen,
            environment=environment,
        )
    assert gone(mark)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@needs_root
def test_cancel_ends_also_who_left_the_session() -> None:
    started: list[str] = []
    environment = {"PATH": os.environ["PATH"], "MARK": (mark := uuid.uuid4().hex)}
    with pytest.raises(ChildCancelled):
        run_child(
            contained(RUNAWAY),
            timeout_s=60,
            cancelled=lambda: bool(started),
            on_line=started.append,
            environment=environment,
        )
    assert gone(mark)


@needs_root
def test_kill_of_the_parent_ends_everything_it_started() -> None:
    program = (
        "from services.provisioner.drivers.child import *\n"
        f"run_child(contained({RUNAWAY!r}), timeout_s=60, cancelled=lambda: False)\n"
    )
    mark = f"MARK={uuid.uuid4()}"
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "MARK": mark.removeprefix("MARK="), "PYTHONPATH": ":".join(sys.path)},
    )
    try:
        deadline = time.monotonic() + 60
        while "sleep" not in sleepers(mark):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(mark)


@needs_root
def test_a_mount_of_the_child_is_not_seen_outside(tmp_path: Path) -> None:
    mount = shutil.which("mount") or "mount"
    run_child(
        contained((mount, "-t", "tmpfs", "none", str(tmp_path))), timeout_s=60, cancelled=never
    )
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_environment_holds_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    environment = build_environment(Path("/w/tmp"), {"MORE": "1"})
    assert "SECRET" not in environment and environment["http_proxy"] == "http://proxy:3128"
    assert environment["MORE"] == "1" and environment["TMPDIR"] == "/w/tmp"


def test_a_child_that_says_no_more_and_stays_is_ended() -> None:
    marker = uuid.uuid4().hex
    with pytest.raises(ChildFailed, match="did not end"):
        run_child(
            ("sh", "-c", "exec >&- 2>&-; sleep 600"),
            timeout_s=0.5,
            cancelled=never,
            environment={"PATH": "/usr/bin:/bin", "MARK": marker},
        )
    assert gone(marker)
