"""Processes of this machine that cannot be mistaken for later ones of the same number."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process that lived when this was made."""

    pid: int
    start_time: int
    """In clock ticks since the machine started."""

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process of that number; None if there is none or it is only waiting to be buried."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @classmethod
    def from_file(cls, path: Path) -> Process | None:
        """The process whose number a file holds; None also if there is no such file."""
        try:
            return cls.of(int(path.read_text()))
        except (OSError, ValueError):
            return None

    def lives(self) -> bool:
        """Still running."""
        return Process.of(self.pid) == self

    def wait(self, timeout_s: float) -> bool:
        """Until it has ended; False when it still runs after the timeout."""
        deadline = time.monotonic() + timeout_s
        try:
            end = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.lives():
                return True
            left = max(0.0, deadline - time.monotonic())
            return bool(select.select([end], [], [], left)[0])
        finally:
            os.close(end)
