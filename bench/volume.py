"""Work on volumes through PVC beside qemu-img alone: `python -m bench.volume`."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Line, check, program, side_by_side
from bench.ground import Ground
from bench.programs import alone
from tests.system.rig import TIMEOUT_S, Rig, gib

SIZE_GIB = 2
FILLED_MIB = 128
"""What is in the image: bytes that nothing can make smaller."""
RUNS = 5


def measure(ground: Ground) -> list[Line]:
    """Each ends with the volume removed; that is not a part of what is measured."""
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
    return Line(f"create a volume of {SIZE_GIB} GiB", "ms", ours, "qemu-img create, fsync", theirs)


def copied(rig: Rig, source: Path) -> list[Line]:
    """Import of a file that was sent, a clone of what came of it, and a clone of that a VM may
    write."""
    path = rig.base / "plain.qcow2"
    file = rig.cluster.files.upload(source).name

    def by_pvc() -> None:
        volume = rig.cluster.volumes.import_file("local/made", file).result(TIMEOUT_S)
        check(volume.spec.size_bytes == SIZE_GIB << 30, "the size of what was imported")

    def by_qemu_img() -> None:
        program("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", source, path)
        synced(path)

    words = f"an image of {SIZE_GIB} GiB, {FILLED_MIB} MiB full"
    clear = removing(rig, "made", path)
    imported = side_by_side(by_pvc, by_qemu_img, RUNS, after=clear)
    rig.cluster.volumes.import_file("local/base", file).result(TIMEOUT_S)
    (base,) = (rig.pools / "volumes").glob("base.*")

    def clone_by_pvc() -> None:
        rig.cluster.volumes.clone("local/base", "local/made").result(TIMEOUT_S)

    def clone_by_qemu_img() -> None:
        program("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
        synced(path)

    cloned = side_by_side(clone_by_pvc, clone_by_qemu_img, RUNS, after=clear)
    rig.cluster.volumes.delete("local/base").result(TIMEOUT_S)
    return [
        Line(f"import {words}", "ms", imported[0], "qemu-img convert, fsync", imported[1]),
        Line(f"clone {words}", "ms", cloned[0], "qemu-img create -b, fsync", cloned[1]),
    ]


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
