"""Tab in real shells: keys in, screen out; what stands there comes from a real gateway."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from pvc.compute.v1 import vm_pb2
from pvc_client import Cluster
from shell.commands.completion import KINDS
from shell.completing import answer, arguments_in, completions
from shell.main import pvc
from tests.doors.world import World, world_in
from tests.shell.processes import ENTRY, environment, ran

STARTS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--private", "--no-config", "-i"],
}
SETTINGS = {
    "bash": "PS1='> '; bind 'set show-all-if-ambiguous on'; eval \"$(pvc completion bash)\"",
    "zsh": "PS1='> '; unsetopt beep; autoload -Uz compinit; compinit -u; setopt nolistbeep"
    '; eval "$(pvc completion zsh)"',
    "fish": "function fish_prompt; echo '> '; end; pvc completion fish | source",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("tab")) as world:
        with Cluster(f"unix:{world.socket}") as cluster:
            for name in ("web-shop", "web-blog", "mail"):
                cluster.vms.create(name, vm_pb2.VmSpec(tags=["web"])).result(60)
        yield world


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the command."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "pvc"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{ENTRY}' \"$@\"\n")
    program.chmod(0o755)
    return folder


class Shell:
    """A shell in a terminal."""

    def __init__(self, kind: str, world: World, bin: Path, home: Path) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))
        known = environment(world, HOME=str(home), TERM="xterm", ZDOTDIR=str(home))
        known["PATH"] = f"{bin}:{os.environ['PATH']}"
        # setsid makes the terminal the shell's own; done by Python between fork and exec, it dies
        # there now and then, as threads of gRPC run here.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *STARTS[kind]], stdin=slave, stdout=slave, stderr=slave, env=known,
            cwd=home,
        )  # fmt: skip
        os.close(slave)
        self.picture = pyte.Screen(100, 24)
        self.stream = pyte.ByteStream(self.picture)
        self.type(f" {SETTINGS[kind]}; echo re''ady\r")
        self.until(r"^ready\n> ?$")

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.picture.display if line.strip())

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def until(self, pattern: str, wait_s: float = 60) -> str:
        end = time.monotonic() + wait_s
        while not re.search(pattern, self.text, re.M):
            assert time.monotonic() < end, f"{pattern!r} did not come; the screen:\n{self.text}"
            if select.select([self.master], [], [], 0.1)[0]:
                self._answer(os.read(self.master, 65536))
        return self.text

    def _answer(self, piece: bytes) -> None:
        """Shows it; says what terminals say when they are asked what they are."""
        self.stream.feed(piece)
        if b"\x1b[c" in piece or b"\x1b[0c" in piece:
            os.write(self.master, b"\x1b[?62;c")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(params=list(STARTS))
def shell(
    request: pytest.FixtureRequest, world: World, bin: Path, tmp_path: Path
) -> Iterator[Shell]:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not on this machine; apt-get install {request.param}")
    opened = Shell(request.param, world, bin, tmp_path)
    yield opened
    opened.close()


def test_tab_completes_commands_names_options_and_values(shell: Shell) -> None:
    shell.type("pvc vm snaps\t")
    shell.until("> pvc vm snapshot $|> pvc vm snapshot$")
    shell.type("\x15pvc vm start mai\t")
    shell.until("> pvc vm start mail")
    shell.type("\x15pvc vm list --no-h\t")
    shell.until("> pvc vm list --no-header")
    shell.type("\x15pvc vm list --format=ya\t")
    shell.until("> pvc vm list --format=yaml")
    shell.type("\x15pvc vm list --columns name,memo\t")
    shell.until("> pvc vm list --columns name,memory")


def test_tab_shows_what_there_is(shell: Shell, request: pytest.FixtureRequest) -> None:
    shell.type("pvc vm start web\t")
    shell.until("> pvc vm start web-")
    shell.type("\t")
    seen = shell.until("web-blog[^>]*web-shop|web-shop[^>]*web-blog")
    if "bash" not in request.node.name:
        assert re.search(r"web-.* new|web-.*\(new\)", seen), "each with a few words on it"


def test_tab_completes_files(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "domain of web.xml").touch()
    shell.type("pvc vm define dom\t")
    shell.until(r"> pvc vm define domain\\ of\\ web\.xml|> pvc vm define 'domain of web\.xml'")


def offered(world: World | None, line: str, word: str = "") -> list[str]:
    """What is offered for a line, through the process as a shell runs it."""
    more = {"_PVC_COMPLETE": "bash", "_PVC_LINE": line, "_PVC_WORD": word}
    code, out, err = ran(world, **more)
    assert (code, err) == (0, "")
    return [text.split("\t")[1] for text in out.splitlines()]


def test_values_of_enums_have_meanings() -> None:
    found, _ = completions(pvc, "pvc vm list --filter state=", "")
    told = {one.text: one.help for one in found}
    assert {"running", "stopped", "crashed"} <= told.keys() and all(told.values())


@pytest.mark.parametrize(
    ("line", "word", "expected"),
    [
        ("pvc vm list --filter 'state=run", "'state=run", ["'state=running"]),
        ("pvc vm list --filter state=run", "run", ["running"]),
        ("pvc vm list --sort -memo", "-memo", ["-memory"]),
        ("/usr/bin/pvc vm exp", "exp", ["explain", "export"]),
        ("pvc vm start web-shop ", "", ["mail", "web-blog"]),
        ("pvc --quiet vm start mai", "mai", ["mail"]),
        ("pvc vm nothing ", "", []),
        ("pvc vm start 'we", "'we", ["'web-blog'", "'web-shop'"]),
    ],
)
def test_what_is_offered(world: World, line: str, word: str, expected: list[str]) -> None:
    found = offered(world, line, word)
    assert sorted(found)[: len(expected)] == expected or found == expected


def test_without_a_cluster_there_is_silence(tmp_path: Path) -> None:
    began = time.monotonic()
    assert offered(None, "pvc vm start we", "we") == []
    assert offered(None, f"pvc -c unix:{tmp_path}/none vm start we", "we") == []
    assert offered(None, "pvc -c nowhere.invalid:1 vm start we", "we") == []
    assert time.monotonic() - began < 60
    assert offered(None, "pvc vm sta", "sta") == ["start"], "what needs no cluster is there"


def test_a_broken_line_or_root_disturbs_nobody() -> None:
    out = io.StringIO()
    for line in ("", "pvc", "pvc '", "pvc vm list | grep x > ", "\x00", "pvc " + "x" * 5000):
        assert answer(pvc, {"_PVC_LINE": line, "_PVC_WORD": ""}, out) == 0
    broken: object = None
    assert answer(broken, {"_PVC_LINE": "pvc "}, out) == 1  # type: ignore[arg-type]


def test_the_program_is_found_in_a_line() -> None:
    assert arguments_in("pvc vm list") == "vm list"
    assert arguments_in("X=1 sudo ./bin/pvc vm ") == "vm "
    assert arguments_in("mypvc vm ") == "vm "


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_script_is_installed_where_the_shell_looks(kind: str, tmp_path: Path) -> None:
    code, out, err = ran(None, "completion", "install", kind, HOME=str(tmp_path))
    path = tmp_path / KINDS[kind].usual / KINDS[kind].path
    assert code == 0 and out == f"{path} is written; new shells complete pvc\n"
    assert path.read_text() == ran(None, "completion", kind)[1] == KINDS[kind].script
    assert ("~/." in err) is (kind != "fish")
    again = ran(None, "completion", "install", HOME=str(tmp_path), SHELL=f"/usr/bin/{kind}")
    assert again[0] == 0


def test_an_unknown_shell_is_asked_for() -> None:
    code, _, err = ran(None, "completion", "install", SHELL="/bin/dash")
    assert code == 2 and "which shell? One of bash, zsh, fish" in err


@pytest.mark.parametrize("kind", [one for one in STARTS if shutil.which(one)])
def test_the_shell_takes_the_script(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(KINDS[kind].script)
    subprocess.run([kind, "-n", str(script)], check=True, timeout=60, capture_output=True)
