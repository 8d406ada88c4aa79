"""Counts calls that fail alike, so that nobody fills the audit log by being refused: the first few
of a minute are written down each, the others as one entry with their number. Pure; the time comes
in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pvc.gateway.v1 import audit_pb2
from services.gateway.rates import host_of

AuditEntry = audit_pb2.AuditEntry
Key = tuple[str, ...]

WINDOW_S = 60.0
EACH = 5
"""So many of a window are written down for themselves."""
CROWDS_MAX = 500
"""Kinds of refusal that are told apart in a window; all beyond are one crowd."""
FAILING = (AuditEntry.OUTCOME_REFUSED, AuditEntry.OUTCOME_FAILED)
EVERYBODY: Key = ("everybody",)


@dataclass(slots=True)
class _Crowd:
    began_s: float
    seen: int = 0
    counted: AuditEntry | None = None


class Crowds:
    """Not for several threads."""

    def __init__(self) -> None:
        self._crowds: dict[Key, _Crowd] = {}

    def is_counted(self, entry: AuditEntry, now_s: float) -> bool:
        """Takes in a call that has ended; whether it is only counted, and comes back with `due`.
        now_s: of a clock that never goes back."""
        if entry.outcome not in FAILING:
            return False
        key = key_of(entry)
        crowd = self._crowds.get(key)
        if crowd is None and len(self._crowds) >= CROWDS_MAX:
            key = EVERYBODY
            crowd = self._crowds.get(key)
        if crowd is None:
            crowd = self._crowds[key] = _Crowd(now_s)
        crowd.seen += 1
        if crowd.seen <= EACH and key != EVERYBODY:
            return False
        if crowd.counted is None:
            crowd.counted = entry
        else:
            _count(crowd.counted, entry)
        return True

    def due(self, now_s: float, *, everything: bool = False) -> Sequence[AuditEntry]:
        """The entries of crowds whose time is over, which are forgotten."""
        over = [
            key
            for key, one in self._crowds.items()
            if everything or now_s - one.began_s >= WINDOW_S
        ]
        crowds = [self._crowds.pop(key) for key in over]
        return [crowd.counted for crowd in crowds if crowd.counted is not None]


def key_of(entry: AuditEntry) -> Key:
    """What calls of one crowd have in common. What strangers ask for is theirs to choose, and tells
    them not apart."""
    host = host_of(entry.peer)
    if not entry.token and entry.door != AuditEntry.DOOR_SOCKET:
        return host, entry.reason
    return host, entry.caller, entry.reason, entry.method, entry.target


def _count(crowd: AuditEntry, entry: AuditEntry) -> None:
    """Adds a call to a crowd: what is not the same of all of them is not said."""
    crowd.count += 1
    crowd.last_time.CopyFrom(entry.time)
    for field in ("caller", "token", "method", "target", "request_id", "operation", "message"):
        if getattr(crowd, field) != getattr(entry, field):
            crowd.ClearField(field)
    host = host_of(entry.peer)
    if crowd.peer not in (entry.peer, host):
        crowd.peer = host if host == host_of(crowd.peer) else ""
    if crowd.door != entry.door:
        crowd.ClearField("door")
