"""A libvirtd that belongs to PVC alone, beside any other on the machine.

It has sockets, settings, state and logs of its own, lives in a mount namespace of its own, outlives
the process that started it, and is found again by the next one. Guests outlive it in turn: killed
and started again, it takes them back. It touches no other libvirt.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pwd
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from pvc.core.v1 import reason_pb2
from services.compute.drivers import console_log, libvirtd_room
from services.compute.drivers.daemon_settings import (
    PKI_PLACE,
    Door,
    Peers,
    libvirtd_conf,
    link_certificates,
    qemu_conf,
)
from services.compute.drivers.process import Process
from services.mesh.errors import PvcError

log = logging.getLogger("pvc.libvirt")

START_TIMEOUT_S = 20.0
HUNG_S = 20.0
"""One that runs and does not answer for so long is killed."""
STOP_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 2.0
_ENDING = (signal.SIGTERM, signal.SIGKILL)
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
"""Nothing of ours: it may hold secrets, and outlives us."""
_SOCKET_PATH_MAX = 107
"""Longest path of a Unix socket that the kernel takes."""

_AUTH_LIST = struct.pack(">7I", 28, 0x20008086, 1, 66, 0, 0, 0)
"""A call of libvirt's RPC: length, program, version, procedure "auth list", call, serial,
status."""

_QEMU_USER = "libvirt-qemu"
"""Debian's libvirtd wants this user to exist even where its settings name another."""

_HALF_STARTED = re.compile(rb"<domstatus [^>]*pid='0'")
"""In libvirt's note of a domain that runs: its emulator's process is not known yet."""

_UUID_SPACE = uuid.UUID("5d0e6c0c-93a1-5f3b-8f0e-6a4f3d2b1c07")


