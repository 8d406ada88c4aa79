"""File systems that are full: of the state, and of a pool. What cannot be done is refused and says
so, what runs goes on, nothing is left over, and once there is room again all works as before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.storage.v1 import storage_pb2
from pvc_client.errors import Deadline, OutOfSpace, PvcError
from tests.system.conftest import fresh_name, make_vm
from tests.system.invariants import check_database, check_log, settle
from tests.system.rig import TIMEOUT_S, Rig, eventually, gib

pytestmark = pytest.mark.real
STATE_MIB, POOL_MIB = 1200, 160
BIG_BYTES = 64 << 20
RUNNING, PAUSED = vm_pb2.VM_STATE_RUNNING, vm_pb2.VM_STATE_PAUSED

ROOM = """
mount -t tmpfs -o size={state}m,mode=700 pvc-test {base}/room
mount -t tmpfs -o size={pool}m,mode=711 pvc-test {base}/pool
touch {base}/real-qemu-img
mount --bind /usr/bin/qemu-img {base}/real-qemu-img
mount --bind {base}/qemu-img /usr/bin/qemu-img
echo ready
exec sleep infinity
"""

COPIER = """\
#!/bin/sh
case " $* " in *" convert "*) test ! -e {base}/gate || kill -STOP $$;; esac
exec {base}/real-qemu-img "$@"
"""
"""What pvcd sees as qemu-img: while there is a gate, copies stand still before they begin."""


@pytest.fixture(scope="module")
def rig(disk: Path) -> Iterator[Rig]:
    """A PVC whose state and whose pool lie on small file systems of their own, in a mount
    namespace of its own."""
    name = fresh_name("pvcf")
    base = Path("/tmp") / name
    made = Rig(base, name)
    text = made.config.read_text().replace(f"{base}/state", f"{base}/room/state")
    made.config.write_text(text.replace("[storage]", f'[storage]\npool_path = "{base}/pool/local"'))
    for folder in ("room", "pool"):
        (base / folder).mkdir()
    (base / "qemu-img").write_text(COPIER.format(base=base))
    (base / "qemu-img").chmod(0o755)
    room = ROOM.format(base=base, state=STATE_MIB, pool=POOL_MIB)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "sh", "-e", "-c", room],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
    made.wrapper = ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--")
    made.root = Path(f"/proc/{holder.pid}/root")
    try:
        with made.followed():
            made.begin()
            made.add_tiny(disk)
            yield made
    finally:
        try:
            made.close(holder)
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()


@pytest.fixture(scope="module", autouse=True)
def web(rig: Rig) -> None:
    """A VM that runs all the time."""
    make_vm(rig, "web")


@contextmanager
def full(folder: Path, spare_bytes: int = 0) -> Iterator[Path]:
    """The folder's file system has no more than this to spare; gives the file that fills it."""
    filler = folder / "filler"
    fill(filler, spare_bytes)
    try:
        yield filler
    finally:
        filler.unlink()


def fill(filler: Path, spare_bytes: int = 0) -> None:
    with filler.open("ab") as file:
        room = os.fstatvfs(file.fileno())
        size = room.f_bavail * room.f_frsize - spare_bytes
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), file.tell(), max(size, 1))


def test_a_full_state_refuses_and_recovers(rig: Rig) -> None:
    """Reads go on, VMs too; every change is either done or refused with what to do about it."""
    before = rig.emulators()
    with full(rig.seen(rig.state)) as filler:
        refused = refused_in_the_end(rig, filler)
        assert "free some space" in refused.message and "nothing was written" in refused.message
        assert rig.cluster.vms.get("web").status.state in (RUNNING, PAUSED)
        assert [vm.name for vm in rig.cluster.vms.list()] == ["vms/web"]
        assert dict(rig.cluster.status().nodes) == {"ONLINE": 1}
        assert rig.emulators() == before
    rig.cluster.vms.pause("web").result(TIMEOUT_S)
    rig.cluster.vms.resume("web").result(TIMEOUT_S)
    assert rig.emulators() == before
    settle(rig)
    check_database(rig)
    check_log(rig, r"no room left for the state", r"No space left on device")


