"""How rows written by older builds become what this build reads. Pure: bytes in, bytes out.

A row is upgraded each time that it is read, and kept in its new form the next time that somebody
changes it: from then on older builds refuse it (SCHEMA_TOO_NEW) instead of misreading it.
"""

from __future__ import annotations

from collections.abc import Callable

from pvc.core.v1 import reason_pb2
from services.mesh.errors import PvcError

Upgrade = Callable[[bytes], bytes]
"""Turns the serialized row of one schema into that of the next."""

UPGRADES: dict[tuple[str, int], Upgrade] = {}
"""(collection path, schema) → what brings a row of that schema to the next. Adding a field needs
none; a schema goes up by one, and gets an entry here, when what is stored changes its meaning."""


def upgraded(name: str, payload: bytes, schema: int, newest: int) -> bytes:
    """The row's bytes in the newest schema. Raises PvcError SCHEMA_TOO_NEW naming the row."""
    if schema > newest:
        raise PvcError(
            reason_pb2.REASON_SCHEMA_TOO_NEW,
            f"{name} was written with schema {schema}, and this version knows {newest}: "
            "run the newer version of PVC on this node",
        )
    collection = "/".join(name.split("/")[::2])
    for old in range(schema, newest):
        payload = UPGRADES[collection, old](payload)
    return payload
