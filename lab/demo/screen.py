"""What the demo shows: steps with elapsed times, and the progress of operations."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterable

from pvc.core.v1 import operation_pb2

LABEL_WIDTH = 11
INDENT = 12


class Screen:
    """Prints lines as they become known; a progress line is rewritten where there is a terminal."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._stage = ""
        self._open_line = False

    @property
    def elapsed_s(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def say(self, label: str, text: str) -> None:
        """One step that is done or seen."""
        self._close_line()
        print(f"{self.elapsed_s:6.1f} s  {label:<{LABEL_WIDTH}}{text}", flush=True)

    def quote(self, lines: Iterable[str]) -> None:
        """What somebody else said: the guest, the server."""
        self._close_line()
        print(textwrap.indent("\n".join(lines), " " * INDENT + "│ "), flush=True)

    def progress(self, operation: operation_pb2.Operation) -> None:
        """How far an operation is; every stage stays on the screen."""
        stage = operation.stage or "waiting"
        line = f"{self.elapsed_s:6.1f} s  {'':<{LABEL_WIDTH}}{operation.percent:3d} %  {stage}"
        if self._terminal:
            print(f"\r{line[:100]:<100}", end="", flush=True)
            self._open_line = True
        elif stage != self._stage:
            print(line, flush=True)
        self._stage = stage

    def _close_line(self) -> None:
        if self._open_line:
            print(flush=True)
        self._open_line = False
