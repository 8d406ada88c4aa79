"""The file that an answer goes to: written whole, or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from shell.failures import Declined
from shell.language.flow import EndedByHand
from shell.language.line import Redirect
from shell.language.words import APPEND, REPLACE


def written_to(redirect: Redirect, session: Any, call: Callable[[], Any]) -> Any:
    """Calls a command whose standard output goes to a file; gives what it gives.

    The file is there, whole, when the command ended well, and as it was before when it did not.
    Raises Declined before the command has begun when the file exists and nobody lets it go.
    """
    path = Path(redirect.path.text).expanduser()
    is_new = not path.exists()
    _allow(path, redirect.mark, session)
    kept = io.BytesIO()
    out = io.TextIOWrapper(kept, encoding="utf-8", errors="surrogateescape", write_through=True)
    is_done = False
    try:
        with contextlib.redirect_stdout(out):
            outcome = call()
        is_done = outcome in (None, 0)
    except EndedByHand:
        is_done = True
        raise
    finally:
        if is_done:
            _written(path, redirect.mark, kept.getvalue(), is_new)
        else:
            click.echo(f"{path} was not written: the command did not end well", err=True)
    return outcome


def _allow(path: Path, mark: str, session: Any) -> None:
    """Raises Declined, or UsageError for what can never be written."""
    if path.is_dir():
        raise click.UsageError(f"{path} is a folder; an answer goes to a file")
    if not path.parent.is_dir():
        raise click.UsageError(f"there is no folder {path.parent}")
    if mark != REPLACE or not path.exists() or not is_regular(path):
        return
    if session.confirms and not session.can_ask:
        raise Declined(f"{path} exists; write >| instead of > to overwrite it")
    session.confirm(f"{path} exists. Overwrite it?", yes=False)


def is_regular(path: Path) -> bool:
    """Whether it is a file that another can take the place of: no pipe, no device."""
    return stat.S_ISREG(path.stat().st_mode)


def _written(path: Path, mark: str, content: bytes, is_new: bool) -> None:
    """Writes it; errors name the file."""
    try:
        _write(path, mark, content, is_new)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(path: Path, mark: str, content: bytes, is_new: bool) -> None:
    if mark == APPEND or (path.exists() and not is_regular(path)):
        _append(path, content)
        return
    place = Path(os.path.realpath(path))
    fresh = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        _fill(fresh, place, content)
        if mark == REPLACE and is_new:
            _appear(fresh, place)
        else:
            fresh.replace(place)
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()


def _fill(fresh: Path, place: Path, content: bytes) -> None:
    """Writes a new file, with the rights of the one whose place it takes."""
    with fresh.open("xb") as file:
        if place.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(place.stat().st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _appear(fresh: Path, place: Path) -> None:
    """Gives a file its name if nobody else has taken that meanwhile."""
    try:
        os.link(fresh, place)
    except FileExistsError:
        raise Declined(f"{place} has come to be meanwhile; it was left as it is") from None
    except OSError:  # a file system without hard links
        fresh.replace(place)


def _append(path: Path, content: bytes) -> None:
    """Adds to what is there; what cannot be added whole is taken away again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        before = os.fstat(descriptor).st_size
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) or 0 :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            raise
