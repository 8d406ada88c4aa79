"""pvc-shell as a person has it: real keys in a pseudo-terminal, and what is on the screen then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from shell.failures import UNREACHABLE
from tests.contract.whole import Thread, Whole, running
from tests.shell.emulator import Emulator, golden, keep

CTRL_C, CTRL_D, CTRL_R, CTRL_G, CTRL_BRACKET = "\x03", "\x04", "\x12", "\x07", "\x1d"
ESCAPE, ENTER, TAB = "\x1b", "\r", "\t"
F2, F4, DOWN, ALT_ENTER = "\x1bOQ", "\x1bOS", "\x1b[B", "\x1b\r"
READY = "nodes 1/1"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with running(tmp_path_factory.mktemp("screen")) as whole:
        with whole.client() as client:
            for name in ("web", "web-2", "db"):
                client.vms.create(name, vm_pb2.VmSpec()).result(20)
            client.vms.start("web").result(20)
        whole.calm()
        yield whole


Start = Callable[..., Emulator]


@pytest.fixture
def start(whole: Whole, tmp_path: Path) -> Iterator[Start]:
    """Starts shells at the local socket; they end with the test."""
    begun: list[Emulator] = []

    def begin(columns: int = 80, rows: int = 24, ready: str = READY, **more: str) -> Emulator:
        address = more.pop("PVC_CONNECTION", f"unix:{whole.folder}/run/pvc.sock")
        environment = {"PVC_CONNECTION": address, "PAGER": "cat"} | more
        begun.append(Emulator(home=tmp_path, columns=columns, rows=rows, environment=environment))
        begun[-1].wait_for(ready)
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def typed(shell: Emulator, keys: str, wanted: str, gone: str = "") -> str:
    """Types, waits for something on the screen, and gives it once it is still. After a line it is
    at the prompt again: keys that come before would be the command's."""
    shell.type(keys)
    shell.wait_for(wanted, gone=gone)
    if keys.endswith(ENTER):
        shell.wait_until_raw()
    return shell.settle()


PAGES = (
    ("", READY, ""),
    ("vm st", "Press the reset button", ""),
    ("art w", "stopped  n1", ""),
    (TAB, "State running", ""),
    (f"{CTRL_C}vm list --filter 'state=", "stopping", ""),
    (f"{CTRL_C}{F2}volume li", "List", "│ --filter"),
)
"""What is typed, what is waited for, and what is to be gone then."""


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
def test_screens(start: Start, columns: int, rows: int) -> None:
    shell, name = start(columns, rows), f"screen-{columns}.txt"
    made: list[str] = []
    for (keys, wanted, gone), page in zip(PAGES, golden(name, len(PAGES)), strict=True):
        if page is None:
            made.append(typed(shell, keys, wanted, gone))
        else:
            shell.type(keys)
            shell.wait_for_page(page)
    if made:
        keep(name, made)
    shell.wait_for_style("volume", "green".__eq__)


def test_a_line_is_completed_and_run(start: Start) -> None:
    shell = start()
    typed(shell, "vm info d", "stopped  n1")
    typed(shell, f"{TAB}-f nam", "names alone")
    screen = typed(shell, f"{TAB}{ENTER}", "\ndb\n")
    assert "vm info db -f name" in screen
    assert "[" not in screen.split("pvc@")[-1].split(">")[0]


def test_names_are_coloured_by_whether_they_exist(start: Start) -> None:
    shell = start()
    typed(shell, "vm start web old ", "vm start web old")
    shell.wait_for_style("web old", "magenta".__eq__)
    shell.wait_for_style("old", "red".__eq__)
    shell.wait_for_style("vm start web old", "green".__eq__)


def test_the_exit_status_is_shown(start: Start) -> None:
    shell = start()
    typed(shell, f"vm info nowhere{ENTER}", "[4]>")
    typed(shell, f"vm fly{ENTER}", "[2]>")
    typed(shell, f"vm list -f name{ENTER}", "web-2\npvc@test>")


def test_an_unfinished_line_goes_on_and_alt_enter_makes_a_new_one(start: Start) -> None:
    shell = start()
    typed(shell, f"vm list -f{ESCAPE}[C \\{ENTER}", "… ")
    typed(shell, f"name{ENTER}", "web-2\npvc@")
    typed(shell, f"vm list 'd{ENTER}", "… ")
    typed(shell, CTRL_C, "pvc@test>\n", gone="zzz")
    typed(shell, f"vm list{ALT_ENTER}", "… ")


def test_a_paste_waits_for_enter(start: Start) -> None:
    shell = start()
    screen = typed(shell, "\x1b[200~vm list -f name\nnode list -f name\n\x1b[201~", "node list")
    assert "web-2" not in screen


