"""The language as a person has it: real keys in a pseudo-terminal, questions, watches, Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shell.connections import Connection, Connections
from tests.contract.whole import Whole
from tests.shell.emulator import Emulator

CTRL_C = "\x03"
READY = "nodes 1/1"
"""What stands below a prompt, and not below what a command says."""


@pytest.fixture
def shell(whole: Whole, tmp_path: Path, own_files: Path) -> Iterator[Emulator]:
    environment = {
        "PVC_CONNECTION": f"unix:{whole.folder}/run/pvc.sock", "PVC_CONFIG_DIR": str(own_files),
        "PAGER": "cat",
    }  # fmt: skip
    one = Emulator(home=tmp_path, columns=110, rows=40, environment=environment)
    one.wait_for(READY)
    yield one
    one.close()


def say(shell: Emulator, line: str, wanted: str | Callable[[str], bool]) -> str:
    """Types a line on an empty screen, waits for something, gives the screen."""
    shell.wait_until_raw()
    shell.type("clear")
    shell.wait_for("> clear")
    shell.type("\r")
    shell.wait_for(READY, gone="> clear")
    shell.type(f"{line}\r")
    shell.wait_for(wanted)
    return shell.settle()


def prompts(count: int) -> Callable[[str], bool]:
    """Whether the screen has so many prompts: commands before the last one have ended."""
    return lambda screen: screen.count("pvc@") >= count


def test_questions_are_asked_and_answered(shell: Emulator, whole: Whole, tmp_path: Path) -> None:
    before = whole.calm()
    say(shell, "vm stop web", "Cut the power of web?")
    shell.type("n\r")
    shell.wait_for("nothing was changed")
    assert whole.calm() == before
    say(shell, f"vm list | name > {tmp_path}/f", prompts(2))
    assert (tmp_path / "f").read_text() == "db\nold\nweb\n"
    say(shell, f"node list | name > {tmp_path}/f", "Overwrite it?")
    shell.type("n\r")
    shell.wait_for("nothing was changed")
    assert (tmp_path / "f").read_text() == "db\nold\nweb\n"
    say(shell, f"node list | name > {tmp_path}/f", "Overwrite it?")
    shell.type("y\r")
    shell.wait_for(prompts(2))
    assert (tmp_path / "f").read_text() == "n1\n"


def test_ctrl_c_at_a_question_ends_the_line_and_no_more(shell: Emulator, whole: Whole) -> None:
    before = whole.calm()
    say(shell, "use vm web; stop; info -f name", "Cut the power of web?")
    shell.type(CTRL_C)
    shell.wait_for("nothing was changed")
    assert "\nweb\n" not in shell.settle()
    assert whole.calm() == before
    assert "\nweb\n" in say(shell, "info -f name", "\nweb\n")


def test_a_list_is_watched_and_left(shell: Emulator, whole: Whole) -> None:
    say(shell, "watch vm list", "MEMORY")
    with whole.client() as cluster:
        cluster.vms.start("old").result(20)
        shell.wait_for(lambda screen: any(
            line.startswith("old") and "running" in line for line in screen.splitlines()
        ))  # fmt: skip
        shell.type(CTRL_C)
        shell.wait_for(READY)
        cluster.vms.stop("old").result(20)
    assert "\n3\n" in say(shell, "vm list | count", "\n3\n")


def test_anything_else_is_run_again_and_again(shell: Emulator, whole: Whole) -> None:
    screen = say(shell, "watch -n 0.3 vm list | where state=running | name", "every 0.3 s:")
    assert "vm list" in screen and "\nweb\n" in screen and "\nold\n" not in screen
    with whole.client() as cluster:
        cluster.vms.start("old").result(20)
        shell.wait_for("\nold\n")
        cluster.vms.stop("old").result(20)
    shell.wait_for("every 0.3 s:", gone="\nold\n")
    shell.type(CTRL_C)
    shell.wait_for(READY)
    assert "\nn1\n" in say(shell, "node list -f name", "\nn1\n")


def test_an_endless_answer_ends_when_enough_has_come(shell: Emulator, whole: Whole) -> None:
    assert "\n2\n" in say(shell, "event watch --all | head 2 | count", "\n2\n")


def test_commands_of_this_machine_have_the_terminal(shell: Emulator, tmp_path: Path) -> None:
    assert "\nweb\nold\ndb\n" in say(shell, "vm list -f name | !sort -r", "\ndb\n")
    say(shell, "!sh -c 'echo be''gun; cat'", "\nbegun\n")
    shell.type("hello\r")
    shell.wait_for("hello\nhello")
    shell.type(CTRL_C)
    shell.wait_for("^C\npvc@test [130]>")
    assert "\nn1\n" in say(shell, "node list -f name", "\nn1\n")
    say(shell, "!sh -c 'test -t 0 && echo it is $((20 + 3))'", "it is 23")


def test_lines_go_on_over_several(shell: Emulator) -> None:
    say(shell, "vm list |", lambda screen: "…" in [one.strip() for one in screen.splitlines()])
    shell.type("name\r")
    shell.wait_for("\ndb\nold\nweb\n")


def test_the_prompt_follows_the_context_and_the_connection(
    shell: Emulator, whole: Whole, own_files: Path
) -> None:
    assert "vm/web" in say(shell, "use vm web", "vm/web")
    address = f"127.0.0.1:{whole.doors.grpc_port}"
    Connections().add(Connection("prod", (address,), token=whole.secrets["ann"]))
    say(shell, "use connection prod", "pvc@prod>")
    screen = say(shell, "whoami", "token ann")
    assert "vm/web" not in screen
    refused = say(shell, "vm start old", "error:")
    assert "viewer" in refused.lower()


def test_leaving_gives_the_exit_code(shell: Emulator) -> None:
    say(shell, "vm info nowhere", "does not exist")
    shell.type("exit\r")
    assert shell.end() == 4
    assert shell.restored()


def test_a_script_on_a_terminal_asks_nothing_either(
    whole: Whole, tmp_path: Path, own_files: Path
) -> None:
    environment = {
        "PVC_CONNECTION": f"unix:{whole.folder}/run/pvc.sock", "PVC_CONFIG_DIR": str(own_files),
    }  # fmt: skip
    with Emulator("-e", "vm stop web", home=tmp_path, environment=environment) as one:
        assert one.end() == 3


def test_a_shell_with_a_broken_file_of_connections_says_so(tmp_path: Path, own_files: Path) -> None:
    own_files.mkdir()
    (own_files / "connections.toml").write_text("current = 1 2")
    with Emulator(home=tmp_path, environment={"PVC_CONFIG_DIR": str(own_files)}) as one:
        assert one.end() in (1, 2)
        assert "line 1" in one.text
    environment = {"PVC_CONFIG_DIR": str(own_files)}
    with Emulator("-c", "nope", home=tmp_path, environment=environment) as one:
        assert one.end() in (1, 2)
