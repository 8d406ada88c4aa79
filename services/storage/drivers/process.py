"""Runs one outside command in a process group of its own: with a deadline, or with progress and a
way to stop it.

It never uses a shell, and it leaves no process behind, however it ends.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError
from services.storage.drivers import qemu_img
from services.storage.drivers.driver import Progress

TICK_S = 0.25
"""How often progress is told, and so how soon a cancelled command ends."""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def run(words: Sequence[str], timeout_s: float, accept: Sequence[int] = (0,)) -> str:
    """What the command printed. Raises PvcError: what `qemu_img.failure` says of a status that is
    not accepted, or DEADLINE."""
    process = _start(words, subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise PvcError(
            reason_pb2.REASON_DEADLINE, f"{words[-1]}: {_name(words)} hung for {timeout_s:g} s"
        ) from None
    finally:
        _end(process)
    if process.returncode not in accept:
        raise qemu_img.failure(words, process.returncode, _text(err))
    return _text(out)


def run_long(words: Sequence[str], progress: Progress) -> None:
    """Runs to the end, telling progress. What `progress` raises ends the command and comes out."""
    with tempfile.TemporaryFile() as errors:
        process = _start(words, errors)
        try:
            _follow(process, progress)
        finally:
            _end(process)
        if process.returncode:
            errors.seek(0)
            raise qemu_img.failure(words, process.returncode, _text(errors.read(65536)))


def _follow(process: subprocess.Popen[bytes], progress: Progress) -> None:
    assert process.stdout is not None
    source, percent, tail = process.stdout.fileno(), 0.0, b""
    while True:
        ready, _, _ = select.select([source], [], [], TICK_S)
        if ready:
            piece = os.read(source, 4096)
            if not piece:
                process.wait()
                return
            tail = (tail + piece)[-64:]
            percent = max(percent, qemu_img.percent_of(tail) or 0.0)
        progress(percent)


def _start(words: Sequence[str], errors: int | IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        env=_ENVIRONMENT, start_new_session=True,
    )  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group is gone and the process reaped, whatever state it was in."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _name(words: Sequence[str]) -> str:
    where = list(words).index(qemu_img.PROGRAM)
    return " ".join(words[where : where + 2])


def _text(output: bytes) -> str:
    return output.decode("utf-8", "replace")