def test_history_is_suggested_searched_and_kept_without_secrets(start: Start) -> None:
    shell = start()
    typed(shell, f"vm list -f name db{ENTER}", "\ndb\n")
    typed(shell, f"bmc set n1 --password hunter2{ENTER}", "[2]>")
    typed(shell, "vm l", "vm list -f name db")
    suggested = "ist -f name db"
    shell.wait_for_style(suggested, lambda colour: colour not in ("default", "green"))
    typed(shell, f"{CTRL_C}{CTRL_R}", "history>")
    typed(shell, "nadb", "  vm list -f name db\n")
    typed(shell, ENTER, "pvc@test [2]> vm list -f name db", gone="history>")
    typed(shell, f"{CTRL_C}{CTRL_R}bmc", "  bmc set n1 --password\n")
    typed(shell, CTRL_G, "pvc@test [2]>", gone="history>")
    shell.type(f"exit{ENTER}")
    assert shell.end() == 2, "the code of the last command, as other shells have it"
    assert shell.restored()
    kept = (Path(shell.home) / ".local/state/pvc/history").read_text()
    assert "+vm list -f name db" in kept and "hunter2" not in kept


def test_vi_keys(start: Start) -> None:
    shell = start()
    typed(shell, F4, "vi insert")
    typed(shell, "vm listx", "vm listx")
    typed(shell, ESCAPE, "vi normal")
    typed(shell, "x0", "vm list\n", gone="vm listx")
    typed(shell, F4, "emacs")


def test_a_new_vm_appears_in_the_menu_and_the_counts(start: Start, whole: Whole) -> None:
    shell = start()
    shell.wait_for("VMs 1/3")
    with whole.client() as client:
        client.vms.create("appeared", vm_pb2.VmSpec()).result(20)
        shell.wait_for("VMs 1/4")
        typed(shell, "vm start app", "stopped  n1")
        client.vms.delete("appeared").result(20)
    shell.wait_for("VMs 1/3")


def test_the_console_is_inside_and_the_prompt_comes_back(start: Start) -> None:
    shell = start()
    shell.type(f"vm console web{ENTER}")
    shell.wait_for("leaves it")
    shell.wait_until_raw()
    shell.type(f"the fake says it back{CTRL_C}")
    shell.wait_for("the fake says it back")
    assert not shell.restored(), "the terminal is raw meanwhile"
    typed(shell, CTRL_BRACKET, READY)
    assert "pvc@test>" in shell.text.split("left the console")[1]
    typed(shell, "vm li", "List VMs")


def test_a_question_can_be_answered_and_left(start: Start, whole: Whole) -> None:
    shell = start()
    shell.type(f"vm delete db{ENTER}")
    shell.wait_for("[y/N]")
    assert "db" in shell.text.split("[y/N]")[0]
    typed(shell, CTRL_C, "[130]>")
    shell.type(f"vm delete db{ENTER}")
    shell.wait_for(lambda screen: screen.count("[y/N]") == 2)
    typed(shell, f"n{ENTER}", "[3]>")
    with whole.client() as client:
        assert client.vms.get("db").name == "vms/db"


def test_a_long_text_goes_through_the_pager(start: Start) -> None:
    shell = start(PAGER="less", LESS="", LC_ALL="C.UTF-8")
    shell.type(f"vm create --help{ENTER}")
    shell.wait_for("\n:", gone="nodes 1/1")
    typed(shell, "q", READY)
    typed(shell, f"vm list -f name{ENTER}", "web-2\npvc@")


def test_leaving(start: Start) -> None:
    shell = start()
    shell.type(CTRL_D)
    assert shell.end() == 0 and shell.restored()


def test_a_window_that_changes_its_size(start: Start) -> None:
    shell = start(80, 24)
    typed(shell, "vm start ", "running  n1")
    shell.resize(50, 16)
    typed(shell, "w", "vm start w")
    assert all(len(line) <= 50 for line in shell.lines)
    shell.resize(120, 40)
    typed(shell, "e", "vm start we")


class Again(Whole):
    """On a store that has its tokens already."""

    def tokens(self) -> dict[str, str]:
        return {}


@contextmanager
def standing(folder: Path) -> Iterator[tuple[Whole, Callable[[], None], Callable[[], None]]]:
    """A PVC with a way to take it away and to bring it back at the same address."""
    first = Whole(folder)
    first.first_rows()
    threads = [Thread(first)]
    threads[0].start()

    def away() -> None:
        threads[-1].stop()

    def back() -> None:
        again = Again(folder, first.store)
        again.disks, again.hypervisor = first.disks, first.hypervisor
        threads.append(Thread(again))
        threads[-1].start()

    try:
        yield first, away, back
    finally:
        threads[-1].stop()


def test_the_cluster_goes_away_and_comes_back(start: Start, tmp_path: Path) -> None:
    with standing(tmp_path / "cluster") as (whole, away, back):
        with whole.client() as client:
            client.vms.create("web", vm_pb2.VmSpec()).result(20)
        shell = start(PVC_CONNECTION=f"unix:{whole.folder}/run/pvc.sock")
        shell.wait_for("VMs 0/1")
        away()
        shell.wait_for("is away, reconnecting")
        typed(shell, "vm start we", "stopped  n1")
        typed(shell, f"{CTRL_C}vm list{ENTER}", f"[{UNREACHABLE}]>")
        back()
        shell.wait_for("VMs 0/1", gone="reconnecting")
        typed(shell, f"vm list -f name{ENTER}", "web\npvc@")


