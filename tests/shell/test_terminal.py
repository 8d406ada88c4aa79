"""The console in a real pseudo-terminal: keys in, screen out, and the terminal as it was."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster
from shell.terminal import tamed
from tests.doors.world import World, world_in

ROOT = Path(__file__).parents[2]
PATHS = ":".join(str(ROOT / part) for part in ("", "clients/python/src", "clients/python/gen"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("console")) as world:
        with Cluster(f"unix:{world.socket}") as cluster:
            cluster.vms.create("web", vm_pb2.VmSpec()).result(60)
        yield world


class Terminal:
    """A program in a terminal."""

    def __init__(
        self, world: World, *arguments: str, module: str = "shell.main", **more: str
    ) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        termios.tcsetwinsize(slave, (24, 80))
        self.before = termios.tcgetattr(slave)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": PATHS,
            "PVC_CONNECTION": f"unix:{world.socket}",
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "HOME": str(world.socket.parent),
            **more,
        }
        entry = f"from {module} import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", entry, *arguments],
            stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
        )  # fmt: skip
        self.screen = b""

    def wait_for(self, text: bytes | Callable[[bytes], bool], timeout_s: float = 60) -> None:
        met = text if callable(text) else lambda screen: text in screen
        end = time.monotonic() + timeout_s
        while not met(self.screen):
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come; the screen: {self.screen!r}"
            ended = self.process.poll() is not None
            assert self._read(min(left, 0.2)) or not ended, (
                f"it ended with {self.process.returncode}; the screen: {self.screen!r}"
            )

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self, timeout_s: float = 60) -> int:
        """Reads on meanwhile: who writes more than a terminal holds would wait for ever."""
        end = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end; the screen: {self.screen!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def _read(self, wait_s: float) -> bool:
        if not select.select([self.master], [], [], wait_s)[0]:
            return False
        self.screen += os.read(self.master, 65536)
        return True

    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def console(world: World) -> Iterator[Terminal]:
    terminal = Terminal(world, "vm", "console", "web")
    terminal.wait_for(b"web login: ")
    yield terminal
    terminal.close()


def test_keys_go_in_and_the_guest_comes_out(console: Terminal) -> None:
    assert console.is_raw()
    console.type(b"root\r")
    console.wait_for(b"ROOT\r")
    console.type(b"\x03\x1a")
    console.wait_for(b"\x03\x1a")
    console.type(b"\x1d")
    assert console.end() == 0
    assert console.restored()
    assert b"left the console of web" in console.screen


def test_the_end_of_the_console_ends_the_command(console: Terminal) -> None:
    console.type(b"\x04")
    assert console.end() == 0
    assert console.restored()


def test_a_resized_window_is_harmless(console: Terminal) -> None:
    for _ in range(5):
        os.kill(console.process.pid, signal.SIGWINCH)
    console.type(b"still\r")
    console.wait_for(b"STILL\r")
    console.type(b"\x1d")
    assert console.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(console: Terminal, number: signal.Signals) -> None:
    os.kill(console.process.pid, number)
    assert console.end() == 128 + number
    assert console.restored()


def test_the_console_of_no_vm_never_makes_the_terminal_raw(world: World) -> None:
    terminal = Terminal(world, "vm", "console", "nowhere")
    assert terminal.end() == 4
    assert terminal.restored()
    terminal.close()


def test_a_server_that_goes_away_is_said_and_the_terminal_restored(tmp_path: Path) -> None:
    with world_in(tmp_path) as world:
        with Cluster(f"unix:{world.socket}") as cluster:
            cluster.vms.create("web", vm_pb2.VmSpec()).result(60)
        terminal = Terminal(world, "vm", "console", "web")
        terminal.wait_for(b"web login: ")
    assert terminal.end() in (1, 5)
    assert terminal.restored()
    assert b"error:" in terminal.screen
    terminal.close()


def test_a_confirmation_is_asked_on_the_terminal(world: World) -> None:
    terminal = Terminal(world, "vm", "delete", "web")
    terminal.wait_for(b"Remove web?")
    terminal.wait_for(b"[y/N] ")
    terminal.type(b"n\r")
    assert terminal.end() == 3
    terminal.close()


def test_ctrl_c_at_a_question_is_no(world: World) -> None:
    terminal = Terminal(world, "vm", "delete", "web")
    terminal.wait_for(b"[y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert b"nothing was changed" in terminal.screen
    terminal.close()
    with Cluster(f"unix:{world.socket}") as cluster:
        assert cluster.vms.get("web").name == "vms/web"


def test_progress_is_shown_on_one_line(world: World) -> None:
    with world.held():
        terminal = Terminal(world, "vm", "start", "web")
        terminal.wait_for(b"%")
    terminal.wait_for(b"vm web runs")
    assert terminal.end() == 0
    assert b"\r\x1b[K" in terminal.screen
    assert re.search(rb"\[#+\.+\] +[1-9][0-9]?%", terminal.screen), "it is seen half done"
    terminal.close()


def test_logs_cannot_play_with_the_terminal() -> None:
    assert tamed(b"a\x1b[2Jb\x07\r\n\tc\x00") == b"ab\r\n\tc"
    assert tamed(b"\x1b[1;31mred\x1b[0m \x1b[6n\x1b]0;title\x07\x1b(B\x1bcx") == b"red x"
    assert tamed("\x9b2Jé\x90".encode()) == "2Jé".encode(), "C1 controls, and no letters"
    assert tamed(b"cut \x1b[2") == b"cut [2", "never the escape itself"
