"""A node's file systems: the machine's, with folders of its own laid over. Works only inside a
mount namespace of its own."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from lab.node.plan import Plan

MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, place: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Raises OSError with the kernel's reason."""
    words = [os.fsencode(text) or None for text in (source, place, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), os.fsencode(options) or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)


def mount_all(plan: Plan) -> None:
    """Everything, in the order in which it must be. /run comes last: what is bound may be in it."""
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("sysfs", "/sys", "sysfs")
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    mount("tmpfs", "/dev/shm", "tmpfs")
    mount("devpts", "/dev/pts", "devpts", options="newinstance,ptmxmode=0666,mode=0620")
    mount("/dev/pts/ptmx", "/dev/ptmx", flags=MS_BIND)
    for folder, keeps in plan.overlays:
        _overlay(folder, Path(keeps))
    for source, place in plan.binds:
        _bind(Path(source), Path(place))


def _overlay(folder: str, keeps: Path) -> None:
    for name in ("upper", "work"):
        (keeps / name).mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={folder},upperdir={keeps / 'upper'},workdir={keeps / 'work'}"
    mount("overlay", folder, "overlay", options=layers)


def _bind(source: Path, place: Path) -> None:
    if not place.exists():
        if source.is_dir():
            place.mkdir(parents=True)
        else:
            place.touch()
    mount(str(source), str(place), flags=MS_BIND | MS_REC)
