"""What a service consists of inside a process: what answers, what goes round, what is to be closed.

Every service has a `build(...)` in its `main.py` that makes its Parts; `process` runs one or
several of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from services.mesh.loop import Loop

AddToServer = Callable[[Any, grpc.aio.Server], None]


class Door(Protocol):
    """Something that lets callers in besides the mesh's own server."""

    async def start(self) -> None:
        """Opens it, inside the process's event loop."""
        ...

    async def stop(self) -> None:
        """Lets nobody new in, lets those inside finish, closes it."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one service."""

    servicers: tuple[tuple[AddToServer, object], ...] = ()
    """The generated `add_…Servicer_to_server` and the object that answers."""
    loops: tuple[Loop, ...] = ()
    """Started with the process, woken when what they read of the state changed, stopped after the
    server."""
    doors: tuple[Door, ...] = ()
    """Opened when everything else answers, closed first."""
    close: tuple[Callable[[], None], ...] = ()
    """Called at the end, last first."""
