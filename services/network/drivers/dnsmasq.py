"""DHCP and DNS servers: dnsmasq processes with files of their own, for a caller that already is in
the right namespace. They outlive us and are found again by what the kernel says of them, never by
a remembered number alone; a process that is not provably ours is not touched.

A configuration file is named bridge@index@tag.conf. Its path stands on the command line, so what a
process runs with can be read from the process itself, whenever it or we died."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from services.network.drivers.fabric import FabricError, Lease, Server
from services.network.drivers.links import index_of

PROGRAM = "/usr/sbin/dnsmasq"
START_TIMEOUT_S = 10.0
_ENDING = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0))
"""How it is told to end, and within how many seconds it should have."""
PROBE_TIMEOUT_S = 2.0
PROBE = b"\x50\x56\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0apvc-health\x00\x00\x01\x00\x01"
"""A DNS question for a name without a dot, which a server with domain-needed answers by itself."""


@dataclass(frozen=True, slots=True)
class Process:
    """A dnsmasq that runs with a configuration file of our folder."""

    pid: int
    parent: int
    bridge: str
    index: int
    tag: str
    namespace: int


class Servers:
    """All servers whose files are in one folder. Every file in it is ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, addresses: Mapping[str, str]) -> tuple[Server, ...]:
        """One server a bridge. `addresses`: the address to ask it at, by bridge."""
        found: dict[str, list[Process]] = {bridge: [] for bridge in self._filed()}
        for process in self._processes():
            found.setdefault(process.bridge, []).append(process)
        return tuple(
            self._server(bridge, processes, addresses.get(bridge, ""))
            for bridge, processes in sorted(found.items())
        )

    def run(
        self, bridge: str, tag: str, config: str, tables: str, files: Mapping[str, str]
    ) -> None:
        """See Fabric.run_server. The program itself reports whether it could start, then
        detaches."""
        index = index_of(bridge)
        if index is None:
            raise FabricError(f"server of {bridge}: there is no such bridge")
        self._end_all(bridge)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        for old in self.folder.glob(f"{bridge}@*"):
            old.unlink()
        self._write_files(files)
        path = self.folder / f"{bridge}@{index}@{tag}.conf"
        _write(path, config)
        _start(bridge, path)
        self._note_tables(bridge, self._main(bridge), tables)

    def feed(self, bridge: str, tables: str, files: Mapping[str, str]) -> None:
        """See Fabric.feed_server. Noted only after the signal, so that dying before repeats it."""
        main = self._main(bridge)
        self._write_files(files)
        if not _hang_up(main, self._is_ours):
            raise FabricError(f"server of {bridge} ended before it could be told of new hosts")
        self._note_tables(bridge, main, tables)

    def stop(self, bridge: str) -> None:
        """See Fabric.stop_server."""
        self._end_all(bridge)
        for pattern in (f"{bridge}@*", f"{bridge}.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        remove_if_empty(self.folder)

    def leases(self, bridge: str) -> tuple[Lease, ...]:
        """The server's own lease file: expiry, MAC, address, host name, client id."""
        path = self.folder / f"{bridge}.leases"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        rows = [line.split(" ") for line in lines]
        return tuple(
            Lease(mac=row[1], address=row[2], hostname=row[3].strip("*"), expires=int(row[0]))
            for row in rows
            # One that is just being written may be cut anywhere.
            if len(row) == 5 and row[0].isdecimal() and _is_address(row[2])
        )

    def _server(self, bridge: str, processes: list[Process], address: str) -> Server:
        """Of several the one in the pid file: the others answer single questions over TCP, or
        stray."""
        if not processes:
            return Server(bridge, pid=0, config="", tables="", fresh=False, answers=False)
        noted = _read(self.folder / f"{bridge}.pid").strip()
        main = next((found for found in processes if str(found.pid) == noted), None)
        alone = main is not None and all(
            found.parent == main.pid for found in processes if found is not main
        )
        shown = main or processes[0]
        fresh = shown.index == index_of(bridge) and shown.namespace == _namespace("thread-self")
        return Server(
            bridge=bridge,
            pid=shown.pid,
            config=shown.tag,
            tables=self._noted_tables(bridge, shown.pid),
            fresh=alone and fresh,
            answers=alone and fresh and _answers(address),
        )

    def _filed(self) -> set[str]:
        """The bridges that there are files of."""
        files = self.folder.iterdir() if self.folder.exists() else ()
        return {path.name.partition("@")[0].partition(".")[0] for path in files}

    def _main(self, bridge: str) -> int:
        noted = _read(self.folder / f"{bridge}.pid").strip()
        if not noted.isdigit() or not self._is_ours(int(noted)):
            raise FabricError(f"server of {bridge} is not running")
        return int(noted)

    def _processes(self) -> list[Process]:
        pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
        return [found for pid in pids if (found := self._process(pid))]

    def _process(self, pid: int) -> Process | None:
        """The process if it is dnsmasq, started by us with a file of our folder; it may end any
        time."""
        words = _read(Path(f"/proc/{pid}/cmdline")).split("\0")
        prefix = f"--conf-file={self.folder}/"
        if len(words) != 3 or words[0] != PROGRAM or not words[1].startswith(prefix):
            return None
        parts = words[1].removeprefix(prefix).removesuffix(".conf").split("@")
        if len(parts) != 3 or not parts[1].isdigit():
            return None
        try:
            program = Path(f"/proc/{pid}/exe").readlink()
            namespace = _namespace(str(pid))
        except OSError:
            return None
        if not str(program).startswith(str(Path(PROGRAM).resolve())):
            return None
        return Process(pid, _parent(pid), parts[0], int(parts[1]), parts[2], namespace)

    def _is_ours(self, pid: int) -> bool:
        return self._process(pid) is not None

    def _end_all(self, bridge: str) -> None:
        for process in self._processes():
            if process.bridge == bridge:
                _end(process.pid, self._is_ours)

    def _write_files(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            if "/" in name or name.startswith("."):
                raise FabricError(f"'{name}' is no file name")
            _write(self.folder / name, text)

    def _note_tables(self, bridge: str, pid: int, tables: str) -> None:
        _write(self.folder / f"{bridge}.fed", f"{pid} {tables}\n")

    def _noted_tables(self, bridge: str, pid: int) -> str:
        words = _read(self.folder / f"{bridge}.fed").split()
        return words[1] if len(words) == 2 and words[0] == str(pid) else ""


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def remove_if_empty(folder: Path) -> None:
    """A folder of ours without files, away; one with files stays."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _start(bridge: str, path: Path) -> None:
    try:
        result = subprocess.run(
            [PROGRAM, f"--conf-file={path}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
            start_new_session=True,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FabricError(f"server of {bridge} does not start: {error}") from error
    if result.returncode != 0:
        raise FabricError(f"server of {bridge} does not start: {result.stderr.strip()}")


@contextlib.contextmanager
def _held(pid: int, is_ours: Callable[[int], bool]) -> Iterator[int | None]:
    """A descriptor of the process, None if it is gone. Looked at once more with the descriptor
    held: from then on the number cannot come to mean another process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if is_ours(pid) else None
    finally:
        os.close(descriptor)


def _hang_up(pid: int, is_ours: Callable[[int], bool]) -> bool:
    with _held(pid, is_ours) as descriptor:
        return descriptor is not None and _send(descriptor, signal.SIGHUP)


def _end(pid: int, is_ours: Callable[[int], bool]) -> None:
    with _held(pid, is_ours) as descriptor:
        if descriptor is None:
            return
        for number, within_s in _ENDING:
            if not _send(descriptor, number) or _ended(descriptor, within_s):
                return
    raise FabricError(f"dnsmasq process {pid} cannot be ended")


def _send(descriptor: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def _ended(descriptor: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(within_s * 1000))


def _answers(address: str) -> bool:
    """Whether a name server answers there, asked twice at most."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(PROBE_TIMEOUT_S)
        for _ in range(2):
            try:
                asked.connect((address, 53))
                asked.send(PROBE)
                if asked.recv(512)[:2] == PROBE[:2]:
                    return True
            except OSError:
                continue
    return False


def _namespace(process: str) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


def _parent(pid: int) -> int:
    """Field 4 of stat(5), counted from behind the name, which may hold anything."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _write(path: Path, text: str) -> None:
    """Whole or not at all. Readable by the server, which gives up root once it runs."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.replace(path)
