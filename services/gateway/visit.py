"""One call from outside, from its first byte to its last: what all that deal with it share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pvc.core.v1 import options_pb2
from pvc.gateway.v1.audit_pb2 import AuditEntry
from services.gateway.access import Caller
from services.gateway.methods import Method
from services.mesh.errors import PvcError

NOBODY = Caller("nobody", options_pb2.ROLE_UNSPECIFIED)
Pair = tuple[str, str | bytes]


@dataclass(slots=True)
class Visit:
    """A call; the door fills in what it finds out."""

    method: Method
    metadata: Sequence[Pair]
    peer: str
    """As gRPC or HTTP tell it: "ipv4:10.0.0.7:40312"."""
    door: AuditEntry.Door.ValueType = AuditEntry.DOOR_GRPC
    timeout_s: float | None = None
    """What the caller gave it; None for nothing."""
    caller: Caller = field(default_factory=lambda: NOBODY)
    trailing: Sequence[Pair] = ()
    """What the service said beside its answer, to be passed back."""
    node: str = ""
    """Which must answer, "nodes/n1"; "" when any may."""
    newest: bytes = b""
    """The last answer of a stream that was passed on."""
    turned_out: PvcError | None = None
    """Why it may not go on."""
    request: Any = None
    """The first message, once it was read."""
    entry: AuditEntry | None = None
    """What was written down when it was let in."""
    operation: str = ""
    """What it began."""

    @property
    def local(self) -> bool:
        """Came through the root-only socket."""
        return self.door == AuditEntry.DOOR_SOCKET

    def said(self, key: str) -> str:
        """A metadata value of the caller, or ""."""
        return next((str(value) for name, value in self.metadata if name == key), "")
