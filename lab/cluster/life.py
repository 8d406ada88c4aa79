"""The lab as a whole: bringing it up, whatever state it is in, and taking it down without a
trace."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.cluster import files, orders, switch
from lab.cluster.cgroup import Cgroup, remove_parent
from lab.cluster.emulator import emulator
from lab.cluster.site import ENVIRONMENT, ROOT, Lab, LabError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
_LOOK_S = 0.01


def switch_on(lab: Lab) -> None:
    """Chassis, switch and nodes, unless they are there already. Raises LabError."""
    files.missing()
    own_qemu = emulator()
    with locked(lab):
        if not orders.answers(lab):
            _sweep(lab)
            if not lab.complete.exists():
                shutil.rmtree(lab.disk, ignore_errors=True)
            _install(lab)
            switch.make_switch(lab)
            _start_chassis(lab, own_qemu)
        orders.chassis(lab, "on")


def take_down(lab: Lab) -> None:
    """Ends everything and removes it, the nodes' disks too."""
    with locked(lab):
        _sweep(lab)
        shutil.rmtree(lab.disk, ignore_errors=True)
    shutil.rmtree(lab.run, ignore_errors=True)


def left_over(lab: Lab) -> tuple[str, ...]:
    """What is there of a lab that should be gone."""
    groups = [str(Cgroup.of(n).path) for n in lab.nodes if Cgroup.of(n).path.exists()]
    folders = [str(path) for path in (lab.run, lab.disk) if path.exists()]
    return (*switch.left_over(lab), *groups, *folders)


@contextmanager
def locked(lab: Lab) -> Iterator[None]:
    """One `up` or `down` at a time."""
    place = lab.run.with_name(f"{lab.run.name}.lock")
    with place.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(lab: Lab) -> None:
    lab.disk.mkdir(mode=0o700, exist_ok=True)
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    for node in lab.nodes:
        files.install(node, int(memory["MemTotal"].split()[0]) // 1024)


def _sweep(lab: Lab) -> None:
    """Ends what runs of the lab, however it was left: by the chassis if that still works, else by
    the control groups, which know every process."""
    end_chassis(lab)
    for node in lab.nodes:
        Cgroup.of(node).remove()
    remove_parent(lab.prefix)
    for name in switch.left_over(lab):
        switch.remove_namespace(name)
    shutil.rmtree(lab.run, ignore_errors=True)
    lab.run.mkdir(mode=0o755, parents=True)


def _start_chassis(lab: Lab, own_qemu: Path) -> None:
    enter = ["nsenter", f"--net={switch.NAMED / lab.controllers}"]
    command = [*enter, sys.executable, "-m", "lab.cluster.chassis", str(own_qemu)]
    log = lab.run / "chassis.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT,
            start_new_session=True, env={**os.environ, ENVIRONMENT: lab.name},
        )  # fmt: skip
    end = time.monotonic() + START_TIMEOUT_S
    while not orders.answers(lab):
        if process.poll() is not None or time.monotonic() > end:
            raise LabError(f"the chassis does not start: {log.read_text()[-2000:]}")
        time.sleep(_LOOK_S)


def end_chassis(lab: Lab, gently: bool = True) -> None:
    """Tells it to end, and kills it if it does not, or at once."""
    steps = [(signal.SIGTERM, STOP_TIMEOUT_S)] if gently else []
    for number, patience_s in (*steps, (signal.SIGKILL, 5.0)):
        pid = _chassis_pid(lab)
        if not pid:
            return
        with suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            try:
                os.kill(pid, number)
                select.select([end], [], [], patience_s)
            finally:
                os.close(end)
    if _chassis_pid(lab):
        raise LabError(f"the chassis, process {_chassis_pid(lab)}, does not end, even when killed")


def _chassis_pid(lab: Lab) -> int:
    """0 when it does not run: a number alone may be another process's by now."""
    try:
        pid = int((lab.run / "chassis.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        surroundings = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    ours = f"{ENVIRONMENT}={lab.name}".encode() in surroundings
    return pid if ours and b"lab.cluster.chassis" in command else 0
