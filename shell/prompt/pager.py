"""What is longer than the terminal goes through a pager, as git has it; all else is printed."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

LESS = ("less", "-FRSX")
KEPT_LINES = 1
"""The prompt that follows takes one."""


def pager() -> Sequence[str]:
    """The command that pages: PAGER's, else less; none where there is none, or it is `cat`."""
    wanted = os.environ.get("PVC_PAGER", os.environ.get("PAGER", ""))
    try:
        words = shlex.split(wanted)
    except ValueError:
        words = []
    if words and words[0] in ("cat", "more"):
        return ()
    words = words if words and words[0] != "less" else list(LESS)
    return words if shutil.which(words[0]) else ()


def is_longer(text: str, rows: int, columns: int) -> bool:
    """Whether a text does not fit on the terminal. Lines that are cut count once."""
    return text.count("\n") > max(rows - KEPT_LINES, 1) or any(
        len(line) > columns and "\x1b" not in line for line in text.splitlines()[:rows]
    )


def show(text: str, stream: Any = None) -> None:
    """Prints a text; through the pager when it is longer than the terminal that it goes to."""
    stream = stream or sys.stdout
    size = shutil.get_terminal_size()
    on_terminal = stream.isatty() and sys.stdin.isatty()
    if on_terminal and is_longer(text, size.lines, size.columns) and (words := pager()):
        _page(words, text)
        return
    stream.write(text)
    stream.flush()


@contextmanager
def paged() -> Iterator[None]:
    """What is printed meanwhile is shown at the end. Only for what neither waits nor asks."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            yield
    finally:
        show(printed.getvalue())


def _page(words: Sequence[str], text: str) -> None:
    """Shows it until the reader leaves. Ctrl-C is the pager's meanwhile."""
    with _deaf():
        process = subprocess.Popen(words, stdin=subprocess.PIPE)
        assert process.stdin is not None
        try:
            process.stdin.write(text.encode("utf-8", "surrogateescape"))
            process.stdin.close()
        except BrokenPipeError:
            pass  # the reader has left early
        finally:
            process.wait()


@contextmanager
def _deaf() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
