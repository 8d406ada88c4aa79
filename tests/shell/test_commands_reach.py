"""Every method of every service is reached by a command: they are read off the contracts, so that
none can be forgotten, and the commands are run against a whole PVC."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import click
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from services.mesh.amend import amend
from shell import main
from shell.commands.table import ALONE, CALLS, OLD, canonical, commands_for, is_alone
from shell.contract.methods import methods
from tests.contract.stage import Stage
from tests.contract.whole import running
from tests.shell.invocations import (
    ALSO,
    APART,
    ENDLESS,
    INVOCATIONS,
    MACHINE,
)
from tests.shell.test_commands import every_command

NOT_RUN = ENDLESS | APART | MACHINE
COMMANDS = {
    canonical(path.partition(" ")[2]): found
    for path, found in every_command()
    if not is_alone(path.partition(" ")[2])
}


def test_every_command_is_in_the_table_and_nothing_else() -> None:
    assert set(COMMANDS) <= set(CALLS), "say in shell/commands/table.py what it is there for"
    assert set(CALLS) <= set(COMMANDS), "the table speaks of commands that are not there"
    assert set(INVOCATIONS) | NOT_RUN >= set(COMMANDS), "show in invocations.py how it is used"
    assert not set(ALONE) & set(CALLS)


def test_every_method_has_a_command() -> None:
    known = {name.partition("/")[2] for name in methods()}
    told = {method for line in CALLS.values() for method in line.split(" ")}
    assert told <= known, "the table speaks of methods that are not there"
    assert told == known, "no command is there for a method"
    assert all(commands_for(method) for method in known)


@pytest.mark.parametrize("path", sorted(set(INVOCATIONS) & set(COMMANDS)))
def test_a_command_asks_for_what_it_is_there_for(
    path: str, pvc: Any, stage: Stage, seen: list[tuple[str, Any]], tmp_path: Path
) -> None:
    ways = [INVOCATIONS[path], *(make for name, make in ALSO if name == path)]
    for make in ways:
        pvc(*path.split(" "), *make(stage, tmp_path))
    asked = {method for method, _ in seen}
    assert set(CALLS[path].split(" ")) <= asked


@pytest.mark.parametrize(
    ("words", "method"),
    [("event watch --all", "WatchEvents"), ("audit watch --all", "WatchAuditEntries"),
     ("vm list --watch", "WatchVms"), ("token list --watch", "WatchTokens")],
)  # fmt: skip
def test_what_is_watched_goes_on_until_ctrl_c(
    words: str, method: str, pvc: Any, stage: Stage, seen: list[tuple[str, Any]]
) -> None:
    stage.vm()
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        pvc(*words.split(" "), code=130)
    finally:
        timer.join()
    assert method in {asked for asked, _ in seen}


def test_a_console_is_attached_to(
    pvc: Any, stage: Stage, seen: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("shell.terminal.attach", opened.append)
    pvc("vm", "console", stage.vm(on=True))
    assert opened and {method for method, _ in seen} == {"AttachConsole"}


def test_the_nodes_are_balanced_and_the_lead_is_handed_over(
    tmp_path: Path, pvc: Any, monkeypatch: Any, seen: list[tuple[str, Any]]
) -> None:
    """In a world of its own: VMs would be placed on the node that is not there."""
    with running(tmp_path / "other") as whole, whole.client() as cluster:
        monkeypatch.setenv("PVC_CONNECTION", f"127.0.0.1:{whole.doors.grpc_port}")
        monkeypatch.setenv("PVC_TOKEN", whole.secrets["eve"])
        stage = Stage(whole, cluster)
        for _ in range(3):
            stage.vm(on=True, memory=vm_pb2.MemorySpec(memory_mib=200_000))
        other = stage.node(memory_mib=1_000_000)
        amend(whole.store, cluster_pb2.Node, other, takes_vms)
        planned, told = pvc("cluster", "balance", "--dry-run")
        assert "node-" in planned, told
        begun = pvc("cluster", "balance", "--no-wait", "--max-moves", "1", "--selector", "memprov")[
            0
        ]
        row = cluster.operations.get(begun.strip().splitlines()[-1])
        assert row.method == "pvc.coordinator.v1.PlacementService/BalanceCluster"
        (asked,) = (request for method, request in seen if method == "BalanceCluster")
        assert asked.max_moves == 1 and asked.selector == vm_pb2.NODE_SELECTOR_MEMPROV
        assert "nothing was changed" in pvc("node", "secondary", "n1", "--dry-run")[0]


def takes_vms(node: cluster_pb2.Node) -> None:
    node.status.migration_host = "10.9.9.9"


@pytest.mark.parametrize(("old", "new"), sorted(OLD.items()))
def test_the_names_of_the_last_major_version_lead_to_the_same(old: str, new: str) -> None:
    assert command_at(old) is command_at(new)


def command_at(path: str) -> click.Command:
    """What the words lead to in the tree."""
    found: click.Command = main.pvc
    for word in path.split(" "):
        assert isinstance(found, click.Group), path
        inner = found.get_command(click.Context(found), word)
        assert inner is not None, f"{path}: there is no {word}"
        found = inner
    return found


def test_the_page_of_commands_is_what_the_tree_makes() -> None:
    from tools.commands_table import PAGE, page

    assert PAGE.read_text() == page(), "run: .venv/bin/python -m tools.commands_table"
