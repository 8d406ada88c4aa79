"""The directory driver and the jobs on the real thing: a QEMU that has the image open, a file
system that is full, a process that is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvc.compute.v1 import vm_pb2
from pvc.core.v1 import operation_pb2
from pvc.storage.v1 import storage_pb2
from pvc.storage.v1 import storage_service_pb2 as api
from services.mesh.errors import PvcError
from services.storage.core import snapshots, volumes
from services.storage.drivers import directory, process
from services.storage.drivers.directory import DirectoryDriver
from services.storage.drivers.driver import Disk, Place
from services.storage.workshop import disk_of
from tests.storage.benches import MIB, DirectoryBench, call, disk
from tests.storage.worlds import NODE, World, create, name

pytestmark = pytest.mark.real

SUCCEEDED = operation_pb2.Operation.STATE_SUCCEEDED
FAILED = operation_pb2.Operation.STATE_FAILED


class Emulator:
    """A QEMU that has one image open, its processors never started, and its monitor."""

    def __init__(self, folder: Path, image: str) -> None:
        monitor = folder / "qmp"
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg",
                "-machine", "pc", "-m", "64",
                "-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={image}",
                "-device", "virtio-blk-pci,id=vda,drive=disk",
                "-chardev", f"socket,id=qmp,path={monitor},server=on,wait=off",
                "-mon", "chardev=qmp,mode=control",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        while True:
            assert self.process.poll() is None, self.process.communicate()
            with contextlib.suppress(OSError):
                self._socket.connect(str(monitor))
                break
            threading.Event().wait(0.02)
        self._lines = self._socket.makefile("rw")
        self._lines.readline()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline())
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def write(self, letter: str) -> None:
        backend = "/machine/peripheral/vda/virtio-backend"
        command = f'qemu-io -d {backend} "write -P {ord(letter)} 0 64k"'
        said = self.execute("human-monitor-command", **{"command-line": command})
        assert not said, said

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
        self.process.kill()
        self.process.communicate()


class EmulatorVolumes:
    """What a compute service does with open volumes, with this one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def resize(self, node: str, volume: str, size_bytes: int) -> None:
        self._emulator.execute("block_resize", **{"node-name": "disk", "size": size_bytes})

    def snapshot(self, node: str, volume: str, snapshot_id: str, quiesce: bool) -> bool:
        self._emulator.execute("blockdev-snapshot-internal-sync", device="disk", name=snapshot_id)
        return False

    def delete_snapshot(self, node: str, volume: str, snapshot_id: str) -> None:
        self._emulator.execute(
            "blockdev-snapshot-delete-internal-sync", device="disk", name=snapshot_id
        )


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[tuple[World, Emulator]]:
    """A volume `a` that a running VM has open."""
    world = World(tmp_path, DirectoryDriver(), str(tmp_path / "pool"))
    assert world.create("a").state == SUCCEEDED
    emulator = Emulator(tmp_path, f"{tmp_path}/pool/volumes/a.qcow2")
    try:
        yield world, emulator
    finally:
        emulator.close()


def test_nothing_touches_what_an_emulator_has_open(emulated: tuple[World, Emulator]) -> None:
    """Even if nobody told the store that a VM runs on it, the image's locks do."""
    world, _ = emulated
    volume = world.volume("a")
    assert volume is not None
    a = disk_of(world.pool(), volume, NODE)
    b = Disk(a.place, a.path.replace("a.qcow2", "b.qcow2"), "qcow2")
    driver = world.driver
    for change in (
        lambda: driver.resize(a, 16 * MIB),
        lambda: driver.snapshot(a, "s"),
        lambda: driver.copy(b, a, "", MIB, lambda percent: None),
        lambda: driver.rename(a, b),
        lambda: driver.delete(a),
    ):
        with pytest.raises(PvcError) as error:
            change()
        assert error.value.reason_name == "IN_USE"
    plain = ["qemu-img", "commit", "-f", "qcow2", a.path]
    assert b"lock" in subprocess.run(plain, capture_output=True, timeout=20).stderr
    deleted = world.do(volumes.delete_volume, api.DeleteVolumeRequest(name=name("a")))
    assert deleted.state == FAILED
    assert PvcError.from_status(deleted.error).reason_name == "IN_USE"
    still = world.volume("a")
    assert still is not None and still.status.state == storage_pb2.VolumeStatus.STATE_READY
    assert driver.stat(a).size_bytes == 8 * MIB


