"""Commands of this machine at the prompt: `!ls -l`, `vm list | !less -S`. Never through a shell:
the words are the command's arguments as they are.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

import click

from shell.failures import INTERRUPTED
from shell.language.stages import Stage


class Foreign(Stage):
    """A command of this machine that gets the answer as lines on its standard input."""

    gives_text = True

    def __init__(self, arguments: Sequence[str], *, is_last: bool) -> None:
        """is_last: what it prints goes to the terminal and nowhere else."""
        super().__init__()
        self._arguments = found(arguments)
        self._kept: IO[bytes] | None = None
        if not is_last:
            self._kept = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of the answer
        self._process: subprocess.Popen[bytes] | None = None

    def line(self, line: str) -> Sequence[str]:
        """Hands it on; when the command has ended, what follows is not wanted."""
        if not self.has_enough:
            try:
                self._input().write(line.encode("utf-8", "surrogateescape") + b"\n")
            except BrokenPipeError:
                self.has_enough = True
        return []

    def end(self) -> Sequence[str]:
        """Waits for the end of the command; gives what it printed, if that goes on."""
        with _left_to_it():
            with contextlib.suppress(BrokenPipeError):
                self._input().close()
            assert self._process is not None
            self._process.wait()
        if self._kept is None:
            return []
        with self._kept as kept:
            kept.seek(0)
            return kept.read().decode("utf-8", "replace").splitlines()

    def _input(self) -> IO[bytes]:
        if self._process is None:
            sys.stdout.flush()
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=self._kept
            )
        assert self._process.stdin is not None
        return self._process.stdin


def run(arguments: Sequence[str], *, captured: bool) -> int:
    """Runs a command with the terminal as it is; gives its exit code. captured: what it prints
    goes through standard output of this program."""
    sys.stdout.flush()
    with _left_to_it():
        done = subprocess.run(
            found(arguments), stdout=subprocess.PIPE if captured else None, check=False
        )
    if captured:
        click.echo(done.stdout, nl=False)
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    if code == INTERRUPTED and sys.stdout.isatty():
        click.echo()  # the terminal wrote ^C; a prompt on that line would be drawn askew
    return code


def found(arguments: Sequence[str]) -> list[str]:
    """The arguments, if there is such a command. Raises UsageError."""
    if shutil.which(arguments[0]) is None:
        raise click.UsageError(f"this machine has no command {arguments[0]!r}")
    return list(arguments)


@contextlib.contextmanager
def _left_to_it() -> Iterator[None]:
    """Ctrl-C is the command's own business meanwhile. A handler, since what is ignored would be
    ignored by the command too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave_it(_number: int, _frame: Any) -> None:
        return None

    before = signal.signal(signal.SIGINT, leave_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
