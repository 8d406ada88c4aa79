"""Work on volumes through PVC beside qemu-img alone: `python -m bench.volume`."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.figures import Action, Line, check, program, side_by_side
from bench.ground import Ground
from bench.programs import alone
from pvc.storage.v1.storage_pb2 import VolumeSpec
from tests.system.rig import TIMEOUT_S, Rig, gib

SIZE_GIB = 2
FILLED_MIB = 128
"""What is in the image: bytes that nothing can make smaller."""
RUNS = 5


def measure(ground: Ground) -> list[Line]:
    """On either side a file counts as made when it is on the disk (fsync)."""
    rig = ground.pvc()
    with image(rig.base) as source:
        return [created(rig), *copied(rig, source)]


@contextmanager
def image(folder: Path) -> Iterator[Path]:
    """A qcow2 image with something in it."""
    raw, path = folder / "image.raw", folder / "image.qcow2"
    with raw.open("wb") as file:
        for place in range(FILLED_MIB):
            file.seek(place * (SIZE_GIB << 30) // FILLED_MIB)
            file.write(random.Random(place).randbytes(1 << 20))
        file.truncate(SIZE_GIB << 30)
    program("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    raw.unlink()
    yield path
    path.unlink()


def created(rig: Rig) -> Line:
    """An empty volume."""
    path = rig.base / "plain.qcow2"

    def by_qemu_img() -> None:
        program("qemu-img", "create", "-q", "-f", "qcow2", path, f"{SIZE_GIB}G")
        synced(path)

    def by_pvc() -> None:
        rig.cluster.volumes.create("local/made", gib(SIZE_GIB)).result(TIMEOUT_S)

    ours, theirs = side_by_side(by_pvc, by_qemu_img, RUNS, after=removing(rig, "made", path))
    return Line(f"create a volume of {SIZE_GIB} GiB", "ms", ours, "qemu-img create", theirs)


def copied(rig: Rig, source: Path) -> list[Line]:
    """Import of a file that was sent, and copies of what came of it: whole, and on write."""
    path = rig.base / "plain.qcow2"
    file = rig.cluster.files.upload(source).name
    rig.cluster.volumes.import_file("local/base", file).result(TIMEOUT_S)
    sealed = VolumeSpec(source_volume="pools/local/volumes/base", sealed=True)
    rig.cluster.volumes.create("local/image", sealed).result(TIMEOUT_S)
    (base,) = (rig.pools / "volumes").glob("base.*")
    plain = ("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2")
    on_write = ("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path)

    def imported() -> None:
        volume = rig.cluster.volumes.import_file("local/made", file).result(TIMEOUT_S)
        check(volume.spec.size_bytes == SIZE_GIB << 30, "the size of what was imported")

    def cloned(origin: str, parent: str) -> None:
        volume = rig.cluster.volumes.clone(f"local/{origin}", "local/made").result(TIMEOUT_S)
        check(volume.status.parent.endswith(parent), "what the clone stands on")

    def by_qemu_img(*words: str | Path) -> None:
        program(*words)
        synced(path)

    def line(what: str, ours: Action, *words: str | Path) -> Line:
        other = partial(by_qemu_img, *words)
        both = side_by_side(ours, other, RUNS, after=removing(rig, "made", path))
        return Line(
            f"{what}, {FILLED_MIB} MiB in it", "ms", both[0], f"{words[0]} {words[1]}", both[1]
        )

    found = [
        line("import 2 GiB", imported, *plain, source, path),
        line("full copy of 2 GiB", partial(cloned, "base", ""), *plain, base, path),
        line("copy on write of 2 GiB", partial(cloned, "image", "/image"), *on_write),
    ]
    for name in ("base", "image"):
        rig.cluster.volumes.delete(f"local/{name}").result(TIMEOUT_S)
    return found


def removing(rig: Rig, volume: str, path: Path) -> Callable[[], None]:
    """Takes away what a run made, both ways."""

    def clear() -> None:
        if any(one.name.endswith(f"/{volume}") for one in rig.cluster.volumes.list(parent="local")):
            rig.cluster.volumes.delete(f"local/{volume}").result(TIMEOUT_S)
        path.unlink(missing_ok=True)

    return clear


def synced(path: Path) -> None:
    """PVC's volumes are on the disk when it says so; then the others must be, too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(alone(measure))
