"""Changing one row as it is now, however often others change it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from pvc.core.v1 import reason_pb2
from services.mesh import rows
from services.mesh.errors import PvcError
from services.state.store import Conflict, Put, Store

COMMIT_TRIES = 20

R = TypeVar("R", bound=Message)


def amend(store: Store, kind: type[R], name: str, change: Callable[[R], Any]) -> R | None:
    """Commits a change of the row as it is now, and gives it; None if there is no such row.

    change: alters the copy that it is given; called again for every try. Raises BUSY.
    """
    for _ in range(COMMIT_TRIES):
        found = store.snapshot().find(kind, name)
        if found is None:
            return None
        after = rows.copied(found)
        change(after)
        try:
            store.commit([Put(after)])
        except Conflict:
            continue
        return after
    raise PvcError(reason_pb2.REASON_BUSY, f"others keep changing {name}")