def test_a_running_vms_volume_is_snapshotted_grown_and_exported(
    emulated: tuple[World, Emulator], tmp_path: Path
) -> None:
    world, emulator = emulated
    emulator_volumes = EmulatorVolumes(emulator)
    world.open_volumes = emulator_volumes  # type: ignore[assignment]
    world.start()
    world.vm("web", "a", vm_pb2.VM_STATE_RUNNING)
    emulator.write("S")
    assert world.snapshot("a", "s").state == SUCCEEDED
    emulator.write("N")
    request = api.ResizeVolumeRequest(name=name("a"), size_bytes=32 * MIB)
    assert world.do(volumes.resize_volume, request).state == SUCCEEDED
    exported = world.do(
        volumes.export_volume, api.ExportVolumeRequest(name=name("a"), snapshot_id="s")
    )
    assert exported.state == SUCCEEDED, exported.error.message
    (file,) = world.files.all()
    bench = DirectoryBench(tmp_path)
    assert bench.letter(world.files.path(file.name), "qcow2") == "S"
    copied = world.create("b", 0, source_snapshot=f"{name('a')}/snapshots/s")
    assert copied.state == SUCCEEDED, copied.error.message
    assert bench.letter(f"{tmp_path}/pool/volumes/b.qcow2", "qcow2") == "S"
    gone = api.DeleteSnapshotRequest(name=f"{name('a')}/snapshots/s")
    assert world.do(snapshots.delete_snapshot, gone).state == SUCCEEDED
    emulator.execute("quit")
    emulator.process.wait(60)
    call("qemu-img", "check", "-f", "qcow2", f"{tmp_path}/pool/volumes/a.qcow2")


@contextlib.contextmanager
def small_file_system(size: str) -> Iterator[Path]:
    """A tmpfs in a mount namespace of its own, seen through the process that holds it."""
    script = f"mount -t tmpfs -o size={size} none /mnt && echo ready && exec sleep 300"
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"ready\n"
        yield Path(f"/proc/{holder.pid}/root/mnt")
    finally:
        holder.kill()
        holder.communicate()


def test_a_full_file_system_fails_cleanly_and_the_pool_goes_on(tmp_path: Path) -> None:
    with small_file_system("16m") as mounted:
        place = Place(f"{mounted}/pool", "uid-1")
        driver = DirectoryDriver()
        driver.open_pool(place, make=True)
        big = tmp_path / "big.raw"
        big.write_bytes(os.urandom(24 * MIB))
        a, b, kept = (Disk(place, f"{place.path}/volumes/{x}.qcow2", "qcow2") for x in "abk")
        source = Disk(Place(str(tmp_path), "x"), str(big), "raw")
        for make in (
            lambda: driver.import_(a, str(big), "raw", 24 * MIB, lambda percent: None),
            lambda: driver.copy(b, source, "", 24 * MIB, lambda percent: None),
        ):
            with pytest.raises(PvcError) as error:
                make()
            assert error.value.reason_name == "OUT_OF_SPACE", error.value.message
            assert driver.list(place) == ()
            assert not list(Path(place.path, "tmp").iterdir())
        driver.create(kept, MIB)
        assert driver.stat(kept).size_bytes == MIB
        filler = Path(place.path, "filler")
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
        with pytest.raises(PvcError) as error:
            driver.create(a, MIB)
        assert error.value.reason_name == "OUT_OF_SPACE"
        filler.unlink()
        driver.create(a, MIB)


def test_jobs_on_a_full_file_system_leave_nothing(tmp_path: Path) -> None:
    with small_file_system("16m") as mounted:
        world = World(tmp_path, DirectoryDriver(), f"{mounted}/pool")
        upload = world.files.begin(24 * MIB, "", "big")
        upload.write(os.urandom(24 * MIB))
        file = upload.finish()
        request = api.ImportVolumeRequest(parent="pools/local", volume_id="a", file=file.name)

        def plan(snapshot: Any, request: Any, call: Any) -> Any:
            return volumes.import_volume(snapshot, request, call, file)

        ended = world.do(plan, request)
        assert ended.state == FAILED
        assert PvcError.from_status(ended.error).reason_name == "OUT_OF_SPACE"
        assert world.volume("a") is None
        assert world.create("b", 4 * MIB).state == SUCCEEDED
        assert world.plan(volumes.create_volume, create("c", 4 * MIB))


KILLED = """
import sys
from pathlib import Path

from services.storage.drivers.directory import DirectoryDriver
from services.storage.drivers.driver import Disk, Place

place = Place(sys.argv[1], "uid-1")
driver = DirectoryDriver()
driver.open_pool(place, make=True)


def tell(percent):
    if list(Path(place.path, "tmp").iterdir()):
        print("begun", flush=True)
        sys.stdin.read()


disk = Disk(place, place.path + "/volumes/a.qcow2", "qcow2")
driver.copy(disk, Disk(place, sys.argv[2], "raw"), "", 0, tell)
"""