def refused_in_the_end(rig: Rig, filler: Path) -> PvcError:
    """What comes once the room that the database still has in its own files is used up. What other
    files give back meanwhile, such as a journal that is made smaller, is taken too."""
    for number in range(400):
        fill(filler)
        spec = storage_pb2.VolumeSpec(size_bytes=1 << 20)
        try:
            rig.cluster.volumes.create(f"local/v{number}", spec, validate_only=True)
            rig.cluster.vms.pause("web").result(5)
            rig.cluster.vms.resume("web").result(5)
        except OutOfSpace as error:
            return error
        except Deadline:
            continue  # it was accepted, and its outcome cannot be written
    raise AssertionError("changes are written though there is no room")


def test_pvcd_starts_on_a_full_state(rig: Rig) -> None:
    """Killed while there is no room: the next one starts, or says what is wrong; with room again
    all is as it was."""
    before = rig.emulators()
    with full(rig.seen(rig.state)):
        rig.kill()
        try:
            rig.start()
            assert rig.cluster.vms.get("web").status.state == RUNNING
        except AssertionError as error:
            assert "room" in str(error), error
    if rig.process is None or rig.process.poll() is not None:
        rig.start()
    settle(rig)
    assert rig.emulators() == before
    rig.cluster.vms.pause("web").result(TIMEOUT_S)
    rig.cluster.vms.resume("web").result(TIMEOUT_S)
    check_database(rig)
    check_log(rig, r"no room left for the state", r"No space left on device")


@pytest.fixture(scope="module")
def file(rig: Rig) -> str:
    path = rig.base / "big.raw"
    path.write_bytes(random.Random(1).randbytes(1 << 20) * (BIG_BYTES >> 20))
    return rig.cluster.files.upload(path).name


def test_an_import_into_a_full_pool_leaves_nothing(rig: Rig, file: str) -> None:
    refused = pytest.raises(OutOfSpace, match="free, of which")
    with full(rig.seen(rig.pools), BIG_BYTES // 2), refused:
        rig.cluster.volumes.import_file("local/big", file).result(TIMEOUT_S)
    settle(rig)
    check_log(rig)


def test_a_pool_that_fills_during_an_import(rig: Rig, file: str) -> None:
    """There is room when it begins, and none when it goes on."""
    gate = rig.base / "gate"
    gate.touch()
    begun = rig.cluster.volumes.import_file("local/big", file)
    copier = eventually_found(lambda: copying(rig))
    gate.unlink()
    with full(rig.seen(rig.pools)), pytest.raises(OutOfSpace, match="No space left"):
        os.kill(copier, signal.SIGCONT)
        begun.result(TIMEOUT_S)
    settle(rig)
    names = [volume.name for volume in rig.cluster.volumes.list()]
    assert "pools/local/volumes/big" not in names
    check_log(rig)


def copying(rig: Rig) -> int | None:
    """The process id of the qemu-img that is to copy for pvcd, and stands still."""
    assert rig.process is not None
    for task in Path(f"/proc/{rig.process.pid}/task").iterdir():
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                stands = ") T " in Path(f"/proc/{child}/stat").read_text()
                if b"convert" in words and stands:
                    return int(child)
    return None


def eventually_found(find: Callable[[], int | None]) -> int:
    end = time.monotonic() + TIMEOUT_S
    while (found := find()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_a_guest_that_fills_its_pool_stands_still_until_there_is_room(rig: Rig) -> None:
    rig.cluster.volumes.create("local/data", gib(1 / 8)).result(TIMEOUT_S)

    def booted() -> bool:
        return b"READY" in b"".join(rig.cluster.vms.console_log("web"))

    eventually(booted, "READY on the console")
    disk = vm_pb2.DiskSpec(id="data", volume="pools/local/volumes/data")
    rig.cluster.vms.attach_disk("web", disk).result(TIMEOUT_S)
    before = rig.emulators()
    with full(rig.seen(rig.pools)), rig.cluster.vms.console("web") as console:
        console.write(b"\ndd if=/dev/urandom of=/dev/sdb bs=64k count=16 && echo wr$((6*7))tten\n")

        def stands() -> bool:
            status = rig.cluster.vms.get("web").status
            return status.state == PAUSED and "no space" in status.why

        eventually(stands, "it is paused", why=lambda: rig.cluster.vms.get("web").status)
    rig.cluster.vms.resume("web").result(TIMEOUT_S)

    def written() -> bool:
        return b"wr42tten" in b"".join(rig.cluster.vms.console_log("web"))

    eventually(written, "the guest goes on as if nothing had been")
    assert rig.emulators() == before
    rig.cluster.vms.detach_disk("web", "data").result(TIMEOUT_S)
    rig.cluster.volumes.delete("local/data").result(TIMEOUT_S)
    settle(rig)
    check_log(rig)
