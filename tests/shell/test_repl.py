"""pvc-shell: what it suggests, and what it does with real keys in a real terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster
from shell.live import LiveNames
from shell.main import pvc
from shell.repl import Shell
from shell.session import Session
from shell.suggest import is_fuzzy, suggestions, words_of
from tests.doors.world import World, world_in
from tests.shell.test_terminal import Terminal

PROMPT = b"pvc\x1b[0m>"
NAMES = {"vms": ["web", "web-2", "db"], "networks": ["default"], "nodes": ["n1"]}


def suggested(text: str) -> list[str]:
    return [one.text for one in suggestions(pvc, text, lambda path: NAMES.get(path, []))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vo", ["volume"]),
        ("vm sta", ["start"]),
        ("vm start ", ["web", "web-2", "db"]),
        ("vm start web ", ["web-2", "db"]),
        ("vm start d", ["db"]),
        ("vm start w2", ["web-2"]),
        ("vm list -f js", ["json"]),
        ("vm list --node ", ["n1"]),
        ("vm create web --firmware ", ["bios", "uefi"]),
        ("vm create web --mem", ["--memory", "--max-memory"]),
        ("vm attach-nic web ", ["default"]),
        ("vm rename web ", []),
        ("vm snapshot cr", ["create"]),
        ("task w", ["wait"]),
        ("vm fly ", []),
        ("vm start 'we", ["web", "web-2"]),
    ],
)
def test_suggestions(text: str, expected: list[str]) -> None:
    assert suggested(text)[: len(expected) or 1] == expected


def test_suggestions_say_what_they_mean() -> None:
    found = {one.text: one.help for one in suggestions(pvc, "vm ", lambda _: [])}
    assert found["start"] == "Switch VMs on."
    assert found["snapshot"] == "Snapshots of whole VMs"


def test_an_option_given_once_is_not_offered_again_unless_it_may_repeat() -> None:
    given = suggested("vm create web --memory 1G --tag a --")
    assert "--memory" not in given and "--tag" in given


def test_of_many_names_those_that_begin_so_come_first() -> None:
    many = [f"vm-{n}" for n in range(5000)]
    first, *others = suggestions(pvc, "vm start vm-49", lambda _: many)
    assert first.text == "vm-49"
    assert 110 <= len(others) < 5000


def test_words() -> None:
    assert words_of("") == ([], "")
    assert words_of("vm  start ") == (["vm", "start"], "")
    assert words_of("vm 'a b") == (["vm"], "a b")
    assert words_of("vm it\\") == (["vm"], "it")
    assert is_fuzzy("attach-disk", "atd") and not is_fuzzy("attach", "z")


def test_names_come_from_memory_and_are_fetched_behind_it() -> None:
    asked: list[str] = []

    def fetch(collection: str) -> list[str]:
        asked.append(collection)
        return ["web"]

    names = LiveNames(fetch)
    assert list(names.find("vms")) == []
    end = time.monotonic() + 5
    while not names.find("vms") and time.monotonic() < end:
        time.sleep(0.01)
    assert list(names.find("vms")) == ["web"]
    assert asked == ["vms"]


def test_names_that_cannot_be_had_disturb_nobody() -> None:
    def fetch(_: str) -> list[str]:
        raise OSError

    names = LiveNames(fetch)
    assert list(names.find("vms")) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("repl")) as world:
        with Cluster(f"unix:{world.socket}") as cluster:
            cluster.vms.create("web", vm_pb2.VmSpec()).result(5)
        yield world


def test_a_script_stops_at_the_first_failure(world: World, capfd: Any) -> None:
    shell = Shell(Session(f"unix:{world.socket}"))
    script = ["# a comment", "", "vm list -f name", "pvc vm start nowhere", "vm list -f name"]
    assert shell.read_all(script) == 4
    assert capfd.readouterr().out == "web\n"
    assert shell.run_line("vm 'unclosed") and shell.code == 2
    assert not shell.run_line("exit")
    shell.session.close()


def test_keys_in_screen_out(world: World) -> None:
    terminal = Terminal(world, module="shell.repl")
    try:
        terminal.wait_for(PROMPT)
        terminal.type(b"vm list -f name\r")
        terminal.wait_for(b"web\r\n")
        terminal.screen = b""
        terminal.type(b"vm info web -f js")
        terminal.wait_for(b" json ")
        terminal.type(b"\t")
        terminal.wait_for(lambda screen: screen.count(b"json") > 1)
        terminal.type(b"\r")
        terminal.wait_for(b'"name": "vms/web"')
        terminal.type(b"half a line\x03")
        terminal.type(b"vm console web\r")
        terminal.wait_for(b"web login: ")
        terminal.type(b"hi\r")
        terminal.wait_for(b"HI\r")
        terminal.type(b"\x1d")
        terminal.wait_for(b"left the console of web")
        terminal.type(b"exit\r")
        assert terminal.end() == 0
        assert terminal.restored()
        kept = (Path(world.socket.parent) / ".local/state/pvc/history").read_text()
        assert "+vm list -f name" in kept
    finally:
        terminal.close()
