"""Keeps the files that emulators and libvirtd append to from growing without bound.

The emulator holds its log open, so the file is copied and emptied in place: it is opened to append,
what is written next starts at the front. virtlogd would do this too, but is one more process, and
its end would cut off every running guest's log for good.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 2 << 20
KEEP = 3
"""Files of the past: web.log.1 is the youngest."""


def rotate(path: Path, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> bool:
    """Puts a log that has grown beyond the limit aside; True if it did. Called again and again.

    What the guest writes between the last look and the emptying, some microseconds, is lost.
    A log that grew far beyond the limit since the last call keeps its end.
    """
    try:
        return path.stat().st_size > max_bytes and _put_aside(path, max_bytes, keep)
    except FileNotFoundError:  # it is removed, or renamed, with its VM just now
        return False


def _put_aside(path: Path, max_bytes: int, keep: int) -> bool:
    for number in range(keep - 1, 0, -1):
        older = _past(path, number)
        if older.exists():
            older.replace(_past(path, number + 1))
    partial = path.with_name(f"{path.name}.new")
    try:
        with path.open("rb") as source, partial.open("wb") as target:
            source.seek(-max_bytes, os.SEEK_END)
            shutil.copyfileobj(source, target)
            target.flush()  # it may still fail, and must not after the log was emptied
            os.truncate(path, 0)
    except OSError:
        # Half a copy on a file system that is full would only keep it so.
        partial.unlink(missing_ok=True)
        raise
    partial.replace(_past(path, 1))
    return True


def rotate_all(paths: Iterable[Path], max_bytes: int = MAX_BYTES, keep: int = KEEP) -> int:
    """Rotates each; how many were put aside."""
    return sum(rotate(path, max_bytes, keep) for path in paths)


def remove(path: Path, keep: int = KEEP) -> None:
    """Removes a log with its past."""
    for name in (
        path,
        path.with_name(f"{path.name}.new"),
        *(_past(path, n + 1) for n in range(keep)),
    ):
        name.unlink(missing_ok=True)


def _past(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
