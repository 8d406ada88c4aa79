"""What a node's first process is told by whoever switched it on: what to mount, what to run. Kept
as JSON, because it passes between processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Program:
    """A service of the node, as its unit file says."""

    name: str
    command: tuple[str, ...]
    directory: str
    log: str
    restart_s: float
    """How long after its end it is started again."""
    stop_s: float
    """How long after being told to end it is killed."""
    condition: str = ""
    """A file without which it is not started at boot."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A node's boot."""

    host_name: str
    pid_file: str
    """Where its process number on the machine is written; as the machine sees it."""
    overlays: tuple[tuple[str, str], ...]
    """(folder of the machine, folder that keeps what the node changes in it)."""
    binds: tuple[tuple[str, str], ...]
    """(what the machine has, where the node sees it)."""
    environment: tuple[tuple[str, str], ...]
    programs: tuple[Program, ...]

    def write(self, path: Path) -> None:
        """Keeps it in a file."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """From a file."""
        found = json.loads(path.read_text())
        for key in ("overlays", "binds", "environment"):
            found[key] = tuple(map(tuple, found[key]))
        found["programs"] = tuple(
            Program(**{**one, "command": tuple(one["command"])}) for one in found["programs"]
        )
        return cls(**found)
