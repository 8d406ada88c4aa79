"""Scripts as whole processes: what they print, where they stop, what they end with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.whole import Whole
from tests.language.conftest import Said

ROOT = Path(__file__).parents[2]
PATHS = ":".join(str(ROOT / part) for part in ("", "clients/python/src", "clients/python/gen"))
ENTRY = "from shell.repl import main; main()"
Run = Callable[..., Said]


def environment(whole: Whole, own_files: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PATHS,
        "PVC_CONNECTION": f"unix:{whole.folder}/run/pvc.sock",
        "PVC_CONFIG_DIR": str(own_files),
        "HOME": str(own_files),
    }


@pytest.fixture
def run(whole: Whole, own_files: Path) -> Run:
    def call(*arguments: str, given: str = "") -> Said:
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, *arguments], input=given, capture_output=True,
            text=True, timeout=60, env=environment(whole, own_files),
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    return call


def test_a_script_says_where_it_stopped(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "s.pvc"
    script.write_text(
        "# names\n"
        "vm list | name | head 1\n"
        "alias one = vm info $1 -f name\n"
        "\n"
        "one web; use vm web\n"
        "info -f name \\\n"
        "   | grep w\n"
        "one nowhere\n"
        "node list -f name\n"
    )
    said = run(str(script))
    assert (said.code, said.out) == (4, "db\nweb\nweb\n")
    assert f"{script}:8: stopped after exit code 4 of: one nowhere\n" in said.err
    assert "\x1b" not in said.out + said.err
    going = run("--keep-going", str(script))
    assert (going.code, going.out) == (4, "db\nweb\nweb\nn1\n")
    assert f"{script}:8: went on after exit code 4 of: one nowhere\n" in going.err


def test_a_script_with_a_mistake_does_nothing_at_all(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "s.pvc"
    script.write_text("vm list -f name\nvm list | grep 'x\n")
    said = run(str(script))
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        f"{script}:2:16: a quote (') is not closed\n  vm list | grep 'x\n                 ^^\n"
    )


def test_lines_come_from_standard_input(run: Run) -> None:
    said = run(given="vm list -f name |\n head 1\nnode list -f name\n")
    assert (said.code, said.out, said.err) == (0, "db\nn1\n", "")
    said = run("-", given="vm list -f name\n\nvm info nowhere\nnode list\n")
    assert (said.code, said.out) == (4, "db\nold\nweb\n")
    assert "standard input:3: stopped after exit code 4 of: vm info nowhere" in said.err
    assert run(given="node list -f name\nvm 'x\n").out == "n1\n"
    said = run(given="vm list 'x")
    assert said.code == 2 and "standard input:1:9:" in said.err
    assert run(given="").code == 0
    going = run("--keep-going", given="vm info nowhere\nvm 'x'y'\nnode list -f name\n'\n")
    assert going.code in (2, 4)


def test_what_commands_would_read_is_not_the_script(run: Run) -> None:
    said = run(given="vm stop web\nyes\n")
    assert said.code == 3
    assert "Nobody can answer here: add --yes" in said.err
    assert "standard input:1: stopped after exit code 3 of: vm stop web" in said.err


def test_lines_from_the_command_line(run: Run) -> None:
    assert run("-e", "vm list -f name", "-e", "node list -f name").out == "db\nold\nweb\nn1\n"
    said = run("-e", "exit 7", "-e", "vm list")
    assert (said.code, said.out, said.err) == (7, "", "")
    said = run("-e", "vm list -f json | columns name | head 1")
    assert said.out == '[\n  {\n    "name": "db"\n  }\n]\n'
    assert "at the prompt" in run("-e", "!ls").err


def test_questions_are_declined_or_answered_by_the_script(run: Run, whole: Whole) -> None:
    assert run("-e", "vm stop web").code == 3
    assert run("-e", "vm stop web --yes; vm start web").code == 0
    said = run("-e", "set confirm off", "-e", "vm stop web", "-e", "vm start web")
    assert said.code == 0 and said.out == "vm web is off\nvm web runs\n"


def test_a_script_may_go_on_after_errors_by_its_own_word(run: Run) -> None:
    said = run("-e", "set on-error continue; vm info nowhere; vm stop web; node list -f name")
    assert (said.code, said.out) == (4, "n1\n")
    assert "went on after exit code 3" in said.err


def test_scripts_see_aliases_but_no_settings(run: Run, own_files: Path) -> None:
    own_files.mkdir()
    (own_files / "shell.toml").write_text(
        "[settings]\nformat = 'json'\nconfirm = 'off'\n[aliases]\nmine = 'vm list | name'\n"
    )
    assert run("-e", "mine").out == "db\nold\nweb\n"
    assert run("-e", "vm list").out.startswith("NAME")
    assert run("-e", "vm stop web").code == 3


def test_files_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"vm list # \xe4\n")
    assert "UTF-8" in run(str(tmp_path / "latin")).err
    assert run(str(tmp_path / "latin")).code == 2
    assert run(str(tmp_path / "none")).code == 2


def test_with_no_standard_input_at_all(whole: Whole, own_files: Path) -> None:
    for line in ("vm list -f name", "vm stop web"):
        done = subprocess.run(
            ["sh", "-c", 'exec "$0" "$@" <&-', sys.executable, "-c", ENTRY, "-e", line],
            capture_output=True, text=True, timeout=60, env=environment(whole, own_files),
        )  # fmt: skip
        assert (done.returncode, done.stdout) in ((0, "db\nold\nweb\n"), (3, "")), done.stderr


def test_a_broken_or_unknown_connection_ends_it_at_once(run: Run, own_files: Path) -> None:
    assert "there is no connection 'nope'" in run("-c", "nope", "-e", "vm list").err
    own_files.mkdir()
    (own_files / "connections.toml").write_text("x = [")
    assert "line 1" in run("-c", "nope", "-e", "vm list").err


def test_nobody_there(run: Run) -> None:
    said = run("-c", "unix:/nowhere/pvc.sock", "-e", "vm list")
    assert said.code == 5 and "-e:1: stopped after exit code 5 of: vm list" in said.err


def test_ctrl_c_ends_a_script_and_says_where(whole: Whole, own_files: Path, tmp_path: Path) -> None:
    script = tmp_path / "s.pvc"
    script.write_text("node list -f name\nevent watch --all\nnode list -f name\n")
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, str(script)], env=environment(whole, own_files),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "n1\n"
    assert process.stdout.readline(), "the watch has begun"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{script}:2: interrupted at: event watch --all\n" in err
    assert "n1" not in out.splitlines()


def test_an_endless_answer_reaches_stages_and_files_as_it_comes(
    whole: Whole, own_files: Path, tmp_path: Path
) -> None:
    file = tmp_path / "events"
    line = f"event list -l 1 -f name --follow | grep -v zzz | head 2 > {file}"
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "-e", line], env=environment(whole, own_files),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stop = threading.Event()

    def stir() -> None:
        with whole.client() as cluster:
            while not stop.wait(0.1):
                cluster.vms.get("web")
                cluster.vms.stop("web").result(20)
                cluster.vms.start("web").result(20)

    thread = threading.Thread(target=stir)
    thread.start()
    try:
        _, err = process.communicate(timeout=60)
    finally:
        stop.set()
        thread.join(30)
    assert process.returncode == 0, err
    assert len(file.read_text().splitlines()) == 2


TELLING = f"""
import sys
from shell.language.flow import Flow
printed = Flow._print
def telling(self, lines):
    printed(self, lines)
    print(*lines, sep="\\n", file=sys.stderr, flush=True)
Flow._print = telling
{ENTRY}
"""
"""Says on stderr what goes into the file in the end."""


def test_ctrl_c_keeps_what_an_endless_command_has_said(
    whole: Whole, own_files: Path, tmp_path: Path
) -> None:
    file = tmp_path / "events"
    line = f"event watch --all > {file}"
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, "-e", line], env=environment(whole, own_files),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert all([process.stderr.readline() for _ in range(4)])
    assert not file.exists()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert file.read_text().count("\n") > 3
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["events"]
