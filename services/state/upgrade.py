"""How rows written by older builds become what this build reads, and the other way round. Pure:
bytes in, bytes out.

While nodes of two versions work side by side, rows are written in the newest schema that all of
them can read; each row is upgraded whenever it is read. Once the last node is new, rows are kept in
the new form the next time that somebody changes them: from then on older builds refuse them
(SCHEMA_TOO_NEW) instead of misreading them.
"""

from __future__ import annotations

from collections.abc import Callable

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

Upgrade = Callable[[bytes], bytes]
"""Turns the serialized row of one schema into that of the next, or back."""

UPGRADES: dict[tuple[str, int], Upgrade] = {}
"""(collection path, schema) → what brings a row of that schema to the next. Adding a field needs
none; a schema goes up by one, and gets an entry here, when what is stored changes its meaning."""

DOWNGRADES: dict[tuple[str, int], Upgrade] = {}
"""(collection path, schema) → what brings a row of the next schema back to this one. Whoever adds
an upgrade adds this too: without it no cluster could be upgraded node by node."""


def upgraded(name: str, payload: bytes, schema: int, newest: int) -> bytes:
    """The row's bytes in the newest schema. Raises PvcError SCHEMA_TOO_NEW naming the row."""
    if schema > newest:
        raise PvcError(
            reason_pb2.REASON_SCHEMA_TOO_NEW,
            f"{name} was written with schema {schema}, and this version knows {newest}: "
            "run the newer version of PVC on this node",
        )
    collection = _collection(name)
    for old in range(schema, newest):
        payload = UPGRADES[collection, old](payload)
    return payload


def downgraded(name: str, payload: bytes, schema: int, oldest: int) -> bytes:
    """The row's bytes, which are of `schema`, in the schema `oldest`."""
    collection = _collection(name)
    for older in range(schema - 1, oldest - 1, -1):
        payload = DOWNGRADES[collection, older](payload)
    return payload


def _collection(name: str) -> str:
    return "/".join(name.split("/")[::2])