def test_a_process_killed_in_the_middle_leaves_no_half_volume(tmp_path: Path) -> None:
    big = tmp_path / "big.raw"
    with big.open("wb") as file:
        for _ in range(128):
            file.write(b"x" * MIB)
    pool = tmp_path / "pool"
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(pool), str(big)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"begun\n"
    (temporary,) = (pool / "tmp").iterdir()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list((pool / "volumes").iterdir())
    # Its qemu-img died with it: nobody has the image open for long.
    bench = DirectoryBench(tmp_path)
    for _ in range(3000):
        if not users(temporary):
            break
        threading.Event().wait(0.02)
    assert not users(temporary)
    bench.driver.open_pool(bench.place, make=False)
    assert not list((pool / "tmp").iterdir())
    bench.driver.create(disk(bench, "a"), MIB)


def users(path: Path) -> list[str]:
    """Processes that have a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(link.readlink()) == str(path):
                found.append(link.parts[2])
    return found


def test_only_our_own_leftovers_are_swept(tmp_path: Path) -> None:
    bench = DirectoryBench(tmp_path)
    bench.driver.open_pool(bench.place, make=True)
    left = tmp_path / "pool/tmp/a.qcow2"
    left.write_text("half")
    foreign = tmp_path / "pool/volumes/photo.jpg"
    foreign.write_text("mine")
    bench.driver.open_pool(bench.place, make=False)
    assert left.exists(), "swept only when a process begins"
    DirectoryDriver().open_pool(bench.place, make=False)
    assert not left.exists() and foreign.exists()


def test_a_volume_in_place_of_a_link_is_not_followed(tmp_path: Path) -> None:
    bench = DirectoryBench(tmp_path)
    bench.driver.open_pool(bench.place, make=True)
    target = tmp_path / "target"
    target.write_text("precious")
    a = disk(bench, "a", "raw")
    Path(a.path).symlink_to(target)
    with pytest.raises(PvcError, match="is not a file"):
        bench.driver.stat(a)
    bench.driver.delete(a)
    assert target.read_text() == "precious" and not Path(a.path).is_symlink()


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    bench = DirectoryBench(tmp_path)
    bench.driver.open_pool(bench.place, make=True)
    (tmp_path / "pool/.pvc-pool").write_text("{")
    with pytest.raises(PvcError, match="damaged"):
        bench.driver.open_pool(bench.place, make=False)


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    with small_file_system("4m") as mounted:
        place = Place(f"{mounted}/pool", "uid-1")
        DirectoryDriver().open_pool(place, make=True)
        holder = mounted.parts[2]
        call("nsenter", "-t", holder, "-m", "mount", "-o", "remount,ro", "/mnt")
        with pytest.raises(PvcError) as error:
            DirectoryDriver().open_pool(place, make=False)
        assert error.value.reason_name == "STORAGE_FAILED"


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = DirectoryBench(tmp_path)
    bench.driver.open_pool(bench.place, make=True)
    tool = tmp_path / "bin/qemu-img"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\nexec 7>{tmp_path}/held\nsleep 60 & wait\n")
    tool.chmod(0o755)
    monkeypatch.setitem(process._ENVIRONMENT, "PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setattr(directory, "QUICK_S", 0.3)
    with pytest.raises(PvcError) as error:
        bench.driver.create(disk(bench, "a"), MIB)
    assert error.value.reason_name == "DEADLINE"
    assert "qemu-img create hung for 0.3 s" in error.value.message
    assert bench.driver.list(bench.place) == ()
    assert not users(tmp_path / "held"), "its children are gone too"


def test_a_pool_whose_file_system_hangs_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    room = directory._room

    def stuck(folder: Path, mark: str) -> Any:
        if folder.name == "stuck":
            reached.set()
            assert go_on.wait(120)
        return room(folder, mark)

    monkeypatch.setattr(directory, "_room", stuck)
    driver = DirectoryDriver()
    hangs = threading.Thread(
        target=driver.open_pool, args=(Place(str(tmp_path / "stuck"), "u1"), True)
    )
    hangs.start()
    assert reached.wait(60)
    fine = threading.Thread(
        target=driver.open_pool, args=(Place(str(tmp_path / "fine"), "u2"), True), daemon=True
    )
    fine.start()
    fine.join(60)
    done = not fine.is_alive()
    go_on.set()
    hangs.join()
    assert done
