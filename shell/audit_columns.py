"""What is worth showing of the audit log. Pure."""

from __future__ import annotations

from typing import Any

from shell.columns import enum_word, last, when
from shell.render import RECORD, WIDE, Column

STYLES = {"succeeded": "good", "refused": "bad", "failed": "bad", "unknown": "bad",
          "running": "busy", "cancelled": "busy"}  # fmt: skip


def outcome(row: Any) -> str:
    """How it ended, and why: "failed NOT_FOUND"; how often, when it is a crowd."""
    words = [enum_word(row, "outcome"), row.reason, f"×{row.count}" if row.count > 1 else ""]
    return " ".join(filter(None, words))


def took(row: Any) -> str:
    """How long it took."""
    if not row.HasField("duration"):
        return ""
    seconds = row.duration.ToMicroseconds() / 1e6
    return f"{seconds * 1e3:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"


def verb(row: Any) -> str:
    """The method without its service, which its name tells: "StartVm"."""
    return str(row.method.rpartition("/")[2])


AUDIT = (
    Column("TIME", lambda r, v: when(r, "time").removesuffix(" UTC"), path="time"),
    Column("CALLER", lambda r, v: r.caller, path="caller", also=("who",)),
    Column("ROLE", lambda r, v: enum_word(r, "role"), RECORD, path="role"),
    Column("FROM", lambda r, v: r.peer or enum_word(r, "door"), WIDE, path="peer", also=("peer",)),
    Column("DOOR", lambda r, v: enum_word(r, "door"), WIDE, path="door"),
    Column("NODE", lambda r, v: last(r.node), WIDE, path="node"),
    Column("METHOD", lambda r, v: verb(r), path="method"),
    Column("TARGET", lambda r, v: r.target, elastic=True, path="target"),
    Column("DRY RUN", lambda r, v: "yes" if r.validate_only else "", WIDE, path="validate_only"),
    Column("OUTCOME", lambda r, v: outcome(r), path="outcome",
           style=lambda word: STYLES.get(word.partition(" ")[0], "")),
    Column("TOOK", lambda r, v: took(r), right=True, path="duration", also=("duration",)),
    Column("MESSAGE", lambda r, v: r.message, WIDE, elastic=True, path="message"),
    Column("OPERATION", lambda r, v: last(r.operation), WIDE, path="operation"),
    Column("REQUEST ID", lambda r, v: r.request_id, WIDE, path="request_id"),
    Column("COUNT", lambda r, v: str(r.count), RECORD, path="count"),
    Column("LAST", lambda r, v: when(r, "last_time"), RECORD, path="last_time"),
    Column("ID", lambda r, v: last(r.name), RECORD, path="name", also=("name",)),
)  # fmt: skip
