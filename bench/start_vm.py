"""What PVC adds to a VM's start, stop and end: `python -m bench.start_vm`.

Beside it, the same domain by virsh alone on the same libvirtd, by turns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.figures import Figure, Line, check, program, seconds
from bench.ground import Ground, add_tiny, renamed, spec_of
from bench.programs import alone
from services.compute.drivers.daemon import Daemon
from services.compute.main import daemon_of
from services.mesh.config import load
from tests.system.rig import TIMEOUT_S, TINY, Rig

PAIRS = 7
STAGES = ("define and start", "stop", "remove")
BY_VIRSH = {
    "define and start": "virsh define, virsh start",
    "stop": "virsh destroy",
    "remove": "virsh undefine",
}


def measure(ground: Ground) -> list[Line]:
    """Pairs of a VM through PVC and one without, and what is between them."""
    rig = ground.pvc()
    add_tiny(rig)
    daemon = daemon_of(load(rig.config))
    assert daemon is not None
    ours: dict[str, list[float]] = {stage: [] for stage in STAGES}
    theirs: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for number in range(PAIRS + 1):
        by_pvc, xml = through_pvc(rig, f"pair-{number}")
        by_virsh = by_hand(rig, daemon, xml, number)
        if number:  # the first one warms up
            for stage in STAGES:
                ours[stage].append(by_pvc[stage] * 1000)
                theirs[stage].append(by_virsh[stage] * 1000)
    lines = [
        Line(f"{stage} a VM", "ms", figure(ours[stage]), BY_VIRSH[stage], figure(theirs[stage]))
        for stage in STAGES
    ]
    more = [one - two for one, two in zip(ours[STAGES[0]], theirs[STAGES[0]], strict=True)]
    return [*lines, Line("what PVC adds to a start", "ms", figure(more), aim="<= 300")]


def figure(samples: list[float]) -> Figure:
    """Of a list."""
    return Figure(tuple(samples))


def through_pvc(rig: Rig, vm: str) -> tuple[dict[str, float], str]:
    """Seconds of each stage until its operation has succeeded, and the domain that it was."""
    rig.cluster.volumes.clone(f"local/{TINY}", f"local/{vm}-root").result(TIMEOUT_S)
    vms, took = rig.cluster.vms, {}
    spec = spec_of(vm, "root")
    took[STAGES[0]] = seconds(lambda: vms.create(vm, spec, start=True).result(TIMEOUT_S))
    check(vm in rig.emulators(), f"{vm} runs")
    xml = vms.domain_xml(vm)
    calm()
    took[STAGES[1]] = seconds(lambda: vms.stop(vm).result(TIMEOUT_S))
    check(vm not in rig.emulators(), f"{vm} does not run")
    calm()
    took[STAGES[2]] = seconds(lambda: vms.delete(vm).result(TIMEOUT_S))
    calm()
    rig.cluster.volumes.delete(f"local/{vm}-root").result(TIMEOUT_S)
    return took, xml


def by_hand(rig: Rig, daemon: Daemon, xml: str, number: int) -> dict[str, float]:
    """The same with virsh: a domain that PVC does not take for its own."""
    name, disk = f"alone-{number}", rig.base / f"alone-{number}.qcow2"
    (tiny,) = (rig.pools / "volumes").glob(f"{TINY}.*")
    program("qemu-img", "create", "-q", "-f", "qcow2", "-b", tiny, "-F", "qcow2", disk)
    file = rig.base / f"{name}.xml"
    file.write_text(with_disk(renamed(xml, name, number), disk))
    took = {
        STAGES[0]: seconds(virsh(daemon, ["define", str(file)], ["start", name])),
    }
    check(name in rig.emulators(), f"{name} runs")
    calm()
    took[STAGES[1]] = seconds(virsh(daemon, ["destroy", name]))
    calm()
    took[STAGES[2]] = seconds(virsh(daemon, ["undefine", name]))
    disk.unlink()
    calm()
    return took


def virsh(daemon: Daemon, *calls: list[str]) -> Callable[[], None]:
    """One process a call, as typed."""

    def act() -> None:
        for words in calls:
            program("virsh", "-q", "-c", daemon.uri, *words)

    return act


def with_disk(xml: str, disk: Path) -> str:
    """On a disk of its own."""
    before, _, rest = xml.partition('<source file="')
    return f'{before}<source file="{disk}"{rest.partition(chr(34))[2]}'


def calm() -> None:
    """What still works behind the scenes may end, so that it is not measured with the next."""
    time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(alone(measure))