class Daemon:
    """The private libvirtd in `directory`. Safe to use from several processes, one after the
    other."""

    def __init__(
        self,
        directory: Path,
        *,
        net_namespace: Path | None = None,
        vnc_ports: tuple[int, int] = (5900, 65535),
        libvirtd: Path = Path("/usr/sbin/libvirtd"),
        door: Door | None = None,
    ) -> None:
        """net_namespace: a file such as /run/netns/x in which guests' interfaces and VNC screens
        live; None: the host's. door: how VMs come in from other nodes; None: they do not."""
        self.directory = directory
        self._door = door
        self._net_namespace = net_namespace
        self._vnc_ports = vnc_ports
        self._libvirtd = libvirtd
        self._child: subprocess.Popen[bytes] | None = None
        self._probe = _Probe(self.socket_path)

    @property
    def socket_path(self) -> Path:
        """Where it answers."""
        return self.directory / "run" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """How libvirt's clients name it."""
        return f"qemu+unix:///system?socket={quote(str(self.socket_path), safe='')}"

    @property
    def log_directory(self) -> Path:
        """Where libvirt keeps the emulators' logs, one file NAME.log each."""
        return self.directory / "log" / "qemu"

    @property
    def pid_directory(self) -> Path:
        """Where libvirt keeps the emulators' process ids, one file NAME.pid each."""
        return self.directory / "run" / "qemu"

    @property
    def peers(self) -> Peers:
        """How its domains get to those of other nodes, and theirs here."""
        return Peers(self.directory / "etc" / "pki", PKI_PLACE)

    def healthy(self) -> bool:
        """It runs and takes connections."""
        return self._process() is not None and self._probe.answers(ANSWER_TIMEOUT_S)

    def start(self) -> None:
        """Returns when it answers; at once if it does already with these settings. Called now and
        then it keeps the daemon alive, on a certificate that is valid, and its logs from growing
        without bound.

        Raises HYPERVISOR_FAILED with its words, DEADLINE when it does not answer in time.
        """
        self._check()
        for name in ("", *libvirtd_room.PLACES):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            process = self._process()
            if process is not None and self._is_outdated():
                log.warning("libvirtd in %s starts anew with other settings", self.directory)
                self._end([process])
                process = None
            if process is None:
                self._launch()
        if not self._probe.answers(HUNG_S):
            self._replace()
        console_log.rotate_all(self.directory.glob("log/**/*.log"))

    def stop(self, kill_guests: bool) -> None:
        """Ends it; with `kill_guests` its emulators too, and forgets what only running guests
        need."""
        self._probe.close()
        if not self.directory.exists():
            return
        with self._locked():
            if (process := self._process()) is not None:
                self._end([process])
            if kill_guests:
                self._end(self._inmates())
                shutil.rmtree(self.directory / "run", ignore_errors=True)

    def guests(self) -> tuple[int, ...]:
        """Process ids of its emulators, whether it runs itself or not."""
        daemon = self._process()  # It puts a pid file of its own beside those of the emulators.
        found = {Process.from_file(path) for path in self.pid_directory.glob("*.pid")} - {daemon}
        return tuple(p.pid for p in found if p is not None and self._is_inmate(p.pid))

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise _failed("starting a libvirtd needs root; run PVC as root")
        if not self._libvirtd.exists():
            raise _failed(f"{self._libvirtd} is missing; install libvirt-daemon-driver-qemu")
        if len(os.fsencode(self.socket_path)) > _SOCKET_PATH_MAX:
            raise PvcError(
                reason_pb2.REASON_INVALID_CONFIG,
                f"{self.directory} is too long for a socket; choose a shorter path",
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write_settings(self) -> None:
        etc = self.directory / "etc"
        for name, text in self._settings().items():
            (etc / name).write_text(text)
        if self._door is not None:
            link_certificates(etc / "pki", self._door)
        self._write_accounts()

    def _is_outdated(self) -> bool:
        """The one that runs was started with other settings."""
        etc = self.directory / "etc"
        return any(
            not (etc / name).exists() or (etc / name).read_text() != text
            for name, text in self._settings().items()
        )

    def _settings(self) -> dict[str, str]:
        """File → what it says."""
        # libvirt moves no domain to a machine of the same number. Machines that were copied from
        # one another share theirs, hence the address.
        place = self._door.address if self._door is not None else ""
        seed = f"{_machine_id()} {self.directory.resolve()} {place}".rstrip()
        return {
            "libvirtd.conf": libvirtd_conf(str(uuid.uuid5(_UUID_SPACE, seed)), self._door),
            "qemu.conf": qemu_conf(self._vnc_ports, self._door),
        }

    def _write_accounts(self) -> None:
        """Lists of users and groups for libvirtd alone, with the ones that it misses on this
        machine."""
        try:
            pwd.getpwnam(_QEMU_USER)
        except KeyError:
            lines = {"passwd": "x:64055:64055::/nonexistent:/usr/sbin/nologin", "group": "x:64055:"}
            for name, line in lines.items():
                text = f"{Path('/etc', name).read_text()}{_QEMU_USER}:{line}\n"
                (self.directory / "etc" / name).write_text(text)

    def _replace(self) -> None:
        """Kills one that hangs; its guests do not notice. Raises DEADLINE if the next hangs too."""
        log.warning("libvirtd in %s has hung for %g s: killed", self.directory, HUNG_S)
        with self._locked():
            if (process := self._process()) is not None:
                self._end([process], (signal.SIGKILL,))
            self._launch()
        if not self._probe.answers(START_TIMEOUT_S):
            raise PvcError(
                reason_pb2.REASON_DEADLINE,
                f"libvirtd does not answer at {self.socket_path} after {START_TIMEOUT_S:g} s, nor "
                f"did the one before; see {self.directory / 'log'}",
            )

    def _launch(self) -> None:
        self._bury()
        self._end_half_started()
        self._write_settings()
        for place in libvirtd_room.PLACES.values():
            # Left behind on purpose: removing a mount point here would tear the mount out of
            # other namespaces too.
            Path(place).mkdir(parents=True, exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        notify = self.directory / "ready"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            self._child = self._spawn(notify)
            self._await(self._child.pid, ready)
        notify.unlink()

    def _spawn(self, notify: Path) -> subprocess.Popen[bytes]:
        with (self.directory / "log" / "start.log").open("wb") as output:
            return subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, cwd="/", env={**_ENVIRONMENT, "NOTIFY_SOCKET": str(notify)},
            )  # fmt: skip

    def _command(self) -> list[str]:
        enter = [] if self._net_namespace is None else ["nsenter", f"--net={self._net_namespace}"]
        # Slave: what the machine mounts later is seen inside (a pool's file system), nothing gets
        # out.
        unshare = ["unshare", "--mount", "--propagation", "slave"]
        room = [sys.executable, "-I", libvirtd_room.__file__, str(self.directory.resolve())]
        become = [str(self._libvirtd), "--pid-file", "/run/libvirt/libvirtd.pid"]
        listen = ["--listen"] if self._door is not None else []
        return [*enter, *unshare, *room, *become, *listen]

    def _await(self, pid: int, ready: socket.socket) -> None:
        """Until the daemon says that it is ready, or ends."""
        end = os.pidfd_open(pid)
        try:
            readable, _, _ = select.select([ready.fileno(), end], [], [], START_TIMEOUT_S)
        finally:
            os.close(end)
        if end in readable:
            self._bury()
            raise _failed(f"libvirtd ended at its start: {self._words()}")

    def _words(self) -> str:
        found = []
        for name in ("start.log", "libvirtd.log"):
            path = self.directory / "log" / name
            if path.exists():
                found += path.read_text(errors="replace").splitlines()[-3:]
        return " / ".join(found) or "it said nothing"

    def _process(self) -> Process | None:
        """The daemon, by the pid file that it writes itself; None when it does not run."""
        process = Process.from_file(self.directory / "run" / "libvirtd.pid")
        if process is None or not self._is_inmate(process.pid):
            return None
        try:
            name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):  # it ended just now
            return None
        return process if name == self._libvirtd.name else None

    def _is_inmate(self, pid: int) -> bool:
        """It sees our directory at libvirt's place."""
        try:
            theirs = Path(f"/proc/{pid}/root{libvirtd_room.PLACES['run']}").stat()
            return os.path.samestat((self.directory / "run").stat(), theirs)
        except OSError:
            return False

    def _inmates(self) -> list[Process]:
        """Every process in our namespace: the daemon, its parent and the emulators."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        processes = (Process.of(pid) for pid in pids if self._is_inmate(pid))
        return [process for process in processes if process is not None]

    def _end(self, processes: list[Process], by: Sequence[signal.Signals] = _ENDING) -> None:
        for number in by:
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for process in processes:
                if process.lives():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, number)
            if all([process.wait(deadline - time.monotonic()) for process in processes]):
                self._bury()
                return
        raise _failed(f"processes {[p.pid for p in processes]} do not end, even when killed")

    def _end_half_started(self) -> None:
        """Ends the starts that a daemon did not survive. It noted them before it knew the
        emulator's process; the next one would take the note for a domain that runs, and wait for
        minutes for an emulator that may never have been."""
        for note in self.pid_directory.glob("*.xml"):
            if not _HALF_STARTED.search(note.read_bytes()):
                continue
            emulator = Process.from_file(note.with_suffix(".pid"))
            if emulator is not None and self._is_inmate(emulator.pid):
                self._end([emulator], (signal.SIGKILL,))
            for place in ("", "channel/target"):
                for folder in (self.directory / "lib/qemu" / place).glob("domain-*"):
                    if re.fullmatch(rf"domain-\d+-{re.escape(note.stem)}", folder.name):
                        shutil.rmtree(folder)
            note.with_suffix(".pid").unlink(missing_ok=True)
            note.unlink()

    def _bury(self) -> None:
        """Takes the exit status of the daemon's parent if that was our child and has ended."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None


