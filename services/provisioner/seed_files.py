"""The seeds of VMs that are being made, from when the request is accepted until its operation ends.

A seed may hold secrets: it is a file that root alone can read, and never a row of the state.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pvc.core.v1 import reason_pb2
from services.mesh.clock import Clock
from services.mesh.errors import refuse

UNCLAIMED_S = 600
"""A seed without an operation for so long belongs to a request that was never accepted."""


class SeedFiles:
    """See the module."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def keep(self, operation: str, seed: bytes) -> None:
        """Keeps the seed of an operation that is about to be accepted."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(operation)
        new = path.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(seed)
        new.replace(path)

    def read(self, operation: str) -> bytes:
        """The seed. Raises INTERRUPTED when it is lost."""
        try:
            return self._path(operation).read_bytes()
        except FileNotFoundError:
            refuse(
                reason_pb2.REASON_INTERRUPTED,
                f"the cloud-init data of {operation} is lost with this node's work folder: ask "
                "for the VM again",
            )

    def sweep(self, ended: Callable[[str], bool | None]) -> None:
        """Removes the seeds that no operation needs any more.

        ended: whether an operation has ended; None when there is none of that name.
        """
        if not self._folder.is_dir():
            return
        now_s = self._clock.now().seconds
        for path in self._folder.iterdir():
            over = ended(f"operations/{path.stem}")
            if over is None:
                over = now_s - _written_s(path) > UNCLAIMED_S
            if over:
                path.unlink(missing_ok=True)

    def _path(self, operation: str) -> Path:
        return self._folder / f"{operation.removeprefix('operations/')}.iso"


def _written_s(path: Path) -> float:
    """0 when it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
