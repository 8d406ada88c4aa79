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


def test_an_empty_list_tells_what_makes_the_first(pvc: Any) -> None:
    for words, first in (
        (["image", "list"], "pvc image build debian-12"),
        (["vm", "list"], "pvc vm create NAME --image IMAGE --start"),
        (["volume", "ls"], "pvc volume create POOL/NAME SIZE"),
    ):
        assert pvc(*words) == ("", f"there is none yet; make one: {first}\n")
        assert pvc(*words, "x*") == ("", "nothing found\n")
        assert pvc(*words, "-f", "json") == ("[]\n", "")


def test_options_go_by_the_names_that_others_give_them(pvc: Any) -> None:
    pvc("vm", "create", "web", "--cpus", "3")
    assert pvc("vm", "info", "web", "--columns", "cpus", "--no-header")[0] == "3\n"
    pvc("network", "create", "lan", "--cidr", "10.9.0.0/24")
    assert pvc("network", "list", "10*", "-f", "name")[0] == ""
    assert pvc("network", "list", "network=10.9.0.0/24", "-f", "name")[0] == "lan\n"
    pvc("network", "delete", "lan", "--yes")
    pvc("vm", "delete", "web", "--yes")


@pytest.mark.parametrize("word", ["rename", "clone"])
def test_a_wrong_new_name_is_told_of_the_word(word: str, pvc: Any, seen: Any) -> None:
    told = pvc("vm", word, "web", "WEB", code=2)[1]
    assert "Invalid value for 'NEW': must be lower-case letters" in told and not seen
