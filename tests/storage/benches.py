"""The same bench for both drivers: a pool, and ways to look behind the driver's back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Protocol

from services.storage.drivers.directory import DirectoryDriver
from services.storage.drivers.driver import Disk, Driver, Format, ImageFacts, Place
from services.storage.drivers.fake import FakeDisk, FakeDriver, FakeFolder

MIB = 1 << 20


def call(*words: str | Path) -> str:
    """Runs a command for a test."""
    done = subprocess.run([str(w) for w in words], capture_output=True, timeout=120, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


class Bench(Protocol):
    driver: Driver
    place: Place
    outside: Path

    def write(self, disk: Disk, letter: str) -> None: ...
    def letter(self, path: str, format: Format) -> str: ...
    def image(self, name: str, format: Format, letter: str, size_bytes: int) -> str: ...
    def foreign(self, path: str) -> None: ...
    def hold(self, disk: Disk) -> object: ...
    def release(self, held: object) -> None: ...
    def unmount(self) -> None: ...


def disk(bench: Bench, name: str, format: Format = "qcow2") -> Disk:
    return Disk(bench.place, f"{bench.place.path}/volumes/{name}.{format}", format)


class FakeBench:
    def __init__(self, folder: Path) -> None:
        self.fake = FakeDriver()
        self.driver: Driver = self.fake
        self.place = Place(str(folder / "pool"), "uid-1")
        self.outside = folder

    def write(self, disk: Disk, letter: str) -> None:
        there = self.fake.disk_at(disk.path)
        assert there is not None
        there.content = letter

    def letter(self, path: str, format: Format) -> str:
        if path in self.fake.images:
            return self.fake.images[path][1]
        there = self.fake.disk_at(path)
        assert there is not None and there.format == format
        return there.content

    def image(self, name: str, format: Format, letter: str, size_bytes: int) -> str:
        facts = ImageFacts(format, size_bytes, size_bytes, "", (), False, False)
        self.fake.images[name] = (facts, letter)
        return name

    def foreign(self, path: str) -> None:
        folder = self.fake.folders.setdefault(self.place.path, FakeFolder())
        folder.foreign = True
        folder.disks[path] = FakeDisk("raw", 0) if path.endswith(".raw") else None

    def hold(self, disk: Disk) -> object:
        self.fake.open_paths.add(disk.path)
        return disk.path

    def release(self, held: object) -> None:
        self.fake.open_paths.discard(str(held))

    def unmount(self) -> None:
        self.fake.folders[self.place.path].mounted = False


class DirectoryBench:
    def __init__(self, folder: Path) -> None:
        self.driver: Driver = DirectoryDriver()
        self.place = Place(str(folder / "pool"), "uid-1")
        self.outside = folder

    def write(self, disk: Disk, letter: str) -> None:
        call("qemu-io", "-f", disk.format, "-c", f"write -P {ord(letter)} 0 64k", disk.path)

    def letter(self, path: str, format: Format) -> str:
        raw = self.outside / "seen.raw"
        call("qemu-img", "convert", "-U", "-f", format, "-O", "raw", path, raw)
        with raw.open("rb") as file:
            return file.read(1).decode().strip("\0")

    def image(self, name: str, format: Format, letter: str, size_bytes: int) -> str:
        raw = self.outside / f"{name}.blocks"
        raw.write_bytes(letter.encode() * 65536)
        with raw.open("r+b") as file:
            file.truncate(size_bytes)
        path = self.outside / name
        call("qemu-img", "convert", "-f", "raw", "-O", format, raw, path)
        return str(path)

    def foreign(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"not ours")

    def hold(self, disk: Disk) -> object:
        held = subprocess.Popen(
            ["qemu-io", "-f", disk.format, disk.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert held.stdout is not None
        assert held.stdout.read(9) == b"qemu-io> "
        return held

    def release(self, held: object) -> None:
        assert isinstance(held, subprocess.Popen)
        held.communicate(b"quit\n", timeout=60)

    def unmount(self) -> None:
        Path(self.place.path).rename(f"{self.place.path}-away")
