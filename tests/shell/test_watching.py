"""Lists that go on: keys in, screen out, in a real pseudo-terminal; lines in a pipe."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyte
import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import meta_pb2
from pvc_client import Cluster, errors
from shell import columns, watching
from shell.choices import sort_keys
from shell.listing import Listing, Plan, Source
from shell.render import Output
from shell.session import Session
from tests.doors.world import World, world_in
from tests.shell.test_terminal import Terminal


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_in(tmp_path_factory.mktemp("watching")) as world:
        yield world


class Screen:
    """What somebody sees of a terminal."""

    def __init__(self, terminal: Terminal, lines: int = 24, wide: int = 80) -> None:
        self.terminal = terminal
        self.picture = pyte.Screen(wide, lines)
        self.stream = pyte.ByteStream(self.picture)
        self.bytes = b""

    def read(self, wait_s: float = 0.1) -> bytes:
        found = b""
        while select.select([self.terminal.master], [], [], wait_s)[0]:
            found += os.read(self.terminal.master, 65536)
            wait_s = 0.02
        self.stream.feed(found)
        self.bytes += found
        return found

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.picture.display if line.strip()]

    def until(self, met: Callable[[list[str]], bool]) -> list[str]:
        end = time.monotonic() + 60
        while not met(self.lines):
            ended = self.terminal.process.poll()
            assert time.monotonic() < end, f"did not come; the screen: {self.lines}"
            assert self.read() or ended is None, f"it ended with {ended}; the screen: {self.lines}"
        return self.lines

    def resize(self, lines: int, wide: int) -> None:
        self.picture.resize(lines, wide)
        termios.tcsetwinsize(self.terminal.slave, (lines, wide))
        self.terminal.process.send_signal(signal.SIGWINCH)


def made(world: World, *names: str, **spec: Any) -> None:
    with Cluster(f"unix:{world.socket}") as cluster:
        for name in names:
            cluster.vms.create(name, vm_pb2.VmSpec(**spec)).result(60)


@pytest.fixture
def screen(world: World) -> Iterator[Screen]:
    made(world, "live-a", description="x" * 90)
    terminal = Terminal(world, "vm", "list", "live-*", "-w", "--sort", "-name")
    yield Screen(terminal)
    terminal.close()
    with Cluster(f"unix:{world.socket}") as cluster:
        for vm in list(cluster.vms.list(filter='name = "vms/live-*"')):
            cluster.vms.delete(vm.name).result(60)


def rows(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith("live-")]


def test_a_live_table_follows_the_changes(world: World, screen: Screen) -> None:
    screen.until(lambda lines: rows(lines) == ["live-a"])
    made(world, "live-b")
    lines = screen.until(lambda lines: rows(lines) == ["live-b", "live-a"])
    assert lines[0].startswith("NAME") and re.match("2 in all, as of .*; q or Ctrl-C", lines[-1])
    with Cluster(f"unix:{world.socket}") as cluster:
        cluster.vms.delete("live-a").result(60)
    screen.until(lambda lines: rows(lines) == ["live-b"])


def test_it_is_painted_in_place_and_only_when_something_changed(
    world: World, screen: Screen
) -> None:
    screen.until(lambda lines: rows(lines) == ["live-a"])
    screen.read(0.3)
    made(world, "live-b")
    screen.until(lambda lines: len(rows(lines)) == 2)
    assert b"\x1b[2J" not in screen.bytes, "the screen is never blank in between"
    frames = screen.bytes.count(b"\x1b[?2026h")
    assert frames == screen.bytes.count(b"\x1b[?2026l") <= 10


def test_a_resized_window_is_filled_anew(world: World, screen: Screen) -> None:
    made(world, *(f"live-{i}" for i in range(12)))
    screen.until(lambda lines: len(rows(lines)) == 13)
    screen.resize(8, 40)
    lines = screen.until(lambda lines: len(rows(lines)) == 4)
    assert "… 9 more" in lines[-2] and all(len(line) <= 40 for line in lines)
    screen.resize(30, 100)
    screen.until(lambda lines: len(rows(lines)) == 13)


@pytest.mark.parametrize(("keys", "code"), [(b"q", 0), (b"", 130)])
def test_leaving_restores_the_terminal_and_keeps_the_last_table(
    screen: Screen, keys: bytes, code: int
) -> None:
    screen.until(lambda lines: rows(lines) == ["live-a"])
    assert not termios.tcgetattr(screen.terminal.slave)[3] & termios.ECHO
    if keys:
        screen.terminal.type(keys)
    else:
        screen.terminal.process.send_signal(signal.SIGINT)
    assert screen.terminal.end() == code
    assert screen.terminal.restored()
    left = screen.terminal.screen.partition(b"\x1b[?1049l")[2]
    assert b"\x1b[?25h\x1b[?1049l" in screen.terminal.screen and b"live-a" in left


def test_a_signal_restores_the_terminal(screen: Screen) -> None:
    screen.until(lambda lines: rows(lines) == ["live-a"])
    screen.terminal.process.send_signal(signal.SIGTERM)
    assert screen.terminal.end() == 143
    assert screen.terminal.restored()


def test_bars_of_several_are_one_below_the_other(world: World) -> None:
    made(world, "bar-1", "bar-22")
    with world.held():
        terminal = Terminal(world, "vm", "start", "bar-1", "bar-22")
        screen = Screen(terminal)
        lines = screen.until(lambda lines: len(lines) == 2 and all("10%" in one for one in lines))
    shape = r"{}  \[##\.{{18}}\]  10%  \d\.\ds  choosing a node"
    assert re.fullmatch(shape.format("bar-1 "), lines[0])
    assert re.fullmatch(shape.format("bar-22"), lines[1])
    assert screen.until(lambda lines: len(lines) == 2 and "runs" in lines[1]) == [
        "vm bar-1 runs", "vm bar-22 runs",
    ]  # fmt: skip
    assert terminal.end() == 0
    terminal.close()


def test_ctrl_c_among_bars_leaves_a_clean_screen(world: World) -> None:
    made(world, "cut-1", "cut-2")
    with world.held():
        terminal = Terminal(world, "vm", "start", "cut-1", "cut-2")
        screen = Screen(terminal)
        screen.until(lambda lines: len(lines) == 2 and all("%" in one for one in lines))
        terminal.process.send_signal(signal.SIGINT)
        lines = screen.until(lambda lines: any("stop it:" in one for one in lines))
        assert not [line for line in lines if "[#" in line], "no bar is left"
        assert terminal.end() == 130
    terminal.close()


def test_a_picture_fits_the_screen() -> None:
    lines = [f"line {i}" for i in range(10)]
    picture = watching.framed(lines, "note", 6, 80, colour=False).split("\r\n")
    assert [one.removesuffix("\x1b[K") for one in picture] == [
        "line 0", "line 1", "line 2", "… 7 more", "", "note",
    ]  # fmt: skip
    assert len(watching.framed(lines, "note", 1, 80, colour=False).split("\r\n")) == 1


@dataclass
class Change:
    kind: int
    resource: Any = None
    revision: int = 0


class Stream(list[Change]):
    def close(self) -> None:
        pass


class Vms:
    """A collection whose watch breaks off in a certain way, or that has none."""

    kind = vm_pb2.Vm

    def __init__(self, *streams: Any) -> None:
        self.streams = list(streams)

    def watch(self, *, filter: str) -> Iterator[Change]:
        found = self.streams.pop(0)
        if isinstance(found, Exception):
            raise found

        class Opened:
            def __iter__(self) -> Iterator[Change]:
                for one in found:
                    if isinstance(one, Exception):
                        raise one
                    yield one

            def close(self) -> None:
                pass

        return Opened()  # type: ignore[return-value]


def change(kind: int, name: str = "", revision: int = 0, memory: int = 0) -> Change:
    row = vm_pb2.Vm(name=f"vms/{name}") if name else None
    if row is not None:
        row.spec.memory.memory_mib = memory
    return Change(kind, row, revision)


def streamed(collection: Any, capsys: Any, output: Output, sort: str = "", limit: int = 0) -> str:
    keys = sort_keys(columns.VM, vm_pb2.Vm.DESCRIPTOR, sort)
    source = Source(collection, columns.VM, "vms")
    asked = Listing(output, sort=sort, limit=limit, watch=True)
    watching.watch(Session("127.0.0.1:1"), asked, source, Plan("", keys))
    return str(capsys.readouterr().out)


CHANGES = [
    change(meta_pb2.CHANGE_KIND_PRESENT, "a", memory=1024),
    change(meta_pb2.CHANGE_KIND_PRESENT, "b", memory=2048),
    change(meta_pb2.CHANGE_KIND_BOOKMARK, revision=5),
    change(meta_pb2.CHANGE_KIND_MODIFIED, "a-long-name", 6, 512),
    change(meta_pb2.CHANGE_KIND_DELETED, "b", 7),
]


def test_lines_in_a_pipe(capsys: Any) -> None:
    shown = streamed(Vms(CHANGES), capsys, Output(columns="name,memory"), "-memory")
    assert shown == (
        "CHANGE   NAME  MEMORY\n"
        "present  b         2G\n"
        "present  a         1G\n"
        "modified  a-long-name    512M\n"
        "deleted   b\n"
    )
    shown = streamed(Vms(CHANGES), capsys, Output("csv", "name,memory", header=False), limit=1)
    assert shown == "present,a,1G\nmodified,a-long-name,512M\ndeleted,b,\n"
    assert streamed(Vms(CHANGES), capsys, Output("name")) == "a\nb\na-long-name\nb\n"
    shown = streamed(Vms(CHANGES), capsys, Output("json", "name"))
    assert shown.splitlines()[2] == (
        '{"kind": "CHANGE_KIND_MODIFIED", "vm": {"name": "a-long-name"}, "revision": "6"}'
    )
    assert streamed(Vms(CHANGES), capsys, Output("yaml", "name")).startswith(
        "---\nkind: CHANGE_KIND_PRESENT\nvm:\n  name: a\n"
    )


def test_a_watch_that_is_too_old_is_begun_anew(capsys: Any) -> None:
    gone = [*CHANGES[:3], errors.RevisionTooOld("too old")]
    shown = streamed(Vms(gone, CHANGES[3:]), capsys, Output("name"))
    assert shown == "a\nb\na-long-name\nb\n"


def test_what_a_watch_ends_with_is_raised(capsys: Any) -> None:
    with pytest.raises(errors.PermissionDenied):
        streamed(Vms([errors.PermissionDenied("no")]), capsys, Output("name"))


def test_what_cannot_be_watched_is_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rows(list[Any]):
        revision = 3

    class Read(Vms):
        def __init__(self) -> None:
            super().__init__(AttributeError("no Watch"))
            a, b = (vm_pb2.Vm(name=f"vms/{name}") for name in "ab")
            changed = vm_pb2.Vm(name="vms/b", spec=vm_pb2.VmSpec(description="new"))
            self.lists = [[a, b], [a, b], [changed]]

        def list(self, *, filter: str) -> Rows:
            if not self.lists:
                raise KeyboardInterrupt
            return Rows(self.lists.pop(0))

    monkeypatch.setattr(watching, "POLL_S", 0)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for one in watching.changes_of(Source(Read(), columns.VM, "vms"), Plan("", [])):
            seen.append((one.kind, one.resource and one.resource.name))
    assert seen == [(1, "vms/a"), (1, "vms/b"), (5, None), (3, "vms/b"), (4, "vms/a")]


def test_nothing_is_swallowed_when_a_screen_cannot_be_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    source = Source(Vms([errors.PermissionDenied("no")]), columns.VM, "vms")
    live = watching.Live(Session("127.0.0.1:1"), Listing(), source, Plan("", []))
    with pytest.raises(errors.PermissionDenied):
        live.run(watching.changes_of(source, Plan("", [])))
