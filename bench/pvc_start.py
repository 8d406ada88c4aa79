"""How soon commands and services answer: `python -m bench.pvc_start`.

Whole processes, from the call to the last byte; then pvcd from its start to an online node.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.figures import Figure, Line, check, program, seconds, side_by_side
from bench.ground import CROWD, Ground, libvirtd
from bench.programs import alone, pvc
from services.compute.main import daemon_of
from services.mesh.config import load
from tests.shell.emulator import Emulator
from tests.system.rig import Rig

RUNS = 9
PROMPT = "pvc"
CONNECT = """\
import sys
from pvc_client import Cluster
with Cluster(sys.argv[1]) as cluster:
    print(cluster.whoami().caller)
"""
STARTS = 3


def measure(ground: Ground) -> list[Line]:
    """Commands on an empty PVC; starts of an empty and of a full one."""
    full = starts(ground.pvc(CROWD))
    rig = ground.pvc()
    beside = libvirtd_starts()
    return [
        *commands(rig),
        Line("pvcd from start to online, no VM", "ms", starts(rig), "libvirtd to answer", beside),
        Line("pvcd from start to online, 1,000 VMs", "ms", full),
    ]


def commands(rig: Rig) -> list[Line]:
    """Beside virsh on the same libvirtd."""
    daemon = daemon_of(load(rig.config))
    assert daemon is not None
    uri, socket = daemon.uri, f"unix:{rig.base}/run/pvc.sock"

    def help_of_pvc() -> None:
        check("vm" in pvc("--help"), "pvc --help")

    def help_of_virsh() -> None:
        check("define" in program("virsh", "--help"), "virsh --help")

    def list_of_pvc() -> None:
        pvc("-c", socket, "vm", "list")

    def list_of_virsh() -> None:
        check("Name" in program("virsh", "-c", uri, "list", "--all"), "virsh list")

    helped = side_by_side(help_of_pvc, help_of_virsh, RUNS)
    listed = side_by_side(list_of_pvc, list_of_virsh, RUNS)
    return [
        Line("pvc --help", "ms", helped[0], "virsh --help", helped[1], "<= 150"),
        Line("pvc vm list, no VM", "ms", listed[0], "virsh list --all", listed[1], "<= 350"),
        *shells(socket),
    ]


def shells(address: str) -> list[Line]:
    """Until one can type; beside what a program of one's own needs to import and connect."""
    connecting = (sys.executable, "-c", CONNECT, address)
    with tempfile.TemporaryDirectory() as home:
        prompted = side_by_side(
            lambda: prompt(address, Path(home)),
            lambda: check(program(*connecting).strip(), "nobody answered"),
            RUNS,
        )
    by_client = "a program that imports the client and asks who it is"
    return [Line("pvc-shell to its prompt", "ms", prompted[0], by_client, prompted[1], "<= 400")]


def prompt(address: str, home: Path) -> None:
    """A shell in a terminal of its own, until it takes keys."""
    with Emulator(home=home, environment={"PVC_CONNECTION": address}) as shell:
        shell.wait_until_raw()
        shell.wait_for(PROMPT)


def starts(rig: Rig) -> Figure:
    """From the start of the process until its node is online, libvirtd running already."""
    samples = []
    for _ in range(STARTS):
        rig.stop()
        samples.append(seconds(rig.start) * 1000)
    return Figure(tuple(samples))


def libvirtd_starts() -> Figure:
    """Of a private libvirtd, from nothing until it takes connections."""
    samples = []
    with libvirtd("starts") as daemon:
        for _ in range(STARTS):
            daemon.stop(kill_guests=True)
            samples.append(seconds(daemon.start) * 1000)
    return Figure(tuple(samples))


if __name__ == "__main__":
    sys.exit(alone(measure))
