"""Writes down who did what: one log line for every call that may change something, and for every
refusal. It decides nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from services.gateway.methods import Method

log = logging.getLogger("pvc.audit")

TARGET_FIELDS = (
    "name",
    "parent",
    "vm_id",
    "volume_id",
    "pool_id",
    "network_id",
    "image_id",
    "token_id",
    "node_id",
)
NESTED_TARGETS = ("vm", "pool", "network", "volume", "node")
SHOWN_MAX = 200
"""Characters of what a caller wrote: it is written down before it is checked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call, when it is over."""

    caller: str
    peer: str
    """Where it came from: "ipv4:10.0.0.7:40312", "socket"."""
    method: Method
    target: str
    request_id: str
    outcome: str
    """"OK", or the name of the status code."""
    duration_s: float


def target_of(request: object) -> str:
    """The resource that a request is about, as far as it says so."""
    words = [str(getattr(request, field, "") or "") for field in TARGET_FIELDS]
    if not any(words):
        words = [getattr(getattr(request, field, None), "name", "") for field in NESTED_TARGETS]
    return " ".join(word for word in words if word)


def write(entry: Entry) -> None:
    """Logs the call. Strings from outside are quoted, so that a line stays one line."""
    log.info(
        "%s from %s: %s %s request_id=%s %s %.3fs",
        json.dumps(entry.caller),
        entry.peer,
        entry.method.short,
        _shown(entry.target),
        _shown(entry.request_id),
        entry.outcome,
        entry.duration_s,
    )


def _shown(text: str) -> str:
    return json.dumps(text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…")