def test_the_prompt_is_there_at_once(start: Start) -> None:
    spent = []
    for _ in range(3):
        shell = start(ready="pvc@")
        spent.append(shell.spent_s())
        shell.close()
    assert min(spent) < 2, "the processor's time: this machine may be busy with something else"


def test_no_thread_is_left() -> None:
    assert not [one for one in threading.enumerate() if one.name in ("pulse", "live-vms")]


def test_what_goes_on_behind_is_told_above_the_prompt(start: Start, whole: Whole) -> None:
    shell = start()
    with whole.hypervisor.held:  # nothing is started meanwhile
        shell.type(f"vm start db{ENTER}")
        shell.wait_for("%")
        typed(shell, CTRL_C, "[130]>")
        assert "the operation goes on" in shell.text
        typed(shell, "vm st", "StartVm db")
    shell.wait_for("[done] StartVm db", gone="StartVm db 0%")
    shell.wait_for("[130]> vm st")  # what was being typed is there still
    with whole.client() as client:
        client.vms.stop("db").result(20)


def test_nothing_is_drawn_while_nothing_changes(start: Start) -> None:
    shell = start()
    typed(shell, "vm info w", "running  n1")
    end = time.monotonic() + 60
    while shell.read(2.0):
        assert time.monotonic() < end, "it is never still for two seconds"


def test_a_pipe_and_a_context_are_completed(start: Start) -> None:
    shell = start()
    typed(shell, "vm list | wh", "Keep the rows")
    typed(shell, f"{TAB}state=ru", "Running")
    typed(shell, f"{TAB}| count{ENTER}", "\n1\npvc@")
    typed(shell, f"use vm we{TAB}{ENTER}{ENTER}", "vm/web>")
    typed(shell, "sto", "Switch VMs off")
    typed(shell, f"{CTRL_C}unuse{ENTER}", "pvc@test>\n")


def test_settings_hold_at_once_and_for_later_shells(start: Start, tmp_path: Path) -> None:
    shell = start()
    typed(shell, f"set --keep keys v{TAB}{ENTER}", "vi insert")
    typed(shell, f"set --keep help off{ENTER}", "F2 help", gone="────")
    shell.type(f"exit{ENTER}")
    assert shell.end() == 0
    assert 'keys = "vi"' in (tmp_path / ".config/pvc/shell.toml").read_text()
    again = start()
    again.wait_for("vi insert", gone="────")


def test_the_title_of_the_terminal(start: Start) -> None:
    shell = start()
    shell.wait_for("pvc@test>")
    shell.type(ENTER)
    shell.wait_for(lambda _: shell.screen.title == "pvc@test")
    shell.type(f"vm console web{ENTER}")
    shell.wait_for("leaves it")
    shell.wait_until_raw()
    shell.wait_for(lambda _: shell.screen.title == "vm console web — pvc@test")
    typed(shell, CTRL_BRACKET, READY)


def test_no_colours_where_nobody_wants_them(start: Start) -> None:
    shell = start(NO_COLOR="1")
    typed(shell, "vm start web ", "vm start web")
    shell.wait_for_style("vm start web", "default".__eq__)


def test_a_token_that_is_refused_is_told(start: Start, whole: Whole) -> None:
    door = f"127.0.0.1:{whole.doors.grpc_port}"
    shell = start(ready=f"{door}: ", PVC_CONNECTION=door, PVC_TOKEN="nobody~wrong")
    shell.wait_for(lambda screen: "token" in screen.split(f"{door}: ")[-1])
    typed(shell, f"vm list{ENTER}", "[1]>")


def test_another_cluster_is_followed_after_a_switch(start: Start, tmp_path: Path) -> None:
    with standing(tmp_path / "other") as (other, _, _):
        with other.client() as client:
            client.vms.create("elsewhere", vm_pb2.VmSpec()).result(20)
        shell = start()
        socket = f"unix:{other.folder}/run/pvc.sock"
        typed(shell, f"connection add lab --address {socket}{ENTER}", "lab")
        typed(shell, "use connection l", "unix:")
        shell.type(f"ab{ENTER}")
        shell.wait_for("VMs 0/1")
        assert "pvc@lab>" in shell.text
        typed(shell, "vm start else", "elsewhere  stopped  n1")


def test_what_is_inside_of_a_thing_is_completed(start: Start, whole: Whole) -> None:
    with whole.client() as client:
        client.vms.snapshots.create("db/before", "the update").result(20)
        nic = vm_pb2.NicSpec(id="lan", network="networks/default")
        client.vms.attach_nic("db", nic).result(20)
    shell = start()
    typed(shell, "vm snapshot remove db ", "before  the update")
    typed(shell, f"{CTRL_C}vm detach-nic db l", "lan    default")
    with whole.client() as client:
        client.vms.snapshots.delete("db/before").result(20)
        client.vms.detach_nic("db", "lan").result(20)
