"""Who may take over the lease of an agent that died."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.compute import succession
from services.compute.succession import Succession

HOLD = """
import sys
from pathlib import Path
from services.compute.succession import Succession
line = Succession(Path(sys.argv[1]), Path(sys.argv[1]))
line.former()
line.note("5e55")
print("noted", flush=True)
sys.stdin.read()
"""


def test_the_first_has_nobody_before_it(tmp_path: Path) -> None:
    line = Succession(tmp_path / "kept", tmp_path / "run")
    assert line.former() == ""
    line.note("a1")
    assert line.former() == "", "its own session is nobody's before it"


def test_the_next_one_knows_only_of_the_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as before:
        assert before.stdout is not None and before.stdout.readline() == b"noted\n"
        line = Succession(tmp_path, tmp_path)
        assert line.former() == "", "it lives"
        line.note("b2")
        before.kill()
    assert line.former() == "5e55"
    line.note("b2")
    assert line.former() == "5e55"
    assert (tmp_path / "agent.session").read_text() == "b2\n"


def test_a_machine_that_started_anew_knows_its_own_past(tmp_path: Path) -> None:
    before = Succession(tmp_path, tmp_path / "run")
    before.former()
    before.note("c3")
    assert Succession(tmp_path, tmp_path / "another run").former() == "c3"


def test_without_room_for_the_note_the_agent_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    line = Succession(tmp_path / "kept", tmp_path / "run")
    line.former()
    with monkeypatch.context() as full:
        full.setattr(succession, "write_private", no_room)
        line.note("a1")
        line.note("a1")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    line.note("a1")
    assert (tmp_path / "kept/agent.session").read_text() == "a1\n"


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
