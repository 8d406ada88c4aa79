"""Processor time that PVC uses while nothing is asked of it: `python -m bench.idle`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.figures import Figure, Line, check
from bench.ground import CROWD, Ground, spec_of
from bench.programs import alone
from tests.system.rig import TIMEOUT_S, Rig, gib

RUNNING = 20
WINDOWS = 3
WINDOW_S = 4.0
SETTLE_S = 6.0
TICKS = os.sysconf("SC_CLK_TCK")
BY_LIBVIRTD = "libvirtd, while PVC asks it"


def measure(ground: Ground) -> list[Line]:
    """With a thousand that are off, with none, with some that run."""
    lines = [used(ground.pvc(CROWD), "1,000 VMs off")]
    lines.append(used(ground.pvc(), "no VM"))
    start_some(ground.pvc())
    lines.append(used(ground.pvc(), f"{RUNNING} VMs running"))
    stop_them(ground.pvc())
    return lines


def used(rig: Rig, what: str) -> Line:
    """Processor seconds a minute, of pvcd and of its libvirtd."""
    assert rig.process is not None
    time.sleep(SETTLE_S)
    processes = {"pvcd": rig.process.pid, "libvirtd": rig.daemon()}
    found: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(WINDOWS):
        for name, spent in window(processes).items():
            found[name].append(spent * 60 / WINDOW_S)
    ours, theirs = (Figure(tuple(found[name])) for name in processes)
    return Line(f"idle, {what}", "CPU s/min", ours, BY_LIBVIRTD, theirs)


def window(processes: Mapping[str, int]) -> dict[str, float]:
    """Seconds that each used in one window of time."""
    before = {name: cpu_s(pid) for name, pid in processes.items()}
    time.sleep(WINDOW_S)
    return {name: cpu_s(pid) - before[name] for name, pid in processes.items()}


def cpu_s(pid: int) -> float:
    """User and system time of a process."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def start_some(rig: Rig) -> None:
    """VMs with nothing to boot: their BIOS waits for ever, and leaves the processor to others. No
    agent in the guest answers; it is asked for again and again all the same."""
    names = [f"idle-{number}" for number in range(RUNNING)]
    made = [rig.cluster.volumes.create(f"local/{vm}-root", gib(1 / 64)) for vm in names]
    for volume in made:
        volume.result(TIMEOUT_S)
    started = [rig.cluster.vms.create(vm, spec_of(vm, "root"), start=True) for vm in names]
    for vm in started:
        vm.result(TIMEOUT_S)
    check(len(rig.emulators()) == RUNNING, "all of them run")


def stop_them(rig: Rig) -> None:
    """And their volumes."""
    pending = [
        rig.cluster.vms.delete(f"idle-{number}", delete_volumes=True, force=True)
        for number in range(RUNNING)
    ]
    for one in pending:
        one.result(TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(alone(measure))
