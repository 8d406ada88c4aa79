"""The command as a whole process: exit codes, signals, pipes, colours."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster
from tests.doors.world import World, world_in
from tests.shell.processes import ENTRY, begun, environment, ran
from tests.shell.test_terminal import Terminal

STOPPED = re.compile(r"pvc operation wait (\w+)")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("processes")) as world:
        with Cluster(f"unix:{world.socket}") as cluster:
            for name in ("web", "db", "slow", "slow2", "slow3", "term", "pty"):
                cluster.vms.create(name, vm_pb2.VmSpec(tags=["web"])).result(60)
            cluster.vms.create("bad", vm_pb2.VmSpec())  # is made, and fails to start
        yield world


@pytest.fixture
def slow(world: World) -> Iterator[World]:
    """The same, but work goes on only when `may_go_on` is set."""
    with world.held():
        yield world


def until(process: subprocess.Popen[str], text: str) -> None:
    """Waits for a text on stderr."""
    assert process.stderr is not None
    end, seen = time.monotonic() + 15, ""
    while text not in seen:
        ended = process.poll()
        assert time.monotonic() < end, f"{text!r} not in {seen!r}"
        came = select.select([process.stderr], [], [], 0.1)[0]
        piece = os.read(process.stderr.fileno(), 4096).decode("utf-8", "replace") if came else ""
        assert piece or ended is None, f"ended with {ended}, {text!r} not in {seen!r}"
        seen += piece


def end_of(process: subprocess.Popen[str]) -> int:
    """The exit code, once it has one."""
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it does not end; it said: {process.communicate()}") from None


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["vm", "list"]),
        (1, ["vm", "start", "bad"]),
        (2, ["vm", "list", "--nonsense"]),
        (2, ["vm", "list", "--filter", "nonsense=1"]),
        (3, ["vm", "delete", "web"]),
        (4, ["vm", "info", "nowhere"]),
        (5, ["-c", "127.0.0.1:1", "vm", "list"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_exit_codes(world: World, code: int, arguments: list[str]) -> None:
    ended, out, err = ran(world, *arguments)
    assert ended == code, err
    assert "Traceback" not in err and "\x1b" not in out + err
    if code:
        assert out == "" and re.match(r"error|declined", err.splitlines()[-2 if code in (1, 4, 5)
                                      else 0]), err  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "field", "arguments"),
    [
        ("NOT_FOUND", "name", ["vm", "info", "nowhere", "-f", "json"]),
        ("USAGE", "", ["vm", "list", "--format=json", "--filter", "nonsense=1"]),
        ("UNREACHABLE", "", ["-c", "127.0.0.1:1", "vm", "list", "-fjson"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else value,
)
def test_programs_get_errors_as_json(
    world: World, reason: str, field: str, arguments: list[str]
) -> None:
    code, out, err = ran(world, *arguments)
    error = json.loads(err)["error"]
    assert (error["reason"], error["field"], error["exit_code"]) == (reason, field, code)
    assert out == "" and error["message"] and error["operation"] == ""


def test_a_failed_operation_is_named_to_programs(world: World) -> None:
    code, _, err = ran(world, "-q", "vm", "start", "bad", PVC_ERRORS="json")
    error = json.loads(err)["error"]
    assert (code, error["reason"]) == (1, "HYPERVISOR_FAILED")
    assert error["operation"].startswith("operations/")
    assert json.loads(ran(world, "vm", "delete", "web", PVC_ERRORS="json")[2])["error"] == {
        "reason": "DECLINED", "exit_code": 3, "field": "", "operation": "",
        "message": "Remove web? Nobody can answer here: add --yes if you mean it.",
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_waiting_is_told_what_goes_on(slow: World, number: signal.Signals) -> None:
    name = "slow" if number == signal.SIGINT else "term"
    process = begun(slow, "vm", "start", name)
    until(process, f"{name}: ")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert out == "" and "the operation goes on" in err and "Traceback" not in err
    operation = STOPPED.search(err)
    assert operation is not None and f"pvc operation cancel {operation.group(1)}" in err
    slow.vms.may_go_on.set()
    assert ran(slow, "operation", "wait", operation.group(1))[0] == 0, "it went on to its end"


def test_of_several_all_that_go_on_are_told(slow: World) -> None:
    process = begun(slow, "vm", "start", "slow2", "web", "nowhere")
    until(process, "slow2: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"these operations go on\.\n  slow2: \w+\n  web: \w+\n", err)


def test_a_second_ctrl_c_leaves_at_once(slow: World) -> None:
    entry = (
        "import shell.main, shell.session, time\n"
        "shell.session.Session.close = lambda self: time.sleep(60)\n" + ENTRY
    )
    process = subprocess.Popen(
        [sys.executable, "-c", entry, "vm", "start", "pty", "--timeout", "60s"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        env=environment(slow), text=True, start_new_session=True,
    )  # fmt: skip
    until(process, "pty: ")
    process.send_signal(signal.SIGINT)
    until(process, "stop it:")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert end_of(process) == 130


def test_waiting_ends_with_the_timeout_and_the_operation_goes_on(slow: World) -> None:
    code, _, err = ran(slow, "vm", "start", "slow3", "--timeout", "1s")
    assert code == 1 and "hint: wait again: pvc operation wait " in err
    operation = STOPPED.search(err)
    slow.vms.may_go_on.set()
    assert operation is not None and ran(slow, "operation", "wait", operation.group(1))[0] == 0


def test_a_reader_that_leaves_is_no_failure(world: World) -> None:
    process = begun(world, "vm", "list", "-w")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with Cluster(f"unix:{world.socket}") as cluster:
        cluster.vms.create("leaving", vm_pb2.VmSpec()).result(60)
    assert end_of(process) == 0
    assert process.stderr.read() == ""


def test_a_list_that_goes_on_is_a_line_for_each_change(world: World) -> None:
    with Cluster(f"unix:{world.socket}") as cluster:
        cluster.vms.create("new0", vm_pb2.VmSpec()).result(60)
        process = begun(world, "vm", "list", "-w", "new*", "-f", "json")
        assert process.stdout is not None
        changes = [json.loads(process.stdout.readline())]
        cluster.vms.create("new1", vm_pb2.VmSpec(), labels={"a": "b"}).result(60)
        cluster.vms.delete("new1").result(60)
        while changes[-1]["kind"] != "CHANGE_KIND_DELETED":
            changes.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    assert end_of(process) == 130
    told = [(one["kind"], one["vm"]["name"]) for one in changes]
    assert told[0] == ("CHANGE_KIND_PRESENT", "vms/new0")
    assert ("CHANGE_KIND_ADDED", "vms/new1") in told and told[-1][1] == "vms/new1"
    assert int(changes[-1]["revision"]) > int(changes[1]["revision"]) > 0


def coloured(text: str | bytes) -> bool:
    found = text.encode() if isinstance(text, str) else text
    return re.search(rb"\x1b\[\d*m", found) is not None


def test_colours_in_pipes_are_for_those_who_insist(world: World) -> None:
    assert not coloured(ran(world, "vm", "list")[1])
    assert coloured(ran(world, "vm", "list", CLICOLOR_FORCE="1")[1])
    assert coloured(ran(world, "--colour", "vm", "list", NO_COLOR="1")[1])
    assert not coloured(ran(world, "vm", "list", CLICOLOR_FORCE="1", NO_COLOR="1")[1])


@pytest.mark.parametrize(
    ("expected", "arguments", "more"),
    [
        (True, [], {}),
        (False, [], {"NO_COLOR": ""}),
        (False, ["--no-colour"], {}),
        (False, [], {"TERM": "dumb"}),
    ],
)
def test_colours_on_a_terminal(
    world: World, expected: bool, arguments: list[str], more: dict[str, str]
) -> None:
    terminal = Terminal(world, *arguments, "vm", "list", **more)
    assert terminal.end() == 0
    assert coloured(terminal.screen) is expected
    terminal.close()


def test_a_dumb_terminal_gets_lines_instead_of_bars(world: World) -> None:
    terminal = Terminal(world, "vm", "reset", "bad", "--yes", TERM="dumb")
    terminal.end()
    assert b"\x1b" not in terminal.screen
    terminal.close()


def test_quiet_says_nothing_but_errors(world: World) -> None:
    assert ran(world, "-q", "vm", "modify", "db", "--memory", "2G") == (0, "", "")
    assert ran(world, "-q", "vm", "info", "nowhere")[2].startswith("error: ")


def test_the_version(world: World) -> None:
    code, out, _ = ran(None, "--version")
    assert code == 0 and re.fullmatch(r"pvc, version \S+\n", out)


def test_a_closed_stdout_is_no_traceback(world: World, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-c", ENTRY, "vm", "list"], stdout=full, stderr=subprocess.PIPE,
            env=environment(world), text=True, timeout=60, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    assert "No space left" in process.stderr and "Traceback" not in process.stderr


def test_debug_shows_every_call_on_stderr(world: World) -> None:
    code, out, err = ran(world, "--debug", "vm", "modify", "db", "--memory", "3G")
    assert (code, out) == (0, "vm db is changed\n")
    called = r"OK +\d+\.\d ms  pvc\.\w+\.v1\.{}  unix:\S+{}\n"
    assert re.search(called.format("VmService/GetVm", ""), err)
    assert re.search(called.format("VmService/UpdateVm", r"  request_id=\w{32}"), err)
    assert re.search(called.format("OperationService/WatchOperations", ""), err)
    code, out, err = ran(world, "-v", "vm", "info", "nowhere")
    assert (code, out) == (4, "") and "Traceback" not in err
    assert re.match(r"NOT_FOUND +\d+\.\d ms  pvc\.compute\.v1\.VmService/GetVm ", err)


def test_debug_shows_where_a_mistake_of_ours_is(world: World) -> None:
    broken = (
        "import shell.session\n"
        "shell.session.Session.show_many = lambda *_: 1 / 0\n" + ENTRY
    )  # fmt: skip
    for arguments, traced in (([], False), (["--debug"], True)):
        process = subprocess.run(
            [sys.executable, "-c", broken, *arguments, "vm", "list"], capture_output=True,
            env=environment(world), text=True, timeout=60, check=False,
        )  # fmt: skip
        assert process.returncode == 1
        assert "error: pvc has a mistake: ZeroDivisionError" in process.stderr
        assert ("Traceback" in process.stderr) is traced


def test_a_log_that_goes_on_is_added_to(world: World) -> None:
    """New lines stand under the titles of the first."""
    ran(world, "token", "create", "log-1", "--role", "viewer")
    process = begun(world, "event", "list", "--subject", "tokens/log-*", "--watch")
    assert process.stdout is not None
    head, first = process.stdout.readline(), process.stdout.readline()
    ran(world, "token", "create", "log-2", "--role", "viewer")
    second = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert end_of(process) == 130
    assert head.split()[:3] == ["TIME", "SEVERITY", "MESSAGE"]
    at = head.index("MESSAGE")
    assert first[at:].startswith("token log-1 made") and second[at:].startswith("token log-2 made")
