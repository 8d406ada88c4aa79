"""What must be so of a PVC that has come to rest, whatever was killed before: looked up in the
processes, files and database of the machine, and compared with what PVC says of itself."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc_client.operations import FINAL
from services.compute.main import settings_of
from services.mesh.config import load
from services.mesh.opening import database
from tests.system.rig import TIMEOUT_S, Rig, eventually

ON = (vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_PAUSED)
WANTED_ON = (vm_pb2.POWER_STATE_RUNNING, vm_pb2.POWER_STATE_PAUSED)
OFF = (vm_pb2.VM_STATE_STOPPED, vm_pb2.VM_STATE_CRASHED, vm_pb2.VM_STATE_FAILED)

KINDS = ("libvirtd_room", "/libvirtd ", "qemu-system", "dnsmasq", "sleep infinity")
"""Parts of the command lines of those that outlive a pvcd; the last one holds a test's mounts."""

TROUBLE = re.compile(r"level=(error|critical)|Traceback|trace=")
DAEMON_AWAY = r"Failed to connect socket|libvirt could not|connection to qemu|End of file"
"""What a log may say while libvirtd is away."""


def open_operations(rig: Rig) -> list[operation_pb2.Operation]:
    return [one for one in rig.cluster.operations.list() if one.state not in FINAL]


def settle(rig: Rig, timeout_s: float = TIMEOUT_S) -> None:
    """Waits until nothing is under way any more: every operation has ended, every VM is as it is
    wanted, and what lies on the disk is what the rows say."""
    eventually(lambda: not open_operations(rig), "every operation ends", timeout_s)
    eventually(
        lambda: not list(unlike(rig)),
        "VMs, files and rows agree",
        timeout_s,
        lambda: list(unlike(rig)),
    )


def unlike(rig: Rig) -> Iterator[str]:
    """Every respect in which things are not as they should be."""
    yield from processes_unlike(rig)
    yield from vms_unlike(rig)
    yield from files_unlike(rig)
    yield from reservations_unlike(rig)


def processes_unlike(rig: Rig) -> Iterator[str]:
    """Processes that nobody needs: what worked for a pvcd that is dead, a second libvirtd."""
    assert rig.process is not None
    seen: Counter[str] = Counter()
    for pid, words in rig.processes().items():
        kind = next((kind for kind in KINDS if kind in " ".join(words[:5])), "")
        seen[kind] += 1
        if pid != rig.process.pid and not kind:
            yield f"process {pid}: {words[:6]}"
    yield from (f"{seen[kind]} of {kind}" for kind in ("/libvirtd ", "dnsmasq") if seen[kind] > 1)


def vms_unlike(rig: Rig) -> Iterator[str]:
    """VMs with an emulator that should have none, and the other way round."""
    vms = {vm.name.removeprefix("vms/"): vm for vm in rig.cluster.vms.list()}
    there = rig.emulators()
    yield from (f"an emulator of {name}, which is no VM" for name in there.keys() - vms.keys())
    for name, vm in vms.items():
        wanted = vm.decision.power in WANTED_ON
        states = ON if wanted else OFF
        if vm.status.state not in states or (name in there) != wanted:
            state = vm_pb2.VmState.Name(vm.status.state)
            yield f"{name} should be {'on' if wanted else 'off'}, is {state} ({vm.decision.why})"


def files_unlike(rig: Rig) -> Iterator[str]:
    """Files without rows, rows without files, and pieces of work that nobody goes on with."""
    volumes = {volume.status.path: volume for volume in rig.cluster.volumes.list()}
    pool = rig.seen(rig.pools)
    there = {str(rig.pools / "volumes" / path.name) for path in (pool / "volumes").iterdir()}
    yield from (f"{path} has no row" for path in sorted(there - volumes.keys()))
    yield from (f"{path} has no file" for path in sorted(volumes.keys() - there))
    vms = {vm.name.removeprefix("vms/") for vm in rig.cluster.vms.list()}
    settings = settings_of(load(rig.config))
    for folder in (
        settings.directory / "console",
        settings.directory / "nvram",
        rig.state / "libvirt/etc/qemu",
        rig.state / "libvirt/log/qemu",
    ):
        there_of = rig.seen(folder).glob("*.*") if rig.seen(folder).exists() else ()
        names = {path.name for path in there_of}
        yield from (f"{folder}/{n} is of no VM" for n in names if n.partition(".")[0] not in vms)
    for folder in (pool / "tmp", rig.seen(rig.state / "files")):
        yield from (f"{path} is left" for path in folder.iterdir() if is_piece(path.name))


def is_piece(name: str) -> bool:
    """The name of something unfinished: all in a pool's tmp is, in the folder of kept files what
    is not named as one."""
    return re.fullmatch(r"[a-z0-9.]+\.(data|json)", name) is None


def reservations_unlike(rig: Rig) -> Iterator[str]:
    """What dnsmasq gives addresses to, against the interfaces that there are."""
    hosts = next(rig.seen(rig.base / "run/network/servers").glob("*.hosts"), None)
    lines = hosts.read_text().splitlines() if hosts is not None else []
    reserved = {line.split(",")[0] for line in lines}
    nics = {nic.mac: vm.name for vm in rig.cluster.vms.list() for nic in vm.spec.nics}
    yield from (f"{mac} is still reserved" for mac in reserved - nics.keys())
    yield from (f"{mac} of {nics[mac]} is not reserved" for mac in nics.keys() - reserved)


def snapshots_unlike(rig: Rig) -> Iterator[str]:
    """Snapshots inside images that no row knows of, and the other way round."""
    for volume in rig.cluster.volumes.list():
        words = ["qemu-img", "info", "-U", "--output=json", volume.status.path]
        inside = {s["name"] for s in json.loads(rig.run(words)).get("snapshots", [])}
        told = rig.cluster.volumes.snapshots.list(parent=volume.name)
        rows = {one.name.rpartition("/")[2] for one in told}
        if inside != rows:
            yield f"{volume.name} holds the snapshots {sorted(inside)}, rows say {sorted(rows)}"


WHOLE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=5) as db:
    print(db.execute("PRAGMA integrity_check").fetchone()[0])
    db.execute("BEGIN")
    revision, rows = db.execute("SELECT revision, rows FROM meta").fetchone()
    (there,) = db.execute("SELECT count(*) FROM rows").fetchone()
    kept = [row[0] for row in db.execute("SELECT DISTINCT revision FROM history ORDER BY 1")]
    print("all rows" if rows == there else f"{there} rows instead of {rows}")
    print("no gaps" if kept == list(range(kept[0], revision + 1)) else "its history has gaps")
"""


def check_database(rig: Rig) -> None:
    """The file is whole, every commit is there once, and it counts its rows rightly."""
    path = str(database(load(rig.config)))
    assert rig.run([sys.executable, "-c", WHOLE, path]).split("\n") == [
        *("ok", "all rows", "no gaps", "")
    ]


def check_log(rig: Rig, *explained: str) -> None:
    """pvcd's log since it was last checked holds no error that the test did not bring about.

    explained: regular expressions; no traceback is ever explained.
    """
    bad = [
        line
        for line in rig.new_log().splitlines()
        if TROUBLE.search(line)
        and ("Traceback" in line or not any(re.search(one, line) for one in explained))
    ]
    assert not bad, "\n".join(line[:1500] for line in bad[:5])
