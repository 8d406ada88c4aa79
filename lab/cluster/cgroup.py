"""A control group for all processes of a node: it freezes them, and ends them all at once, frozen
or not. Needs the kernel's version 2 of control groups, mounted anywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lab.cluster.site import LabError, Node

SETTLE_S = 10.0
"""How long the kernel may take to freeze or end processes that wait for a disk."""
_LOOK_S = 0.005


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The group of one node."""

    path: Path

    @classmethod
    def of(cls, node: Node) -> Cgroup:
        """A node's group, whether it is there or not."""
        return cls(_root() / node.lab.prefix / node.name)

    def make(self) -> None:
        """An empty group, if it is not there."""
        self.path.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Ends what is in it, and removes it with those below it."""
        self.kill()
        if self.path.exists():
            for group in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
                group.rmdir()
            self.path.rmdir()

    def add(self, pid: int) -> None:
        """Puts a process into it."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """Ends every process in it and waits until none is left. Raises LabError."""
        if not self.path.exists():
            return
        (self.path / "cgroup.kill").write_text("1")
        (self.path / "cgroup.freeze").write_text("0")
        self._await("populated", "0", "end")

    def freeze(self) -> None:
        """Stops every process in it where it is. Raises LabError."""
        (self.path / "cgroup.freeze").write_text("1")
        self._await("frozen", "1", "stand still")

    def thaw(self) -> None:
        """Lets them go on."""
        (self.path / "cgroup.freeze").write_text("0")

    def frozen(self) -> bool:
        """They stand still."""
        return self.path.exists() and self._events().get("frozen") == "1"

    def populated(self) -> bool:
        """There is a process in it."""
        return self.path.exists() and self._events().get("populated") == "1"

    def _events(self) -> dict[str, str]:
        lines = (self.path / "cgroup.events").read_text().splitlines()
        return {key: value for key, _, value in (line.partition(" ") for line in lines)}

    def _await(self, event: str, wanted: str, doing: str) -> None:
        end = time.monotonic() + SETTLE_S
        while self._events().get(event) != wanted:
            if time.monotonic() > end:
                left = (self.path / "cgroup.procs").read_text().split()
                raise LabError(f"processes {', '.join(left)} do not {doing} in {SETTLE_S:g} s")
            time.sleep(_LOOK_S)


def remove_parent(prefix: str) -> None:
    """Removes the group that the nodes' groups were in."""
    parent = _root() / prefix
    if parent.exists():
        parent.rmdir()


def _root() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise LabError("this machine has no version 2 of control groups mounted: mount -t cgroup2")
