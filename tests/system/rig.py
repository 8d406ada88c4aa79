"""A PVC of a test's own on this machine: started, killed, looked into, removed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pvc.storage.v1 import storage_pb2
from pvc_client import Cluster
from pvc_client.errors import PvcError as ClientError
from services.compute.drivers.process import Process
from services.compute.main import daemon_of
from services.mesh.config import load
from tests import logs
from tests.ports import free_port

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_S = 120.0
TINY = "tiny"

CONFIG = """\
[node]
name = "{name}"
state_dir = "{base}/state"
run_dir = "{base}/run"
[gateway]
grpc_listen = "127.0.0.1:{grpc}"
rest_listen = "127.0.0.1:{rest}"
requests_per_s = 0
streams_per_caller = 0
[network]
namespace = "{name}"
[storage]
pool_reserve_mib = 1
{more}
"""


def eventually(
    true: Callable[[], object],
    what: str,
    timeout_s: float = TIMEOUT_S,
    why: Callable[[], object] = lambda: "",
) -> None:
    """Waits until it is so. Raises AssertionError naming what never was, and what `why` tells."""
    end, last = time.monotonic() + timeout_s, "false"
    while time.monotonic() < end:
        try:
            if true():
                return
            last = "false"
        except (ClientError, OSError) as error:
            last = str(error)
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {timeout_s:.0f} s ({last}) {why()}")


class Rig:
    """One PVC. Use `start`, and `close` at the end, whatever happened between."""

    def __init__(self, base: Path, name: str, more: str = "", wrapper: Sequence[str] = ()) -> None:
        """base: a short path, sockets live below it. wrapper: what pvcd is started with."""
        self.base, self.name = base, name
        self.wrapper = tuple(wrapper)
        self.config = base / "pvc.toml"
        base.mkdir(parents=True)
        base.chmod(0o755)
        self.grpc_port, self.rest_port = free_port(), free_port()
        self.config.write_text(
            CONFIG.format(name=name, base=base, grpc=self.grpc_port, rest=self.rest_port, more=more)
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.root: Path | None = None
        """Where a wrapper's mounts can be looked into."""
        self._log_read = 0
        self.cluster = Cluster(f"unix:{base}/run/pvc.sock", timeout_s=30)

    @property
    def log(self) -> Path:
        return self.base / "log"

    @property
    def state(self) -> Path:
        return Path(load(self.config).node.state_dir)

    @property
    def pools(self) -> Path:
        path = load(self.config).storage.pool_path
        return Path(path) if path else self.state / "pools" / "local"

    def seen(self, path: Path) -> Path:
        """A path of pvcd's as this process reaches it: pvcd may live among mounts of its own."""
        if self.root is None:
            return path
        return self.root / path.relative_to("/")

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Tests that fail meanwhile show its logs."""
        with ExitStack() as stack:
            stack.enter_context(logs.followed(self.base, "log"))
            libvirt = self.seen(self.state / "libvirt/log")
            stack.enter_context(logs.followed(libvirt, "**/*.log"))
            yield

    def new_log(self) -> str:
        """What pvcd wrote since this was last asked."""
        with self.log.open() as log:
            log.seek(self._log_read)
            text = log.read()
            self._log_read = log.tell()
        return text

    def start(self) -> Cluster:
        """Starts pvcd and waits until its node is online."""
        command = [
            *self.wrapper,
            sys.executable,
            "-m",
            "services.pvcd",
            "--config",
            str(self.config),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        eventually(self._online, f"pvcd answers (see {self.log})")
        return self.cluster

    def _online(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"pvcd ended: {self.log.read_text()[-2000:]}")
        return dict(self.cluster.status().nodes) == {"ONLINE": 1}

    def begin(self) -> Cluster:
        """A new cluster, started."""
        self._inside("init")
        return self.start()

    def _inside(self, verb: str) -> list[str]:
        """`init` or `remove`, where pvcd lives; what remains, of the latter."""
        code = (
            f"import sys; from pathlib import Path; from services.pvcd.{verb} import {verb}; "
            f"print({verb}(Path(sys.argv[1])))"
        )
        said = self.run([sys.executable, "-c", code, str(self.config)]).strip()
        return [] if verb == "init" or said == "()" else [said]

    def run(self, words: Sequence[str]) -> str:
        """What a program prints that runs where pvcd does."""
        done = subprocess.run(
            [*self.wrapper, *words], env=self._environment(), capture_output=True, text=True,
            timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @staticmethod
    def _environment() -> dict[str, str]:
        """A wrapper may change the folder that programs start in."""
        roots = (ROOT, ROOT / "clients/python/src", ROOT / "clients/python/gen")
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))}

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> None:
        """The orderly end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)

    def daemon(self) -> int:
        """The private libvirtd's process id. Raises OSError when there is none."""
        private = daemon_of(load(self.config))
        assert private is not None
        process = private._process()
        if process is None:
            raise ProcessLookupError(f"{self.name} has no libvirtd")
        return process.pid

    def kill_daemon(self) -> None:
        """kill -9 of libvirtd, if it runs."""
        with suppress(ProcessLookupError):
            os.kill(self.daemon(), signal.SIGKILL)

    def kill_emulators(self) -> None:
        """kill -9 of all of them."""
        for pid in self.emulators().values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def emulators(self) -> dict[str, int]:
        """VM → process id of its emulator, by looking at all processes of the machine."""
        found: dict[str, int] = {}
        for pid, words in self.processes().items():
            if "qemu-system" in words[0] and "-name" in words:
                vm = words[words.index("-name") + 1].split(",")[0].removeprefix("guest=")
                # The one that was seen first may have ended since.
                assert vm not in found or not lives(found[vm]), f"two emulators of {vm}"
                found[vm] = pid
        return found

    def processes(self) -> dict[int, list[str]]:
        """Every process that has to do with this PVC, with its command line: it names our folder
        there, or lives among mounts of it, as all do that come of the private libvirtd."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "cmdline").read_text(errors="replace").split("\0")
                mounts = (folder / "mountinfo").read_text() if words[0] else ""
                ours = any(f"{self.base}/" in text for text in (*words, mounts))
                if ours and int(folder.name) != os.getpid():
                    found[int(folder.name)] = words
        return found

    def add_tiny(self, disk: Path) -> None:
        """Imports the tiny guest's disk as a sealed volume that VMs are copied from."""
        file = self.cluster.files.upload(disk)
        volume = self.cluster.volumes.import_file(f"local/{TINY}", file.name)
        volume.result(TIMEOUT_S)

    def close(self, holder: subprocess.Popen[bytes] | None = None) -> None:
        """Ends and removes everything; says what would not go. holder: of a wrapper's mounts."""
        self.cluster.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        left = self._inside("remove")
        spared = holder.pid if holder is not None else 0
        with suppress(AssertionError):  # told with the rest
            eventually(lambda: not self.processes().keys() - {spared}, "all of it ends", 30)
        for pid, words in self.processes().items():
            if pid != spared:
                left.append(f"process {pid}: {words[:6]}")
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        left += [f"mount {line}" for line in mounts if self.name in line]
        left += [str(self.state)] if self.state.exists() and not self.wrapper else []
        shutil.rmtree(self.base, ignore_errors=True)
        assert not left, left


def lives(pid: int) -> bool:
    return Process.of(pid) is not None


def signalled(pid: int, number: signal.Signals) -> None:
    """Sends a signal to a process of the rig's."""
    os.kill(pid, number)


def gib(count: float) -> storage_pb2.VolumeSpec:
    """An empty volume of a size."""
    return storage_pb2.VolumeSpec(size_bytes=int(count * (1 << 30)))
