"""A real ZooKeeper server for tests: Debian's jars in a JVM of our own, in a folder of its own.

One alone by default, one of several when it is told the members. Needs the packages zookeeper and
default-jre-headless; nothing is installed or left behind.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

JARS = Path("/usr/share/java")
# Debian's manifest leaves out netty-codec and any slf4j backend.
CLASSPATH = [
    JARS / f"{name}.jar"
    for name in (
        "zookeeper",
        "netty-codec",
        "netty-resolver",
        "netty-transport-native-unix-common",
        "slf4j-simple",
    )
]
JVM = [
    "java",
    "-Xms24m",
    "-Xmx128m",
    "-Xss256k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.fsync.warningthresholdms=5000",
    # How long a server waits for a dead one before it asks the next whom to elect (normally 5 s).
    "-Dzookeeper.cnxTimeout=500",
]
READY_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Member:
    """Where one server of an ensemble is reached by clients and by the others."""

    address: str
    client_port: int
    quorum_port: int
    election_port: int


def missing() -> str:
    """Why no server can be started here, "" when one can."""
    absent = [str(jar) for jar in CLASSPATH if not jar.exists()]
    return f"ZooKeeper is not installed: {', '.join(absent)} not found" if absent else ""


class ZookeeperServer:
    """A server. prefix: what its command begins with, such as `ip netns exec …`."""

    def __init__(
        self,
        folder: Path,
        my_id: int = 1,
        members: Mapping[int, Member] | None = None,
        prefix: Sequence[str] = (),
        lines: Sequence[str] = (),
    ) -> None:
        alone = {my_id: Member("127.0.0.1", free_port(), 0, 0)}
        self._folder = folder
        self._id = my_id
        self._members = dict(members or alone)
        self._prefix = list(prefix)
        self._lines = list(lines)
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / "myid").write_text(f"{my_id}\n")
        (folder / "zoo.cfg").write_text(self._configuration())

    @property
    def address(self) -> str:
        """What clients connect to."""
        me = self._members[self._id]
        return f"{me.address}:{me.client_port}"

    def start(self, wait: bool = True) -> None:
        """Starts it, on the data that is there. With `wait` returns when it serves clients."""
        command = [*self._prefix, *JVM, "-cp", ":".join(map(str, CLASSPATH))]
        command += ["org.apache.zookeeper.server.quorum.QuorumPeerMain"]
        command += [str(self._folder / "zoo.cfg")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Returns when it serves clients."""
        end = time.monotonic() + READY_TIMEOUT_S
        while "Mode:" not in self.ask("srvr"):
            assert self._process is not None and self._process.poll() is None, self.log()
            assert time.monotonic() < end, f"not ready after {READY_TIMEOUT_S} s: {self.log()}"
            time.sleep(0.02)

    def ask(self, word: str) -> str:
        """The answer to one of ZooKeeper's four-letter words, "" when there is none."""
        me = self._members[self._id]
        try:
            with socket.create_connection((me.address, me.client_port), 1) as wire:
                wire.sendall(word.encode())
                return b"".join(iter(lambda: wire.recv(65536), b"")).decode()
        except OSError:
            return ""

    def kill(self) -> None:
        """Ends it like a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stops it in the middle of whatever it does; returns when all of its threads stand."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while any(") T " not in (one / "stat").read_text() for one in tasks.iterdir()):
            time.sleep(0.01)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it."""
        self._end(signal.SIGTERM)

    def log(self) -> str:
        """The end of what it wrote."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def _configuration(self) -> str:
        lines = [
            "tickTime=500",
            "initLimit=20",
            "syncLimit=6",
            "minSessionTimeout=1000",
            "maxSessionTimeout=60000",
            f"dataDir={self._folder / 'data'}",
            "4lw.commands.whitelist=*",
            "preAllocSize=1024",
            "snapCount=100000",
            "maxClientCnxns=0",
            *self._lines,
        ]
        if len(self._members) > 1:
            lines += ["standaloneEnabled=false"]
            for number, m in self._members.items():
                lines.append(
                    f"server.{number}={m.address}:{m.quorum_port}:{m.election_port};"
                    f"{m.address}:{m.client_port}"
                )
        else:
            me = self._members[self._id]
            lines += [f"clientPort={me.client_port}", f"clientPortAddress={me.address}"]
        return "\n".join(lines) + "\n"


def started_ensemble(folder: Path, lines: Sequence[str] = ()) -> list[ZookeeperServer]:
    """Three servers that serve. lines: of their configuration, instead of the usual ones."""
    members = {
        number: Member("127.0.0.1", free_port(), free_port(), free_port()) for number in (1, 2, 3)
    }
    servers = [ZookeeperServer(folder / str(n), n, members, lines=lines) for n in members]
    for server in servers:
        server.start(wait=False)
    for server in servers:
        server.wait_ready()
    return servers
