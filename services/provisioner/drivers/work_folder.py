"""A build's work folder: locked while its process lives, so that a dead one's is found and removed.

Nothing but folders with the marker in their name is ever touched.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = ".pvc-image-build-"
LOCK = "lock"


@contextmanager
def work_folder(base: Path) -> Iterator[Path]:
    """A new locked folder under `base`, removed at the end; folders of dead builds go first."""
    base.mkdir(parents=True, exist_ok=True)
    # Held while a folder is made and locked, and while others are judged: never in between.
    with _locked(base / f"{MARKER}lock", fcntl.LOCK_EX) as _:
        remove_leftovers(base)
        folder = Path(tempfile.mkdtemp(prefix=MARKER, dir=base))
        held = _lock(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield folder
    finally:
        remove_folder(folder)
        os.close(held)


def remove_leftovers(base: Path) -> list[Path]:
    """Removes the folders whose build no longer lives; returns them."""
    removed = []
    for folder in sorted(base.glob(f"{MARKER}*")):
        if folder.is_symlink() or not folder.is_dir():
            continue
        try:
            held = _lock(folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        try:
            remove_folder(folder)
        finally:
            os.close(held)
        removed.append(folder)
    return removed


def remove_folder(folder: Path) -> None:
    """Removes a folder that belongs to a build, but never through a mount."""
    mounted = mounts_below(folder)
    if mounted:
        raise RuntimeError(f"{folder} is not removed: something is mounted at {mounted[0]}")
    shutil.rmtree(folder)


def mounts_below(folder: Path) -> list[str]:
    """Mount points inside the folder, as this process sees them."""
    prefix = str(folder.resolve()) + "/"
    mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    points = (line.split(" ")[4] for line in mountinfo.splitlines())
    return [point for point in points if point.startswith(prefix)]


def _lock(path: Path, how: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = _lock(path, how)
    try:
        yield
    finally:
        os.close(descriptor)