def accelerator(setting: str, cpuinfo: str, kvm_writable: bool) -> tuple[str, str]:
    """("kvm" or "tcg", why). setting: "kvm", "tcg", or "" to find out. cpuinfo: the text of
    /proc/cpuinfo.

    /dev/kvm alone proves nothing: some machines have one that runs no ordinary guest.
    """
    if setting in ("kvm", "tcg"):
        return setting, "set by the configuration"
    flags = {
        word for line in cpuinfo.splitlines() if line.startswith("flags") for word in line.split()
    }
    if not flags & {"vmx", "svm"}:
        return "tcg", "the processor offers no virtualization (no vmx or svm flag)"
    if not kvm_writable:
        return "tcg", "/dev/kvm is missing or not writable"
    return "kvm", "the processor offers virtualization and /dev/kvm is writable"


def machine_accelerator(setting: str = "") -> tuple[str, str]:
    """`accelerator` of the machine that this runs on."""
    return accelerator(setting, Path("/proc/cpuinfo").read_text(), os.access("/dev/kvm", os.W_OK))


def _machine_id() -> str:
    path = Path("/etc/machine-id")
    return path.read_text().strip() if path.exists() else socket.gethostname()


class _Probe:
    """Asks the daemon the first question of libvirt's protocol: that it takes a connection would
    say nothing, the kernel does that even while it hangs.

    One connection is kept for all questions: libvirtd logs the end of each as an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None

    def answers(self, timeout_s: float) -> bool:
        """It replies in time; on a new connection if the old one belonged to one that has ended."""
        fresh = self._connection is None
        if self._asked(timeout_s):
            return True
        self.close()
        return not fresh and self._asked(timeout_s)

    def close(self) -> None:
        """Lets go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _asked(self, timeout_s: float) -> bool:
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX)
                self._connection.settimeout(timeout_s)
                self._connection.connect(str(self._path))
            self._connection.settimeout(timeout_s)
            self._connection.sendall(_AUTH_LIST)
            return len(self._connection.recv(4096)) > len(_AUTH_LIST)
        except OSError:
            self.close()
            return False


def _failed(message: str) -> PvcError:
    return PvcError(reason_pb2.REASON_HYPERVISOR_FAILED, message)
