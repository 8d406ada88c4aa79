"""Runs libvirtd where it sees directories of its own in the places that are compiled into it.

Executed as a program inside a fresh mount namespace: it binds the directories, starts the daemon,
and stays to bury the emulators. It imports nothing of PVC so that it starts at once, and changes
nothing outside its namespace.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_MS_BIND = 4096
_PR_SET_CHILD_SUBREAPER = 36

PLACES = {
    "etc": "/etc/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "run": "/run/libvirt",
}
"""Our directory's name → the place where libvirt looks for it."""

ACCOUNTS = ("passwd", "group")
"""Lists of users and groups that are put over the machine's, if our `etc` holds them."""


def bind(source: Path, place: str) -> None:
    """Puts a directory over another. Raises OSError with the kernel's reason."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (os.fsencode(source), os.fsencode(place), None, _MS_BIND, None)
    if libc.mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), place)


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans, which emulators are.

    libvirt waits until an ended emulator is buried. The first process of a container often buries
    late or never, and every domain would take seconds to end.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def main(directory: str, command: list[str]) -> None:
    """directory: the one with our directories in it. command: the daemon. Ends with its last
    descendant."""
    for name, place in PLACES.items():
        bind(Path(directory) / name, place)
    for name in ACCOUNTS:
        if (own := Path(directory) / "etc" / name).exists():
            bind(own, f"/etc/{name}")
    adopt_orphans()
    os.posix_spawn(command[0], command, os.environ)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
