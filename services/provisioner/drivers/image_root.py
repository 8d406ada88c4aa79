"""Writes into an image's root folder as the guest will see it, and never out of it.

A link inside the folder means something else on this machine: no path is followed through one.
"""

import os
from pathlib import Path


class UnsafePath(Exception):
    """A path of the image that leads through a link."""


def write_file(root: Path, path: str, content: bytes, mode: int) -> None:
    """Writes the file anew with this mode, owned by root; folders above it are made."""
    folder, name = _open_parent(root, path)
    try:
        _remove(folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
    finally:
        os.close(folder)


def write_link(root: Path, path: str, target: str) -> None:
    """Makes (or replaces) a symbolic link of the image."""
    folder, name = _open_parent(root, path)
    try:
        _remove(folder, name)
        os.symlink(target, name, dir_fd=folder)
    finally:
        os.close(folder)


def remove_matching(root: Path, pattern: str) -> None:
    """Removes the files (not folders) that a relative pattern names inside the root."""
    for found in sorted(root.glob(pattern)):
        folder, name = _open_parent(root, "/" + str(found.relative_to(root)))
        try:
            if not (found.is_dir() and not found.is_symlink()):
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)


def tree_bytes(root: Path) -> int:
    """What the files below take on a disk, in bytes; each file counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            stat = os.lstat(Path(folder) / name)
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                total += stat.st_blocks * 512
    return total


def _open_parent(root: Path, path: str) -> tuple[int, str]:
    """The folder of an absolute path of the image, opened step by step, and the last name."""
    *folders, name = path.lstrip("/").split("/")
    assert name and all(part not in ("", ".", "..") for part in (*folders, name)), path
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, flags)
    for part in folders:
        try:
            below = _open_folder(here, part, flags)
        except NotADirectoryError as error:
            raise UnsafePath(
                f"{path}: '{part}' is a link or a file in this image; write the real path"
            ) from error
        finally:
            os.close(here)
        here = below
    return here, name


def _open_folder(parent: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
