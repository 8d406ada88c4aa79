"""What a service consists of inside a process: what answers, what goes round, what is to be closed.

Every service has a `build(...)` in its `main.py` that makes its Parts; `process` runs one or
several of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from services.mesh.loop import Loop

AddToServer = Callable[[Any, grpc.aio.Server], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one service."""

    servicers: tuple[tuple[AddToServer, object], ...] = ()
    """The generated `add_…Servicer_to_server` and the object that answers."""
    loops: tuple[Loop, ...] = ()
    """Started with the process, woken on every change of the state, stopped before the server."""
    close: tuple[Callable[[], None], ...] = ()
    """Called at the end, last first."""
