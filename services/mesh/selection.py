"""Which rows a List or Watch request means: those below its parent that pass its filter.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh.contract import descriptor
from services.mesh.errors import not_found, refuse
from services.mesh.filters import Test, compiled
from services.state.store import Snapshot

ANY = "-"
"""As an id in a parent: whichever ("pools/-")."""


def selected(snapshot: Snapshot, kind: type[Message], request: Any) -> Sequence[Message]:
    """The rows that the request means, by name. Raises INVALID_QUERY, NOT_FOUND."""
    parent = getattr(request, "parent", "")
    test = selects(snapshot, kind, request)
    exact = parent if ANY not in parent.split("/") else ""
    rows = snapshot.rows(kind, exact)
    return list(rows) if test is None else [row for row in rows if test(row)]


def selects(snapshot: Snapshot, kind: type[Message], request: Any) -> Test | None:
    """The request's choice as a function of a row; None when it means all rows of the kind."""
    parent = getattr(request, "parent", "")
    passes = compiled(descriptor(kind), request.filter)
    if not parent:
        return passes
    _check_parent(snapshot, parent)
    below = _below(parent)
    if below is None:
        return passes
    if passes is None:
        return below
    return lambda row: below(row) and passes(row)


def _check_parent(snapshot: Snapshot, parent: str) -> None:
    if ANY in parent.split("/"):
        return
    try:
        there = snapshot.named(parent)
    except ValueError as error:
        refuse(reason_pb2.REASON_INVALID_FIELD, str(error), "parent")
    if there is None:
        raise not_found(parent, "parent")


def _below(parent: str) -> Test | None:
    """Whether a row is inside the parent; None when its wildcards let all in."""
    wanted = [(place, part) for place, part in enumerate(parent.split("/")) if place % 2]
    fixed = [(place, part) for place, part in wanted if part != ANY]
    if not fixed:
        return None
    if len(fixed) == len(wanted):
        return lambda row: row.name.startswith(f"{parent}/")

    def below(row: Any) -> bool:
        parts = row.name.split("/")
        return all(parts[place] == part for place, part in fixed)

    return below
