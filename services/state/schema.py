"""Which messages are rows, what their names look like, and how they become bytes and come back.

Read off the contracts (`pvc.core.v1.stored`); nothing here knows where rows are kept.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeVar, runtime_checkable

from google.protobuf.message import DecodeError, Message

from pvc.compute.v1 import vm_pb2
from pvc.coordinator.v1 import cluster_pb2
from pvc.core.v1 import (
    event_pb2,
    meta_pb2,
    operation_pb2,
    options_pb2,
    reason_pb2,
    secret_pb2,
    store_pb2,
)
from pvc.gateway.v1 import audit_pb2, gateway_pb2, token_pb2
from pvc.network.v1 import network_pb2
from pvc.provisioner.v1 import image_pb2
from pvc.storage.v1 import storage_pb2
from services.mesh.errors import PvcError
from services.state.upgrade import downgraded, upgraded

_FILES = (
    vm_pb2,
    cluster_pb2,
    event_pb2,
    operation_pb2,
    secret_pb2,
    token_pb2,
    audit_pb2,
    gateway_pb2,
    network_pb2,
    image_pb2,
    storage_pb2,
)

ROW_BYTES_MAX = 384 * 1024
"""Largest row, as stored. ZooKeeper refuses 1 MiB with no better answer than a lost connection, and
a commit carries every row twice: for the readers and for the log."""

DEFLATE_FROM_BYTES = 8 * 1024
"""Rows from this size are compressed: scripts, cloud-init texts and logs shrink to a fraction."""


@runtime_checkable
class Resource(Protocol):
    """Any message that can be a row: it has a name and a Meta."""

    name: str

    @property
    def meta(self) -> meta_pb2.Meta: ...


R = TypeVar("R", bound=Message)


def _stored_types() -> Mapping[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    for file in _FILES:
        for name, descriptor in file.DESCRIPTOR.message_types_by_name.items():
            if descriptor.GetOptions().HasExtension(options_pb2.stored):
                stored = descriptor.GetOptions().Extensions[options_pb2.stored]
                found[stored.collection] = getattr(file, name)
    return found


TYPES: Mapping[str, type[Message]] = _stored_types()
"""Collection path ("pools/volumes") → message type."""

COLLECTIONS: Mapping[type[Message], str] = {kind: path for path, kind in TYPES.items()}
"""Message type → collection path."""

_KIND = re.compile(r"[a-z][A-Za-z_]{0,62}")
_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def collection_of(name: str) -> str:
    """The collection path of a resource name: "pools/a/volumes/b" → "pools/volumes".

    Raises ValueError if it is not the name of any resource.
    """
    parts = name.split("/")
    path = "/".join(parts[::2])
    if not _is_name(name) or path not in TYPES:
        raise ValueError(f"{name!r} is not the name of a resource")
    return path


def is_of_newer_build(name: str) -> bool:
    """It is the name of a row of a kind that this build does not know: a newer one works beside it.
    It is none of our business."""
    return _is_name(name) and "/".join(name.split("/")[::2]) not in TYPES


def _is_name(name: str) -> bool:
    parts = name.split("/")
    kinds, ids = parts[::2], parts[1::2]
    return (
        len(kinds) == len(ids)
        and all(_KIND.fullmatch(part) for part in kinds)
        and all(_ID.fullmatch(part) for part in ids)
    )


@lru_cache
def schema_of(collection: str) -> int:
    """The schema that this build writes for a collection."""
    options = TYPES[collection].DESCRIPTOR.GetOptions()
    return int(options.Extensions[options_pb2.stored].schema)


def to_stored(value: Message, revision: int, schema: int | None = None) -> store_pb2.StoredRow:
    """A resource as it is kept, without its etag. schema: the one to write; this build's own when
    None. Raises TOO_LARGE beyond ROW_BYTES_MAX."""
    row: Any = type(value)()
    row.CopyFrom(value)
    row.meta.etag = ""
    own = schema_of(COLLECTIONS[type(value)])
    written = own if schema is None else schema
    plain = downgraded(row.name, row.SerializeToString(deterministic=True), own, written)
    payload = plain
    if len(plain) >= DEFLATE_FROM_BYTES:
        payload = zlib.compress(plain, level=1)
    if len(payload) > ROW_BYTES_MAX:
        raise PvcError(
            reason_pb2.REASON_TOO_LARGE,
            f"{row.name} takes {len(payload)} bytes; at most {ROW_BYTES_MAX} can be kept: "
            "shorten its texts or lists",
        )
    return store_pb2.StoredRow(
        schema=written,
        value=payload,
        revision=revision,
        deflated=payload is not plain,
    )


def from_stored(name: str, row: store_pb2.StoredRow) -> Message:
    """A kept row as a resource, upgraded to this build's schema, its etag set to its revision.

    Raises PvcError SCHEMA_TOO_NEW for a row of a newer build, ValueError for one that is damaged.
    """
    collection = collection_of(name)
    value: Any = TYPES[collection]()
    try:
        payload = zlib.decompress(row.value) if row.deflated else row.value
        value.ParseFromString(upgraded(name, payload, row.schema, schema_of(collection)))
    except (DecodeError, zlib.error) as error:
        raise ValueError(f"the stored row {name} is damaged: {error}") from error
    if value.name != name:
        raise ValueError(f"the stored row {name} is damaged: it holds {value.name!r}")
    value.meta.etag = str(row.revision)
    return value  # type: ignore[no-any-return]
