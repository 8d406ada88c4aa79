"""Killed at any moment: pvcd, its libvirtd, the emulators, each alone and all at once. VMs go on
where they can, work that was accepted ends, and nothing is left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc_client import Cluster
from pvc_client.errors import HypervisorFailed, PvcError, Unavailable
from pvc_client.operations import Pending
from services.compute.drivers.process import Process
from tests.system.conftest import make_vm, tiny_spec
from tests.system.invariants import DAEMON_AWAY, check_database, check_log, open_operations, settle
from tests.system.rig import ROOT, TIMEOUT_S, Rig, eventually, gib

pytestmark = pytest.mark.real
RUNNING, STOPPED = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_STOPPED
BIG_BYTES = 160 << 20
EXTRA_VOLUMES = ("big", "copied", "fresh-root")
Operation = operation_pb2.Operation


@pytest.fixture(autouse=True)
def clean_log(rig: Rig) -> Iterator[list[str]]:
    """The log holds nothing unexplained after a test; what the test explains it adds here."""
    explained: list[str] = []
    yield explained
    check_log(rig, *explained)


@pytest.fixture(autouse=True)
def only_web(rig: Rig, clean_log: list[str]) -> Iterator[None]:
    """After a test everything but the VM web is removed again, and all is at rest."""
    yield
    eventually(lambda: not open_operations(rig), "every operation ends")
    vms = {vm.name for vm in rig.cluster.vms.list()} - {"vms/web"}
    for gone in [rig.cluster.vms.delete(vm, delete_volumes=True, force=True) for vm in vms]:
        gone.result(TIMEOUT_S)
    for snapshot in rig.cluster.vms.snapshots.of("web"):
        rig.cluster.vms.snapshots.delete(snapshot.name).result(TIMEOUT_S)
    for volume in rig.cluster.volumes.list():
        if volume.name.rpartition("/")[2] in EXTRA_VOLUMES:
            rig.cluster.volumes.delete(volume.name).result(TIMEOUT_S)
    settle(rig)


@pytest.fixture(scope="module", autouse=True)
def web(rig: Rig) -> None:
    """A VM that runs all the time."""
    make_vm(rig, "web")


def blank_vm(rig: Rig, vm: str, *, start: bool = True, **fields: object) -> vm_pb2.Vm:
    """A VM whose disk is empty: it boots nothing, and no ACPI button moves it."""
    rig.cluster.volumes.create(f"local/{vm}-root", gib(1 / 16)).result(TIMEOUT_S)
    return rig.cluster.vms.create(vm, tiny_spec(vm, **fields), start=start).result(TIMEOUT_S)


def status(rig: Rig, vm: str) -> vm_pb2.VmStatus:
    return rig.cluster.vms.get(vm).status


def test_vms_go_on_without_pvcd(rig: Rig) -> None:
    """Killed while a guest boots: the same emulator goes on, its console's log too, and so does
    who watches."""
    before = rig.emulators()["web"]
    seen: list[int] = []
    changes = rig.cluster.vms.watch()
    while next(changes).resource is not None:
        continue  # until the bookmark: from here on the watch is taken up again
    follower = threading.Thread(
        target=lambda: seen.extend(c.resource.status.state for c in changes if c.resource),
        daemon=True,
    )
    follower.start()
    rig.kill()
    assert rig.emulators() == {"web": before}
    rig.start()
    assert status(rig, "web").state == RUNNING and rig.emulators() == {"web": before}

    def booted() -> bool:
        return b"READY" in b"".join(rig.cluster.vms.console_log("web"))

    eventually(booted, "READY on the console")
    rig.cluster.vms.pause("web").result(TIMEOUT_S)
    eventually(lambda: vm_pb2.VM_STATE_PAUSED in seen, "the watch goes on")
    changes.close()
    rig.cluster.vms.resume("web").result(TIMEOUT_S)
    settle(rig)


def test_a_killed_libvirtd_comes_back(rig: Rig, clean_log: list[str]) -> None:
    clean_log.append(DAEMON_AWAY)
    blank_vm(rig, "idle", start=False)
    before, daemon = rig.emulators(), rig.daemon()
    rig.kill_daemon()
    eventually(lambda: Process.of(daemon) is None, "libvirtd is dead")
    reset, start = rig.cluster.vms.reset("web"), rig.cluster.vms.start("idle")
    try:
        reset.result(TIMEOUT_S)
    except HypervisorFailed as error:
        assert "libvirt" in error.message and "web" in error.message
    assert start.result(TIMEOUT_S).status.state == RUNNING
    assert rig.daemon() != daemon
    assert rig.emulators()["web"] == before["web"]
    eventually(lambda: not rig.cluster.nodes.get(rig.name).status.faults, "no fault is left")
    settle(rig)


def test_a_crashed_vm_is_tried_again_and_then_left(rig: Rig) -> None:
    policy = vm_pb2.CrashPolicy(max_restarts=2, delay_s=1)
    blank_vm(rig, "frail", crash_policy=policy)
    for restarts in (1, 2):
        pid = rig.emulators()["frail"]
        os.kill(pid, signal.SIGKILL)

        def back(old: int = pid) -> bool:
            there = rig.emulators().get("frail", old)
            return there != old and status(rig, "frail").state == RUNNING

        eventually(back, "it is restarted")
        vm = rig.cluster.vms.get("frail")
        assert vm.decision.restarts == restarts
        assert f"restart {restarts} of 2 in {restarts} s" in vm.decision.why
        started, allowed = vm.status.start_time, vm.decision.not_before
        assert started.ToNanoseconds() >= allowed.ToNanoseconds() > 0
    os.kill(rig.emulators()["frail"], signal.SIGKILL)
    gave_up = "given up after 2 restarts"
    eventually(lambda: gave_up in rig.cluster.vms.get("frail").decision.why, gave_up)
    assert status(rig, "frail").state == vm_pb2.VM_STATE_CRASHED
    events = [
        f"{e.message} ({e.why})" for e in rig.cluster.events.list(filter='subject = "vms/frail"')
    ]
    for story in ("RUNNING → CRASHED", "ended by itself", "restart 2 of 2 in 2 s", gave_up):
        assert any(story in event for event in events), (story, events)
    settle(rig)
    rig.cluster.vms.start("frail").result(TIMEOUT_S)


@pytest.fixture(scope="module")
def big(rig: Rig) -> str:
    """A file that takes a while to import."""
    path = rig.base / "big.raw"
    path.write_bytes(random.Random(1).randbytes(1 << 20) * (BIG_BYTES >> 20))
    return rig.cluster.files.upload(path).name


@pytest.fixture(scope="module")
def image(rig: Rig, disk: Path) -> str:
    file = rig.cluster.files.upload(disk)
    return rig.cluster.images.import_file("img", file.name, pool="local").result(TIMEOUT_S).name


def begin_all(rig: Rig, big: str, image: str) -> dict[str, Pending[Any]]:
    """One of each kind of long work, at once."""
    cluster = rig.cluster
    return {
        "import": cluster.volumes.import_file("local/big", big),
        "provision": cluster.vms.provision("made", image, start=False),
        "snapshot": cluster.vms.snapshots.create("web/now"),
        "clone": cluster.vms.clone("quiet", "twin"),
        "delete": cluster.vms.delete("doomed", delete_volumes=True, force=True),
        "create": cluster.vms.create("fresh", tiny_spec("fresh"), start=True),
        "shutdown": cluster.vms.shutdown("deaf"),
        "copy": cluster.volumes.clone("local/tiny", "local/copied"),
    }


@pytest.mark.parametrize("delay_s", [0.0, 0.12, 0.4])
def test_work_that_was_begun_ends(rig: Rig, big: str, image: str, delay_s: float) -> None:
    """Every kind of long work is cut at once, a little later each time; then a new pvcd ends it."""
    blank_vm(rig, "quiet", start=False)
    blank_vm(rig, "doomed")
    blank_vm(rig, "deaf", shutdown_timeout_s=6)
    rig.cluster.volumes.create("local/fresh-root", gib(1 / 16)).result(TIMEOUT_S)
    begun = begin_all(rig, big, image)
    time.sleep(delay_s)
    rig.kill()
    rig.start()
    for what, pending in begun.items():
        try:
            pending.result(TIMEOUT_S)
        except PvcError as error:
            assert error.message, what
            assert error.reason == "INTERRUPTED", (what, error.message)
    settle(rig)
    check_database(rig)
    assert "shut down" in status(rig, "deaf").why
    vms = {vm.name.removeprefix("vms/") for vm in rig.cluster.vms.list()}
    assert "doomed" not in vms


def test_it_ends_in_order_when_asked_to(rig: Rig) -> None:
    """SIGTERM: who waits is told to try again, nothing is forgotten, and the next one goes on.
    Meanwhile a second one on the same state is refused."""
    words = [sys.executable, "-m", "services.pvcd", "--config", str(rig.config)]
    second = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert rig.process is not None
    assert second.returncode == 1 and f"process {rig.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    before = rig.emulators()
    watching = Cluster(f"unix:{rig.base}/run/pvc.sock")
    changes = watching.vms.watch()
    next(changes)
    stream = changes._stream
    rig.stop()
    with pytest.raises(Unavailable):
        for _ in stream:
            pass
    watching.close()
    assert rig.process.returncode == 0
    assert rig.emulators() == before
    rig.start()
    settle(rig)


def test_after_a_power_loss(rig: Rig, tmp_path: Path, clean_log: list[str]) -> None:
    """Everything dies at once and the machine starts anew: what should run, runs, as its autostart
    says; what was asked for a moment before is not lost."""
    blank_vm(rig, "always", start=False, autostart=vm_pb2.AUTOSTART_ALWAYS)
    blank_vm(rig, "never", autostart=vm_pb2.AUTOSTART_NEVER)
    blank_vm(rig, "off", start=False)
    late = rig.cluster.vms.create("late", vm_pb2.VmSpec(memory=vm_pb2.MemorySpec(memory_mib=64)))
    late_start = rig.cluster.vms.start("late")
    rig.kill()
    rig.kill_daemon()
    rig.kill_emulators()
    for pid, words in rig.processes().items():
        if "dnsmasq" in words[0]:
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", rig.name], check=True, timeout=10)
    rig.wrapper = started_anew(tmp_path)
    try:
        rig.start()
    finally:
        rig.wrapper = ()
    late.result(TIMEOUT_S)
    late_start.result(TIMEOUT_S)
    settle(rig)
    assert rig.emulators().keys() == {"web", "always", "late"}
    assert "started anew" in rig.cluster.vms.get("never").decision.why
    check_database(rig)


def started_anew(folder: Path) -> tuple[str, ...]:
    """A wrapper that shows pvcd a machine which started just now, as its kernel would tell."""
    (folder / "boot_id").write_text(f"{random.Random().randbytes(16).hex()}\n")
    lines = Path("/proc/stat").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("btime")]
    (folder / "stat").write_text("\n".join([*kept, f"btime {int(time.time())}", ""]))
    script = (
        "mount --make-private /proc && "
        'mount --bind "$0/boot_id" /proc/sys/kernel/random/boot_id && '
        'mount --bind "$0/stat" /proc/stat && exec "$@"'
    )
    return ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script, str(folder))
