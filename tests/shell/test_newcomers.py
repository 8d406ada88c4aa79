"""What somebody meets who is new to PVC: words of other tools, commands without an end, help."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from shell import main
from shell.language.context import located
from tests.shell.processes import ran


@pytest.mark.parametrize("words", [(), ("vm",), ("vm", "snapshot"), ("cluster", "fault")])
def test_a_command_without_an_end_shows_what_there_is(words: tuple[str, ...]) -> None:
    code, out, err = ran(None, *words)
    assert (code, out) == (2, "")
    assert err.startswith(" ".join(["Usage: pvc", *words, "[OPTIONS] COMMAND"]))
    assert "Commands:\n" in err and "error:" not in err and "Traceback" not in err


def test_programs_are_told_that_a_command_must_follow(capfd: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PVC_ERRORS", "json")
    assert main.run(["vm"]) == 2
    told = json.loads(capfd.readouterr().err)["error"]
    assert told["reason"] == "USAGE" and told["message"] == "a command must follow"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["get", "vms"], "vm list"),
        (["describe", "nodes", "n1"], "node info"),
        (["list", "networks"], "network list"),
        (["start", "web"], "vm start"),
        (["drain", "n1"], "node drain"),
        (["ls"], "vm list"),
        (["vm", "rm", "web"], "delete"),
        (["vm", "strat"], "start"),
        (["statos"], "status"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_words_of_other_tools_lead_to_the_command(words: list[str], meant: str, capfd: Any) -> None:
    assert main.run(words) == 2
    assert f"Did you mean '{meant}'?" in capfd.readouterr().err
    command, path, _ = located(main.pvc, [*(words[:1] if words[0] == "vm" else []), *meant.split()])
    assert path and not isinstance(command, click.Group), "what is proposed is there"


@pytest.mark.parametrize(
    ("words", "path"),
    [("vms ls", "vm list"), ("nodes show", "node info"), ("tasks ls", "operation list")],
)
def test_other_names_lead_to_commands_that_go_by_their_own(
    words: str, path: str, capfd: Any
) -> None:
    assert main.run([*words.split(), "--help"]) == 0
    assert capfd.readouterr().out.startswith(f"Usage: pvc {path} ")
    assert located(main.pvc, words.split())[1] == path.split()
