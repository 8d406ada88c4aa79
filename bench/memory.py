"""Memory of a PVC that does nothing, beside libvirtd's: `python -m bench.memory`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench.figures import Figure, Line
from bench.ground import CROWD, Ground, libvirtd, process_of
from bench.programs import alone

RUNS = 3
PAUSE_S = 1.0
SETTLE_S = 2.0
KINDS = {"Rss": "RSS", "Pss": "PSS"}


def measure(ground: Ground) -> list[Line]:
    """pvcd without a VM, then with a thousand that are off; a libvirtd without PVC beside each."""
    with libvirtd("bare") as bare:
        empty = lines(ground, 0, process_of(bare))
    return [*empty, *lines(ground, CROWD, process_of(ground.plain_libvirt(CROWD)))]


def lines(ground: Ground, vms: int, libvirtd: int) -> list[Line]:
    """One PVC, newly started so that nothing is left of what it did before."""
    rig = ground.pvc(vms)
    rig.stop()
    rig.start()
    time.sleep(SETTLE_S)
    assert rig.process is not None
    ours, theirs = memory_mib(rig.process.pid), memory_mib(libvirtd)
    return [
        Line(
            f"memory of pvcd, {vms or 'no'} VMs, {words}",
            "MiB",
            ours[kind],
            f"libvirtd alone, {vms or 'no'} domains",
            theirs[kind],
            "<= 150" if kind == "Rss" else "",
        )
        for kind, words in KINDS.items()
    ]


def memory_mib(pid: int) -> dict[str, Figure]:
    """What a process takes, by the kernel's count, some times over."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(RUNS):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        counts = dict(line.split(":", 1) for line in text.splitlines()[1:])
        for kind, samples in found.items():
            samples.append(int(counts[kind].split()[0]) / 1024)
        time.sleep(PAUSE_S)
    return {kind: Figure(tuple(samples)) for kind, samples in found.items()}


if __name__ == "__main__":
    sys.exit(alone(measure))
